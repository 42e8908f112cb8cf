"""G6: from the end of an agent to the moment at which `run` knows, and what `run` costs while nothing happens.

Whole programs: `reconciler run --json` with its own interval of 30 s, at 50 ms, over real hosts. On several of them a
process is killed; `run` says when it saw that. Without a push it waits for the next look: half an interval, mostly.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import farm, noop
from benchmarks.figure import Figure, python
from benchmarks.loop_idle import used

HOSTS, KILLED = 100, 10
TRIP, INTERVAL = 0.05, 30.0
SESSION = 7  # of each host where one is killed: others are used elsewhere


@contextmanager
def running(place: farm.Farm, hosts: int) -> Iterator[tuple[int, Path]]:
    """`run`; its pid, and the file to which it writes what changes."""
    told = place.root / "told"
    argv = python("-m", "reconciler", "run", "--json", "--interval", f"{INTERVAL:g}s")
    with told.open("wb") as out:
        kept = subprocess.Popen(argv, cwd=place.folder(hosts), env=place.env, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield kept.pid, told
        finally:
            kept.terminate()
            kept.wait(120)


def events(told: Path) -> list[dict[str, object]]:
    """What it has told so far."""
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def until(told: Path, enough: int, seconds: float, **wanted: str) -> list[dict[str, object]]:
    """The events that say so, once there are enough."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [event for event in events(told) if all(event.get(key) == value for key, value in wanted.items())]
        if len(found) >= enough:
            return found
        time.sleep(0.2)
    raise RuntimeError(f"run did not tell {wanted} {enough} times: {told.read_text('utf-8')[-1000:]}")


def measure(full: bool = False) -> list[Figure]:
    """Two figures."""
    hosts = noop.LARGE if full else HOSTS
    place = farm.shared(hosts)
    with noop.delayed(place.line, TRIP), running(place, hosts) as (pid, told):
        until(told, hosts * farm.SESSIONS, 120, after="running")
        time.sleep(5)
        there, cpu, begun = place.line.cpu(), used(pid), time.monotonic()
        time.sleep(INTERVAL)
        passed, cpu = time.monotonic() - begun, used(pid) - cpu
        hosts_cpu = (place.line.cpu() or 0.0) - there if there is not None else None
        waits = kill(place, told)
    note = f"{hosts} hosts, {TRIP * 1000:g} ms, {KILLED} killed; from {min(waits):.2f} to {max(waits):.2f} s."
    idle = f"{hosts} hosts x {farm.SESSIONS} sessions for {passed:.0f} s, a look every {INTERVAL:g} s."
    goal = TRIP / 2 + 0.005
    return [
        Figure("end of an agent to seen, over half a round trip and 5 ms", statistics.median(waits), goal, 1.0, note,
               target="G6", spread=(max(waits) - min(waits)) / 2 / statistics.median(waits)),
        Figure("CPU of run for each idle host and second, over 10 µs", cpu / hosts / passed, 10e-6, 1.0,
               idle, "µs", "G6", 0.0, cpu, hosts_cpu),
    ]  # fmt: skip


def kill(place: farm.Farm, told: Path) -> list[float]:
    """Seconds from the end of a process until it was seen, of as many hosts."""
    at: dict[str, float] = {}
    for number in range(KILLED):
        place.kill(number, SESSION)
        at[f"session.s{number}-{SESSION}"] = time.time()
    until(told, KILLED, 4 * INTERVAL, type="condition", before="running")
    found: dict[str, float] = {}
    for event in until(told, KILLED, 60, type="condition", before="running"):
        address, seen = str(event["address"]), event["at"]
        if address in at and isinstance(seen, float):
            found.setdefault(address, seen - at[address])
    if len(found) != KILLED:
        raise RuntimeError(f"only {sorted(found)} were seen")
    until(told, KILLED, 120, type="apply_complete")
    return list(found.values())
