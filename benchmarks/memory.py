"""G10: memory of the program for each host that it has a warm connection to, over that of an OpenSSH master for one.

Proportional set size, so that what processes share counts once. Ours is the slope between few and many hosts within
one process that knows the same specs. Each has a shell and a control client of tmux, as under `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import farm, noop
from benchmarks.figure import Figure, python
from benchmarks.over_ssh import Masters

HOSTS, FEW, MASTERS = noop.HOSTS, 20, 50
_LOOKS, _BETWEEN = 4, 1.0  # looks, seconds: until each has its control client
GOAL = 100_000.0


def measure(full: bool = False) -> list[Figure]:
    """Two figures."""
    hosts = noop.LARGE if full else noop.HOSTS
    place = farm.shared(hosts)
    folder = place.folder(hosts)
    done = subprocess.run(
        python("-m", "benchmarks.memory", folder, str(FEW), str(hosts)),
        env=place.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    few, many = json.loads(done.stdout)
    mine = (many - few) / (hosts - FEW)
    masters = hosts if full else MASTERS
    with Masters(place, masters) as peers:
        theirs = proportional(peers.pids()) / masters
    note = f"From {FEW} to {hosts} hosts x {farm.SESSIONS} sessions; {few / 1e6:.0f} and {many / 1e6:.0f} MB in all."
    beside = "memory for each warm host over an OpenSSH master"
    return [
        Figure("memory for each warm host, over 100 kB", mine, GOAL, 1.0, note, "kB", "G10"),
        Figure(beside, mine, theirs, 0.1, f"{masters} masters.", "kB", "G10"),
    ]  # fmt: skip


def proportional(pids: Iterable[int | str]) -> float:
    """Bytes, each page divided among those who have it."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            total += int(line.split()[1]) * 1024 if line.startswith("Pss:") else 0
    return float(total)


def _trim() -> None:
    """What the allocator keeps for later goes back, at both counts: it differs by megabytes from run to run."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


async def _child(folder: str, counts: list[int]) -> list[float]:
    """Bytes of this process with so many warm hosts."""
    from reconciler import drivers
    from reconciler.core.launching import checks_of
    from reconciler.core.observed import HostSeen, Reached
    from reconciler.hosts import Hosts
    from reconciler.observe import CONNECTS_AT_ONCE, look
    from reconciler.sources.directory import load

    desired = load(folder)
    checks = checks_of(desired, drivers.agents(desired))
    names = [name for name in desired.hosts if name != "local"]
    gate, found, views = asyncio.Semaphore(CONNECTS_AT_ONCE), [], dict[str, HostSeen]()
    async with Hosts() as hosts:
        hosts.noticed = lambda name: None  # so that tmux is listened to, as `run` does

        async def one(name: str) -> None:
            async with gate:
                views[name] = await look(hosts.connection(name, desired.hosts[name]), desired.fleet.name, checks[name])
                assert isinstance(views[name], Reached), views[name]

        for count in counts:
            for _ in range(_LOOKS):  # the last view of each is kept, as `run` does
                await asyncio.gather(*map(one, names[:count]))
                await asyncio.sleep(_BETWEEN)
            listening = sum(hosts.connection(name, desired.hosts[name]).listens for name in names[:count])
            assert listening == count, f"{listening} of {count} have a control client"
            gc.collect()
            _trim()
            found.append(proportional(["self"]))
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_child(sys.argv[1], [int(word) for word in sys.argv[2:]]))))
