"""G3: a look at every host over `xargs -P50 ssh` on as many masters that are open already, for the same data.

Twice: after every session's state was written anew, so that all of it has to be told; and while nothing happens, where
whoever keeps state may tell less. ssh prints the list of terminals and the state files each time.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

from benchmarks import farm, noop
from benchmarks.figure import Figure, Sample, against, alternately
from benchmarks.peers import program
from benchmarks.warm import Warm

HOSTS = noop.HOSTS


class Masters:
    """`with Masters(farm, 200) as masters: masters.cycle()`."""

    def __init__(self, place: farm.Farm, hosts: int) -> None:
        self._farm = place
        self._names = "".join(f"h{number}\n" for number in range(hosts))
        self._sockets = place.root / "cm"
        ssh = [program("ssh"), "-F", str(place.ssh_config), "-o", f"ControlPath={self._sockets}/%n"]
        self._ssh = ssh

    def pids(self) -> list[int]:
        """Of the masters."""
        found = []
        for name in self._names.split():
            done = subprocess.run([*self._ssh, "-O", "check", name], capture_output=True, text=True, check=True)
            found.append(int(done.stderr.partition("pid=")[2].partition(")")[0]))
        return found

    def _all(self, *command: str, at_once: int = 50) -> None:
        subprocess.run(
            ["xargs", f"-P{at_once}", "-I{}", *command], input=self._names, text=True, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _sample(self) -> Sample:
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self._all(*self._ssh, "{}", farm.look_like_ours())
        taken, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        # The masters' CPU is not in it: it is theirs, and makes this peer look better than it is.
        return Sample(taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    async def cycle(self) -> Sample:
        """All of them."""
        return await asyncio.to_thread(self._sample)

    def __enter__(self) -> Masters:
        self._sockets.mkdir()
        self._all(*self._ssh, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-fN", "{}", at_once=16)
        done = subprocess.run([*self._ssh, "h0", farm.look_like_ours()], capture_output=True, text=True, check=True)
        if done.stdout.count('"written"') != farm.SESSIONS:
            raise RuntimeError(f"ssh told something else: {done.stdout[:500]}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._all(*self._ssh, "-O", "exit", "{}")
        shutil.rmtree(Path(self._sockets), ignore_errors=True)


def measure(full: bool = False) -> list[Figure]:
    """Same data and no-op, at 50 ms and at none."""
    return asyncio.run(_measure(noop.LARGE if full else noop.HOSTS, runs=5 if full else 3))


async def _measure(hosts: int, runs: int) -> list[Figure]:
    place = farm.shared(hosts)
    found = []
    with Masters(place, hosts) as masters:
        async with Warm(place, hosts) as warm:
            for trip, same, idle in ((0.05, 5, 10), (0.0, 8, 20)):
                with noop.delayed(place.line, trip):
                    changed, theirs = await alternately((warm.changed_cycle, masters.cycle), runs)
                    await warm.settle()  # right after a change no host can tell that there was none
                    ours, again = await alternately((warm.cycle, masters.cycle), runs)
                note = f"{hosts} hosts, {trip * 1000:g} ms; to be {{}}x faster."
                found += [
                    against(
                        f"look, everything changed, over xargs ssh on masters, {trip * 1000:g} ms",
                        changed, theirs, 1 / same, note.format(same), target="G3",
                    ),
                    against(
                        f"look, nothing changed, over xargs ssh on masters, {trip * 1000:g} ms",
                        ours, again, 1 / idle, note.format(idle), target="G3",
                    ),
                ]  # fmt: skip
    return found
