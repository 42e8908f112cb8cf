"""Logging in: how many round trips it takes, and that the shortcuts step aside where they are not sure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType

import asyncssh
import pytest

from reconciler.errors import HostError
from reconciler.transports import _shortcuts
from reconciler.transports._identities import _Once
from reconciler.transports._ssh_options import SshOptions
from reconciler.transports.ssh import SshTransport, connect
from tests.e2e._host import new_key
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import SHORTCUTS, Desk

pytestmark = pytest.mark.e2e
HALF_WAY = 0.03  # seconds each way


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(namespaces=False) as made:
        yield made


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.host("gpu")


@pytest.fixture(params=SHORTCUTS)
def desk(request: pytest.FixtureRequest, tmp_path: Path, fleet: Fleet) -> Desk:
    return Desk(tmp_path, fleet, SHORTCUTS[request.param])


# --- round trips ---


class Line:
    """A relay that holds every byte back for a while, and counts round trips: how often the client had to wait.

    Two are not seen here: TCP's own, and the versions, which cross each other and the lists of algorithms.
    """

    def __init__(self) -> None:
        self.port = 0
        self.round_trips = 2
        self.ends: list[asyncio.Transport] = []
        self._heard = 0
        self._spoke = 0.0
        self._answered = False

    def sent(self, now: float) -> None:
        if self._answered and now - self._spoke > HALF_WAY:  # what is sent at once may be read in parts
            self.round_trips += 1
            self._answered, self._spoke = False, now

    def delivered(self, data: bytes) -> None:
        self._heard += len(data)
        self._answered = self._heard > 500  # a version is shorter, and a list of algorithms longer


class _End(asyncio.Protocol):
    """One end of the relay; what comes here goes out at `other`, later."""

    def __init__(self, line: Line, other: _End | None, *, client: bool) -> None:
        self.line, self.other, self.client = line, other, client
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.line.ends.append(transport)

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self.client:
            self.line.sent(loop.time())
        loop.call_later(HALF_WAY, self.deliver, data)

    def deliver(self, data: bytes) -> None:
        assert self.other is not None
        if not self.client:
            self.line.delivered(data)
        if self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Near(_End):
    """The client's end: the way to the server is made before anything is read here."""

    def __init__(self, line: Line, host: Host) -> None:
        super().__init__(line, None, client=True)
        self._host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        far = _End(self.line, self, client=False)
        await loop.create_connection(lambda: far, self._host.address, self._host.port)
        self.other = far
        assert self.transport is not None
        self.transport.resume_reading()


@contextlib.asynccontextmanager
async def line_to(host: Host) -> AsyncIterator[Line]:
    line = Line()
    server = await asyncio.get_running_loop().create_server(lambda: _Near(line, host), "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        for end in line.ends:
            end.abort()
        await asyncio.sleep(2 * HALF_WAY)


def through(line: Line, fleet: Fleet, host: Host, **more: object) -> SshOptions:
    key = more.pop("identity", str(fleet.key))
    return SshOptions("127.0.0.1", user=host.user, port=line.port, ssh_config=False, identity=key, **more)  # type: ignore[arg-type]


async def look(transport: SshTransport) -> None:
    shell = await transport.open(("sh",))
    await shell.write(b"echo here\n")
    assert await shell.read() == b"here\n"
    await shell.close()


# TCP, the versions, and the exchange of keys take one each; so do the service, "none", the key offered and the key
# signed; the channel and the shell; and the look. So it is 9 and 5 to the shell, where the server has no stalls.
@pytest.mark.parametrize(
    ("shortcuts", "most"), [("off", 10), ("qo", 10), ("n", 9), ("np", 8), ("nps", 7), ("e", 9), ("on", 6)]
)
async def test_a_cold_look_takes_as_many_round_trips_as_it_should(
    tmp_path: Path, fleet: Fleet, host: Host, shortcuts: str, most: int
) -> None:
    desk = Desk(tmp_path, fleet, shortcuts)
    async with line_to(host) as line:
        transport = await connect("gpu", through(line, fleet, host), env=desk.env)
        await look(transport)
        assert line.round_trips == most
        await look(transport)
        assert line.round_trips == most + 3
        await transport.close()


# --- where the shortcuts are not sure ---


@contextlib.asynccontextmanager
async def configured(fleet: Fleet, name: str, config: str) -> AsyncIterator[Host]:
    host = fleet.host(f"{name}-{len(fleet.hosts)}", boot=False)
    path = host.state / "sshd_config"
    path.write_text(config + path.read_text())
    host.boot()
    try:
        yield host
    finally:
        host.power_cut()


def to(host: Host, key: Path | str, **more: object) -> SshOptions:
    return SshOptions(host.address, user=host.user, port=host.port, ssh_config=False, identity=str(key), **more)  # type: ignore[arg-type]


async def test_a_host_that_opens_no_session_says_so_each_time(desk: Desk, fleet: Fleet) -> None:
    async with configured(fleet, "gate", "MaxSessions 0\n") as host:
        for _ in range(2):
            transport = await connect("gpu", to(host, fleet.key), env=desk.env)
            for _ in range(2):
                with pytest.raises(HostError) as caught:
                    await transport.run(("true",), timeout=0.3)
                assert caught.value.code in ("too-many-sessions", "timed-out")
            await transport.close()


async def bare(fleet: Fleet, host: Host) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        host.address, host.port, username=host.user, client_keys=[str(fleet.key)], known_hosts=None, config=None,
        encoding=None,
    )  # fmt: skip


