"""`reconciler unsuspend`: lifts a suspension, and says what still holds."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.common import Specs, load
from reconciler.cli.suspend import target
from reconciler.core.holds import FLEET
from reconciler.core.printed import escaped
from reconciler.core.spec import name_of
from reconciler.journal import open_journal
from reconciler.leases import actor


def command(
    which: Annotated[str, typer.Argument(metavar="ADDRESS", help="session.NAME, host.NAME or fleet.")],
    directory: Specs = "specs",
) -> None:
    """Lift a suspension. One that is not there is no error."""
    desired = load(directory)
    wanted = target(desired, which)
    with open_journal(desired.fleet.name, write=True, actor=actor("unsuspend")) as journal:
        lifted = journal.unsuspend(wanted)
        left = {suspension.address: suspension for suspension in journal.suspensions()}
    typer.echo(f"{wanted} is not suspended any more" if lifted else f"{wanted} was not suspended")
    session = desired.sessions.get(name_of(wanted))
    around = [f"host.{session.host}"] if session else []
    for address in [*around, FLEET] if wanted != FLEET else left:
        if address in left:
            typer.echo(f"still held: {escaped(left[address].sentence())}", err=True)
    if session is not None and session.suspend:
        typer.echo("still held: the specs say suspend = true", err=True)
