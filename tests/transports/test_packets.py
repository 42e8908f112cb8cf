"""What warm connections put on the wire, counted packet by packet, and what the short ways leave to the library."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.errors import HostError
from reconciler.transports._packets import Packets
from reconciler.transports._ssh_options import SshOptions
from reconciler.transports.ssh import SshTransport, connect
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import Desk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(30)]
_TAG = 16  # bytes after each packet under AES-GCM, whose length stands before it in clear


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(namespaces=False) as made:
        yield made


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.host("gpu")


class Tap:
    """A relay that keeps what the client sends, write by write, and may spoil what the host says."""

    def __init__(self) -> None:
        self.port = 0
        self.sent: list[bytes] = []
        self.spoil = False
        self.writers: list[asyncio.StreamWriter] = []

    def packets(self) -> list[int]:
        """The lengths of all packets that were sent since `sent` was cleared."""
        data, found = b"".join(self.sent), []
        while data:
            size = 4 + int.from_bytes(data[:4], "big") + _TAG
            found.append(size)
            data = data[size:]
        return found

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if client:
                    self.sent.append(data)
                elif self.spoil:
                    data = data[:-1] + bytes((data[-1] ^ 1,))
                writer.write(data)
        writer.close()


def segments(transport: SshTransport) -> int:
    """How often anything was sent: what is small leaves at once, so that each write is a segment of TCP."""
    info = transport._connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return int.from_bytes(info[156:160], sys.byteorder)  # tcpi_data_segs_out


@contextlib.asynccontextmanager
async def tapped(
    tmp_path: Path, fleet: Fleet, host: Host, shortcuts: str = "on", **more: object
) -> AsyncIterator[tuple[Tap, SshTransport]]:
    tap, tasks = Tap(), list[asyncio.Task[None]]()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(host.address, host.port)
        tasks.append(asyncio.create_task(tap.pump(reader, to, client=True)))
        tasks.append(asyncio.create_task(tap.pump(there, writer, client=False)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    tap.port = server.sockets[0].getsockname()[1]
    options = SshOptions(
        "127.0.0.1",
        user=host.user,
        port=tap.port,
        identity=str(fleet.key),
        **({"ssh_config": False} | more),  # type: ignore[arg-type]
    )
    transport = await connect("gpu", options, env=Desk(tmp_path, fleet, shortcuts).env)
    try:
        yield tap, transport
    finally:
        await transport.close()
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in tap.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


# 48: padding, type, channel, length, 26 bytes of data and their filling, 4 before and 16 behind. Without shortcuts
# there are as many empty packets besides.
@pytest.mark.parametrize(
    ("shortcuts", "writes", "packets"),
    [("on", 1, [68, 68]), ("i", 2, [68, 68]), ("ic", 1, [68, 68]), ("id", 2, [68, 68])],
)
async def test_two_questions_are_two_packets_and_leave_in_one_write(
    tmp_path: Path, fleet: Fleet, host: Host, shortcuts: str, writes: int, packets: list[int]
) -> None:
    async with tapped(tmp_path, fleet, host, shortcuts) as (tap, transport):
        one, two = [await transport.open(("cat",)) for _ in range(2)]
        left = []
        for number in range(20):  # also while acknowledgements of the login are still being hurried
            tap.sent.clear()
            before = segments(transport)
            question = b"%025d\n" % number
            await one.write_soon(question)
            await two.write(question)
            assert await one.read() == question
            assert await two.read() == question
            assert tap.packets() == packets
            left.append(segments(transport) - before)
        assert min(left) == writes
        listener = getattr(vars(transport._connection).get("data_received"), "__self__", None)
        assert isinstance(listener, Packets) == (shortcuts in ("on", "id")), "answers come the short way from then on"
        await one.close()
        await two.close()


async def test_without_shortcuts_each_packet_has_an_empty_one_before_it(
    tmp_path: Path, fleet: Fleet, host: Host
) -> None:
    async with tapped(tmp_path, fleet, host, "off") as (tap, transport):
        one = await transport.open(("cat",))
        tap.sent.clear()
        await one.write_soon(b"%025d\n" % 0)
        assert await one.read() == b"%025d\n" % 0
        assert tap.packets() == [36, 68]
        await one.close()


async def test_what_waits_for_company_leaves_alone_where_none_comes_and_never_out_of_turn(
    tmp_path: Path, fleet: Fleet, host: Host
) -> None:
    async with tapped(tmp_path, fleet, host) as (_, transport):
        one = await transport.open(("cat",))
        await one.write_soon(b"alone\n")
        assert await one.read() == b"alone\n"
        long = b"x" * 200_000  # more than a packet holds
        await one.write_soon(b"a")
        await one.write_soon(b"b")
        await one.write(b"c" + long)
        await one.write_soon(b"d")
        assert (await transport.run(("echo", "meanwhile"))).out == b"meanwhile\n"
        got = b""
        while len(got) < len(long) + 4:
            got += await one.read()
        assert got == b"abc" + long + b"d"
        await one.close()


async def test_keys_are_exchanged_again_as_often_as_is_asked_for(tmp_path: Path, fleet: Fleet, host: Host) -> None:
    """By the client, whose limit it is, in the middle of what goes both ways."""
    (tmp_path / "config").write_text("Host *\n  RekeyLimit 16K\n")
    async with tapped(tmp_path, fleet, host, ssh_config=str(tmp_path / "config")) as (tap, transport):
        one = await transport.open(("cat",))
        exchanges, said = 0, b""
        for number in range(60):
            tap.sent.clear()
            line = b"%01023d\n" % number
            await one.write(line)
            while not said.endswith(line):
                said += await one.read()
            exchanges += sum(map(len, tap.sent)) > 2000
        assert said == b"".join(b"%01023d\n" % number for number in range(60))
        assert exchanges >= 3
        await one.close()


async def test_a_packet_that_is_not_what_was_sent_is_heard_by_nobody(tmp_path: Path, fleet: Fleet, host: Host) -> None:
    async with tapped(tmp_path, fleet, host) as (tap, transport):
        one = await transport.open(("cat",))
        for _ in range(12):
            await one.write(b"well\n")
            assert await one.read() == b"well\n"
        tap.spoil = True
        await one.write(b"ill\n")
        with pytest.raises(HostError) as caught:
            await one.read()
        assert caught.value.code == "dropped"


async def test_a_quiet_host_is_asked_whether_it_is_there_and_a_busy_one_is_not(
    tmp_path: Path, fleet: Fleet, host: Host
) -> None:
    async with tapped(tmp_path, fleet, host, keepalive_interval=0.5) as (tap, transport):
        one = await transport.open(("cat",))
        for _ in range(12):  # until the login is over for good
            await one.write(b"x\n")
            await one.read()
        tap.sent.clear()
        for _ in range(8):
            await asyncio.sleep(0.1)
            await one.write(b"x\n")
            await one.read()
        assert len(tap.packets()) == 8
        tap.sent.clear()
        await asyncio.sleep(0.9)
        assert len(tap.packets()) == 1
        await one.close()