async def shifted(fleet: Fleet, host: Host) -> tuple[asyncssh.SSHClientConnection, asyncssh.SSHClientChannel[bytes]]:
    """A connection of which somebody else has the first channel: to a server whose numbers do not begin at nought."""
    connection = await bare(fleet, host)
    held, _ = await connection.create_session(lambda: asyncssh.SSHClientSession(), "cat")
    vars(connection)["_next_recv_chan"] = 0
    vars(connection)["_channels"] = {}
    return connection, held


async def test_whoever_waits_for_a_second_connection_may_be_cut_off(fleet: Fleet, host: Host) -> None:
    asked = 0

    async def again() -> list[asyncssh.SSHClientConnection]:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(60.0)
        return [await bare(fleet, host)]

    first, held = await shifted(fleet, host)
    transport = SshTransport("gpu", [first], again)
    with pytest.raises(HostError) as caught:
        await transport.run(("echo", "lost"), timeout=1.0)
    assert caught.value.code == "timed-out"
    assert (await transport.run(("echo", "found"))).out == b"found\n"
    assert asked == 2
    held.abort()
    await transport.close()


async def test_a_guess_that_fails_loses_no_program(fleet: Fleet, host: Host) -> None:
    ways: list[asyncssh.SSHClientConnection] = []

    async def again() -> list[asyncssh.SSHClientConnection]:
        ways.append(await bare(fleet, host))
        return [ways[-1]]

    first, held = await shifted(fleet, host)
    transport = SshTransport("gpu", [first], again)
    done = await asyncio.gather(*(transport.run(("echo", str(number))) for number in range(3)))
    assert [one.out for one in done] == [b"0\n", b"1\n", b"2\n"]
    assert len(ways) == 1
    held.abort()
    await transport.close()


async def test_a_host_that_wants_two_keys_gets_two(desk: Desk, fleet: Fleet) -> None:
    second = new_key(desk.ssh / "id_rsa", "rsa")
    desk.default_key()
    async with configured(fleet, "double", "AuthenticationMethods publickey,publickey\n") as host:
        authorized = host.state / "authorized_keys"
        authorized.write_text(authorized.read_text() + second.with_suffix(".pub").read_text())
        options = SshOptions(host.address, user=host.user, port=host.port, ssh_config=False)
        transport = await connect("gpu", options, env=desk.env)
        assert (await transport.run(("echo", "here"))).out == b"here\n"
        await transport.close()
        (desk.ssh / "id_rsa").unlink()
        with pytest.raises(HostError) as caught:
            await connect("gpu", options, env=desk.env)
        assert caught.value.code == "auth-denied"


class OnlyAsks(asyncssh.SSHServer):
    """Lets in whoever asks to be let in without anything, and takes no key; as some do that know who calls."""

    refused = 0

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        type(self).refused += 1
        return False


@pytest.mark.parametrize("version", ["OpenSSH_9.2", "Other_1.0"])
async def test_whoever_takes_no_key_refuses_it_once(desk: Desk, fleet: Fleet, version: str) -> None:
    OnlyAsks.refused = 0
    key = str(new_key(desk.home / "server"))
    server = await asyncssh.create_server(OnlyAsks, "127.0.0.1", 0, server_host_keys=[key], server_version=version)
    options = SshOptions("127.0.0.1", user="me", port=server.get_port(), ssh_config=False, identity=str(fleet.key))
    with pytest.raises(HostError) as caught:
        await connect("gpu", options, env=desk.env)
    assert caught.value.code == "auth-denied"
    assert OnlyAsks.refused == 1
    server.close()
    await server.wait_closed()


class Open(asyncssh.SSHServer):
    """Lets everybody in."""

    def begin_auth(self, username: str) -> bool:
        return False


