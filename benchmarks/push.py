"""G6: from the end of an agent to the moment at which `run` knows, and what `run` costs while nothing happens.

Whole programs: `reconciler run --json` with its own interval of 30 s, at 50 ms, over real hosts. On several of them a
process is killed; `run` says when the host told that something had changed (half a round trip later at best), and when
a look confirmed what: a round trip more. Without a push both wait for the next look: half an interval, mostly.
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
SETTLE, IDLE = 70.0, 60.0  # seconds: until every host listens and has been looked at twice since; how long is measured
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
    """Three figures."""
    hosts = noop.LARGE if full else HOSTS
    place = farm.shared(hosts)
    with noop.delayed(place.line, TRIP), running(place, hosts) as (pid, told):
        until(told, hosts * farm.SESSIONS, 120, after="running")
        time.sleep(SETTLE)
        there, cpu, begun = place.line.cpu(), used(pid), time.monotonic()
        time.sleep(IDLE)
        passed, cpu = time.monotonic() - begun, used(pid) - cpu
        hosts_cpu = (place.line.cpu() or 0.0) - there if there is not None else None
        heard, seen = kill(place, told)
    idle = f"{hosts} hosts x {farm.SESSIONS} sessions for {passed:.0f} s, a look every {INTERVAL:g} s."
    return [
        _latency("end of an agent to heard of, over half a round trip and 5 ms", heard, TRIP / 2 + 0.005, hosts),
        _latency("end of an agent to seen by a look, over 1.5 round trips and 5 ms", seen, 1.5 * TRIP + 0.005, hosts),
        Figure("CPU of run for each idle host and second, over 10 µs", cpu / hosts / passed, 10e-6, 1.0,
               idle, "µs", "G6", 0.0, cpu, hosts_cpu),
    ]  # fmt: skip


def _latency(name: str, waits: list[float], goal: float, hosts: int) -> Figure:
    middle = statistics.median(waits)
    note = (
        f"{hosts} hosts, {TRIP * 1000:g} ms, {KILLED} killed one by one; from {min(waits) * 1000:.0f} to "
        f"{max(waits) * 1000:.0f} ms."
    )
    spread = (max(waits) - min(waits)) / 2 / middle
    return Figure(name, middle, goal, 1.0, note, target="G6", spread=spread)


def kill(place: farm.Farm, told: Path) -> tuple[list[float], list[float]]:
    """Seconds from the end of a process until its host told of it, and until a look saw it; one after another, on as
    many hosts, each when the one before runs again."""
    heard: list[float] = []
    seen: list[float] = []
    for number in range(KILLED):
        address, at = f"session.s{number}-{SESSION}", place.kill(number, SESSION)
        time.sleep(1)  # nobody reads along meanwhile: it is the same machine
        first = until(told, 1, 4 * INTERVAL, type="condition", before="running", address=address)[-1]
        said = float(str(first["at"]))
        heard.append(float(str(first.get("heard", said))) - at)  # without it, a look that nobody asked for came first
        seen.append(said - at)
        until(told, 1, 120, type="apply_complete", address=address)
        time.sleep(1)
    return heard, seen
