"""What goes wrong on the way to a real sshd, over both kinds of SSH: named alike, each with its remedy."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import re
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.core.spec import Host as HostSpec
from reconciler.errors import HostError
from reconciler.hosts import Connection
from reconciler.transports import Limited, Transport
from reconciler.transports._ssh_options import SshOptions
from tests.e2e._host import new_key
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import SHORTCUTS, Desk

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as made:
        yield made


def like(fleet: Fleet, name: str, config: str) -> Host:
    """A host with more lines in its sshd_config; made once."""
    if name not in fleet.hosts:
        made = fleet.host(name, boot=False)
        path = made.state / "sshd_config"
        path.write_text(config + path.read_text())
        made.boot()
    return fleet.hosts[name]


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return like(fleet, "gpu", "")


@pytest.fixture
def desk(tmp_path: Path, fleet: Fleet) -> Desk:
    return Desk(tmp_path, fleet)


def ran(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


class Way:
    """One of the two transports, from somebody's desk."""

    def __init__(self, kind: str, desk: Desk) -> None:
        self.kind, self.desk = kind, desk
        self._module = importlib.import_module(f"reconciler.transports.{kind}")

    async def connect(self, options: SshOptions) -> Transport:
        made: Transport = await self._module.connect("gpu", options, env=self.desk.env)
        return made

    @contextlib.asynccontextmanager
    async def open(self, options: SshOptions) -> AsyncIterator[Transport]:
        transport = await self.connect(options)
        try:
            yield transport
        finally:
            await transport.close()

    async def fails(self, options: SshOptions) -> HostError:
        with pytest.raises(HostError) as caught:
            await self.connect(options)
        error = caught.value
        assert error.remedy
        assert "gpu" in error.message
        assert (error.message + error.remedy).isprintable()
        return error


@pytest.fixture(params=["ssh", "ssh, usual way", "openssh"])
def way(request: pytest.FixtureRequest, desk: Desk) -> Way:
    kind, _, shortcuts = request.param.partition(", ")
    desk.env["RECONCILER_SSH_SHORTCUTS"] = SHORTCUTS[shortcuts or "shortcuts"]
    return Way(kind, desk)


# --- each of the table, told apart ---


async def test_denied_names_the_keys_that_were_tried(way: Way, desk: Desk, host: Host) -> None:
    key = new_key(desk.ssh / "stranger")
    error = await way.fails(desk.options(host, identity=str(key)))
    assert (error.code, error.retry) == ("auth-denied", False)
    assert f"tried {key}" in error.message
    assert error.remedy == f"ssh-copy-id -i {key} -p {host.port} {host.user}@{host.address}"


async def test_a_key_that_is_not_there_is_denied_and_no_other_is_used(way: Way, desk: Desk, host: Host) -> None:
    desk.default_key()
    error = await way.fails(desk.options(host, identity=str(desk.ssh / "none")))
    assert error.code == "auth-denied"
    assert "No such file" in error.message


async def test_an_unknown_key_and_a_changed_one_are_told_apart(way: Way, desk: Desk, host: Host) -> None:
    error = await way.fails(desk.options(host, host_key_policy="strict", known_hosts_path=str(desk.known_hosts)))
    assert (error.code, error.retry) == ("host-key-unknown", False)
    fingerprint = ran("ssh-keygen", "-lf", str(host.state / "host_key.pub")).split()[1]
    assert fingerprint in error.message
    other = new_key(desk.home / "other").with_suffix(".pub").read_text()
    name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    desk.known_hosts.write_text(f"# mine\n{name} {other}")
    error = await way.fails(desk.options(host, known_hosts_path=str(desk.known_hosts)))
    assert (error.code, error.retry) == ("host-key-changed", False)
    assert f"{desk.known_hosts}:2" in error.message


