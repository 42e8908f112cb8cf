"""`reconciler protect` (and `unprotect`): a session that nothing stops, moves or restarts, whatever the specs say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from reconciler.cli._acting import Acting, Place, acting, fresh, places_of, record_of, session_of
from reconciler.cli._completion import session_names
from reconciler.cli.common import Specs, load, run
from reconciler.core.printed import escaped
from reconciler.core.record import Record
from reconciler.core.spec import Desired
from reconciler.core.steps import RecordStep
from reconciler.errors import UsageError
from reconciler.hosts import Hosts
from reconciler.journal import open_journal
from reconciler.leases import actor, person
from reconciler.steps import StepRunner
from reconciler.transcripts.carrying import open_archive

Which = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="session.NAME, group_chat.NAME, or its bare name.",
                        autocompletion=session_names)
]  # fmt: skip
Change = Callable[[Record, int], Record]


def command(which: Which, directory: Specs = "specs") -> None:
    """Protect a session: nothing stops, moves or restarts it until `unprotect`, whatever the specs say.

    The protection lies with the session's record on its host: every controller respects it, and it stays when the
    session leaves the specs. A session that has died is still resumed.
    """
    desired = load(directory)

    def protect(record: Record, now: int) -> Record:
        return record if record.protected_by else replace(record, protected_by=person(), protected_at=now)

    place, record = run(change(desired, session_of(desired, which), "protect", protect))
    if record_of(place).protected_by:
        typer.echo(f"{place.address} on {place.host} was protected by {escaped(record.protected_by)} already")
    else:
        typer.echo(f"{place.address} on {place.host} is protected until: reconciler unprotect {place.address}")


async def change(desired: Desired, name: str, verb: str, changed: Change) -> tuple[Place, Record]:
    """Change the record of a session where it is; the place as it was before, and the record as it is now.

    `changed` gets the record and the host's time. Raises UsageError where the session is on no host.
    """
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=True, actor=actor(verb)) as journal:
            places = await places_of(desired, hosts, journal, name)
            if not places:
                raise UsageError(f"{desired.address(name)} is on no host yet", remedy="protect = true in its specs")
            record_of(places[0])
            found = places[0]
            async with acting(desired, hosts, journal, found.host, found.address, verb, found.evidence) as work:
                # Under the lease: whoever had it before may have written the record since.
                place = await fresh(work, desired, places[0])
                record = changed(record_of(place), place.reached.now)
                if record != place.seen.record:
                    await _write(desired, hosts, work, place, record)
    return place, record


async def _write(desired: Desired, hosts: Hosts, work: Acting, place: Place, record: Record) -> None:
    runner = StepRunner(desired, hosts, {}, work.leases, open_archive(desired))
    step = RecordStep(record.name, place.host, place.seen.incarnation, record)
    await runner.run(step, work.op, lambda _: None)


__all__ = ["Which", "change", "command"]
