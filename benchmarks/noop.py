"""G1: a look at every host on warm connections while nothing happens, over a round trip and over as many TCP echoes.

Every host is a real sshd with its own tmux and ten sessions; all of them run on the machine that measures, so the wall
contains their CPU, which is given beside it.
"""

from __future__ import annotations

import asyncio

from benchmarks import farm
from benchmarks.figure import Figure, Sample, against, alternately
from benchmarks.line import Line
from benchmarks.warm import Echoes, Warm

HOSTS, LARGE, MANY = 100, 200, 500  # the targets are for the latter two, which --full takes
TRIP = 0.05
_kept: dict[int, tuple[list[Sample], list[Sample], float]] = {}


def measure(full: bool = False) -> list[Figure]:
    """Two figures; `full` takes as many hosts as the targets do."""
    hosts = LARGE if full else HOSTS
    ours, _, trip = cycles(hosts)
    note = f"{hosts} hosts x {farm.SESSIONS} sessions, {TRIP * 1000:g} ms."
    found = [
        against("no-op cycle over one round trip", ours, [Sample(trip)] * len(ours), 2.0, note, target="G1"),
    ]
    many = MANY if full else HOSTS
    ours, floor, _ = cycles(many)
    note = f"{many} hosts, {TRIP * 1000:g} ms."
    found.append(against("no-op cycle over as many TCP echoes", ours, floor, 2.0, note, target="G1"))
    return found


def cycles(hosts: int) -> tuple[list[Sample], list[Sample], float]:
    """Cycles, echoes, and the round trip that was measured; once for all benchmarks that want them."""
    if hosts not in _kept:
        _kept[hosts] = asyncio.run(_cycles(hosts))
    return _kept[hosts]


def forget() -> None:
    """The next who asks gets new ones."""
    _kept.clear()


async def _cycles(hosts: int) -> tuple[list[Sample], list[Sample], float]:
    place = farm.shared(hosts)
    with delayed(place.line, TRIP):
        trip = await asyncio.to_thread(place.line.trip)
        async with Warm(place, hosts) as warm, Echoes(place, hosts) as echoes:
            ours, floor = await alternately((warm.cycle, echoes.cycle), runs=5)
    return ours, floor, trip


class delayed:
    """`with delayed(line, 0.05):` that round trip, and none afterwards."""

    def __init__(self, line: Line, trip: float) -> None:
        self._line, self._trip = line, trip

    def __enter__(self) -> None:
        self._line.delay(self._trip)

    def __exit__(self, *_: object) -> None:
        self._line.delay(0)
