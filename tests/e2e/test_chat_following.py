"""What a person sees who applies a chat on a terminal: the conversation until it rests; Ctrl-C stops only that."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.chats import AGENT, Chat, chat, member, opening, prepared
from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, fleet_of

pytestmark = pytest.mark.e2e
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("one") as made:
        yield prepared(made)


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"follow{request.session.items.index(request.node)}")


@pytest.fixture
def team(program: Program) -> Iterator[Chat]:
    made = Chat(program)
    yield made
    made.end()


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, program: Program, *arguments: str) -> None:
        self.seen = b""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            program.argv(*arguments), cwd=program.directory, env=program.environment(), stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def until(self, words: bytes, patience: float = 40.0) -> None:
        """Read on until these are on the screen."""
        end = time.monotonic() + patience
        while words not in self.screen and time.monotonic() < end:
            if not self._read():
                break
        assert words in self.screen, self.screen.decode(errors="replace")

    @property
    def screen(self) -> bytes:
        """All that was written to it, without colours and moves of the cursor."""
        return ESCAPES.sub(b"", self.seen)

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], 0.2)[0]:
            return self.process.poll() is None
        with contextlib.suppress(OSError):
            data = os.read(self._ours, 65536)
            self.seen += data
            return bool(data)
        return False

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(20)


def specs(*plan: str | dict[str, str]) -> str:
    return AGENT + member("a", "one", 'state = "stopped"') + chat("team", "a", more=opening(*plan))


def test_apply_shows_the_chat_that_it_began_until_it_rests(program: Program, team: Chat) -> None:
    program.write(specs({"a": "SLOW:1 what of it?"}, "all is well"))
    terminal = Terminal(program, "apply", "--auto-approve")
    assert terminal.end() == 0
    assert b"a answers 1" in terminal.screen
    assert b"all is well" in terminal.screen
    assert terminal.screen.index(b"Apply: 1 done.") < terminal.screen.index(b"a answers 1")
    assert team.closings == ["final"]
    again = Terminal(program, "apply", "--auto-approve")
    assert again.end() == 0
    assert b"all is well" not in again.screen


def test_ctrl_c_leaves_the_chat_running_and_detach_does_not_wait_for_it(program: Program, team: Chat) -> None:
    program.write(specs({"a": "SLOW:4 what of it?"}, "all is well"))
    terminal = Terminal(program, "apply", "--auto-approve")
    terminal.until("→ a".encode())
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.until(b"it goes on: reconciler chat log team -f")
    assert terminal.end() == 0
    assert team.closings == []
    team.closed()
    team.exactly_once()
    program.write(specs({"a": "SLOW:2 and then?"}, "still well"))
    detached = Terminal(program, "apply", "--auto-approve", "--detach")
    assert detached.end() == 0
    assert b"still well" not in detached.screen
    team.closed(2)
