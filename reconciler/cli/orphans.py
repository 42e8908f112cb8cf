"""`reconciler orphans`: what runs on the hosts of the specs that no spec declares."""

from __future__ import annotations

import asyncio
import json
import time

import typer

from reconciler import drivers
from reconciler.cli.common import AsJson, Specs, load, run
from reconciler.cli.render.progress import looking
from reconciler.cli.render.table import ago
from reconciler.core.diff import compare
from reconciler.core.observed import HostSeen, Observed, Reached, Unreached
from reconciler.core.orphans import Orphan, orphans, orphans_json
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.core.strays import Stray
from reconciler.discovering import known_agents, strays_on
from reconciler.errors import ReconcilerError
from reconciler.hosts import Hosts
from reconciler.journal import open_journal
from reconciler.observe import observe

_UNREACHED = 4


def command(directory: Specs = "specs", as_json: AsJson = False) -> None:
    """Show agents on the hosts of the specs that nobody declared: sessions of this fleet that left the specs, and
    agents that were started by hand. With the command that takes each over, and the one that ends it."""
    desired = load(directory)
    found, observed = run(_orphans(desired))
    if as_json:
        typer.echo(json.dumps(orphans_json(found, observed), indent=2))
    else:
        for orphan in found:
            _print(orphan, observed)
        for host in observed.hosts.values():
            if isinstance(host, Unreached):
                typer.echo(f"? host.{host.name}: {escaped(host.message)}")
        typer.echo(f"Orphans: {len(found)}.")
    silent = any(isinstance(host, Unreached) for host in observed.hosts.values())
    raise typer.Exit(_UNREACHED if silent else 0)


async def _orphans(desired: Desired) -> tuple[tuple[Orphan, ...], Observed]:
    async with Hosts() as hosts:
        with looking(desired) as seen:
            observed = await observe(hosts, desired, drivers.agents(desired), seen=seen)
        agents = known_agents(desired)

        async def one(host: HostSeen) -> tuple[HostSeen, tuple[Stray, ...]]:
            if isinstance(host, Unreached):
                return host, ()
            try:
                return host, await strays_on(hosts.connection(host.name, desired.hosts[host.name]), host, agents)
            except ReconcilerError as error:
                return Unreached(host.name, error.code, error.message, error.remedy), ()

        answers = await asyncio.gather(*map(one, observed.hosts.values()))
    observed = Observed({host.name: host for host, _ in answers})
    with open_journal(desired.fleet.name, write=False) as journal:
        diff = compare(desired, observed, journal.places())
    return orphans(desired, observed, diff, {host.name: found for host, found in answers}), observed


def _print(orphan: Orphan, observed: Observed) -> None:
    host = observed.hosts.get(orphan.host)
    now = host.now if isinstance(host, Reached) else int(time.time())
    pid = f", pid {orphan.pid}" if orphan.pid else ""
    since = f", for {ago(max(0, now - orphan.since))}" if orphan.since is not None else ""
    conversation = f", conversation {orphan.conversation}" if orphan.conversation else ""
    typer.echo(escaped(f"{orphan.host}: {orphan.what}{pid}{since}{conversation}"))
    typer.echo(escaped(f"    {orphan.note}" + (f", {orphan.directory}" if orphan.directory else "")))
    for words, line in (("take over", orphan.take), ("end", orphan.end)):
        if line:
            words = "let go" if orphan.kind == "session" and words == "take over" else words
            typer.echo(escaped(f"    {words}: {line}"))
