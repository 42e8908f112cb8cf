"""`reconciler apply`: shows the plan, asks, and carries out that very plan."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from reconciler import runs
from reconciler.cli._applying import Asking, apply
from reconciler.cli._completion import run_ids
from reconciler.cli._saved import read_saved
from reconciler.cli.common import (
    AsJson,
    Exclude,
    Restart,
    Select,
    Target,
    load,
    run,
    selection,
)
from reconciler.core.plan import LAUNCHES
from reconciler.core.report import Report, apply_exit_code
from reconciler.core.resuming import ANEW, Run
from reconciler.core.saved import MAKE_ANEW, SavedPlan
from reconciler.core.spec import Desired
from reconciler.errors import StalePlanError, UsageError
from reconciler.journal import open_journal
from reconciler.reconcile import Options

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
        str | None, typer.Option("--specs", metavar="DIR", help="With FILE: the specs that it was made of.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            autocompletion=run_ids,
            help="Do what an apply was approved of and has not done: it asks for no yes again.",
        ),
    ] = None,
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
    narrower = (target, exclude, select, restart, max_stop, take_over, ignore_windows or None)
    narrowed = any(option is not None for option in narrower)
    saved = Path(directory).is_file()
    if resume is not None and (narrowed or saved):
        raise UsageError("--resume does what was approved of: it goes with no plan and no further options",
                         remedy=f"reconciler apply --resume {resume}")  # fmt: skip
    if saved and narrowed:
        raise UsageError(f"{directory} is a saved plan: it is applied as it is, without further options")
    if saved:
        raise typer.Exit(apply_saved(directory, specs or "specs", as_json))
    where = specs or directory
    desired = load(where)
    if resume is not None:
        raise typer.Exit(apply_rest(desired, resume, where, as_json))
    if max_stop is not None and not max_stop.rstrip("%").isdigit():
        raise UsageError(f"--max-stop {max_stop}: expected a number or a percentage such as 50%")
    if not auto_approve and (as_json or not sys.stdin.isatty()):
        raise UsageError("apply asks before it acts, and there is no terminal to ask on", remedy="--auto-approve")
    options = Options(
        selection(target, exclude, select), tuple(restart or ()), max_stop, tuple(take_over or ()), ignore_windows
    )
    report = run(apply(desired, options, Asking(where, as_json, auto_approve)))
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
    _refuse_other(saved, desired, f"{path} was made of", MAKE_ANEW)
    if saved.expired(time.time()):
        raise StalePlanError(f"{path} is older than a day", remedy=MAKE_ANEW)
    with open_journal(desired.fleet.name, write=False) as journal:
        permit = runs.of_saved(journal, saved)
        if saved.actions and runs.left(journal, permit) == 0:
            raise StalePlanError("this plan was carried out before", remedy=MAKE_ANEW)
    return _permitted(desired, permit, Asking(specs, as_json, True, permit, MAKE_ANEW))


def apply_rest(desired: Desired, text: str, specs: str, as_json: bool) -> int:
    """Carry out what is left of a run; the exit code. Raises UsageError where there is no such run."""
    with open_journal(desired.fleet.name, write=False) as journal:
        permit = runs.find(journal, text)
        left = runs.left(journal, permit)
    if left == 0:
        words = {"type": "recap", "run": permit.id, "done": 0, "failed": 0, "skipped": 0, "unknown": 0}
        typer.echo(json.dumps({**words, "interrupted": False, "resume": ""}) if as_json
                   else f"Nothing is left of run {permit.short}: all {permit.count} actions are done.")  # fmt: skip
        return 0
    anew = ANEW + (f" {specs}" if specs != "specs" else "")
    _refuse_other(permit.left, desired, f"run {permit.short} was approved of for", anew)
    if permit.left.expired(time.time()):
        at = datetime.fromtimestamp(permit.left.at).astimezone()
        raise StalePlanError(
            f"run {permit.short} was approved of more than a day ago, {at:%Y-%m-%d %H:%M}: {left} of {permit.count} "
            "actions are left", remedy=anew,
        )  # fmt: skip
    return _permitted(desired, permit, Asking(specs, as_json, True, permit, anew))


def _refuse_other(saved: SavedPlan, desired: Desired, what: str, anew: str) -> None:
    if (saved.fleet, saved.revision) != (desired.fleet.name, desired.revision):
        raise StalePlanError(
            f"{what} other specs: fleet {saved.fleet}, revision {saved.revision[:12]}, not {desired.revision[:12]}",
            remedy=anew,
        )


def _permitted(desired: Desired, permit: Run, asking: Asking) -> int:
    saved = permit.left
    options = Options(
        restart=saved.restart, take_over=saved.take_over, max_stop=saved.max_stop,
        ignore_windows=permit.ignore_windows, plan_id=saved.id,
    )  # fmt: skip
    report = run(apply(desired, options, asking))
    assert report is not None
    return apply_exit_code(report)


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