async def test_a_key_with_a_passphrase_needs_it(way: Way, desk: Desk, host: Host) -> None:
    key = desk.default_key("work")
    ran("ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key))
    error = await way.fails(desk.options(host, identity=str(key)))
    assert (error.code, error.remedy) == ("passphrase-needed", f"ssh-add {key}")


async def test_a_key_that_others_may_read_is_not_used(way: Way, desk: Desk, host: Host) -> None:
    key = desk.default_key("work of mine 100%")
    key.chmod(0o644)
    error = await way.fails(desk.options(host, identity=str(key)))
    assert (error.code, error.retry) == ("key-too-open", False)
    assert f"0644 of the key {key} are too open" in error.message
    assert error.remedy == f"chmod 600 '{key}'"
    ran("sh", "-c", error.remedy)
    async with way.open(desk.options(host, identity=str(key))) as transport:
        assert (await transport.run(("true",))).exit == 0


async def test_a_default_key_that_others_may_read_is_passed_over_and_named(way: Way, desk: Desk, host: Host) -> None:
    key = desk.default_key()
    key.chmod(0o640)
    desk.config(f"IdentityFile {key}\n")
    error = await way.fails(desk.options(host, identity=None))
    assert error.code == "auth-denied"
    assert f"{key} was passed over, since others may read it (0640)" in error.message
    assert error.remedy == f"chmod 600 {key}"


async def test_refused_and_not_resolved(way: Way) -> None:
    assert (await way.fails(SshOptions("127.0.0.1", port=1))).code == "refused"
    assert (await way.fails(SshOptions("gpu.invalid"))).code == "name-not-resolved"


async def test_no_route(way: Way, fleet: Fleet) -> None:
    if not fleet.namespaces:
        pytest.fail("a route of its own needs Linux and root")
    ran("ip", "route", "add", "unreachable", "198.51.100.7/32")
    try:
        error = await way.fails(SshOptions("198.51.100.7"))
    finally:
        ran("ip", "route", "del", "unreachable", "198.51.100.7/32")
    assert (error.code, error.retry) == ("no-route", True)


async def test_what_a_jump_host_cannot_reach_is_told(way: Way, desk: Desk, host: Host) -> None:
    gate = f"Host gate\n HostName {host.address}\n Port {host.port}\n User {host.user}\n"
    for port, name, code in ((1, host.address, "refused"), (22, "far.invalid", "name-not-resolved")):
        far = f"Host far\n HostName {name}\n Port {port}\n User x\n ProxyJump gate\n"
        trust = f"Host *\n IdentityFile {desk.fleet.key}\n UserKnownHostsFile {desk.known_hosts}\n"
        desk.config(far + gate + trust + " StrictHostKeyChecking accept-new\n")
        assert (await way.fails(SshOptions("far"))).code == code


# --- too many at once ---


@contextlib.contextmanager
def half_open(host: Host, seconds: float) -> Iterator[None]:
    """Somebody who connects, and for so long does not log in."""
    over = threading.Event()

    def hold() -> None:
        with socket.create_connection((host.address, host.port)) as connection:
            connection.recv(4)
            held.set()
            over.wait(seconds)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def narrow(fleet: Fleet) -> Host:
    """A host that lets one in at a time, and opens one session on a connection."""
    return like(fleet, "narrow", "MaxStartups 1:100:1\nMaxSessions 1\n")


def settled(host: Host) -> None:
    """Its sshd knows again that nobody is half way in."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with socket.create_connection((host.address, host.port)) as connection:
            if connection.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise AssertionError("its sshd stays busy")


async def test_a_host_that_takes_nobody_more_for_a_moment_is_reached_all_the_same(
    way: Way, desk: Desk, narrow: Host
) -> None:
    settled(narrow)
    await asyncio.sleep(0.2)
    with half_open(narrow, 1.0):
        begun = time.monotonic()
        async with way.open(desk.options(narrow)) as transport:
            assert time.monotonic() - begun > 0.5
            assert (await transport.run(("echo", "here"))).out == b"here\n"


async def test_a_host_that_takes_nobody_more_is_named_so_in_the_time_given(way: Way, desk: Desk, narrow: Host) -> None:
    settled(narrow)
    await asyncio.sleep(0.2)
    with half_open(narrow, 10.0):
        begun = time.monotonic()
        error = await way.fails(desk.options(narrow, connect_timeout=1.5))
        assert 1.0 < time.monotonic() - begun < 2.5
    assert (error.code, error.retry) == ("too-many-connections", True)
    assert "Exceeded MaxStartups" in error.message
    assert "is there" in error.message
    assert "MaxStartups 100:30:200" in error.remedy


async def test_hanging_up_without_a_word_is_tried_again_a_few_times(way: Way) -> None:
    came: list[float] = []
    over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                connection, _ = listener.accept()
                came.append(time.monotonic())
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        error = await way.fails(SshOptions("127.0.0.1", port=listener.getsockname()[1], connect_timeout=8.0))
        over.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1).close()
        thread.join()
    assert (error.code, error.retry) == ("protocol", True)
    assert "MaxStartups" in error.message
    pauses = [after - before for before, after in itertools.pairwise(came[:4])]
    assert len(pauses) == 3
    assert pauses[0] < pauses[2]


async def test_programs_wait_for_each_other_where_one_session_is_all_there_is(
    way: Way, desk: Desk, narrow: Host
) -> None:
    async with way.open(desk.options(narrow)) as transport:
        runs = (transport.run(("sh", "-c", f"sleep 0.2; echo {number} >&2")) for number in range(3))
        done = await asyncio.gather(*runs)
        assert [each.err for each in done] == [b"0\n", b"1\n", b"2\n"]


async def test_how_many_sessions_run_at_once_is_counted(way: Way, desk: Desk, fleet: Fleet, narrow: Host) -> None:
    for most, host in ((1, narrow), (3, like(fleet, "three", "MaxSessions 3\n"))):
        async with way.open(desk.options(host)) as transport:
            assert isinstance(transport, Limited)
            assert await transport.sessions_at_once(6) == most
            assert await transport.sessions_at_once(2) == min(2, most)
            assert (await transport.run(("true",))).exit == 0


async def test_no_session_at_all_is_an_error_with_its_remedy(desk: Desk, fleet: Fleet) -> None:
    host = like(fleet, "none", "MaxSessions 0\n")
    way = Way("ssh", desk)
    async with way.open(desk.options(host)) as transport:
        begun = time.monotonic()
        with pytest.raises(HostError) as caught:
            await transport.run(("true",))
        assert time.monotonic() - begun < 5
    assert (caught.value.code, caught.value.retry) == ("too-many-sessions", True)
    assert caught.value.remedy == "in its sshd_config: MaxSessions 10"
    assert (await Way("openssh", desk).fails(desk.options(host))).code in ("too-many-sessions", "protocol")


# --- the look, through all that ---


def connection_by(way: Way, options: SshOptions) -> Connection:
    async def connect(name: str, spec: HostSpec) -> Transport:
        return await way.connect(options)

    return Connection("gpu", HostSpec(), connect)


async def test_looks_and_programs_share_the_one_session_that_there_is(way: Way, desk: Desk, narrow: Host) -> None:
    connection = connection_by(way, desk.options(narrow))
    try:
        for _ in range(2):
            assert (await connection.look("f")).user == narrow.user
            assert b"there" in await connection.shell("echo there")
        looks = [connection.look("f") for _ in range(2)]
        all_of_them = await asyncio.gather(*looks, *(connection.shell("sleep 0.2; echo there") for _ in range(10)))
        assert len(all_of_them) == 12
    finally:
        await connection.close()


async def test_a_link_that_flaps_is_an_error_once_and_the_next_look_connects_again(
    way: Way, desk: Desk, host: Host
) -> None:
    connection = connection_by(way, desk.options(host, keepalive_interval=0.6, keepalive_count=1, connect_timeout=2.5))
    try:
        assert (await connection.look("f")).user == host.user
        drop(host)
        with pytest.raises(HostError) as caught:
            await connection.look("f")
        assert caught.value.code in ("dropped", "look-truncated")
        assert (await connection.look("f")).user == host.user
        host.cable_out()
        with pytest.raises(HostError) as caught:
            await asyncio.wait_for(connection.look("f"), 10)
        assert caught.value.code in ("dropped", "look-truncated")
        with pytest.raises(HostError) as caught:
            await connection.look("f")
        assert caught.value.code == "timed-out"
        host.cable_in()
        assert (await connection.look("f")).user == host.user
    finally:
        host.cable_in()
        await connection.close()


def drop(host: Host) -> None:
    """Its sshd ends all connections, and goes on."""
    host.exec(["sh", "-c", "kill -9 $(pgrep -u $(id -u) sshd)"])


async def test_a_server_that_drops_in_the_middle_of_a_program_is_told_from_its_end(
    way: Way, desk: Desk, host: Host
) -> None:
    async with way.open(desk.options(host)) as transport:
        running = asyncio.create_task(transport.run(("sleep", "30")))
        await asyncio.sleep(0.5)
        drop(host)
        with pytest.raises(HostError) as caught:
            await asyncio.wait_for(running, 10)
        assert (caught.value.code, caught.value.retry) == ("dropped", True)


@contextlib.contextmanager
def server(greeting: bytes, *, hang_up: bool) -> Iterator[int]:
    """The port of a server that greets, and then hangs up or hangs."""
    over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(greeting)
                    if not hang_up:
                        over.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            with contextlib.suppress(OSError):
                socket.create_connection(listener.getsockname(), timeout=1).close()
            thread.join()


@pytest.mark.parametrize(
    ("greeting", "how"), [(b"", "did not speak SSH"), (b"SSH-2.0-OpenSSH_9.2\r\n", "began to speak SSH")]
)
async def test_a_server_that_hangs_times_out_alone(way: Way, desk: Desk, host: Host, greeting: bytes, how: str) -> None:
    with server(greeting, hang_up=False) as port:
        begun = time.monotonic()
        hanging = asyncio.create_task(way.fails(SshOptions("127.0.0.1", port=port, connect_timeout=1.5)))
        async with way.open(desk.options(host)) as transport:
            assert (await transport.run(("true",))).exit == 0
            assert not hanging.done()
        error = await hanging
        assert 1.4 < time.monotonic() - begun < 3
    assert (error.code, error.retry) == ("timed-out", True)
    assert how in error.message


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad \x1b[31mRequest\r\n\r\n", b"SSH-1.5-old\r\n"], ids=["http", "ssh1"]
)
async def test_what_is_no_ssh_of_ours_is_called_so(way: Way, greeting: bytes) -> None:
    with server(greeting, hang_up=True) as port:
        error = await way.fails(SshOptions("127.0.0.1", port=port, connect_timeout=5.0))
    assert error.code == "protocol"
    if greeting.startswith(b"HTTP"):
        assert re.search(r"HTTP/1.1 400 Bad .*Request", error.message)
