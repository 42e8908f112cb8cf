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


# TCP, the versions, and the exchange of keys take one each; so do the service, "none", the key offered and the key signed;
# the channel and the shell; and the look. The targets are 9 and 5 before the look, where the server has no stalls of its own.
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
