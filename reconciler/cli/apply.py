"""`reconciler apply`: shows the plan, asks, and carries out that very plan."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from reconciler.asking import open_leases
from reconciler.cli._permits import write_down
from reconciler.cli._saved import read_saved
from reconciler.cli.common import (
    AsJson,
    Exclude,
    Restart,
    Select,
    Target,
    load,
    on_signals,
    run,
    selection,
)
from reconciler.cli.render.progress import looking, progress
from reconciler.cli.render.text import coloured
from reconciler.core.plan import LAUNCHES, Plan
from reconciler.core.printed import action_json, escaped, recap, render
from reconciler.core.report import Outcome, Report, apply_exit_code
from reconciler.core.saved import SavedPlan, bounded
from reconciler.core.spec import Desired
from reconciler.errors import StalePlanError, UsageError
from reconciler.execute import Execution, operation_id
from reconciler.hosts import Hosts
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor
from reconciler.reconcile import Options, Pass, archive_all, carry_out, execution, preview

REFUSED = 8


def command(
    directory: Annotated[
        str, typer.Argument(metavar="DIR|FILE", help="The spec directory; or a plan that `plan -o` saved.")
    ] = "specs",
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Do not ask.")] = False,
    max_stop: Annotated[
        str | None, typer.Option("--max-stop", metavar="N|P%", help="Stop at most so many running sessions.")
    ] = None,
    target: Target = None,
    exclude: Exclude = None,
    select: Select = None,
    restart: Restart = None,
    take_over: Annotated[
        list[str] | None,
        typer.Option("--take-over", metavar="ADDRESS", help="Take its host, which does not answer, for gone."),
    ] = None,
    ignore_windows: Annotated[
        bool, typer.Option("--ignore-windows", help="Act although a window of the specs holds changes.")
    ] = False,
    specs: Annotated[
        str, typer.Option("--specs", metavar="DIR", help="With FILE: the specs that it was made of.")
    ] = "specs",
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not show group chats that were begun until they rest.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make it happen: look, show the plan, ask, carry out that very plan.

    Ctrl-C lets what runs finish and starts nothing more; a second Ctrl-C cuts it off. A group chat that was begun is
    then shown on a terminal until it rests; Ctrl-C leaves it running.
    """
    begun = time.time()
    if Path(directory).is_file():
        narrower = (target, exclude, select, restart, max_stop, take_over, ignore_windows or None)
        if any(option is not None for option in narrower):
            raise UsageError(f"{directory} is a saved plan: it is applied as it is, without further options")
        raise typer.Exit(apply_saved(directory, specs, as_json))
    desired = load(directory)
    if max_stop is not None and not max_stop.rstrip("%").isdigit():
        raise UsageError(f"--max-stop {max_stop}: expected a number or a percentage such as 50%")
    if not auto_approve and (as_json or not sys.stdin.isatty()):
        raise UsageError("apply asks before it acts, and there is no terminal to ask on", remedy="--auto-approve")
    options = Options(
        selection(target, exclude, select), tuple(restart or ()), max_stop, tuple(take_over or ()), ignore_windows
    )
    report = run(_apply(desired, options, auto_approve, as_json))
    if report is None:
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(REFUSED)
    if not (detach or as_json or report.interrupted) and sys.stdout.isatty():
        _follow_chats(desired, report, begun)
    raise typer.Exit(apply_exit_code(report))


def apply_saved(path: str, specs: str, as_json: bool) -> int:
    """Carry out what a saved plan permits and is still as it was; the exit code."""
    saved = read_saved(path)
    desired = load(specs)
    if (saved.fleet, saved.revision) != (desired.fleet.name, desired.revision):
        raise StalePlanError(
            f"{path} was made of other specs: fleet {saved.fleet}, revision {saved.revision[:12]}, "
            f"not {desired.revision[:12]}", remedy="reconciler plan -o FILE",
        )  # fmt: skip
    if saved.expired(time.time()):
        raise StalePlanError(f"{path} is older than a day", remedy="reconciler plan -o FILE")
    options = Options(restart=saved.restart, take_over=saved.take_over, max_stop=saved.max_stop, plan_id=saved.id)
    report = run(_apply(desired, options, approved=True, as_json=as_json, saved=saved))
    assert report is not None
    return apply_exit_code(report)


