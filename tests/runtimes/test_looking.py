"""The shell and the control client of tmux on a real machine: what they see, what that costs, and when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from reconciler import looking
from reconciler.core.observed import Reached
from reconciler.core.spec import Host
from reconciler.hosts import Connection
from reconciler.transports import Channel
from reconciler.transports.local import LocalTransport
from tests.runtimes.test_glance import _coarse
from tests.runtimes.test_scripts import FLEET, SHELLS, Machine, launch, stop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


class Counted:
    """A channel that counts what goes over it."""

    def __init__(self, channel: Channel, argv: Sequence[str]) -> None:
        self.channel, self.argv = channel, tuple(argv)
        self.writes: list[bytes] = []
        self.got = 0

    async def write(self, data: bytes) -> None:
        self.writes.append(data)
        await self.channel.write(data)

    async def read(self, limit: int = 65536) -> bytes:
        data = await self.channel.read(limit)
        self.got += len(data)
        return data

    async def close(self) -> None:
        await self.channel.close()

    @property
    def pid(self) -> int:
        return int(self.channel.transport.get_pid())  # type: ignore[attr-defined]


class Counting(LocalTransport):
    """This machine, over channels that are counted."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("here", env=machine.env)
        self.channels: list[Counted] = []

    async def open(self, argv: Sequence[str]) -> Counted:  # type: ignore[override]
        self.channels.append(Counted(await super().open(argv), argv))
        return self.channels[-1]

    async def spare(self, argv: Sequence[str]) -> Counted | None:  # type: ignore[override]
        return await self.open(argv)

    @property
    def shell(self) -> Counted:
        return next(channel for channel in self.channels if channel.argv == ("sh",))

    @property
    def control(self) -> Counted:
        return [channel for channel in self.channels if channel.argv != ("sh",)][-1]


class Eye:
    """A connection to a machine, as `run` has one."""

    def __init__(self, machine: Machine, *, listens: bool = True) -> None:
        self.machine = machine
        self.transport = Counting(machine)
        self.news = asyncio.Event()

        async def connect(name: str, host: Host) -> Counting:
            return self.transport

        self.connection = Connection("here", Host(address="here"), connect)
        if listens:
            self.connection.listen(self.news.set)

    @property
    def looker(self) -> looking.Looker:
        return self.connection._looker

    async def look(self) -> Reached:
        return await self.connection.look(FLEET, (("command", "sleep"), ("directory", "~")))

    async def whole(self) -> Reached:
        """What a shell of its own sees, at the time of another look."""
        return await asyncio.to_thread(self.machine.look, ("command", "sleep"), ("directory", "~"))

    async def listening(self) -> None:
        """Until there is a control client."""
        async with asyncio.timeout(10):
            while not self.looker.listens:
                await self.look()
                await asyncio.sleep(0.02)

    async def settle(self) -> None:
        """Until a look finds nothing new; marks count at once."""
        for _ in range(10):
            await asyncio.sleep(1.1 if _coarse(self.machine) else 0.02)
            await self.transport.shell.channel.write(b"look_newest_at=0\n")
            before = self.transport.shell.got
            await self.look()
            if self.transport.shell.got - before < 40:
                return
        raise AssertionError("each look found something new")


def timeless(seen: Reached) -> object:
    from dataclasses import replace

    return replace(seen, now=0)


