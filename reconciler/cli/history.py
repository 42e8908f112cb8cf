"""`reconciler history`: what was done, and what came of it, from the local journal."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from reconciler.cli.common import AsJson, Specs, load
from reconciler.cli.render.audit import by
from reconciler.core.printed import escaped
from reconciler.core.selection import address
from reconciler.journal import open_journal
from reconciler.runs import unfinished


def command(
    which: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Only this session.")] = None,
    limit: Annotated[int, typer.Option("-n", "--lines", min=1, help="The last so many.")] = 50,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """What was done to the fleet from here, newest first: by whom, at which revision, and what it rested on."""
    desired = load(directory)
    with open_journal(desired.fleet.name, write=False) as journal:
        found = journal.history(address(desired, which) if which else None, limit)
        begun = unfinished(journal)
    if as_json:
        runs = [{"id": run.id, "at": run.at, "approved": run.count, "left": left} for run, left in begun]
        document = {"format_version": "1.0", "entries": [asdict(intent) for intent in found], "runs": runs}
        typer.echo(json.dumps(document, indent=2))
        return
    for run, left in begun:
        typer.echo(f"{_when(run.at)}  {left} of {run.count} actions are left: reconciler apply --resume {run.short}")
    for intent in found:
        who = by(intent.user, intent.machine, intent.command, intent.revision, intent.author)
        outcome = intent.outcome or "open: nobody knows yet"
        words = f": {escaped(intent.message)}" if intent.message else ""
        typer.echo(f"{_when(intent.at)}  {intent.verb:<8} {intent.address} on {intent.host}  {outcome}{words}")
        for more in (who, intent.evidence):
            if more:
                typer.echo(f"    {escaped(more)}")
    if not found:
        typer.echo("nothing was done yet", err=True)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
