"""What every benchmark shares: several runs in turn, medians, and one printed line with the ratio."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

# How a unit is made of seconds, of bytes, or of plain numbers.
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "kB": 1e-3, "MB": 1e-6, "": 1.0}


@dataclass(frozen=True)
class Figure:
    """One ratio: median of ours over median of the floor, with the gate it has to stay below.

    `ours` and `floor` are seconds, bytes or plain numbers; `unit` is what they are printed in. `target` is what the
    gate comes from; without one it is a guess. `spread` is how far the ratios of single runs were from that of the
    medians, as a part of it; 0 where there was one run. `client` and `hosts` are the seconds of CPU of one run of ours.
    """

    name: str
    ours: float
    floor: float
    gate: float
    note: str = ""
    unit: str = "ms"
    target: str = ""
    spread: float = 0.0
    client: float | None = None
    hosts: float | None = None

    @property
    def ratio(self) -> float:
        """How many times the floor we take."""
        return self.ours / self.floor

    @property
    def verdict(self) -> str:
        """Whether the gate holds; else by how much it is missed."""
        return "ok" if self.ratio <= self.gate else f"MISSED by {self.ratio / self.gate:.3g}x"

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.ratio:.3g}x (gate {self.gate:g}x, {self.verdict}); "
            f"ours {self.printed(self.ours)}, floor {self.printed(self.floor)}. {self.note}"
        )

    def printed(self, value: float) -> str:
        """A value in the unit of the figure."""
        return f"{value * UNITS[self.unit]:.1f} {self.unit}".rstrip()


class Unavailable(Exception):
    """What a benchmark needs is not to be had here; says what."""


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall, of the client's CPU, of the hosts' CPU where that can be told."""

    wall: float
    client: float = 0.0
    hosts: float | None = None


Work = Callable[[], Awaitable[Sample]]


async def alternately(works: Sequence[Work], runs: int, seconds: float = 40.0) -> list[list[Sample]]:
    """Samples of each, run in turn after a warm-up, so that a drift of the machine hits all; two runs at the least,
    and no more are begun once `seconds` have passed."""
    for work in works:
        await work()
    begun, found = time.perf_counter(), [[await work()] for work in works]
    for number in range(1, runs):
        if number >= 2 and time.perf_counter() - begun > seconds:
            break
        for samples, work in zip(found, works, strict=True):
            samples.append(await work())
    return found


def median(samples: Sequence[Sample], what: Callable[[Sample], float] = lambda sample: sample.wall) -> float:
    """Of the wall, or of what is named."""
    return statistics.median(map(what, samples))


def least(samples: Sequence[Sample]) -> float:
    """Of the wall: for slopes, where what is over it is the machine's."""
    return min(sample.wall for sample in samples)


def spread(ours: Sequence[float], floor: Sequence[float]) -> float:
    """Half the range of the ratios of pairs, over that of the medians."""
    ratios = [a / b for a, b in zip(ours, floor, strict=True)]
    return (max(ratios) - min(ratios)) / 2 / (statistics.median(ours) / statistics.median(floor))


def against(
    name: str, ours: Sequence[Sample], floor: Sequence[Sample], gate: float, note: str = "", *,
    target: str = "", unit: str = "ms", what: Callable[[Sample], float] = lambda sample: sample.wall,
) -> Figure:  # fmt: skip
    """A figure of samples that were taken in turn."""
    hosts = [sample.hosts for sample in ours if sample.hosts is not None]
    return Figure(
        name, median(ours, what), median(floor, what), gate, f"{note} {len(ours)} runs.".strip(), unit, target,
        spread([what(sample) for sample in ours], [what(sample) for sample in floor]),
        median(ours, lambda sample: sample.client) or None, statistics.median(hosts) if hosts else None,
    )  # fmt: skip


def in_turn(ours: Callable[[], float], floor: Callable[[], float], runs: int) -> tuple[float, float]:
    """Medians of both, run alternately after one warm-up each, so that a drift of the machine hits both."""
    a, b, _ = in_turn_with_spread(ours, floor, runs)
    return a, b


def in_turn_with_spread(
    ours: Callable[[], float], floor: Callable[[], float], runs: int
) -> tuple[float, float, float]:  # fmt: skip
    """The same, and the spread of the ratios."""
    ours(), floor()
    pairs = [(ours(), floor()) for _ in range(runs)]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return statistics.median(first), statistics.median(second), spread(first, second)


def process(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> float:
    """Wall seconds of one whole process, which has to succeed."""
    return sampled_process(argv, env, cwd).wall


def sampled_process(
    argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None, *, ends: Sequence[int] = (0,)
) -> Sample:
    """Wall and CPU of one whole process and of its children that ended; it has to end with one of `ends`."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        argv, env=dict(os.environ if env is None else env), cwd=cwd, capture_output=True, text=True, check=False
    )
    taken, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in ends:
        raise RuntimeError(f"{argv[:4]} failed: {done.stderr[-2000:]} {done.stdout[-500:]}")
    return Sample(taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def python(*arguments: str) -> list[str]:
    """This interpreter with arguments."""
    return [sys.executable, *arguments]
