"""`reconciler status`: who does what, where, since when, and who waits for a human."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from reconciler.cli.common import AsJson, Specs, colours, load, run
from reconciler.cli.render.progress import looking
from reconciler.core.selection import address
from reconciler.core.spec import Desired
from reconciler.core.status import Status, status_json, statuses
from reconciler.errors import UsageError
from reconciler.hosts import Hosts
from reconciler.journal import open_journal
from reconciler.reconcile import preview

_REFRESH = 2.0  # seconds


def command(
    which: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Only this session or host.")] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Look at every host and say how each session is. Changes nothing."""
    desired = load(directory)
    try:
        found = run(_status(desired, which, watch and not as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    if as_json:
        typer.echo(json.dumps(status_json(found), indent=2))
    elif not watch:
        _print(found)
    unreached = any(s.phase == "unknown" for s in found)
    raise typer.Exit(4 if unreached else 0)


def _print(found: tuple[Status, ...]) -> None:
    from rich.console import Console

    from reconciler.cli.render.table import status_table

    if not any(s.address.startswith("session.") for s in found):
        typer.echo("no sessions are declared")
        return
    Console(no_color=not colours(), highlight=False, soft_wrap=not colours()).print(status_table(found))


async def _once(desired: Desired, hosts: Hosts, which: str | None) -> tuple[Status, ...]:
    with open_journal(desired.fleet.name, write=False) as journal, looking(desired) as seen:
        done = await preview(desired, hosts, journal, seen=seen)
    found = statuses(desired, done.observed, done.diff, done.plan, done.agents)
    if which is None:
        return found
    wanted = address(desired, which)
    chosen = tuple(s for s in found if s.address == wanted)
    if not chosen:
        raise UsageError(f"{wanted} is neither in the specs nor on a host", remedy="reconciler status")
    return chosen


async def _status(desired: Desired, which: str | None, watch: bool) -> tuple[Status, ...]:
    async with Hosts() as hosts:
        found = await _once(desired, hosts, which)
        if not watch:
            return found
        from rich.console import Console
        from rich.live import Live

        from reconciler.cli.render.table import status_table

        console = Console(no_color=not colours(), highlight=False)
        with Live(status_table(found), console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                await asyncio.sleep(_REFRESH)
                live.update(status_table(await _once(desired, hosts, which)), refresh=True)
