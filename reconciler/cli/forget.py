"""`reconciler forget`: stop managing a session, which goes on."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from reconciler.cli._acting import Acting, Place, acting, fresh, places_of, record_of, session_of
from reconciler.cli._completion import session_names
from reconciler.cli.common import Specs, load, run
from reconciler.cli.sync import REFUSED, asked
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.core.steps import ForgetStep
from reconciler.errors import GuardError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor
from reconciler.steps import StepRunner
from reconciler.transcripts.carrying import open_archive


def command(
    which: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="session.NAME, group_chat.NAME, or its bare name.", autocompletion=session_names
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "--auto-approve", help="Do not ask.")] = False,
    directory: Specs = "specs",
) -> None:
    """Let go of a session: it goes on, unmanaged, and nothing is deleted.

    For what left the specs, also together with its host. The same as [[removed]] with action = "forget".
    """
    desired = load(directory)
    name = session_of(desired, which)
    _refuse_declared(desired, name)
    if not yes and not sys.stdin.isatty():
        raise UsageError("forget asks before it acts, and there is no terminal to ask on", remedy="--yes")
    if not run(_forget(desired, name, yes)):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(REFUSED)


def _refuse_declared(desired: Desired, name: str) -> None:
    if name in desired.sessions:
        place = desired.locate(desired.address(name), None)
        where = f" at {place.file}:{place.line}" if place else ""
        raise GuardError(
            f"{desired.address(name)} is declared{where}: once forgotten it would be started anew",
            code="declared", remedy=f"take it out of the specs, then: reconciler forget {desired.address(name)}",
        )  # fmt: skip


async def _forget(desired: Desired, name: str, approved: bool) -> bool:
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=True, actor=actor("forget")) as journal:
            undeclared = journal.places().get(name, "")
            undeclared = "" if undeclared in desired.hosts else undeclared
            places = await places_of(desired, hosts, journal, name)
            if not places and not undeclared:
                raise UsageError(f"{desired.address(name)} is on no host", remedy="reconciler orphans")
            for line in (*map(_what, places), *([_unseen(undeclared)] if undeclared else [])):
                typer.echo(escaped(line), err=True)
            if not approved and not await asyncio.to_thread(asked, "Let go of it? Only `yes` is yes: ", "yes"):
                return False
            if undeclared:
                at = desired.address(name)
                journal.record("forget", at, host=undeclared, revision=desired.revision, message=_unseen(undeclared))
            for place in places:
                await _one(desired, hosts, journal, place)
                typer.echo(f"{place.address} on {place.host} goes on, unmanaged")
            journal.remember({}, frozenset({name}))
            if undeclared and not places:
                typer.echo(f"{desired.address(name)} is not remembered any more")
    return True


def _what(place: Place) -> str:
    record = record_of(place)
    if place.seen.state in ("starting", "broken", "unknown"):
        raise GuardError(
            f"{place.address} on {place.host} is {place.seen.state}: {place.seen.trouble}", code=place.seen.state,
            remedy=f"what is there: reconciler ls {place.host}:{place.reached.state_dir}/sessions/{place.seen.name}",
        )  # fmt: skip
    process = place.seen.process
    pid = f", pid {process.pid}" if process and process.alive else ""
    held = f"; protected by {record.protected_by}" if record.protected_by else ""
    return (
        f"{place.address} on {place.host}: {place.seen.state}{pid}, conversation {record.conversation or 'none'}{held}"
    )


def _unseen(host: str) -> str:
    return f"host.{host} is not in the specs: what runs there goes on, and nobody looks"


async def _one(desired: Desired, hosts: Hosts, journal: Journal, place: Place) -> None:
    async with acting(desired, hosts, journal, place.host, place.address, "forget", place.evidence) as work:
        found = await fresh(work, desired, place)
        await _let_go(desired, hosts, work, found)


async def _let_go(desired: Desired, hosts: Hosts, work: Acting, place: Place) -> None:
    runner = StepRunner(desired, hosts, {}, work.leases, await asyncio.to_thread(open_archive, desired))
    step = ForgetStep(place.seen.name, place.host, record_of(place).strategy, place.seen.incarnation)
    await runner.run(step, work.op, lambda _: None)
