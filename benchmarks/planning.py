"""G11: parse, check, compare and plan 10,000 and 100,000 sessions, over what the parse of their TOML alone takes.

No hosts are asked, so that it is CPU time that counts: others may be at work on the machine. What is read again without
a change is a directory, as `run` has it.
"""

from __future__ import annotations

import gc
import os
import secrets
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.figure import Figure, in_turn_with_spread
from reconciler import drivers, garbage
from reconciler.core.diff import compare, digest, written
from reconciler.core.known import Known
from reconciler.core.observed import Observed, Process, Reached, SessionSeen
from reconciler.core.parse import parse
from reconciler.core.plan import make_plan
from reconciler.core.record import Record
from reconciler.core.spec import Desired
from reconciler.sources import directory

SESSIONS, MANY = 10_000, 100_000
PER_HOST = 10


def specs(count: int = SESSIONS) -> str:
    """One file: hosts, and sessions of which every tenth waits for another."""
    lines = ['[fleet]\nname = "bench"\n']
    lines += [f'[hosts.h{i}]\naddress = "10.{i >> 16}.{i >> 8 & 255}.{i & 255}"\n' for i in range(count // PER_HOST)]
    for i in range(count):
        after = f'depends_on = ["s{i - 1}"]\n' if i % 10 == 9 else ""
        lines.append(
            f'[sessions.s{i}]\nhost = "h{i % (count // PER_HOST)}"\nagent = "claude-code"\nworkdir = "~/code/p{i}"\n'
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
    begun = time.process_time()
    with garbage.held_off():  # as the program has it
        work()
    return time.process_time() - begun


class Fleet:
    """The specs of one size, what runs, and the work on them."""

    def __init__(self, count: int, seen: Callable[[Desired], Observed]) -> None:
        self.text = specs(count)
        desired = parse({"fleet.toml": self.text}, {})
        self._agents, self._observed = drivers.agents(desired), seen(desired)

    def toml(self) -> float:
        """The floor."""
        return _timed(lambda: tomllib.loads(self.text))

    def whole(self) -> float:
        """From text to plan."""
        return _timed(lambda: self.plan(parse({"fleet.toml": self.text}, {})))

    def plan(self, desired: Desired, known: Known | None = None) -> None:
        """From specs to plan."""
        diff = compare(desired, self._observed, known=known)
        plan_id = secrets.token_hex(16)
        make_plan(diff, desired, self._observed, self._agents, plan_id=plan_id, known=known)

    def again(self, read: Callable[[], Desired], known: Known, ended: str = "") -> float:
        """The whole pass after every host was looked at again: all say the same as before, or one says that a session
        has ended. Its answer is parsed anew then."""
        hosts = dict(self._observed.hosts)
        for name, host in hosts.items():
            assert isinstance(host, Reached)
            if ended in host.sessions:
                sessions = {key: replace(seen) for key, seen in host.sessions.items()}
                host = replace(host, sessions={**sessions, ended: replace(sessions[ended], state="lost")})
            hosts[name] = replace(host, now=host.now + 30)
        self._observed = Observed(hosts)
        return _timed(lambda: self.plan(read(), known))


def measure(full: bool = False) -> list[Figure]:
    """All new, nothing to do, ten times as many, nothing changed."""
    found = []
    for name, seen in (("everything to start", empty_fleet), ("nothing to do", same_fleet)):
        fleet = Fleet(SESSIONS, seen)
        ours, floor, apart = in_turn_with_spread(fleet.whole, fleet.toml, runs=5 if full else 3)
        note = f"{SESSIONS} sessions, parse included; CPU time."
        found.append(
            Figure(f"parse, compare and plan over tomllib, {name}", ours, floor, 3.0, note, target="G11", spread=apart)
        )
    found += _unchanged(fleet, floor)
    many = Fleet(MANY, same_fleet)
    runs, fewer = [], []
    for _ in range(5 if full else 1):
        fewer.append(fleet.whole())
        runs.append(many.whole())
        fewer.append(fleet.whole())
    toml = many.toml()
    least, apart = min(runs), (max(runs) - min(runs)) / 2 / min(runs)
    note = f"{MANY} sessions, nothing to do; CPU time, {len(runs)} runs."
    return [
        *found,
        Figure("the same of 100,000 sessions over tomllib", least, toml, 3.0, note, "s", "G11", apart),
        Figure("the same of 100,000 sessions over ten thousand", least, min(fewer), 11.0, note, "s", "G11", apart),
    ]


def _unchanged(fleet: Fleet, floor: float) -> list[Figure]:
    """A directory that `run` reads again although nothing in it has changed; and the same with a plan at its end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fleet.toml")
        path.write_text(fleet.text, encoding="utf-8")
        os.utime(path, (1e9, 1e9))
        time.sleep(2.5)  # what is younger could change unseen
        files, known = directory.Known(), Known()

        def read() -> Desired:
            return directory.load_counted(folder, known=files)[0]

        read()
        reads = [_timed(read) for _ in range(5)]
        fleet.again(read, known)
        plans = [fleet.again(read, known) for _ in range(5)]
        events = [fleet.again(read, known, ended=f"s{i}") for i in range(5)]
    note = f"{SESSIONS} sessions, a directory that did not change; CPU time."
    looked = f"{note} Every host was looked at again since the pass before"
    again = "read, compared and planned again over the TOML parse"
    return [
        _figure_of("read again over the TOML parse, nothing changed", reads, floor, note, "G11"),
        _figure_of(f"{again}, nothing changed", plans, floor, f"{looked}.", "G11"),
        _figure_of(f"{again}, one session has ended", events, floor, f"{looked}; one said something else.", ""),
    ]


def _figure_of(name: str, runs: list[float], floor: float, note: str, target: str) -> Figure:
    middle = statistics.median(runs)
    return Figure(name, middle, floor, 0.25, note, target=target, spread=(max(runs) - min(runs)) / 2 / middle)
