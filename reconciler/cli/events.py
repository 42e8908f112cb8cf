"""`reconciler events`: what the running controller saw change, from the local journal."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from reconciler.cli.common import AsJson, Specs, load
from reconciler.cli.run import transition_line
from reconciler.core.selection import address
from reconciler.core.transitions import Transition
from reconciler.journal import Happened, open_journal

_PAUSE = 0.3  # seconds


def command(
    which: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Only this.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what happens, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option("-n", "--lines", min=0, help="The last so many.")] = 50,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Phases and conditions as they changed, oldest first. `reconciler run` writes them down."""
    desired = load(directory)
    wanted = which if which is None or which.startswith("source.") else address(desired, which)
    fleet = desired.fleet.name
    with open_journal(fleet, write=False) as journal:
        found = journal.events(wanted, limit=limit)
        last = found[-1].id if found else max((event.id for event in journal.events(limit=1)), default=0)
    for event in found:
        _print(event, as_json)
    try:
        while follow:
            time.sleep(_PAUSE)
            with open_journal(fleet, write=False) as journal:
                for event in journal.events(wanted, after=last, limit=1000):
                    _print(event, as_json)
                    last = event.id
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    if not found and not as_json:
        typer.echo("nothing has happened yet", err=True)


def _print(event: Happened, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(event)))
        return
    at = datetime.fromtimestamp(event.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    change = Transition(event.address, event.host, event.type, event.before, event.after, event.reason, event.message)
    typer.echo(f"{at}  {transition_line(change)}")
