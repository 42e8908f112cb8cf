"""What looks and launches cost in round trips and operations: these are exact, so that they are guarded here and not
only by benchmarks.

Round trips are counted by a relay in front of a real sshd: whenever the client speaks after the host did, another one
has begun. What both say at once may count twice, so the least of several attempts counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.core.observed import Reached
from reconciler.core.spec import Host as HostSpec
from reconciler.hosts import Connection, Hosts
from reconciler.journal import Journal
from reconciler.leases import Leases
from reconciler.observe import look
from reconciler.reconcile import Pass, execution, leases_of, preview
from reconciler.simulation import clock
from reconciler.simulation.transport import Line
from reconciler.transports import Transport, ssh
from tests.e2e.fleet import Fleet
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.world import World, forget_pending, raise_now, secret_environment

LOOKS_UNTIL_READY = 4  # of an agent that takes as long as simulated ones do


class Turns:
    """A relay to one host that counts how often the client speaks anew."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.turns = 0
        self.said: list[bytes] = []  # by the client, write by write
        self._client_spoke = False

    async def __aenter__(self) -> Turns:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.turns, self._client_spoke = 1, False  # the handshake of TCP
        there, to = await asyncio.open_connection(*self._target)
        for source, target, client in ((reader, to, True), (there, writer, False)):
            task = asyncio.create_task(self._pump(source, target, client))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if client and not self._client_spoke:
                    self.turns += 1
                self._client_spoke = client
                if client:
                    self.said.append(data)
                target.write(data)
        target.close()
        with contextlib.suppress(OSError):
            await target.wait_closed()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(namespaces=False) as made:
        made.host("far")
        yield made


@contextlib.asynccontextmanager
async def counted(fleet: Fleet) -> AsyncIterator[tuple[Turns, Connection]]:
    """A connection that goes through the relay."""
    host = fleet.hosts["far"]
    async with Turns(host.address, host.port) as turns:
        known = f"[127.0.0.1]:{turns.port} {host.public_host_key}\n"
        fleet.known_hosts.write_text(known, encoding="ascii")
        options = ssh.SshOptions("127.0.0.1", user=host.user, port=turns.port)

        async def connect(name: str, _: HostSpec) -> Transport:
            return await ssh.connect(name, options, env=fleet.env)

        connection = Connection("far", HostSpec(), connect)
        try:
            yield turns, connection
        finally:
            await connection.close()


async def looked(connection: Connection) -> None:
    assert isinstance(await look(connection, "cost"), Reached)


@pytest.mark.e2e
async def test_a_look_on_a_warm_connection_takes_one_round_trip(fleet: Fleet) -> None:
    found = []
    async with counted(fleet) as (turns, connection):
        await looked(connection)
        for _ in range(5):
            before = turns.turns
            turns.said.clear()
            await looked(connection)
            found.append(turns.turns - before)
            assert len(turns.said) == 1, "in one go"
            assert len(turns.said[0]) == 4 + int.from_bytes(turns.said[0][:4], "big") + 16, "of one packet of AES-GCM"
    assert min(found) == 1


def sessions(*names: str) -> FleetSpec:
    return FleetSpec(("local", "h1"), {name: SessionSpec("h1", agent="mine") for name in names})


async def start(done: Pass, hosts: Hosts, journal: Journal, leases: Leases) -> None:
    report = await execution(done, hosts, journal, lambda _: None).run(leases)
    assert [outcome.status for outcome in report.outcomes] == ["done"]


def test_starting_a_session_on_a_host_whose_lease_is_held_takes_one_operation_and_looks(tmp_path: Path) -> None:
    secret_environment()
    forget_pending()
    said: list[str] = []
    cost: Counter[str] = Counter()

    async def story() -> None:
        world = World(tmp_path, ("local", "h1"))
        line = Line(lambda _, text: said.append("look" if b"\nreconciler_look " in b"\n" + text else "operation"))
        async with world.connect(line) as hosts:
            with world.journal("one") as journal:
                leases = leases_of(sessions("a").desired(), 600)
                await start(await preview(sessions("a").desired(), hosts, journal), hosts, journal, leases)
                said.clear()
                drifted = await preview(sessions("a", "b").desired(), hosts, journal)
                assert said == ["look", "look"]
                said.clear()
                await start(drifted, hosts, journal, leases)
                cost.update(said)
                await leases.release()

    clock.run(story)
    raise_now()
    assert cost["operation"] == 1
    assert cost["look"] <= LOOKS_UNTIL_READY
