"""`reconciler run`: from a commit to the process that it asks for, from the death of an agent to its return.

Whole programs: a `run` with a look every second, a git repository, one unprivileged sshd, tmux. The agent writes down
when it began, so that nothing is polled to measure. The floor is what a person with a script would do: `ssh HOST tmux
new-session` with the same agent, on a connection that is open already.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from tests.e2e.fleet import Fleet
from tests.e2e.program import AGENTS, PATIENCE, Program, Site, install_script_agent, until

RUNS = 7
INTERVAL = 1.0
GATE = 10.0


@dataclass
class Taken:
    """Seconds of each run, until the program began to act, and until the agent's process ran."""

    begun: list[float] = field(default_factory=list)
    ran: list[float] = field(default_factory=list)

    def add(self, since: float, began: float, ran: float) -> None:
        """One run; all times of day."""
        self.begun.append(began - since)
        self.ran.append(ran - since)

    def note(self) -> str:
        """The parts, and the spread."""
        waited = statistics.median(self.begun)
        launched = statistics.median(a - b for a, b in zip(self.ran, self.begun, strict=True))
        return (
            f"{waited * 1000:.0f} ms until it acts, {launched * 1000:.0f} ms until the process runs; "
            f"{min(self.ran) * 1000:.0f} to {max(self.ran) * 1000:.0f} ms in {len(self.ran)} runs."
        )


