"""A look that finds nothing new says so, and forks nothing; whatever changes, the next look tells it whole."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.agent import Probe
from reconciler.core.observed import Reached, parse_look
from reconciler.runtimes.operations import glance_definition, look_call, look_definition
from tests.runtimes.test_scripts import FLEET, SHELLS, Machine, launch, record

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
CHECKS = (("command", "tool"), ("directory", "~/work"))


class Eye:
    """A long-lived shell that looks. A mark counts as soon as the shell can tell it from what comes later."""

    def __init__(self, machine: Machine, checks: tuple[tuple[str, str], ...] = CHECKS) -> None:
        self.checks = checks
        self.since = ""
        self.tick = 1.1 if _coarse(machine) else 0.02
        self.shell = subprocess.Popen(
            ["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=machine.env,
            cwd=machine.home, start_new_session=True,
        )  # fmt: skip
        self._send(look_definition() + glance_definition())

    def _send(self, text: str) -> None:
        assert self.shell.stdin is not None
        self.shell.stdin.write(text.encode())
        self.shell.stdin.flush()

    def look(self) -> Reached | str:
        """What it sees, or "same"."""
        nonce = secrets.token_hex(8)
        self._send(look_call(FLEET, nonce, self.checks, self.since))
        assert self.shell.stdout is not None
        answer = b""
        while not answer.endswith(b"\n") or not answer.splitlines()[-1].startswith((b"end\t", b"same\t")):
            line = self.shell.stdout.readline()
            assert line, "the shell has ended"
            answer += line
        if answer.startswith(b"same\t"):
            assert answer.split(b"\t")[1] == nonce.encode()
            return "same"
        self.since = nonce
        return parse_look("here", nonce, answer)

    def settle(self) -> None:
        """Look until there is nothing new."""
        for _ in range(6):
            time.sleep(self.tick)
            self._send("look_newest_at=0\n")
            if self.look() == "same":
                return
        raise AssertionError("each look found something new")

    def close(self) -> None:
        """It ends as it does when a connection closes."""
        self.shell.communicate(timeout=10)


def _coarse(machine: Machine) -> bool:
    """Whether its `-nt` compares whole seconds."""
    return "busybox" in (machine.bin / "sh").read_text()


def prepared(machine: Machine, strategy: str = "process") -> int:
    """A session whose agent has a conversation and says what it does; its pid."""
    tool = machine.bin / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    for directory in ("work", "store/one", "names"):
        (machine.home / directory).mkdir(parents=True)
    (machine.home / "store/one/a-the-id.jsonl").write_text("{}\n")
    (machine.home / "status").write_text("idle")
    probes = (
        Probe("status", "file", "{home}/status"), Probe("late", "file", "{home}/late"),
        Probe("store", "store", "{home}/store/*/*-{session_id}.jsonl"), Probe("names", "names", "{home}/names/*.lock"),
    )  # fmt: skip
    answer = launch(
        machine, machine.lease(), ("sleep", "1000"), strategy=strategy, probes=probes, conversation="the-id"
    )  # fmt: skip
    assert answer["ok"], answer
    return int(answer["pid"])


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        made = Machine(Path(root), SHELLS[request.param])
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def anywhere() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        made = Machine(Path(root), SHELLS["dash"])
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def eyes() -> Iterator[Callable[[Machine], Eye]]:
    made: list[Eye] = []

    def make(machine: Machine) -> Eye:
        made.append(Eye(machine))
        return made[-1]

    yield make
    for eye in made:
        eye.close()


def _replace(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _moved(path: Path, target: Path) -> None:
    path.rmdir()
    _link(path, target)


def _old(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{}\n")
    os.utime(path, (1, 1))


Change = Callable[[Machine, Path], object]
CHANGES: dict[str, Change] = {
    "the fence rises": lambda m, s: m.lease(),
    "another local machine": lambda m, s: (m.state / "local").write_text("other host\n"),
    "it is the old local machine again": lambda m, s: (m.state / "local").unlink(),
    "the record is replaced": lambda m, s: _replace(s / "record.json", record(1, intent="stopped").to_json() + "\n"),
    "the record is written over": lambda m, s: (s / "record.json").write_text(record(1).to_json() + "\n"),
    "an event": lambda m, s: (s / "events").write_text('{"event":"busy"}\n'),
    "another event": lambda m, s: _append(s / "events", '{"event":"idle"}\n'),
    "the conversation grows": lambda m, s: _append(m.home / "store/one/a-the-id.jsonl", "{}\n"),
    "a second file of it": lambda m, s: (m.home / "store/one/b-the-id.jsonl").write_text("{}\n"),
    "a file of it, as old as the hills": lambda m, s: _old(m.home / "store/two/c-the-id.jsonl"),
    "one is gone": lambda m, s: (m.home / "store/one/b-the-id.jsonl").unlink(),
    "the agent says what it does": lambda m, s: (m.home / "status").write_text("busy"),
    "the agent says it with another file": lambda m, s: _replace(m.home / "status", "idle"),
    "a file that was not there": lambda m, s: (m.home / "late").write_text("here"),
    "a file that is not there": lambda m, s: (m.home / "late").unlink(),
    "a name": lambda m, s: (m.home / "names/x.lock").write_text(""),
    "no name": lambda m, s: (m.home / "names/x.lock").unlink(),
    "another conversation": lambda m, s: _replace(s / "conversation", "other-id\n"),
    "the same conversation": lambda m, s: _replace(s / "conversation", "the-id\n"),
    "other probes": lambda m, s: (s / "probe").write_text((s / "probe").read_text().replace("late", "later")),
    "an exit": lambda m, s: _replace(s / "exit.0", '{"code":1,"at":1,"incarnation":0}\n'),
    "a number": lambda m, s: _replace(s / "incarnation", "2\n"),
    "the old number": lambda m, s: _replace(s / "incarnation", "1\n"),
    "another session": lambda m, s: (m.state / "sessions/other").mkdir(),
    "a foreign name": lambda m, s: (m.state / "sessions/Not Ours").mkdir(),
    "an older name": lambda m, s: _link(m.state / "sessions/older", Path("api")),
    "a lock": lambda m, s: (m.state / "locks/session-other.7").write_text(_holder(1)),
    "a working directory elsewhere": lambda m, s: _moved(m.home / "work", m.home / "store"),
    "no working directory": lambda m, s: (m.home / "work").unlink(),
    "a program before it on the path": lambda m, s: (m.bin / "tool").rename(m.bin / "tool.old"),
}  # fmt: skip


def _holder(pid: int) -> str:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return f"{pid} {fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}\n"


def test_whatever_changes_the_next_look_tells_it(machine: Machine, eyes: Callable[[Machine], Eye]) -> None:
    prepared(machine)
    eye, whole = eyes(machine), eyes(machine)
    session = machine.state / "sessions/api"
    eye.settle()
    for what, change in list(CHANGES.items())[: 1 if _coarse(machine) else None]:
        change(machine, session)
        seen = eye.look()
        assert seen != "same", what
        whole.since = ""
        assert seen == _now(seen, whole.look()), what
        if what in ("a lock", "a program before it on the path"):
            # A lock is given back without a trace, and who knows where a missing program will be: looked at whole.
            assert eye.look() != "same", what
            (machine.state / "locks/session-other.7").unlink(missing_ok=True)
            if not (machine.bin / "tool").exists():
                (machine.bin / "tool.old").rename(machine.bin / "tool")
        eye.settle()


def _now(seen: Reached | str, whole: Reached | str) -> Reached:
    """`whole` at the time of `seen`."""
    assert isinstance(seen, Reached)
    assert isinstance(whole, Reached)
    return replace(whole, now=seen.now)


def _lives(pid: int) -> bool:
    """Whether a process is there that is no zombie: one that is ending has no program, and lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_an_agent_that_ends_is_seen_by_the_next_look(machine: Machine, eyes: Callable[[Machine], Eye]) -> None:
    pid = prepared(machine)
    eye = eyes(machine)
    eye.settle()
    os.kill(pid, signal.SIGKILL)
    while _lives(pid):
        time.sleep(0.001)
    seen = eye.look()
    assert isinstance(seen, Reached)
    assert seen.sessions["api"].state == "exited"
