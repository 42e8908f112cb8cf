"""Operations over a real sshd: what they cost, exactly; and that none is done twice, by half, or seen by others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import drivers
from reconciler.core.agent import Invocation
from reconciler.core.observed import Reached
from reconciler.core.record import Record
from reconciler.core.spec import Host as HostSpec
from reconciler.errors import HostError, OperationError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import (
    Credentials,
    Launch,
    launch_operation,
    lease_operation,
    renew_operation,
    stop_operation,
)
from reconciler.transports import Transport, ssh
from tests.e2e.fleet import Fleet, Host

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]
FLEET = "flight"
OURS = Credentials(FLEET, "me@here:m/b:1:1:one")
SETTLE = 9  # tenths of a second
LAUNCH_BYTES = 1600  # of one launch and the look behind it, as they leave the client; a look alone has about 100
RENEWAL_BYTES = 400


class Wire:
    """A relay to a host: counts what the client sends and how often it speaks anew. `cut` breaks the line."""

    def __init__(self, host: Host) -> None:
        self._target = (host.address, host.port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self._client_spoke = False
        self.port = self.turns = self.bytes = 0

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Both ends lose the connection."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(*self._target)
        self._ends += [writer, to]
        for source, target, client in ((reader, to, True), (there, writer, False)):
            self._tasks.add(asyncio.create_task(self._pump(source, target, client)))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if client:
                    self.turns += not self._client_spoke
                    self.bytes += len(data)
                self._client_spoke = client
                target.write(data)
        target.close()
        with contextlib.suppress(OSError):
            await target.wait_closed()


class Line:
    """A warm connection through a wire, with the lease of its host."""

    def __init__(self, host: Host, wire: Wire, connection: Connection) -> None:
        self.host, self.wire, self.connection = host, wire, connection
        self.state = host.outside("~/.local/state/reconciler") / FLEET
        self.ours = OURS

    async def lease(self) -> None:
        nonce = secrets.token_hex(8)
        answer = await self.connection.operate(lease_operation(OURS, nonce), nonce)
        self.ours = replace(OURS, fence=answer["fence"])

    async def launch(self, name: str, op: str = "", strategy: str = "process", **more: Any) -> Reached | None:
        record = Record(FLEET, name, "shell", strategy, "sha256:0", incarnation=1, workdir="~")
        command = more.pop("command", "sleep")
        launch = Launch(name, 0, record, command, Invocation((command, "600")), "~", **more)
        nonce, runtime = secrets.token_hex(8), drivers.runtime(strategy)
        script = launch_operation(runtime, self.ours, op or f"op-{name}", nonce, launch)
        return await self.connection.operate_and_look(script, nonce, FLEET, SETTLE)

    async def renew(self) -> None:
        nonce = secrets.token_hex(8)
        await self.connection.operate(renew_operation(self.ours, nonce), nonce)

    def pid(self, name: str) -> int:
        return int((self.state / f"sessions/{name}/process.1").read_text("ascii").split()[0])

    def told(self, name: str, what: str) -> bytes:
        """By the kernel, of an agent."""
        return Path(f"/proc/{self.pid(name)}/{what}").read_bytes()

    def shells(self) -> list[int]:
        """The long-lived ones, oldest first."""
        return sorted(pid for pid, argv in self.host.processes() if argv == ["sh"])


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(namespaces=False) as made:
        yield made


@pytest.fixture
async def line(fleet: Fleet, request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    host = fleet.host(f"h{len(fleet.hosts)}")
    async with Wire(host) as wire:
        fleet.known_hosts.write_text(f"[127.0.0.1]:{wire.port} {host.public_host_key}\n", encoding="ascii")
        options = ssh.SshOptions("127.0.0.1", user=host.user, port=wire.port)

        async def connect(name: str, _: HostSpec) -> Transport:
            return await ssh.connect(name, options, env=fleet.env)

        connection = Connection(host.name, HostSpec(), connect)
        made = Line(host, wire, connection)
        try:
            for _ in range(2):  # the second one brings how to look again
                await connection.look(FLEET)
            await made.lease()
            yield made
        finally:
            await connection.close()
            host.remove()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 (files of another program)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("strategy", ["process", "tmux"])
async def test_a_launch_on_a_warm_connection_costs_one_round_trip_with_its_verification(
    line: Line, strategy: str
) -> None:
    turns, sent = line.wire.turns, line.wire.bytes
    reached = await line.launch("a", strategy=strategy)
    noted = (line.state / "sessions/a/process.1").stat().st_mtime
    assert time.time() - noted >= SETTLE / 10
    assert line.wire.turns - turns == 1
    assert line.wire.bytes - sent <= LAUNCH_BYTES
    assert reached is not None
    assert reached.sessions["a"].state == "running"
    assert not [path for path in (line.state / "looks").iterdir() if path.suffix in (".ok", ".no")]


async def test_the_renewal_of_a_lease_costs_one_round_trip_and_no_library(line: Line) -> None:
    turns, sent = line.wire.turns, line.wire.bytes
    await line.renew()
    assert line.wire.turns - turns == 1
    assert line.wire.bytes - sent <= RENEWAL_BYTES


async def test_launches_at_once_on_one_host_share_two_looks(line: Line) -> None:
    names = ("a", "b", "c", "d")
    turns = line.wire.turns
    found = await asyncio.gather(*map(line.launch, names))
    assert line.wire.turns - turns <= 4  # beside the looks the answers may come while something is sent
    for name, reached in zip(names, found, strict=True):
        assert reached is not None
        assert reached.sessions[name].state == "running"
    assert len({line.pid(name) for name in names}) == len(names)


async def test_a_refused_launch_is_told_at_once_and_no_look_waits_for_it(line: Line) -> None:
    with pytest.raises(OperationError) as caught:
        await line.launch("a", command="no-such-program")
    assert caught.value.code == "agent-missing"
    begun = time.monotonic()
    assert (await line.connection.look(FLEET)).sessions["a"].state == "exited"
    assert time.monotonic() - begun < 1.4


async def test_an_operation_does_not_wait_for_a_look_that_hangs(line: Line) -> None:
    looks, operations = line.shells()
    os.kill(looks, signal.SIGSTOP)
    look = asyncio.create_task(line.connection.look(FLEET))
    await asyncio.sleep(0.1)
    await line.renew()
    assert not look.done()
    os.kill(looks, signal.SIGCONT)
    assert isinstance(await look, Reached)
    assert operations in line.shells()


async def test_a_look_does_not_wait_for_an_operation(line: Line) -> None:
    with held(line, "a"):
        launch = asyncio.create_task(line.launch("a"))
        await until(lambda: bool(list((line.state / "locks").glob("new.*"))))
        begun = time.monotonic()
        assert "a" not in (await line.connection.look(FLEET)).sessions
        assert time.monotonic() - begun < 4  # the look behind the launch gives up by itself
        assert not launch.done()
    await launch
    assert (await line.connection.look(FLEET)).sessions["a"].state == "running"


@contextlib.contextmanager
def held(line: Line, name: str) -> Iterator[None]:
    """As if another operation were at work on a session."""
    stat = Path("/proc/self/stat").read_text("ascii").rpartition(") ")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    lock = line.state / f"locks/session-{name}.1"
    lock.write_text(f"{os.getpid()} {stat[19]} {boot}\n", encoding="ascii")
    try:
        yield
    finally:
        lock.write_text("free\n", encoding="ascii")


async def test_an_operation_whose_line_broke_ends_and_its_repeat_does_nothing(line: Line) -> None:
    with held(line, "a"):
        launch = asyncio.create_task(line.launch("a", "once"))
        await until(lambda: bool(list((line.state / "locks").glob("new.*"))))
        line.wire.cut()
        with pytest.raises(HostError) as caught:
            await launch
        assert caught.value.retry
    await until((line.state / "ops/once").exists)
    pid = line.pid("a")
    await line.launch("a", "once")
    assert line.pid("a") == pid
    os.kill(pid, 0)
    assert (await line.connection.look(FLEET)).sessions["a"].incarnation == 1


async def test_where_the_shell_ends_what_it_began_goes_on_and_the_next_operation_finds_a_way(line: Line) -> None:
    with held(line, "a"):
        launch = asyncio.create_task(line.launch("a", "once"))
        await until(lambda: bool(list((line.state / "locks").glob("new.*"))))
        os.kill(line.shells()[1], signal.SIGKILL)
    with contextlib.suppress(HostError):
        await launch  # what it began still answers, as long as there is somebody to hear it
    await until((line.state / "ops/once").exists)
    pid = line.pid("a")
    with contextlib.suppress(HostError):  # sent before it was known
        await line.launch("a", "once")
    await line.launch("a", "once")
    assert line.pid("a") == pid
    assert (await line.connection.look(FLEET)).sessions["a"].state == "running"


async def test_what_an_agent_inherits_is_as_at_a_login(line: Line) -> None:
    await line.launch("a")
    status = line.told("a", "status").decode("ascii")
    ignored = next(int(row.split()[1], 16) for row in status.splitlines() if row.startswith("SigIgn"))
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
        assert not ignored & 1 << number - 1, number
    nonce = secrets.token_hex(8)
    stop = stop_operation(
        drivers.runtime("process"), line.ours, "stop", nonce, session="a", expect=1, keys=(), signal="INT",
        record=Record(FLEET, "a", "shell", "process", "sha256:0", incarnation=1, workdir="~", intent="stopped"),
    )  # fmt: skip
    assert (await line.connection.operate(stop, nonce))["how"] == "INT"


async def test_secrets_of_a_launch_are_in_no_argv_no_file_and_no_environment_but_the_agents(line: Line) -> None:
    secret = secrets.token_hex(16)
    seen: list[str] = []
    done = asyncio.Event()

    def glance() -> None:
        for pid, argv in line.host.processes():
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                agent = argv[0] == "sleep" or any(word.endswith("/launch") for word in argv)
                if secret in " ".join(argv) or (secret.encode() in environment and not agent):
                    seen.append(f"{pid} {argv}")
        for place in (line.host.home, Path("/tmp")):
            for path in (
                [*place.rglob("*")] if place == line.host.home else [*place.glob("sh-thd*"), *place.glob("zsh*")]
            ):
                with contextlib.suppress(OSError):
                    if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes():
                        seen.append(str(path))

    async def watch() -> None:
        while not done.is_set():
            await asyncio.to_thread(glance)

    watching = asyncio.create_task(watch())
    await line.launch("a", environment={"TOKEN": secret})
    await line.launch("b", environment={"TOKEN": secret}, strategy="tmux")
    done.set()
    await watching
    assert seen == []
    assert secret.encode() in line.told("a", "environ")
