"""A day of `run` in virtual time: does its memory stay flat? What it has after 24 hours over what it had after 2.

The machines are simulated, the loop and all below it is the program's own. Every hour one machine loses power, so that
its sessions are resumed, and a commit changes a session. One day has many hosts and few looks, the other the opposite:
what grows with hosts shows in the first, what grows with looks in the second.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figure import Figure, python
from reconciler.simulation import clock
from tests.simulation.controller import Controller, running, until
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.world import World, forget_pending, raise_now, secret_environment

SESSIONS = 3  # on each host
HOUR = 3600.0
MOMENTS = (2, 12, 24)  # hours after which it is measured
DAYS = ((200, 300.0), (20, 30.0))  # hosts, and seconds between two looks


@dataclass(frozen=True)
class Size:
    """What the process has: blocks that Python has allocated, which no other process disturbs; and bytes resident."""

    blocks: int
    resident: int


def fleet(hosts: int) -> FleetSpec:
    """Three sessions on each host, of two agents."""
    kinds = ("claude-code", "mine")
    sessions = {
        f"s{host}-{number}": SessionSpec(f"h{host}", agent=kinds[number % 2], prompt="p")
        for host in range(hosts)
        for number in range(SESSIONS)
    }
    return FleetSpec(tuple(f"h{host}" for host in range(hosts)), sessions)


def size(controller: Controller) -> Size:
    """Now, without what only the simulation keeps: its log, its notes of what was told, its hosts' old answers."""
    tidy(controller)
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Size(sys.getallocatedblocks(), resident)


def tidy(controller: Controller) -> None:
    """Forget what the simulation has written down for its own tests."""
    controller.line.log.clear()
    controller.told.clear()
    for machine in controller.world.machines.values():
        machine.ops.clear()
        machine.arrived.clear()


async def day(directory: Path, hosts: int, interval: float) -> list[Size]:
    """Sizes at the moments."""
    wanted, sizes = fleet(hosts), []
    world = World(directory, wanted.hosts)
    async with running(world, wanted) as controller:
        controller.commit(wanted, interval=interval)
        await until("all run", lambda: all(world.live(name) for name in wanted.sessions), 900)
        for hour in range(1, MOMENTS[-1] + 1):
            await asyncio.sleep(HOUR / 2)
            world.machines[f"h{hour % hosts}"].power_cut()
            await asyncio.sleep(HOUR / 2)
            changed = replace(wanted.sessions["s0-0"], label=f"l{hour}")
            wanted = replace(wanted, sessions={**wanted.sessions, "s0-0": changed})
            controller.commit(wanted, interval=interval)
            tidy(controller)
            if hour in MOMENTS:
                await asyncio.sleep(60)
                sizes.append(size(controller))
        assert all(len(world.live(name)) == 1 for name in wanted.sessions)
    return sizes


def main(hosts: int, interval: float) -> None:
    """One day, in a process of its own; prints its sizes."""
    secret_environment()
    forget_pending()
    with tempfile.TemporaryDirectory() as directory:
        sizes = clock.run(lambda: day(Path(directory), hosts, interval))
    raise_now()
    print(json.dumps([[found.blocks, found.resident] for found in sizes]))


def measure() -> list[Figure]:
    """Two figures a day."""
    found = []
    for hosts, interval in DAYS:
        begun = time.perf_counter()
        argv = python("-m", "benchmarks.loop_day", str(hosts), str(interval))
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        first, middle, last = (Size(*numbers) for numbers in json.loads(done.stdout))
        what = f"24 simulated hours over 2, {hosts} hosts x {SESSIONS} sessions"
        looks = hosts * 24 * HOUR / interval
        note = f"A look every {interval:g} s, {looks:.0f} in all; took {time.perf_counter() - begun:.0f} s."
        blocks = f"After 12 hours {middle.blocks}. {note}"
        found += [
            Figure(f"allocated blocks of the process, {what}", last.blocks, first.blocks, 1.02, blocks, ""),
            Figure(f"resident memory of the process, {what}", last.resident, first.resident, 1.05, note, "MB"),
        ]
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
