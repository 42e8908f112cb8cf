"""A move that is cut at any point: one resumable copy, one process at the most, and no message lost or said twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.moving import (
    STORE,
    alive,
    answers,
    archive,
    archived,
    at_rest,
    on_screen,
    only_on,
    same,
    session,
    tell,
    transcript,
    whole,
)
from tests.e2e.program import Program, Site, fleet_of, install_script_agent, intact, until

pytestmark = pytest.mark.e2e
PROMPT = 'prompt = "MARK-one"\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        install_script_agent(made.host("b", user="ops", home_size="32m"))
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"v{request.session.items.index(request.node)}")


@pytest.fixture
def a(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["a"], program.name)


@pytest.fixture
def b(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["b"], program.name)


class Watch(threading.Thread):
    """Looks all the time, from outside of both hosts, whether two processes have one conversation."""

    def __init__(self, *sites: Site) -> None:
        super().__init__(daemon=True)
        self.doubled: list[list[tuple[str, int]]] = []
        self._sites = sites
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            found: dict[str, list[tuple[str, int]]] = {}
            for site in self._sites:
                with contextlib.suppress(OSError):  # it is down
                    for pid, words in site.host.processes():
                        if "script-agent" in " ".join(words[:2]) and len(words) > 3:
                            found.setdefault(words[3], []).append((site.host.name, pid))
            self.doubled += [pids for pids in found.values() if len(pids) > 1]

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def watch(a: Site, b: Site) -> Iterator[None]:
    with Watch(a, b) as watching:
        yield
    assert not watching.doubled


class Move:
    """A session on its way from one host to the other, and how far it is, by the files of both and the journal."""

    def __init__(self, program: Program, source: Site, target: Site, name: str = "api") -> None:
        self.program, self.source, self.target, self.name = program, source, target, name
        self.there = target.state / "sessions" / name
        self.intents = self._rows()
        self.archived = self._archived()
        self.incarnation = self._read("incarnation")
        self.opened = self._opened()

    def _rows(self) -> int:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.program.journal}?mode=ro", uri=True)) as database:
                return int(sum(database.execute("SELECT count(*), count(outcome) FROM intents").fetchone()))
        except sqlite3.OperationalError:
            return 0

    def _read(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.there / name).read_text(encoding="utf-8").strip()
        return "0"

    def _archived(self) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in archive(self.program).glob(f"{self.name}/*/manifest.json")]

    def _opened(self) -> int:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return transcript(self.target, self.name).read_bytes().count(b'"kind": "open"')
        return 0

    def _stopped(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self.source.record(self.name)["intent"] == "stopped")
        return False

    def reached(self, milestone: str) -> bool:
        """Whether it is that far."""
        looks: dict[str, Callable[[], bool]] = {
            "intent": lambda: self._rows() > self.intents,
            "stopped": self._stopped,
            "archived": lambda: self._archived() != self.archived,
            "staged": (self.there / "incoming").exists,
            "numbered": lambda: self._read("incarnation") != self.incarnation,
            "recorded": lambda: self._read("incarnation") in self._read("launch").partition("\nshell=")[0],
            "process": lambda: (self.there / f"process.{int(self.incarnation) + 1}").exists(),
            "opened": lambda: (
                self._opened() > self.opened and (self.there / f"process.{int(self.incarnation) + 1}").exists()
            ),
            "outcome": lambda: self._rows() > self.intents + 1,
        }
        return looks[milestone]()

    def until(self, milestone: str, process: subprocess.Popen[str]) -> None:
        """Wait for it, without a pause: what is meant to be cut lasts milliseconds."""
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            if self.reached(milestone):
                return
            time.sleep(0.0005)


MILESTONES = ("intent", "stopped", "archived", "staged", "numbered", "recorded", "process", "opened", "outcome")


def specs(host: str, names: tuple[str, ...] = ("api",)) -> str:
    return "".join(on_screen(name, host, PROMPT) for name in names)


def healed(program: Program, a: Site, b: Site, host: str, told: list[str], names: tuple[str, ...] = ("api",)) -> None:
    """After what broke it is whole again: one apply or two bring the session to its host with all that was said."""
    at_rest([a, b])
    for _ in range(3):
        done = program.run("apply", "--auto-approve")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    program.settled()
    site = a if host == "a" else b
    for name in names:
        only_on([a, b], host, name)
        assert site.messages(name) == told, f"{name}: {whole(site, name)}"
        assert answers(site, name) == list(range(1, len(told) + 1))
        same(program, site, name)
    intact(a, b)


@pytest.mark.usefixtures("watch")
def test_killed_at_every_step_of_a_move_it_is_whole_after_the_next_apply(program: Program, a: Site, b: Site) -> None:
    program.write(specs("a"))
    program.apply()
    told = ["MARK-one"]
    until("an answer", lambda: answers(a, "api"))
    here, there = a, b
    for number, milestone in enumerate(MILESTONES):
        told.append(f"MARK-{number}")
        tell(here, "api", told[-1])
        program.write(specs(there.host.name))
        move = Move(program, here, there)
        with program.start("apply", "--auto-approve") as process:
            move.until(milestone, process)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL, milestone
        assert len(alive([a, b], here.record("api")["conversation"])) <= 1, milestone
        healed(program, a, b, there.host.name, told)
        here, there = there, here
    entries = json.loads(program.run("history", "--json", "-n", "1000").stdout)["entries"]
    assert all(entry["outcome"] for entry in entries)


@pytest.mark.usefixtures("watch")
def test_killed_at_any_time_while_some_sessions_move_none_is_lost_or_doubled(
    program: Program, a: Site, b: Site
) -> None:
    names = ("s0", "s1", "s2")
    program.write(specs("a", names))
    begun = time.monotonic()
    program.apply()
    length = time.monotonic() - begun
    for name in names:
        until("an answer", lambda name=name: answers(a, name))  # type: ignore[misc]
    here, there = a, b
    for seed in (os.getpid(), os.getpid() + 1, os.getpid() + 2):
        moment = random.Random(seed).uniform(0.25, 1.5) * length
        print(f"seed {seed}: killed after {moment:.3f} s")
        program.write(specs(there.host.name, names))
        with program.start("apply", "--auto-approve") as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            process.kill()
            process.communicate()
        healed(program, a, b, there.host.name, ["MARK-one"], names)
        here, there = there, here


def cut(host: Host) -> Callable[[], None]:
    host.cable_out()
    return host.cable_in


def power(host: Host) -> Callable[[], None]:
    host.power_cut()
    return host.boot


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize(
    ("fault", "cases"),
    [
        (cut, [("intent", "source"), ("stopped", "target"), ("numbered", "target"), ("opened", "source")]),
        (power, [("stopped", "source"), ("staged", "target"), ("process", "target")]),
    ],
)
def test_a_cable_or_the_power_of_either_host_goes_in_the_middle_of_a_move(
    program: Program, a: Site, b: Site, fault: Callable[[Host], Callable[[], None]], cases: list[tuple[str, str]]
) -> None:
    program.write(specs("a"))
    program.apply()
    told = ["MARK-one"]
    until("an answer", lambda: answers(a, "api"))
    here, there = a, b
    for number, (milestone, which) in enumerate(cases):
        told.append(f"MARK-{number}")
        tell(here, "api", told[-1])
        program.write(specs(there.host.name))
        move = Move(program, here, there)
        begun = time.monotonic()
        with program.start("apply", "--auto-approve") as process:
            move.until(milestone, process)
            heal = fault(here.host if which == "source" else there.host)
            try:
                output, _ = process.communicate(timeout=60)
            finally:
                heal()
        took = time.monotonic() - begun
        print(f"{fault.__name__} {which} at {milestone}: exit {process.returncode} after {took:.1f} s\n{output}")
        assert process.returncode in (0, 1, 3, 4), output
        if (milestone, which) == ("stopped", "target"):
            # No launch was sent, so that the source goes on at once.
            assert "it was resumed where it was" in output
            only_on([a, b], here.host.name, "api")
        healed(program, a, b, there.host.name, told)
        here, there = there, here


# -- disks and links -------------------------------------------------------------------------------------------------


def goes_back(program: Program, a: Site, b: Site, words: str) -> None:
    """The move fails with these words, and the session goes on where it was."""
    output = program.apply(code=1)
    assert words in output, output
    assert "it was resumed where it was" in output, output
    only_on([a, b], "a", "api")


@pytest.mark.usefixtures("watch")
def test_a_target_whose_disk_is_full_or_read_only_gets_nothing_and_the_source_goes_on(
    program: Program, a: Site, b: Site
) -> None:
    big = f'prompt = "MARK-one {"x" * 90_000}"\n'
    program.write(on_screen("api", "a", big))
    program.apply()
    until("an answer", lambda: answers(a, "api"))
    program.write(on_screen("api", "b", big))
    b.host.fill_disk()
    try:
        assert "is the disk full" in program.apply(code=1)
        only_on([a, b], "a", "api")
        filler = b.host.home / ".filler"
        os.truncate(filler, filler.stat().st_size - 64 * 1024)
        goes_back(program, a, b, "is the disk full")
    finally:
        b.host.free_disk()
    store = b.host.home / STORE
    b.host.exec(["mkdir", "-p", STORE])
    store.chmod(0o500)
    try:
        goes_back(program, a, b, "cannot write")
    finally:
        store.chmod(0o700)
    assert not [path for path in store.iterdir() if "reconciler" in path.name]
    program.apply()
    program.settled()
    tell(b, "api", "MARK-two")
    assert answers(b, "api") == [1, 2]
    only_on([a, b], "b", "api")
    intact(a, b)


@pytest.mark.usefixtures("watch")
def test_a_link_in_the_place_of_a_conversation_is_refused_and_never_followed(
    program: Program, a: Site, b: Site
) -> None:
    program.write(on_screen("api", "a", PROMPT) + session("ci", "a", more=PROMPT))
    program.apply()
    program.write(on_screen("api", "a", PROMPT) + session("ci", "a", more=PROMPT + 'state = "stopped"'))
    program.apply()
    secret = b.host.write("~/secret", '{"kind": "user", "text": "secret"}\n')
    b.host.exec(["sh", "-c", f"mkdir -p {STORE} && ln -s ~/secret {STORE}/{transcript(a, 'api').name}"])
    mine = a.host.write("~/secret", '{"kind": "user", "text": "secret"}\n')
    path = transcript(a, "ci")
    path.unlink()
    a.host.exec(["ln", "-s", f"{a.host.inner_home}/secret", f"{STORE}/{path.name}"])
    before = archived(program, a, "ci").read_bytes()
    program.write(on_screen("api", "b", PROMPT) + session("ci", "a", more=PROMPT))
    output = program.apply(code=1)
    assert "is no plain file" in output
    assert "it was resumed where it was" in output
    assert "session.ci failed" in output
    only_on([a, b], "a", "api")
    assert not a.pids("ci")
    assert {text.read_text(encoding="utf-8") for text in (secret, mine)} == {'{"kind": "user", "text": "secret"}\n'}
    assert path.is_symlink()
    assert archived(program, a, "ci").read_bytes() == before
    assert not [f for f in archive(program).rglob("*.jsonl") if b"secret" in f.read_bytes()]
    link = b.host.home / STORE / transcript(a, "api").name
    assert link.is_symlink()
    link.unlink()
    path.unlink()
    program.apply()
    assert [b.messages("api"), a.messages("ci")] == [["MARK-one"]] * 2
    assert a.opens("ci") == ["start", "resume"]
    intact(a, b)


def test_names_that_are_no_names_stay_where_they_are_and_stop_nothing(program: Program, a: Site, b: Site) -> None:
    agent = """[agents.globbing]
