"""`reconciler adopt`: takes an agent that runs already under management, as it runs."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from reconciler import drivers
from reconciler.cli._acting import Acting, acting, look_around, places_in
from reconciler.cli._completion import host_names, session_names
from reconciler.cli.common import Specs, declared_host, load, run
from reconciler.cli.render.table import ago
from reconciler.cli.sync import REFUSED, asked
from reconciler.core.adopting import adopted, chosen, refuse_second, refuse_unfit, refuse_untold
from reconciler.core.agent import Agent
from reconciler.core.evidence import facts_of_host
from reconciler.core.launching import ID_AT_LOOK, Context
from reconciler.core.observed import Observed, Reached
from reconciler.core.printed import SYMBOLS, escaped
from reconciler.core.record import Record
from reconciler.core.spec import Desired, name_of
from reconciler.core.strays import Stray
from reconciler.discovering import known_agents, strays_on
from reconciler.errors import HostError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor, holder
from reconciler.reconcile import preview
from reconciler.runtimes.operations import adopt_operation


def command(
    session: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The session that it becomes, as the specs declare it.", autocompletion=session_names
        ),
    ],
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="HOST", help="Where it runs. Default: as the specs say.", autocompletion=host_names
        ),
    ] = None,
    pid: Annotated[int | None, typer.Option("--pid", metavar="PID", help="Which process.")] = None,
    tmux: Annotated[
        str | None,
        typer.Option("--tmux", metavar="TARGET", help="Or in which tmux session or pane: work, work:1.0, %3."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "--auto-approve", help="Do not ask.")] = False,
    directory: Specs = "specs",
) -> None:
    """Take an agent that somebody started by hand under management, without a restart.

    It goes on in its own terminal, where attach and send find it. What the specs say counts as applied; the next
    restart brings it into the fleet's own tmux server. `reconciler orphans` lists what can be adopted.
    """  # fmt: skip
    desired = load(directory)
    name = name_of(session)
    refuse_unfit(desired, name, host.removeprefix("host.") if host else None)
    if not yes and not sys.stdin.isatty():
        raise UsageError("adopt asks before it acts, and there is no terminal to ask on", remedy="--yes")
    if not run(_adopt(desired, name, pid, tmux, yes)):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(REFUSED)


async def _adopt(desired: Desired, name: str, pid: int | None, tmux: str | None, approved: bool) -> bool:
    where = declared_host(desired, desired.sessions[name].host)
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=True, actor=actor("adopt")) as journal:
            observed = await look_around(desired, hosts)
            reached = _reached(observed, where)
            places_in(desired, observed, journal, name)
            strays = await strays_on(hosts.connection(where, desired.hosts[where]), reached, known_agents(desired))
            stray = chosen(desired.sessions[name], where, strays, pid, tmux)
            context = Context(desired, drivers.agents(desired), "adopt", holder())
            refuse_untold(context, name, reached, stray)
            refuse_second(observed, name, stray.conversation)
            record = adopted(context, name, reached, reached.sessions.get(name), stray)
            _show(name, where, stray, record)
            if not approved and not await asyncio.to_thread(asked, "Adopt it? Only `yes` is yes: ", "yes"):
                return False
            evidence = f"{facts_of_host(reached, name)}; {_stray(stray)}"
            async with acting(desired, hosts, journal, where, f"session.{name}", "adopt", evidence) as work:
                await _take(work, record, stray, context.agent(name))
            journal.remember({name: where})
            typer.echo(f"session.{name} on {where} is pid {stray.pid} now")
            await _next(desired, hosts, journal, name)
    return True


def _reached(observed: Observed, where: str) -> Reached:
    found = observed.hosts[where]
    if not isinstance(found, Reached):
        raise HostError(found.message, code=found.code, remedy=found.remedy)
    return found


def _stray(stray: Stray) -> str:
    return f"pid {stray.pid}, started {stray.start}, conversation {stray.conversation or 'none'}"


def _show(name: str, where: str, stray: Stray, record: Record) -> None:
    since = f", for {ago(stray.seconds)}" if stray.seconds is not None else ""
    lines = [f"{record.agent} on {where}: pid {stray.pid}{since}, in {stray.directory or 'nobody knows where'}"]
    lines.append(f"  conversation {stray.conversation or 'none'}")
    if stray.pane:
        lines.append(f"  in the tmux session {stray.pane.session} (pane {stray.pane.id} of {stray.pane.socket})")
    else:
        lines.append("  outside of tmux: there is no terminal to attach and send to")
    if stray.group != stray.pid:
        lines.append("  it shares its process group: a stop ends this process alone, not what it has started")
    if record.prompt is not None:
        lines.append("  its prompt counts as handed over")
    lines.append(f"It becomes session.{name}, and goes on as it runs.")
    for line in lines:
        typer.echo(escaped(line), err=True)


async def _take(work: Acting, record: Record, stray: Stray, agent: Agent) -> None:
    credentials = work.leases.credentials(work.connection.name)
    script = adopt_operation(
        credentials, work.op, work.op[:16], record=record, pid=stray.pid, start=stray.start,
        probes=agent.probes(ID_AT_LOOK),
    )  # fmt: skip
    await work.connection.operate(script, work.op[:16])


async def _next(desired: Desired, hosts: Hosts, journal: Journal, name: str) -> None:
    """What the next plan says of it."""
    plan = (await preview(desired, hosts, journal)).plan
    actions = [action for action in plan.actions if action.address == f"session.{name}"]
    for action in actions:
        typer.echo(escaped(f"next plan: {SYMBOLS[action.verb]} {action.address}  {action.message}"))
    if not actions:
        typer.echo("next plan: nothing to do")
