"""`reconciler purge`: the only verb that deletes a conversation."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from reconciler.cli._acting import acting
from reconciler.cli._completion import session_names
from reconciler.cli.common import Specs, load, run
from reconciler.cli.render.progress import looking
from reconciler.cli.sync import REFUSED, asked
from reconciler.core.decision import since
from reconciler.core.evidence import facts_of_host
from reconciler.core.observed import Reached, clean
from reconciler.core.printed import escaped
from reconciler.core.record import Record
from reconciler.core.spec import Desired, name_of
from reconciler.errors import GuardError, HostError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor
from reconciler.reconcile import Pass, preview
from reconciler.transcripts.deciding import purge_host


def command(
    session: Annotated[str, typer.Argument(help="Its name or address.", autocompletion=session_names)],
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Do not ask for its name.")] = False,
    directory: Specs = "specs",
) -> None:
    """Delete a conversation for good: its files on the host, our record of the session, and the archive's copies.

    A session that runs is refused, and so is one of which a host that does not answer may have a copy. A tombstone
    with digest and date stays in the archive, so that no other copy of it comes back by itself.
    """
    desired = load(directory)
    name = name_of(session)
    if not auto_approve and not sys.stdin.isatty():
        raise UsageError("purge asks before it deletes, and there is no terminal to ask on", remedy="--auto-approve")
    address = run(_purge(desired, name, auto_approve))
    if not address:
        typer.echo("Nothing was deleted.", err=True)
        raise typer.Exit(REFUSED)
    typer.echo(f"{address} is purged")


async def _purge(desired: Desired, name: str, approved: bool) -> str:
    """Its address; nothing where the person said no."""
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=False) as journal:
            with looking(desired) as seen:
                done = await preview(desired, hosts, journal, seen=seen)
            _refuse_unknown(done, name, journal.places().get(name, ""))
        having = [h for h in done.observed.hosts.values() if isinstance(h, Reached) and name in h.sessions]
        conversations = _conversations(done, name, having)
        if not having and not conversations:
            raise UsageError(
                f"{done.address(name)} is neither on a host nor in the archive", remedy="reconciler status"
            )
        _refuse_live(done, name, having)
        for line in _what(done.address(name), name, having, conversations):
            typer.echo(escaped(line), err=True)
        question = "This cannot be undone. Type the name of the session to delete it: "
        if not approved and not await asyncio.to_thread(asked, question, name):
            return ""
        with open_journal(desired.fleet.name, write=True, actor=actor("purge")) as journal:
            how = "--auto-approve" if approved else "a person typed its name"
            said = "; ".join(_what(done.address(name), name, having, conversations))
            # Of the archive no look tells later what came of it: this is written before, and its tombstones tell.
            journal.record("purge", done.address(name), revision=desired.revision, evidence=said, message=how)
            for host in having:
                await _on_host(done, hosts, journal, host, name)
            for conversation in conversations:
                await asyncio.to_thread(done.archive.purge, name, conversation)
    return done.address(name)


def _conversations(done: Pass, name: str, having: list[Reached]) -> list[str]:
    head = done.archive.scan().heads.get(name)
    records = [host.sessions[name].record for host in having]
    found = [record.conversation for record in records if record is not None and record.conversation]
    return list(dict.fromkeys([*found, *([head.conversation] if head else [])]))


def _refuse_unknown(done: Pass, name: str, place: str) -> None:
    declared = done.desired.sessions.get(name)
    for host in dict.fromkeys([declared.host if declared else "", place]):
        found = done.observed.hosts.get(host)
        if host and not isinstance(found, Reached):
            raise HostError(
                f"{host} may have {done.address(name)}, and does not answer: nothing was deleted", code="unknown",
                remedy=f"reconciler doctor {host}",
            )  # fmt: skip


def _refuse_live(done: Pass, name: str, having: list[Reached]) -> None:
    for host in having:
        seen = host.sessions[name]
        if seen.live:
            raise GuardError(
                f"{done.address(name)} is {seen.state} on {host.name}: nothing was deleted", code="already-running",
                remedy=f"take it out of the specs, then: reconciler apply; then: reconciler purge {done.address(name)}",
            )  # fmt: skip
        if seen.record is not None and seen.record.is_protected:
            raise GuardError(
                f"{done.address(name)} is protected{_by(seen.record)}: nothing was deleted", code="protected",
                remedy=f"reconciler unprotect {done.address(name)}; then: reconciler purge {done.address(name)}",
            )  # fmt: skip


def _by(record: Record) -> str:
    who = clean(record.protected_by, 80) if record.protected_by else "the specs that were applied last"
    return f" by {who}" + (since(record.protected_at) if record.protected_by else "")


def _what(address: str, name: str, having: list[Reached], conversations: list[str]) -> list[str]:
    lines = [f"{address}: conversation {', '.join(conversations) or 'none'}"]
    for host in having:
        store = host.sessions[name].facts.store or ()
        lines.append(f"  on {host.name}: our record, and {len(store)} files, {sum(f.size for f in store)} bytes")
    return [*lines, "  in the archive: all copies of it"]


async def _on_host(done: Pass, hosts: Hosts, journal: Journal, host: Reached, name: str) -> None:
    seen = host.sessions[name]
    agent = done.agents.get(seen.record.agent) if seen.record else None
    if seen.record is None or agent is None:
        raise UsageError(f"{host.name} has no readable record of {done.address(name)}", remedy=f"reconciler why {name}")
    at, evidence = done.address(name), facts_of_host(host, name)
    async with acting(done.desired, hosts, journal, host.name, at, "purge", evidence) as work:
        await purge_host(work.connection, work.leases.credentials(host.name), agent, seen)
    if seen.record.conversation and agent.export_args(seen.record.conversation) is not None:
        typer.echo(f"{agent.name} on {host.name} keeps a copy in its own database; delete it there", err=True)