@pytest.fixture(params=["dash"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        made = Machine(Path(root), SHELLS[request.param])
        try:
            yield made
        finally:
            made.close()


@contextlib.asynccontextmanager
async def eye(machine: Machine, *, listens: bool = True):  # type: ignore[no-untyped-def]
    made = Eye(machine, listens=listens)
    try:
        yield made
    finally:
        await made.connection.close()
        await made.transport.close()


def sessions_of_tmux(machine: Machine) -> list[str]:
    words = ["tmux", "-S", str(machine.state / "tmux"), "list-sessions", "-F", "#{session_name}:#{session_attached}"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not there():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def faults(pid: int) -> int:
    """The page faults of the children that a process had: each child has some."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[8])


async def test_a_look_that_finds_nothing_new_forks_nothing_and_is_one_flight(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"), strategy="tmux")["ok"]
    async with eye(machine) as it:
        await it.listening()
        await it.settle()
        shell, control = it.transport.shell, it.transport.control
        before = faults(shell.pid)
        for count in range(1, 5):
            asked, got, listed = len(shell.writes), shell.got, len(control.writes)
            seen = await it.look()
            assert len(shell.writes) - asked == 1, "one line there"
            assert len(control.writes) - listed == 1, "and one to tmux, in the same flight"
            assert shell.got - got < 40, "one short line back"
            assert faults(shell.pid) == before, f"forked at look {count}"
            assert timeless(seen) == timeless(await it.whole())
        assert len(it.transport.channels) == 2


async def test_without_a_control_client_it_asks_tmux_and_nothing_else(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"), strategy="tmux")["ok"]
    async with eye(machine, listens=False) as it:
        await it.look()
        await it.settle()
        assert [channel.argv for channel in it.transport.channels] == [("sh",)]
        pane = ["tmux", "-S", str(machine.state / "tmux"), "select-pane", "-t", "=api:", "-T", "another title"]
        await asyncio.to_thread(subprocess.run, pane, check=True)
        assert (await it.look()).sessions["api"].facts.title == "another title"


async def test_the_end_of_an_agent_is_told_at_once_and_seen_by_the_look_after_it(machine: Machine) -> None:
    answer = launch(machine, machine.lease(), ("sleep", "1000"), strategy="tmux")
    async with eye(machine) as it:
        await it.listening()
        await it.settle()
        it.news.clear()
        os.kill(int(answer["pid"]), signal.SIGKILL)
        async with asyncio.timeout(5):
            await it.news.wait()
        seen = (await it.look()).sessions["api"]
        assert seen.state == "exited"
        assert seen.exit is not None
        assert seen.exit.code == 137


@pytest.mark.parametrize("language", ["C.UTF-8", ""])
async def test_a_title_is_seen_by_the_next_look_whatever_language_a_login_has(machine: Machine, language: str) -> None:
    machine.env["LANG"] = language  # where it is not UTF-8, tmux shows no tabs
    ours = machine.lease()
    answer = launch(machine, ours, ("sleep", "1000"), strategy="tmux")
    assert answer["ok"], answer
    async with eye(machine) as it:
        await it.listening()
        await it.settle()
        socket = str(machine.state / "tmux")
        title = '⠙ Working | "x" \\ %end 1 2 1'
        words = ["tmux", "-S", socket, "select-pane", "-t", "=api:", "-T", title]
        await asyncio.to_thread(subprocess.run, words, check=True)
        before = it.transport.shell.got
        seen = await it.look()
        assert it.transport.shell.got - before < 40, "the files are as they were"
        assert seen.sessions["api"].facts.title == "⠙ Working | x  %end 1 2 1"
        assert timeless(seen) == timeless(await it.whole())
        assert stop(machine, ours, 1, "tmux")["ok"]
        assert (await it.look()).sessions["api"].state == "stopped"


async def test_the_client_counts_nowhere_and_keeps_no_server(machine: Machine) -> None:
    ours = machine.lease()
    answer = launch(machine, ours, ("sleep", "1000"), strategy="tmux")
    assert answer["ok"], answer
    async with eye(machine) as it:
        await it.listening()
        seen = await it.look()
        assert list(seen.sessions) == ["api"]
        assert seen.sessions["api"].attached == 0
        assert sessions_of_tmux(machine) == ["_ctl:1", "api:0"]
        assert list((await it.whole()).sessions) == ["api"]
        assert stop(machine, ours, 1, "tmux")["ok"]
        await it.look()
        await until(lambda: not sessions_of_tmux(machine))
        assert not it.looker.listens
    async with eye(machine) as it:
        assert launch(machine, ours, ("sleep", "1000"), 2, strategy="tmux")["ok"]
        await it.listening()
    await until(lambda: sessions_of_tmux(machine) == ["api:0"])


LIARS: dict[str, str] = {
    "it dies at once": "exit 1",
    "it ends when it is asked": "read -r line",
    "it never answers": "exec sleep 1000",
    "it floods": "exec yes %sessions-changed",
    "it sends a line without an end": "exec tr '\\0' x </dev/zero",
    "it answers an error": "while read -r l; do printf '%%begin 1 1 1\\nno\\n%%error 1 1 1\\n'; done",
    "it never ends an answer": "read -r l; printf '%%begin 1 1 1\\n'; exec yes x",
    "it says that nothing is there": "while read -r l; do printf '%%begin 1 1 1\\n%%end 1 1 1\\n'; done",
    "it says that all are dead": (
        "while read -r l; do printf '%%begin 1 1 1\\napi\\t1\\t1\\t0\\tx\\n%%end 1 1 1\\n'; done"
    ),
    "it answers twice": (
        "while read -r l; do for i in 1 2; do printf '%%begin 1 1 1\\napi\\t1\\t0\\t0\\tx\\n%%end 1 1 1\\n'; done; done"
    ),
    "it says what is no text": "while read -r l; do printf '%%begin 1 1 1\\n\\377\\t\\n%%end 1 1 1\\n'; done",
}


@pytest.mark.parametrize("what", LIARS)
async def test_a_client_that_dies_lags_or_lies_costs_time_and_never_the_truth(machine: Machine, what: str) -> None:
    ours = machine.lease()
    answer = launch(machine, ours, ("sleep", "1000"), strategy="tmux")
    assert answer["ok"], answer
    (machine.bin / "tmux").write_text(
        f'#!/bin/dash\ncase " $* " in *" -C "*) {LIARS[what]} ;; *) exec /usr/bin/tmux "$@" ;; esac\n'
    )
    (machine.bin / "tmux").chmod(0o755)
    async with eye(machine) as it:
        for _ in range(4):
            async with asyncio.timeout(8):
                seen = await it.look()
            assert seen.sessions["api"].state == "running", what
            await asyncio.sleep(0.05)
        assert stop(machine, ours, 1, "tmux")["ok"]
        assert (await it.look()).sessions["api"].state == "stopped"


async def test_that_a_terminal_is_gone_is_not_believed_of_the_client_alone(machine: Machine) -> None:
    ours = machine.lease()
    answer = launch(machine, ours, ("sleep", "1000"), strategy="tmux")
    note = next((machine.state / "sessions/api").glob("process.*"))
    told = machine.home / "told"
    (machine.bin / "tmux").write_text(
        f'#!/bin/dash\ncase " $* " in *" -C "*) ;; *) exec /usr/bin/tmux "$@" ;; esac\n'
        "while read -r l; do printf '%%begin 1 1 1\\n'\n"
        f"[ -e {told} ] || /usr/bin/tmux -S {machine.state}/tmux list-panes -a -F "
        "'#{session_name}\t#{pane_pid}\t#{pane_dead}\t#{session_attached}\t#{pane_title}'\n"
        "printf '%%end 1 1 1\\n'; done\n"
    )
    (machine.bin / "tmux").chmod(0o755)
    assert answer["ok"]
    noted = note.read_text()
    note.unlink()  # as if its agent had not begun yet
    try:
        async with eye(machine) as it:
            await it.listening()
            for _ in range(3):
                assert (await it.look()).sessions["api"].state == "starting"
            assert it.looker.listens
            told.touch()
            assert (await it.look()).sessions["api"].state == "starting"
            assert not it.looker.listens
    finally:
        note.write_text(noted)


async def test_the_same_is_taken_from_a_host_only_for_so_long(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"))["ok"]
    async with eye(machine) as it:
        await it.look()
        await it.settle()
        shell = it.transport.shell
        sizes = []
        for _ in range(looking.WHOLE_EVERY + 1):
            before = shell.got
            await it.look()
            sizes.append(shell.got - before)
        assert len([size for size in sizes if size > 40]) == 1


async def test_time_goes_on_while_nothing_else_changes(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"))["ok"]
    async with eye(machine) as it:
        await it.look()
        await it.settle()
        await asyncio.sleep(1.2)
        assert abs((await it.look()).now - time.time()) <= 2


async def test_a_look_that_asks_for_digests_forgets_nothing(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"))["ok"]
    async with eye(machine) as it:
        await it.look()
        await it.settle()
        profile = machine.home / ".profile"
        digests = (await it.connection.look(FLEET, (("digest", f"3 {profile}"),))).digests
        assert len(digests[f"3 {profile}"]) == 64
        before = it.transport.shell.got
        await it.look()
        assert it.transport.shell.got - before < 40


async def test_another_question_is_never_answered_by_same(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"))["ok"]
    async with eye(machine) as it:
        await it.look()
        await it.settle()
        seen = await it.connection.look(FLEET, (("command", "cat"),))
        assert seen.commands == {"cat": "/usr/bin/cat"}
        seen = await it.connection.look("another-fleet", ())
        assert not seen.sessions
        assert (await it.look()).sessions["api"].state == "running"


async def test_whoever_looks_once_leaves_nothing_behind(machine: Machine) -> None:
    assert launch(machine, machine.lease(), ("sleep", "1000"))["ok"]
    async with eye(machine, listens=False) as it:
        await it.look()
    assert not (machine.state / "looks").exists()
    async with eye(machine, listens=False) as it:
        await it.look()
        await it.settle()
        assert list((machine.state / "looks").iterdir())
    assert not list((machine.state / "looks").iterdir())


async def test_an_end_that_was_told_is_confirmed_by_one_look(machine: Machine) -> None:
    ours = machine.lease()
    assert launch(machine, ours, ("sleep", "1000"), strategy="tmux")["ok"]
    note = next((machine.state / "sessions/api").glob("process.*"))
    async with eye(machine) as it:
        await it.listening()
        await it.settle()
        os.kill(int(note.read_text().split()[0]), signal.SIGKILL)
        dead = ["/usr/bin/tmux", "-S", str(machine.state / "tmux"), "list-panes", "-a", "-F", "#{pane_dead}"]
        await until(lambda: b"1" in subprocess.run(dead, capture_output=True, check=True).stdout)
        panes = it.looker._panes
        assert panes is not None
        await until(lambda: panes.ended)
        assert it.news.is_set()
        before = len(it.transport.shell.writes)
        seen = await it.look()
        assert (seen.sessions["api"].state, len(it.transport.shell.writes) - before) == ("exited", 1)
        assert it.looker.listens
        assert timeless(seen) == timeless(await it.whole())
