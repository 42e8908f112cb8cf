"""`reconciler show`: a plan that was saved, without asking anybody."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli._saved import read_saved
from reconciler.cli.common import AsJson
from reconciler.cli.render.text import coloured
from reconciler.core.printed import escaped


def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `reconciler plan -o FILE` saved.")],
    as_json: AsJson = False,
) -> None:
    """Show what a saved plan permits. No host is asked, and no spec is read."""
    saved = read_saved(file)
    if as_json:
        typer.echo(Path(file).read_text(encoding="utf-8"), nl=False)
        return
    for line in saved.text.split("\n")[:-1]:
        typer.echo(coloured(escaped(line)))
    made = datetime.fromtimestamp(saved.at).astimezone()
    age = "expired" if saved.expired(time.time()) else "good for a day"
    typer.echo(
        f"\nfleet {escaped(saved.fleet)}, revision {escaped(saved.revision)[:12]}, made {made:%Y-%m-%d %H:%M}: {age}"
    )
