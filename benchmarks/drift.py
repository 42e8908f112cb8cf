"""G5: a pass that starts one session on a tenth of the hosts over a pass that has nothing to do, in round trips more.

Connections are warm and leases are held, as in `run`. The round trips are the slope between two delays of what the one
takes longer than the other, so what the launch itself takes is not in them.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks import farm, noop
from benchmarks.farm import SESSIONS
from benchmarks.figure import Figure, Sample, alternately, least, median
from benchmarks.warm import Warm
from reconciler.journal import Journal, open_journal
from reconciler.reconcile import Options, execution, leases_of, preview

HOSTS = 50
NEAR, FAR = 0.05, 0.25
RUNS = 4


class Passes:
    """Passes of the program over one warm fleet."""

    def __init__(self, warm: Warm, journal: Journal) -> None:
        self._warm, self._journal = warm, journal
        self._leases = leases_of(warm.desired, 600)
        self._turn = 0

    async def idle(self) -> Sample:
        """Look, compare, plan: nothing to do."""
        return await self._pass(0)

    async def drifted(self) -> Sample:
        """The same after a process on every tenth host is gone: it is started again."""
        self._turn += 1
        gone = range(0, self._warm.count, 10)
        for number in gone:
            self._warm.farm.kill(number, self._turn % SESSIONS)
        await asyncio.sleep(0.5)
        return await self._pass(len(gone))

    async def _pass(self, expected: int) -> Sample:
        warm, options = self._warm, Options(max_stop="100%")
        hosts, cpu, begun = warm.farm.line.cpu() or 0.0, time.process_time(), time.perf_counter()
        done = await preview(warm.desired, warm.hosts, self._journal, options)
        if len(done.plan.effective) != expected:
            raise RuntimeError(f"{len(done.plan.effective)} actions instead of {expected}")
        if expected:
            work = execution(done, warm.hosts, self._journal, lambda _: None, options)
            report = await work.run(self._leases)
            if any(outcome.status != "done" for outcome in report.outcomes):
                raise RuntimeError(f"an action failed: {report.outcomes}")
        taken, used = time.perf_counter() - begun, time.process_time() - cpu
        return Sample(taken, used, (warm.farm.line.cpu() or 0.0) - hosts)

    async def close(self) -> None:
        """Leases are given back."""
        await self._leases.release()


def measure(full: bool = False) -> list[Figure]:
    """One figure: round trips."""
    return asyncio.run(_measure(noop.LARGE if full else HOSTS))


async def _measure(hosts: int) -> list[Figure]:
    place = farm.shared(hosts)
    extra: dict[float, float] = {}
    runs: list[tuple[list[Sample], list[Sample]]] = []
    with open_journal("bench", write=True) as journal:
        async with Warm(place, hosts) as warm:
            passes = Passes(warm, journal)
            for trip in (NEAR, FAR):
                with noop.delayed(place.line, trip):
                    idle, drifted = await alternately((passes.idle, passes.drifted), RUNS, seconds=30)
                extra[trip] = least(drifted) - least(idle)
                runs.append((idle, drifted))
            await passes.close()
    trips = (extra[FAR] - extra[NEAR]) / (FAR - NEAR)
    far = [b.wall - a.wall for a, b in zip(*runs[1], strict=True)]
    apart = (max(far) - min(far)) / 2 / (FAR - NEAR) / max(trips, 0.1)
    drifted = runs[0][1]
    note = (
        f"{hosts} hosts, {hosts // 10} drift; slope from {NEAR * 1000:g} to {FAR * 1000:g} ms; "
        f"at {NEAR * 1000:g} ms {extra[NEAR] * 1000:.0f} ms more than {least(runs[0][0]) * 1000:.0f}, at the least."
    )
    client, there = median(drifted, lambda one: one.client), median(drifted, lambda one: one.hosts or 0.0)
    return [
        Figure("drift over no-op, round trips more", trips, 1.0, 1.2, note, "", "G5", apart, client, there or None)
    ]  # fmt: skip