@pytest.mark.parametrize("version", ["OpenSSH_9.2", "Other_1.0"])
async def test_a_server_that_asks_for_nothing_is_entered(desk: Desk, fleet: Fleet, version: str) -> None:
    def program(process: asyncssh.SSHServerProcess[str]) -> None:
        process.stdout.write("here\n")
        process.exit(0)

    key = str(new_key(desk.home / "server"))
    server = await asyncssh.create_server(
        Open, "127.0.0.1", 0, server_host_keys=[key], server_version=version, process_factory=program
    )
    options = SshOptions("127.0.0.1", user="me", port=server.get_port(), ssh_config=False, identity=str(fleet.key))
    transport = await connect("gpu", options, env=desk.env)
    assert (await transport.run(("anything",))).out == b"here\n"
    await transport.close()
    server.close()
    await server.wait_closed()


CHECK = """
import asyncio, sys
import asyncssh
from reconciler.transports import _asyncssh
from reconciler.transports.ssh import SshOptions, connect
async def main():
    options = SshOptions(sys.argv[1], port=int(sys.argv[2]), user=sys.argv[3], identity=sys.argv[4], ssh_config=False)
    transport = await connect("gpu", options)
    print((await transport.run(("echo", "here"))).out.decode().strip())
    await transport.close()
asyncio.run(main())
print(asyncssh.__file__, "".join(sorted(_asyncssh._allowed({}))))
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "left"),
    [
        ("version.py", "2.24.1", "2.24.1", "cdeimnopqsw"),
        ("version.py", "2.24.1", "2.99.0", "q"),
        ("auth.py", "Start client public key authentication", "Begin", "q"),
        ("auth.py", "_ClientPublicKeyAuth", "_ClientKeyAuth", ""),
    ],
    ids=["as tested", "another version", "another text", "other names"],
)
def test_a_library_that_was_not_tested_goes_the_usual_way(
    tmp_path: Path, fleet: Fleet, host: Host, file: str, old: str, new: str, left: str
) -> None:
    copy = tmp_path / "asyncssh"
    shutil.copytree(Path(asyncssh.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    env = {**fleet.env, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    where = [host.address, str(host.port), host.user, str(fleet.key)]
    done = subprocess.run([sys.executable, "-c", CHECK, *where], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["here", f"{copy / '__init__.py'} {left}"], done.stderr


@pytest.mark.parametrize(
    ("said", "left"), [("", "cdeimnopqsw"), ("off", ""), ("qo", "oq"), ("on", "cdeimnopqsw"), ("x", "")]
)
def test_a_switch_leaves_some_of_the_shortcuts(said: str, left: str) -> None:
    assert "".join(sorted(_shortcuts.allowed({_shortcuts.SWITCH: said}))) == left


# --- keys ---


def test_a_key_that_many_ask_for_at_once_is_decrypted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path, read = tmp_path / "key", []
    path.write_text("one")

    def decrypt(name: str, passphrase: str | None) -> str:
        read.append(passphrase)
        threading.Event().wait(0.05)
        if passphrase != "right":
            raise asyncssh.KeyEncryptionError("wrong passphrase")
        return Path(name).read_text()

    once = _Once(decrypt)
    threads = [threading.Thread(target=once.get, args=(str(path), "right")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == ["right"]
    for _ in range(2):
        with pytest.raises(asyncssh.KeyEncryptionError, match="wrong passphrase"):
            once.get(str(path), "wrong")
    assert read == ["right", "wrong"]
    path.write_text("another")
    assert once.get(str(path), "right") == "another"


# --- writes ---


async def writes(fleet: Fleet, host: Host, letters: str) -> int:
    """How often something is written to the host, from the first to the end of the first look."""
    found = 0

    def watch(frame: FrameType, event: str, function: object) -> None:
        nonlocal found
        found += event == "c_call" and getattr(function, "__qualname__", "") == "socket.send"

    env = {**fleet.env, "RECONCILER_SSH_SHORTCUTS": letters}
    options = SshOptions(host.address, user=host.user, port=host.port, ssh_config=False, identity=str(fleet.key))
    sys.setprofile(watch)
    try:
        transport = await connect(host.name, options, env=env)
        await look(transport)
    finally:
        sys.setprofile(None)
    await transport.close()
    return found


async def test_what_a_login_says_at_once_is_written_at_once_and_without_empty_packets(fleet: Fleet, host: Host) -> None:
    found = {
        letters: min([await writes(fleet, host, letters) for _ in range(3)])  # what a host says meanwhile is answered
        for letters in ("qonpse", "qonpsei", "qonpsew", "on")
    }
    assert found["qonpsei"] <= found["qonpse"] - 3  # before the request for the service, the key, and the look
    assert found["on"] <= found["qonpsei"] - 2  # the keys are taken, the service, and the key that logs in
    assert found["qonpsew"] < found["qonpse"]