class Kept:
    """A fleet of one host that is kept by `run`, whose output is a file of JSON lines."""

    def __init__(self, program: Program, site: Site, source: str) -> None:
        self.program, self.site = program, site
        self._path = program.directory / "run.jsonl"
        self._out = self._path.open("wb")
        words = program.argv("run", source, "--json", "--interval", f"{INTERVAL * 1000:.0f}ms")
        self.process = subprocess.Popen(
            words, cwd=program.directory, env={**program.environment(), "PYTHONUNBUFFERED": "1"}, stdout=self._out,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def began(self, session: str, since: float) -> float:
        """When it first began to act on a session after a moment."""

        def look() -> float | None:
            for line in self._path.read_text(encoding="utf-8").splitlines():
                said = json.loads(line)
                begun = said["type"] == "apply_start" and said["address"] == f"session.{session}"
                if begun and said["at"] >= since - 0.001:
                    return float(said["at"])
            return None

        return until(f"run acts on {session}", look)

    def close(self) -> None:
        """SIGTERM, and its end."""
        self.process.terminate()
        self.process.wait(60)
        self._out.close()


class Repository:
    """The specs, committed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.path = program.directory / "fleet.git"
        who = {
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@x",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@x",
        }
        self._env = {**program.environment(), **who}
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.path)], env=self._env, check=True)
        self.url = f"git+file://{self.path}?ref=branch:main"

    def commit(self, text: str) -> float:
        """Returns when the commit was there."""
        (self.path / "specs").mkdir(exist_ok=True)
        (self.path / "specs/fleet.toml").write_text(text, encoding="utf-8")
        for words in (["add", "-A"], ["commit", "-q", "-m", "a change"]):
            subprocess.run(["git", "-C", str(self.path), *words], env=self._env, check=True)
        return time.time()


def specs(name: str, sessions: int) -> str:
    """So many sessions in terminals."""
    head = f'[fleet]\nname = "{name}"\n[hosts.a]\n{PATIENCE}{AGENTS}\n'
    return head + "".join(f'[sessions.s{n}]\nhost = "a"\nagent = "script"\n' for n in range(sessions))


def opened(site: Site, session: str, verb: str, since: float) -> float:
    """When an agent's process of this session began, as it wrote down itself."""

    def look() -> float | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            for entry in site.conversation(session):
                if entry["kind"] == "open" and entry["verb"] == verb and entry["at"] >= since:
                    return float(entry["at"])
        return None

    return until(f"{session} is there ({verb})", look, 60)


@contextlib.contextmanager
def kept(fleet: Fleet, name: str, source: Callable[[Program], str]) -> Iterator[Kept]:
    """A `run` that has started one session."""
    program = Program(fleet, name)
    site = Site(fleet.hosts["a"], name)
    found = Kept(program, site, source(program))
    try:
        opened(site, "s0", "start", 0)
        yield found
    finally:
        found.close()


def commits(fleet: Fleet, *, poke: bool) -> Taken:
    """A commit that adds a session; with `poke` a SIGHUP after it, as a webhook would."""
    made: list[Repository] = []
    name = "poked" if poke else "polled"

    def source(program: Program) -> str:
        made.append(Repository(program))
        made[0].commit(specs(name, 1))
        return made[0].url

    taken = Taken()
    with kept(fleet, name, source) as run:
        for number in range(1, RUNS + 1):
            rest()
            since = made[0].commit(specs(name, number + 1))
            if poke:
                run.process.send_signal(signal.SIGHUP)
            ran = opened(run.site, f"s{number}", "start", since)
            taken.add(since, run.began(f"s{number}", since), ran)
    return taken


def saved(fleet: Fleet) -> Taken:
    """The same session by a saved file in a directory, which is watched."""
    taken = Taken()

    def source(program: Program) -> str:
        program.raw(specs("saved", 1))
        return "specs"

    with kept(fleet, "saved", source) as run:
        for number in range(1, RUNS + 1):
            rest()
            since = time.time()
            run.program.raw(specs("saved", number + 1))
            ran = opened(run.site, f"s{number}", "start", since)
            taken.add(since, run.began(f"s{number}", since), ran)
    return taken


def kills(fleet: Fleet) -> Taken:
    """An agent's process is killed, another session each time, so that no back-off is measured."""
    taken = Taken()

    def source(program: Program) -> str:
        program.raw(specs("killed", RUNS))
        return "specs"

    with kept(fleet, "killed", source) as run:
        for number in range(RUNS):
            opened(run.site, f"s{number}", "start", 0)
        until("all is said", lambda: _at_rest(run.program), 60)
        for number in range(RUNS):
            rest()
            pids = [entry["pid"] for entry in run.site.conversation(f"s{number}") if entry["kind"] == "open"]
            since = time.time()
            os.kill(pids[-1], signal.SIGKILL)
            ran = opened(run.site, f"s{number}", "resume", since)
            taken.add(since, run.began(f"s{number}", since), ran)
    return taken


def _at_rest(program: Program) -> bool:
    found = {a: r for a, r in program.status().items() if a.startswith("session.")}
    return len(found) == RUNS and all(r["phase"] in ("running", "idle") for r in found.values())


def rest() -> None:
    """Any time: not in step with what is polled, and after the end of what was done before."""
    time.sleep(INTERVAL * (2 + random.random()))


def applies(fleet: Fleet) -> float:
    """`reconciler apply` of the same change, from its start to the process."""
    program = Program(fleet, "applied")
    site = Site(fleet.hosts["a"], "applied")
    taken = []
    for number in range(RUNS + 1):
        program.raw(specs("applied", number + 1))
        since = time.time()
        program.apply()
        taken.append(opened(site, f"s{number}", "start", since) - since)
    return statistics.median(taken[1:])


def bare(fleet: Fleet, verb: str) -> float:
    """`ssh a tmux new-session` of the same agent over a master connection, from its start to the process."""
    host = fleet.hosts["a"]
    options = ["-F", str(fleet.ssh_config), "-S", str(fleet.root / "cm")]
    ssh = ["ssh", *options, "a"]
    subprocess.run(["ssh", *options, "-M", "-N", "-f", "a"], env=fleet.env, check=True, stdin=subprocess.DEVNULL)
    socket = f"{host.inner_home}/bare-tmux"
    taken = []
    try:
        for number in range(RUNS + 1):
            name = f"bare-{verb}-{number}"
            path = host.home / ".script-agent" / f"{name}.jsonl"
            if verb == "resume":
                path.parent.mkdir(exist_ok=True)
                path.touch()
            agent = f"{host.inner_home}/bin/script-agent {verb} {name}"
            line = f"tmux -S {shlex.quote(socket)} new-session -d -s {name} {shlex.quote(agent)}"
            since = time.time()
            subprocess.run([*ssh, line], env=fleet.env, check=True, stdin=subprocess.DEVNULL)
            taken.append(until(name, lambda path=path: _begun(path)) - since)  # type: ignore[misc]
        subprocess.run([*ssh, f"tmux -S {shlex.quote(socket)} kill-server"], env=fleet.env, check=True)
    finally:
        subprocess.run(["ssh", *options, "-O", "exit", "a"], env=fleet.env, check=False, capture_output=True)
    return statistics.median(taken[1:])


def _begun(path: Path) -> float | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        entries: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return next((float(entry["at"]) for entry in entries if entry["kind"] == "open"), None)
    return None


def end_terminals(fleet: Fleet) -> None:
    """The tmux servers of the host go first; the fleet ends the rest."""
    for socket in (
        *fleet.root.glob("hosts/*/home/.local/state/reconciler/*/tmux"),
        *fleet.root.glob("hosts/*/home/bare-tmux"),
    ):
        subprocess.run(["tmux", "-S", str(socket), "kill-server"], check=False, capture_output=True)


def measure() -> list[Figure]:
    """Four ways to a running process, and `apply` beside them."""
    with Fleet(namespaces=False) as fleet:
        install_script_agent(fleet.host("a"))
        try:
            started, resumed = bare(fleet, "start"), bare(fleet, "resume")
            applied = applies(fleet)
            polled, poked = commits(fleet, poke=False), commits(fleet, poke=True)
            watched, killed = saved(fleet), kills(fleet)
        finally:
            end_terminals(fleet)
    over = "over ssh tmux new-session"
    every = f"polled and looked at every {INTERVAL:g} s"
    return [
        Figure(f"commit to process, {every}, {over}", _median(polled), started, GATE, polled.note()),
        Figure(f"commit and SIGHUP to process, {over}", _median(poked), started, GATE, poked.note()),
        Figure("commit and SIGHUP to process, over reconciler apply", _median(poked), applied, 2.0, poked.note()),
        Figure(f"saved file to process, watched directory, {over}", _median(watched), started, GATE, watched.note()),
        Figure(f"kill to resumed process, {every}, {over}", _median(killed), resumed, GATE, killed.note()),
    ]


def _median(taken: Taken) -> float:
    return statistics.median(taken.ran)
