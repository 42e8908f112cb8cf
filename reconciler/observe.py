"""Look at every host at once; what did not answer in full is unknown, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from reconciler.core.agent import Agent
from reconciler.core.launching import checks_of
from reconciler.core.observed import HostSeen, Observed, Reached, Unreached
from reconciler.core.spec import Desired
from reconciler.errors import HostError, ReconcilerError
from reconciler.hosts import Connection, Hosts
from reconciler.leases import this_machine

# So many that those which are dead do not take the places of the others; how many are greeted at once is for the
# transports to say, which see which is which. Not more, since waiting there counts against the time of a look.
CONNECTS_AT_ONCE = 512


async def observe(
    hosts: Hosts,
    desired: Desired,
    agents: Mapping[str, Agent],
    *,
    only: frozenset[str] | None = None,
    seen: Callable[[HostSeen], None] = lambda _: None,
) -> Observed:
    """One look at each enabled host of the specs (of `only`, where given), all at once.

    `seen` is told of each host as it answers.
    """
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
    wanted = [name for name, host in desired.hosts.items() if host.enabled and (only is None or name in only)]

    checks = checks_of(desired, agents)

    async def one(name: str) -> HostSeen:
        async with gate:
            connection = hosts.connection(name, desired.hosts[name])
            found = await look(connection, desired.fleet.name, checks[name])
        seen(found)
        return found

    looks = [asyncio.create_task(one(name)) for name in wanted]
    try:
        found = dict(zip(wanted, await asyncio.gather(*looks), strict=True))
    finally:  # gather ends with the first that is cut off; the others still close what they opened
        for task in looks:
            task.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
    return Observed(own_local(found, this_machine()))


def own_local(found: dict[str, HostSeen], machine: str) -> dict[str, HostSeen]:
    """`local` is unknown where another host says that this fleet's `local` is another machine."""
    for name, host in found.items():
        if name != "local" and isinstance(host, Reached) and host.local:
            identity, _, label = host.local.partition(" ")
            if identity != machine.partition(" ")[0] and "local" in found:
                found["local"] = Unreached(
                    "local",
                    "foreign-machine",
                    f"the sessions on local are run by {label or identity}, as {name} remembers; this is not it",
                    f"run reconciler on {label}; where that is gone for good: reconciler take-over local",
                )
                break
    return found


async def look(connection: Connection, fleet: str, checks: tuple[tuple[str, str], ...] = ()) -> HostSeen:
    """One look at one host, with failure as a value."""
    try:
        return await connection.look(fleet, checks)
    except HostError as error:
        return Unreached(connection.name, error.code, error.message, error.remedy)
    except ReconcilerError as error:
        return Unreached(connection.name, error.code, f"{connection.name}: {error.message}", error.remedy)
