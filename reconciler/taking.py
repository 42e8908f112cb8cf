"""Take over from a controller that is gone: its leases, and its being the machine that `local` stands for.

The host takes the lease away only from the very holder that a person was shown, and raises its fence: whatever the old
controller sends when it wakes up after all is refused there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from reconciler.core.observed import clean
from reconciler.core.spec import Desired
from reconciler.errors import HostError, LeaseHeldError, OperationError
from reconciler.hosts import Connection, Hosts
from reconciler.journal import Journal
from reconciler.leases import held_by, holder, this_machine
from reconciler.runtimes.operations import Credentials, holder_question, lease_operation, release_operation

_TTL = 30  # seconds: it is given back at once


@dataclass(frozen=True)
class Held:
    """What one host says: who holds its lease (nobody: ""), for how long, and which machine `local` is to it."""

    connection: Connection
    fence: int
    holder: str
    seconds: int
    local: str

    @property
    def words(self) -> str:
        """Who holds it, for people."""
        return held_by(self.holder, self.seconds) if self.holder else "nobody holds the lease"

    @property
    def foreign(self) -> str:
        """The name of the other machine that `local` is, else ""."""
        identity, _, label = self.local.partition(" ")
        return (label or identity) if identity != this_machine().partition(" ")[0] else ""


async def look(hosts: Hosts, desired: Desired, names: Iterable[str]) -> tuple[list[Held], list[HostError]]:
    """Ask these hosts who holds their leases; and the errors of those that do not answer. Changes nothing."""

    async def one(name: str) -> Held | HostError:
        connection, nonce = hosts.connection(name, desired.hosts[name]), secrets.token_hex(8)
        try:
            answer = await connection.operate(holder_question(desired.fleet.name, nonce), nonce)
        except HostError as error:
            return error
        seconds, fence = answer.get("seconds"), answer.get("fence")
        if not isinstance(seconds, int) or not isinstance(fence, int):
            return HostError(f"{name}: it does not say who holds its lease", code="protocol")
        left = min(max(seconds, 0), 600)  # no lease lasts longer
        return Held(connection, fence, clean(answer.get("holder", ""), 400), left, clean(answer.get("local", "")))

    found = await asyncio.gather(*map(one, names))
    return [f for f in found if isinstance(f, Held)], [f for f in found if isinstance(f, HostError)]


async def take(desired: Desired, journal: Journal, held: Held, local: bool) -> int:
    """Take the lease of one host from who was seen to hold it, and give it back; the fence from then on.

    `local`: from now on `local` is this machine. The intent and its outcome are in the journal. Raises LeaseHeldError
    where another controller has taken it meanwhile, HostError, OperationError.
    """
    name, op = held.connection.name, secrets.token_hex(16)
    journal.begin(
        op, address=f"host.{name}", host=name, verb="take-over", precondition="", fence=held.fence,
        revision=desired.revision,
    )  # fmt: skip
    from_whom = held.holder or held.foreign
    try:
        fence = await _take(desired, held, local)
    except OperationError as error:
        journal.finish(op, "failed", error.message)
        if error.code != "lease-held":
            raise
        raise LeaseHeldError(
            f"{name}: another controller has taken the lease meanwhile; nothing was done there", code="lease-held",
            remedy="reconciler take-over shows who",
        ) from None  # fmt: skip
    except HostError as error:
        journal.finish(op, "unknown", error.message)
        raise
    journal.finish(op, "done", f"from {from_whom}; fence {fence}")
    return fence


async def _take(desired: Desired, held: Held, local: bool) -> int:
    credentials, nonce = Credentials(desired.fleet.name, holder(), ttl=_TTL), secrets.token_hex(8)
    machine = this_machine() if local else ""
    text = lease_operation(credentials, nonce, held.holder, machine, take_local=local)
    fence = int((await held.connection.operate(text, nonce))["fence"])
    nonce = secrets.token_hex(8)
    await held.connection.operate(release_operation(replace(credentials, fence=fence), nonce), nonce)
    return fence + 1
