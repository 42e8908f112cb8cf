"""What the commands share that do one thing to one session: find where it is, act under the lease, write it down."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from reconciler import drivers
from reconciler.asking import open_leases
from reconciler.cli.render.progress import looking
from reconciler.core.diff import owners
from reconciler.core.evidence import facts_of_host
from reconciler.core.observed import Observed, Reached, SessionSeen, Unreached
from reconciler.core.record import Record
from reconciler.core.selection import address
from reconciler.core.spec import Desired, address_of, name_of
from reconciler.errors import HostError, OperationError, ReconcilerError, UsageError
from reconciler.hosts import Connection, Hosts
from reconciler.journal import Journal
from reconciler.leases import Leases
from reconciler.observe import observe


@dataclass(frozen=True)
class Place:
    """A session as one host has it; `owns` says that its conversation is there, and not an old record alone."""

    host: str
    reached: Reached
    seen: SessionSeen
    owns: bool

    @property
    def address(self) -> str:
        """The session's address."""
        return address_of(self.seen.name, self.seen.record.agent if self.seen.record else "")

    @property
    def evidence(self) -> str:
        """What was seen of it, for the audit log."""
        return facts_of_host(self.reached, self.seen.name)


def session_of(desired: Desired, text: str) -> str:
    """The name of the session or group chat that a person means, declared or not. Raises UsageError for a host."""
    found = address(desired, text)
    if found.startswith("host."):
        raise UsageError(f"{found} is a host", remedy="an address of a session: session.NAME or group_chat.NAME")
    return name_of(found)


async def places_of(desired: Desired, hosts: Hosts, journal: Journal, name: str) -> list[Place]:
    """Where a session is or was, the place that has its conversation first; looks at every host.

    Raises HostError where it may be on a host that does not answer.
    """
    return places_in(desired, await look_around(desired, hosts), journal, name)


async def look_around(desired: Desired, hosts: Hosts) -> Observed:
    """One look at every host."""
    with looking(desired) as seen:
        return await observe(hosts, desired, drivers.agents(desired), seen=seen)


def places_in(desired: Desired, observed: Observed, journal: Journal, name: str) -> list[Place]:
    """The same of what was seen already."""
    owner = owners(desired, observed).get(name, "")
    places = [
        Place(host.name, host, host.sessions[name], host.name == owner)
        for host in observed.hosts.values()
        if isinstance(host, Reached) and name in host.sessions
    ]
    _refuse_unknown(desired, observed, journal, name, places)
    return sorted(places, key=lambda place: not place.owns)


def _refuse_unknown(desired: Desired, observed: Observed, journal: Journal, name: str, places: list[Place]) -> None:
    """Where nothing of it lives, a host that does not answer may have it: then nobody knows what an old record is."""
    if any(place.seen.live for place in places):
        return
    declared = desired.sessions.get(name)
    went = [place.seen.record.to for place in places if place.owns and place.seen.record is not None]
    for host in dict.fromkeys([declared.host if declared else "", journal.places().get(name, ""), *went]):
        silent = observed.hosts.get(host)
        if isinstance(silent, Unreached):
            raise HostError(
                f"{host} may have {desired.address(name)}, and does not answer ({silent.message}): nothing was done",
                code="unknown", remedy=silent.remedy or f"reconciler status host.{host}",
            )  # fmt: skip


@dataclass(frozen=True)
class Acting:
    """At work on one host: under its lease, with the intent written down."""

    connection: Connection
    leases: Leases
    op: str


@asynccontextmanager
async def acting(
    desired: Desired, hosts: Hosts, journal: Journal, where: str, at: str, verb: str, evidence: str
) -> AsyncIterator[Acting]:
    """Take the lease of the host `where` and write down what is about to be done at the address `at`, because of which
    `evidence`, then what came of it. Raises LeaseHeldError, HostError."""
    connection = hosts.connection(where, desired.hosts[where])
    leases = await open_leases(desired, f"reconciler {verb}")
    await leases.acquire([connection])
    op = secrets.token_hex(16)
    try:
        fence = leases.credentials(where).fence
        journal.begin(
            op, address=at, host=where, verb=verb, precondition="", fence=fence, revision=desired.revision,
            evidence=evidence,
        )  # fmt: skip
        try:
            yield Acting(connection, leases, op)
        except OperationError as error:
            journal.finish(op, "failed", error.message)
            raise
        except ReconcilerError as error:  # the line broke: what was sent may have happened
            journal.finish(op, "unknown", error.message)
            raise
        except asyncio.CancelledError:
            journal.finish(op, "unknown", "interrupted")
            raise
        journal.finish(op, "done", "")
    finally:
        await leases.release()


async def fresh(acting: Acting, desired: Desired, place: Place) -> Place:
    """The session again as it is now that nobody else may change it. Raises OperationError(stale)."""
    reached = await acting.connection.look(desired.fleet.name)
    seen = reached.sessions.get(place.seen.name)
    if seen is None or seen.record is None or seen.incarnation != place.seen.incarnation:
        raise OperationError(
            f"{place.address} on {place.host} is not what it was a moment ago", code="stale", remedy="once more"
        )
    return replace(place, reached=reached, seen=seen)


def record_of(place: Place) -> Record:
    """Its record. Raises UsageError where there is none that can be read."""
    if place.seen.record is None:
        raise UsageError(
            f"{place.address} on {place.host}: {place.seen.trouble or 'it has no record'}",
            remedy=f"look at {place.reached.state_dir}/sessions/{place.seen.name} on {place.host}",
        )
    return place.seen.record
