"""`reconciler take-over`: what a controller that is gone held is free again, and it is kept from acting."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from reconciler.asking import controller_of
from reconciler.cli.common import Specs, declared_host, load, run
from reconciler.cli.sync import REFUSED, asked
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.errors import GuardError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import open_journal
from reconciler.taking import Held, look, take

_SILENT = 4


def command(
    which: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HOST]...", help="Hosts; all of them where none is named. `local`: see below."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "--auto-approve", help="Do not ask.")] = False,
    directory: Specs = "specs",
) -> None:
    """Take the leases of hosts from a controller that is gone, instead of waiting until they expire.

    Shows who holds them, and asks. Whatever that controller still sends is refused from then on. Of one that lives
    and is to keep away, end the process: it may take the lease again. `local` makes this machine the one that `local`
    stands for, where hosts remember another one: only where that is gone for good, or its sessions run twice.
    """
    desired = load(directory)
    named = list(dict.fromkeys(which or ()))
    local = any(name.removeprefix("host.") == "local" for name in named)
    hosts = [declared_host(desired, name) for name in named if name.removeprefix("host.") != "local"]
    if not hosts:
        hosts = [name for name, host in desired.hosts.items() if host.enabled and (name != "local" or not local)]
    code = run(_take_over(desired, hosts, local, yes))
    if code == REFUSED:
        typer.echo("Nothing was done.", err=True)
    raise typer.Exit(code)


async def _take_over(desired: Desired, names: list[str], local: bool, approved: bool) -> int:
    await _refuse_own(desired)
    async with Hosts() as hosts:
        found, silent = await look(hosts, desired, names)
        wanted = [held for held in found if held.holder or (local and held.foreign)]
        for held in found:
            typer.echo(escaped(f"{held.connection.name}: {_what(held, local)}"), err=True)
        for error in silent:
            typer.echo(escaped(f"? {error.message}: nothing is done there"), err=True)
        rest = _SILENT if silent else 0
        if not wanted:
            typer.echo("There is nothing to take over.")
            return rest
        if not approved:
            if not sys.stdin.isatty():
                raise UsageError("take-over asks before it acts, and there is no terminal to ask on", remedy="--yes")
            if not await asyncio.to_thread(asked, "Is it gone, and shall it act no more? Only `yes` is yes: ", "yes"):
                return REFUSED
        with open_journal(desired.fleet.name, write=True) as journal:
            for held in wanted:
                fence = await take(desired, journal, held, local)
                typer.echo(f"{held.connection.name}: taken over; older controllers than fence {fence} are refused")
    return rest


def _what(held: Held, local: bool) -> str:
    other = f"; its `local` is {held.foreign}" if local and held.foreign else ""
    return f"{held.words}{other}"


async def _refuse_own(desired: Desired) -> None:
    controller = await controller_of(desired.fleet.name)
    if controller is not None:
        await controller.close()
        raise GuardError(
            f"reconciler run keeps the fleet {desired.fleet.name} on this machine, and lends its leases to commands",
            code="at-work", remedy="no need to take them over; or end it first",
        )  # fmt: skip
