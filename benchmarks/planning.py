"""Parse, compare and plan 10,000 sessions on 1,000 hosts, without I/O, over the time `tomllib` takes to parse them."""

from __future__ import annotations

import gc
import time
import tomllib
from collections.abc import Callable

from benchmarks.figure import Figure, in_turn
from reconciler import drivers, garbage
from reconciler.core.diff import compare, digest, written
from reconciler.core.observed import Observed, Process, Reached, SessionSeen
from reconciler.core.parse import parse
from reconciler.core.plan import make_plan
from reconciler.core.record import Record
from reconciler.core.spec import Desired

SESSIONS, HOSTS = 10_000, 1_000


def specs() -> str:
    """One file: hosts, and sessions of which every tenth waits for another."""
    lines = ['[fleet]\nname = "bench"\n']
    lines += [f'[hosts.h{i}]\naddress = "10.0.{i // 256}.{i % 256}"\n' for i in range(HOSTS)]
    for i in range(SESSIONS):
        after = f'depends_on = ["s{i - 1}"]\n' if i % 10 == 9 else ""
        lines.append(
            f'[sessions.s{i}]\nhost = "h{i % HOSTS}"\nagent = "claude-code"\nworkdir = "~/code/p{i}"\n'
            f'model = "opus"\nlabels = {{ team = "t{i % 7}" }}\n{after}'
        )
    return "\n".join(lines)


def empty_fleet(desired: Desired) -> Observed:
    """Every host answered; nothing runs."""
    return Observed({name: _host(name, {}) for name in desired.hosts})


def same_fleet(desired: Desired) -> Observed:
    """Every host answered; everything runs as declared."""
    sessions: dict[str, dict[str, SessionSeen]] = {name: {} for name in desired.hosts}
    for name, session in desired.sessions.items():
        values = written(desired, name)
        record = Record(
            fleet="bench", name=name, agent=session.agent, strategy="tmux", digest=digest(values), written=values,
            labels=dict(session.labels), incarnation=1, conversation=f"c-{name}",
        )  # fmt: skip
        process = Process(4711, "1", 1, 4710, True, "boot")
        sessions[session.host][name] = SessionSeen(name, "running", record, 1, process)
    return Observed({name: _host(name, sessions[name]) for name in desired.hosts})


def _host(name: str, sessions: dict[str, SessionSeen]) -> Reached:
    return Reached(
        name=name, hostname=name, user="u", home="/home/u", system="Linux", machine=name, boot="boot",
        state_dir="/home/u/.local/state/reconciler/bench", now=1000, fence=1, tmux="tmux 3.4", sessions=sessions,
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    gc.collect()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure() -> list[Figure]:
    """All new, and nothing to do."""
    text = specs()
    desired = parse({"fleet.toml": text}, {})
    agents = drivers.agents(desired)

    def plan(observed: Observed) -> None:
        with garbage.held_off():
            wanted = parse({"fleet.toml": text}, {})
            make_plan(compare(wanted, observed), wanted, observed, agents, plan_id="bench")

    found = []
    for name, observed in (("everything to start", empty_fleet(desired)), ("nothing to do", same_fleet(desired))):
        ours, floor = in_turn(
            lambda observed=observed: _timed(lambda: plan(observed)),  # type: ignore[misc]
            lambda: _timed(lambda: tomllib.loads(text)),
            runs=5,
        )
        note = f"{SESSIONS} sessions on {HOSTS} hosts, parse included."
        found.append(Figure(f"parse, compare and plan over tomllib, {name}", ours, floor, 10.0, note))
    return found
