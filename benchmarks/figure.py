"""What every benchmark shares: several runs in turn, medians, and one printed line with the ratio."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# How a unit is made of seconds, of bytes, or of plain numbers.
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "kB": 1e-3, "MB": 1e-6, "": 1.0}


@dataclass(frozen=True)
class Figure:
    """One ratio: median of ours over median of the floor, with the gate it has to stay below.

    `ours` and `floor` are seconds, bytes or plain numbers; `unit` is what they are printed in.
    """

    name: str
    ours: float
    floor: float
    gate: float
    note: str = ""
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """How many times the floor we take."""
        return self.ours / self.floor

    def __str__(self) -> str:
        verdict = "ok" if self.ratio <= self.gate else "MISSED"
        return (
            f"{self.name}: {self.ratio:.2f}x (gate {self.gate:g}x, {verdict}); "
            f"ours {self._printed(self.ours)}, floor {self._printed(self.floor)}. {self.note}"
        )

    def _printed(self, value: float) -> str:
        return f"{value * UNITS[self.unit]:.1f} {self.unit}".rstrip()


def in_turn(ours: Callable[[], float], floor: Callable[[], float], runs: int) -> tuple[float, float]:
    """Medians of both, run alternately after one warm-up each, so that a drift of the machine hits both."""
    ours(), floor()
    pairs = [(ours(), floor()) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def process(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> float:
    """Wall seconds of one whole process, which has to succeed."""
    begun = time.perf_counter()
    done = subprocess.run(
        argv, env=dict(os.environ if env is None else env), cwd=cwd, capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{argv[:4]} failed: {done.stderr[-2000:]}")
    return taken


def python(*arguments: str) -> list[str]:
    """This interpreter with arguments."""
    return [sys.executable, *arguments]
