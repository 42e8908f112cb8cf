"""`reconciler doctor`: what each host lacks, with the command that fixes it; a block a host, as each answers."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from reconciler import drivers
from reconciler.cli._completion import host_names
from reconciler.cli.common import AsJson, Specs, colours, host_name, load, run
from reconciler.core.checkup import Examined, examined_json
from reconciler.core.facts import Check
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.errors import UsageError
from reconciler.hosts import Hosts

UNREACHED, BROKEN = 4, 1
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("!", "yellow")}


def command(
    which: Annotated[
        list[str] | None, typer.Argument(metavar="[HOST]...", help="Only these; all else.", autocompletion=host_names)
    ] = None,
    agents: Annotated[bool, typer.Option("--agents", help="All known agents, not only those of the specs.")] = False,
    install: Annotated[
        str | None, typer.Option("--install", metavar="AGENT", help="Install it on the hosts that lack it; asks first.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="--install: do not ask.")] = False,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Try every host: reach, login, PATH, tmux, agents and their logins, disk, clock. Changes nothing.

    Ends with 0 when sessions can run everywhere, 1 when something prevents them, 4 when hosts do not answer.
    """
    desired = load(directory)
    names = _hosts(desired, which)
    if install is not None:
        raise typer.Exit(run(_install(desired, names, install, yes)))
    found = run(_examine(desired, names, agents, as_json))
    if as_json:
        typer.echo(json.dumps(examined_json(found), indent=2))
    if any(not host.ok and not host.error for host in found):
        raise typer.Exit(BROKEN)
    raise typer.Exit(UNREACHED if any(host.error for host in found) else 0)


def _hosts(desired: Desired, which: list[str] | None) -> list[str]:
    names = [host_name(desired, text) for text in which or ()]
    return names or [name for name, host in desired.hosts.items() if host.enabled]


async def _examine(desired: Desired, names: list[str], agents: bool, quiet: bool) -> list[Examined]:
    from reconciler.doctoring import examine

    async with Hosts() as hosts:
        return await examine(hosts, desired, names, everything=agents, told=(lambda _: None) if quiet else _print)


def _print(found: Examined) -> None:
    typer.echo(typer.style(f"host.{found.name}", bold=True) if colours() else f"host.{found.name}")
    width = max((len(check.name) for check in found.checks), default=0)
    for check in found.checks:
        typer.echo(_line(check, width))
        if check.remedy:
            typer.echo(f"      {'':{width}}  remedy: {escaped(check.remedy)}")


def _line(check: Check, width: int) -> str:
    mark, colour = _MARKS[check.ok]
    return f"    {typer.style(mark, fg=colour) if colours() else mark} {check.name:{width}}  {escaped(check.message)}"


async def _install(desired: Desired, names: list[str], agent: str, yes: bool) -> int:
    from reconciler.doctoring import examine, install

    known = drivers.agents(desired, frozenset({agent}))
    if agent not in known:
        raise UsageError(f"there is no agent {agent}", remedy=f"agents: {', '.join(sorted(known))}")
    command = known[agent].install
    if not command:
        raise UsageError(f"nobody knows how {agent} is installed", remedy=f'[agents.{agent}] install = "…"')
    failed = 0
    async with Hosts() as hosts:
        found = await examine(hosts, desired, names, everything=True, told=lambda _: None)
        for host in found:
            if host.error:
                typer.echo(f"host.{host.name}: {escaped(host.error)}", err=True)
                failed = UNREACHED
                continue
            if any(a.name == agent and a.path for a in host.agents):
                typer.echo(f"host.{host.name}: {agent} is there already")
                continue
            if not yes and not _asked(host.name, command):
                continue
            code, said = await install(hosts.connection(host.name, desired.hosts[host.name]), desired, command)
            typer.echo(f"host.{host.name}: {'installed' if code == 0 else f'`{command}` ended with {code}'}")
            if code:
                typer.echo(escaped(said), err=True)
                failed = BROKEN
    return failed


def _asked(host: str, command: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("--install asks, and there is no terminal", remedy="--yes")
    return input(f"host.{host}: run `{command}`? Only `yes` is taken as yes: ").strip() == "yes"