command = "script-agent"
start = ["script-agent", "start", "{session_id}", "{prompt}"]
resume = ["script-agent", "resume", "{session_id}", "{prompt}"]
store = ["{home}/.script-agent/{session_id}*"]
"""
    program.write(agent + session("api", "a", "globbing", PROMPT))
    program.apply()
    until("an answer", lambda: answers(a, "api"))
    stem = str(a.record("api")["conversation"])
    names = ("\nx", "\tx", "\x1b[31mred", " ..", "..", "-$(touch no)", "'\"`", "\\", "ü", "x" * 150, ".jsonl.tmp")
    for name in names:
        a.host.write(f"~/{STORE}/{stem}{name}", "hostile\n")
    a.host.exec(["mkdir", f"{STORE}/{stem}.d"])
    a.host.exec(["mkfifo", f"{STORE}/{stem}.fifo"])
    a.host.exec(["ln", "-s", "/etc/passwd", f"{STORE}/{stem}.link"])
    program.write(agent + session("api", "b", "globbing", PROMPT))
    output = program.apply()
    assert "\x1b[31m" not in output
    program.settled()
    assert b.messages("api") == ["MARK-one"]
    only_on([a, b], "b", "api")
    same(program, b, "api")
    there = sorted(path.name.removeprefix(stem) for path in (b.host.home / STORE).iterdir() if stem in path.name)
    assert ".link" not in there
    assert not {"\nx", "\tx", "\x1b[31mred"} & set(there)
    for root in (archive(program), b.host.home / STORE):
        assert all(path.resolve().is_relative_to(root.resolve()) for path in root.rglob("*"))
    assert not (b.host.home / "no").exists()
    assert {path.name.removeprefix(stem) for path in (a.host.home / STORE).iterdir()} >= set(names)
