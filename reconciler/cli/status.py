"""`reconciler status`: who does what, where, since when, and who waits for a human."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from reconciler.asking import controller_of
from reconciler.cli.common import AsJson, Specs, colours, load, run
from reconciler.cli.render.progress import looking
from reconciler.core.printed import escaped
from reconciler.core.selection import address
from reconciler.core.spec import Desired
from reconciler.core.status import Status, status_json, status_of, statuses
from reconciler.errors import ReconcilerError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import open_journal
from reconciler.reconcile import preview

_REFRESH = 2.0  # seconds


def command(
    which: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Only this session or host.")] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Look, though reconciler run could answer.")] = False,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Look at every host and say how each session is. Changes nothing.

    While `reconciler run` keeps the fleet it answers at once, from what it saw last.
    """
    desired = load(directory)
    try:
        found = run(_status(desired, which, watch and not as_json, fresh))
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

    if not any(s.address.startswith(("session.", "group_chat.")) for s in found):
        typer.echo("no sessions are declared")
        return
    Console(no_color=not colours(), highlight=False, soft_wrap=not colours()).print(status_table(found))
    for status in found:
        if status.remedy:
            typer.echo(f"{status.address}: {escaped(status.remedy)}")


async def _once(desired: Desired, hosts: Hosts, which: str | None, fresh: bool) -> tuple[Status, ...]:
    found = None if fresh else await _asked(desired)
    return _chosen(desired, await _looked(desired, hosts) if found is None else found, which)


async def _asked(desired: Desired) -> tuple[Status, ...] | None:
    """What the running controller knows; None where there is none, or it has not looked yet."""
    controller = await controller_of(desired.fleet.name)
    if controller is None:
        return None
    try:
        answer = await controller.ask("status")
    except ReconcilerError:
        return None
    finally:
        await controller.close()
    return tuple(status_of(found) for found in answer["statuses"]) or None


async def _looked(desired: Desired, hosts: Hosts) -> tuple[Status, ...]:
    with open_journal(desired.fleet.name, write=False) as journal, looking(desired) as seen:
        done = await preview(desired, hosts, journal, seen=seen)
    return statuses(desired, done.observed, done.diff, done.plan, done.agents)


def _chosen(desired: Desired, found: tuple[Status, ...], which: str | None) -> tuple[Status, ...]:
    if which is None:
        return found
    wanted = which if which.startswith("source.") else address(desired, which)
    chosen = tuple(s for s in found if s.address == wanted)
    if not chosen:
        raise UsageError(f"{wanted} is neither in the specs nor on a host", remedy="reconciler status")
    return chosen


async def _status(desired: Desired, which: str | None, watch: bool, fresh: bool) -> tuple[Status, ...]:
    async with Hosts() as hosts:
        found = await _once(desired, hosts, which, fresh)
        if not watch:
            return found
        from rich.console import Console
        from rich.live import Live

        from reconciler.cli.render.table import status_table

        console = Console(no_color=not colours(), highlight=False)
        with Live(status_table(found), console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                await asyncio.sleep(_REFRESH)
                live.update(status_table(await _once(desired, hosts, which, fresh)), refresh=True)
