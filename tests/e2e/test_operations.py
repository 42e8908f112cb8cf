"""Operations on a warm connection: what they cost, exactly, and that none of them is done twice, half, or lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from reconciler import drivers
from reconciler.core.agent import Invocation
from reconciler.core.record import Record
from reconciler.core.spec import Host as HostSpec
from reconciler.hosts import Connection
from reconciler.runtimes.operations import Credentials, Launch, launch_operation, lease_operation
from reconciler.transports import Transport, ssh
from tests.e2e.fleet import Fleet
import os, secrets, time

pytestmark = pytest.mark.e2e
FLEET = "flight"


class Wire:
    """A relay to a host: counts how often the client speaks anew, and what it says."""

    def __init__(self, address, port):
        self._target = (address, port)
        self._tasks = set()
        self.turns = 0
        self.bytes = 0
        self.client_spoke = False

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, reader, writer):
        there, to = await asyncio.open_connection(*self._target)
        for s, t, c in ((reader, to, True), (there, writer, False)):
            self._tasks.add(asyncio.create_task(self._pump(s, t, c)))

    async def _pump(self, s, t, c):
        with contextlib.suppress(OSError):
            while data := await s.read(1 << 16):
                if c:
                    self.turns += not self.client_spoke
                    self.bytes += len(data)
                print(f"{time.monotonic():.3f}", "->" if c else "<-", len(data))
                self.client_spoke = c
                t.write(data)
        t.close()
        with contextlib.suppress(OSError):
            await t.wait_closed()


def launch_of(name, incarnation=1):
    record = Record(name=name, **RECORD, incarnation=incarnation) if False else None
    return record


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(namespaces=False) as made:
        made.host("far")
        yield made


async def test_x(fleet):
    from tests.simulation.test_contract import record as rec

    host = fleet.hosts["far"]
    async with Wire(host.address, host.port) as wire:
        fleet.known_hosts.write_text(f"[127.0.0.1]:{wire.port} {host.public_host_key}\n")
        options = ssh.SshOptions("127.0.0.1", user=host.user, port=wire.port)

        async def connect(name, _):
            return await ssh.connect(name, options, env=fleet.env)

        connection = Connection("far", HostSpec(), connect)
        try:
            await connection.look(FLEET)
            who = Credentials(FLEET, "me@here:m/b:1:1:one")
            answer = await connection.operate(lease_operation(who, "l1"), "l1")
            who = replace(who, fence=answer["fence"])
            for n, name in enumerate(("a", "b", "c")):
                l = Launch(
                    session=name,
                    expect=0,
                    record=rec(name, 1),
                    command="sleep",
                    invocation=Invocation(("sleep", "600")),
                    workdir="~",
                )
                nonce = secrets.token_hex(8)
                print("---- launch")
                t, b = wire.turns, wire.bytes
                began = time.monotonic()
                reached = await connection.operate_and_look(
                    launch_operation(drivers.runtime("tmux"), who, f"op{n}", nonce, l), nonce, FLEET, 4
                )
                print(
                    name,
                    wire.turns - t,
                    wire.bytes - b,
                    time.monotonic() - began,
                    reached and reached.sessions[name].state,
                )
        finally:
            await connection.close()
    assert 0
