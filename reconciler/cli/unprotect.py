"""`reconciler unprotect`: lifts a protection, and says what still holds."""

from __future__ import annotations

from dataclasses import replace

import typer

from reconciler.cli._acting import record_of, session_of
from reconciler.cli.common import Specs, load, run
from reconciler.cli.protect import Which, change
from reconciler.core.record import Record


def command(which: Which, directory: Specs = "specs") -> None:
    """Lift the protection of a session, also one that specs gave it which do not any more. None is no error."""
    desired = load(directory)
    name = session_of(desired, which)
    declared = desired.sessions.get(name)
    by_specs = declared is not None and declared.protect

    def unprotect(record: Record, now: int) -> Record:
        return replace(record, protected=record.protected and by_specs, protected_by="", protected_at=0)

    place, _ = run(change(desired, name, "unprotect", unprotect))
    before = record_of(place)
    lifted = before.protected_by or (before.protected and not by_specs)
    typer.echo(f"{place.address} on {place.host} {'is not protected any more' if lifted else 'was not protected'}")
    if by_specs:
        found = desired.locate(place.address, "protect")
        where = f" at {found.file}:{found.line}" if found else ""
        typer.echo(f"still protected: the specs say protect = true{where}", err=True)
