"""The revision in force, with all that follows from it: agents, checks of hosts, archive, leases; and a look by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler import drivers
from reconciler.core.agent import Agent
from reconciler.core.known import Known
from reconciler.core.launching import checks_of
from reconciler.core.observed import HostSeen, Observed, Reached, SessionSeen, Unreached
from reconciler.core.spec import Desired
from reconciler.core.transcript import Archived, Relation
from reconciler.errors import HostError, ReconcilerError
from reconciler.hosts import Connection, Hosts
from reconciler.leases import Leases
from reconciler.observe import look
from reconciler.reconcile import agents_seen
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.carrying import open_archive
from reconciler.transcripts.relations import relations
from reconciler.watch import View

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """What was compared last, and what came of it."""

    sessions: Mapping[str, SessionSeen]
    heads: Mapping[str, Archived]
    related: dict[str, Relation]


@dataclass
class InForce:
    """What follows from one revision. `known` is what the archive has, None when it has to be asked again."""

    desired: Desired
    agents: Mapping[str, Agent]
    checks: Mapping[str, tuple[tuple[str, str], ...]]
    archive: Archive
    leases: Leases
    known: Mapping[str, Archived] | None = None
    kept: Mapping[str, Archived] | None = None  # what `known` was: the same object for as long as it is the same
    compared: dict[str, Compared] = field(default_factory=dict)
    thought: Known = field(default_factory=Known)  # what the last pass found, for the next

    @staticmethod
    def of(desired: Desired, leases: Leases) -> InForce:
        """From the specs of a revision."""
        agents = drivers.agents(desired)
        checks = checks_of(desired, agents)
        return InForce(desired, agents, checks, open_archive(desired), leases)

    async def heads(self) -> Mapping[str, Archived]:
        """What the archive has of each session."""
        if self.known is None:
            found = await asyncio.to_thread(self.archive.heads)
            self.kept = self.known = self.kept if found == self.kept else found
        return self.known

    async def look(self, name: str, hosts: Hosts, connects: asyncio.Semaphore) -> View:
        """One look at one host, with failure as a value: it delays no other."""
        begun = asyncio.get_running_loop().time()
        connection = hosts.connection(name, self.desired.hosts[name])
        related: dict[str, Relation] = {}
        heads: Mapping[str, Archived] = {}
        try:
            async with connects:  # only to connect: a host that hangs later holds up nobody
                await connection.transport()
            seen = await self._look(connection)
            if isinstance(seen, Reached):
                heads = await self.heads()
                related = await self._relations(hosts, seen, heads)
        except HostError as error:
            seen, related, heads = Unreached(name, error.code, error.message, error.remedy), {}, {}
        except ReconcilerError as error:
            seen, related, heads = Unreached(name, error.code, f"{name}: {error.message}", error.remedy), {}, {}
        except Exception as error:  # a bug of ours, or hostile input that found one, stays with this host
            LOG.exception("%s: a bug", name)
            seen, related, heads = Unreached(name, "bug", f"{name}: this is a bug: {error}", "report it"), {}, {}
        now = asyncio.get_running_loop().time()
        return View(seen, related, heads, None, now - begun, now, self.checks[name])

    async def _relations(self, hosts: Hosts, seen: Reached, heads: Mapping[str, Archived]) -> dict[str, Relation]:
        """How its copies stand to the archive's; as before, where nothing has changed on either side."""
        before = self.compared.get(seen.name)
        if before is not None and before.sessions is seen.sessions and before.heads is heads:
            return before.related
        only = Observed({seen.name: seen})
        agents = drivers.agents(self.desired, agents_seen(only))
        related = await relations(hosts, self.desired, agents, only, heads, self.archive.prefix_digest)
        if "unknown" in related.values():
            self.compared.pop(seen.name, None)
        else:
            self.compared[seen.name] = Compared(seen.sessions, heads, related)
        return related

    async def _look(self, connection: Connection) -> HostSeen:
        """What a host says of itself. One that does not know our lease, or knows a later one, is told of it and looked
        at again: else what is to be done there would be taken for overtaken, for ever."""
        fence = self.leases.fence(connection.name)
        seen = await look(connection, self.desired.fleet.name, self.checks[connection.name])
        if isinstance(seen, Reached) and fence not in (None, seen.fence):
            await self.leases.confirm(connection.name)
            seen = await look(connection, self.desired.fleet.name, self.checks[connection.name])
        return seen