def _used(saved: SavedPlan, journal: Journal) -> bool:
    """Whether all that it permits was carried out from here before."""
    known = {intent.op for intent in journal.history(limit=100_000) if intent.outcome == "done"}
    ops = [operation_id(saved.id, f"{action.address}@{action.host}") for action in saved.actions]
    return bool(ops) and all(op in known for op in ops)


def _follow_chats(desired: Desired, report: Report, since: float) -> None:
    """Show what is said in the chats that were begun or given a new prompt, one after the other."""
    changed = {
        action.address for action in report.plan.effective
        if action.verb in LAUNCHES or any(change.field == "prompt" for change in action.changes)
    }  # fmt: skip
    done = {outcome.address for outcome in report.outcomes if outcome.status == "done"}
    for name in desired.group_chats:
        if f"group_chat.{name}" in changed & done:
            from reconciler.cli._chat import find
            from reconciler.cli.chat import follow_until_it_rests

            follow_until_it_rests(find(desired, name), since)


async def _apply(
    desired: Desired, options: Options, approved: bool, as_json: bool, saved: SavedPlan | None = None
) -> Report | None:
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=True, actor=actor("apply")) as journal:
            if saved is not None and _used(saved, journal):
                raise StalePlanError("this plan was carried out before", remedy="reconciler plan -o FILE")
            with looking(desired) as seen:
                done = await preview(desired, hosts, journal, options, seen)
            settled: dict[str, Outcome] = {}
            if saved is not None:
                plan, settled = bounded(saved, done.plan)
                done = replace(done, plan=plan)
            _show(done.plan, as_json)
            work = execution(done, hosts, journal, lambda event: tell(event), options)
            if not approved and done.plan.effective and not await asyncio.to_thread(_asked):
                return None
            if done.plan.effective:
                how = "a saved plan" if saved else "--auto-approve" if approved else "a person typed yes"
                write_down(journal, done, options, how)
            with progress(as_json) as tell:
                _handle_signals(work)
                leases = await open_leases(desired, "reconciler apply", lambda words: typer.echo(words, err=True))
                report = await carry_out(work, done, journal, leases)
                report = replace(report, outcomes=(*report.outcomes, *settled.values()))
            await _archive(done, hosts, report, as_json)
    _recap(report, as_json)
    return report


async def _archive(done: Pass, hosts: Hosts, report: Report, as_json: bool) -> None:
    """Copy what is new in the conversations; what does not work is said, and is no failure of the apply."""
    if report.interrupted:
        return
    for result in await archive_all(done, hosts):
        if result.outcome in ("failed", "diverged"):
            typer.echo(f"warning: session.{result.session}: not archived: {escaped(result.message)}", err=True)


def _asked() -> bool:
    """Whether the person says yes, and only `yes` is yes."""
    try:
        return input("\nDo you want this? Only `yes` is taken as yes: ").strip() == "yes"
    except EOFError:
        return False


def _show(plan: Plan, as_json: bool) -> None:
    if not as_json:
        typer.echo(coloured(render(plan)), nl=False)
        return
    typer.echo(json.dumps({"type": "version", "format_version": "1.0"}))
    for action in plan.actions:
        typer.echo(json.dumps({"type": "planned_action", **action_json(action)}))


def _handle_signals(work: Execution) -> None:
    task = asyncio.current_task()
    assert task is not None
    pressed = 0

    def interrupted() -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            typer.echo("\nNothing more begins; what runs is allowed to finish. Ctrl-C again cuts it off.", err=True)
            work.drain()
        else:
            task.cancel()

    on_signals(interrupted)


def _recap(report: Report, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"type": "recap", **report.counts, "interrupted": report.interrupted}))
    if report.outcomes or any(a.verb in ("blocked", "unknown") for a in report.plan.actions):
        typer.echo(recap(report), err=as_json)
