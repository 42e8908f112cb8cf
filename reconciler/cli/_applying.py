"""One apply, from the look to the recap: shows the plan, asks, carries it out, and remembers what is left of it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace

import typer

from reconciler import runs
from reconciler.asking import open_leases
from reconciler.cli._permits import write_down
from reconciler.cli.common import on_signals
from reconciler.cli.render.progress import looking, progress
from reconciler.cli.render.text import coloured
from reconciler.core.plan import Plan
from reconciler.core.printed import action_json, escaped, recap, render
from reconciler.core.report import Outcome, Report
from reconciler.core.resuming import ANEW, Run, after, remaining, resumed
from reconciler.core.saved import saved_of
from reconciler.core.spec import Desired
from reconciler.errors import LeaseHeldError
from reconciler.execute import Execution
from reconciler.hosts import Hosts
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor
from reconciler.reconcile import Options, Pass, archive_all, carry_out, execution, preview


@dataclass(frozen=True)
class Asking:
    """How one apply was asked for: the spec directory, whether for JSON, and whether nobody is to be asked.

    `permit` is what was approved of before: nothing else is done then.
    """

    specs: str
    as_json: bool
    approved: bool
    permit: Run | None = None
    anew: str = ANEW  # what makes a plan to be approved of, where the permit does not hold any more

    @property
    def how(self) -> str:
        """How the approval was given."""
        if self.permit is not None:
            return "what was approved of before"
        return "--auto-approve" if self.approved else "a person typed yes"

    def again(self, run: Run) -> str:
        """The command that does the rest of a run."""
        return f"reconciler apply --resume {run.short}" + (f" --specs {self.specs}" if self.specs != "specs" else "")


async def apply(desired: Desired, options: Options, asking: Asking) -> Report | None:
    """What came of it; None where the person said no. Raises GuardError, LeaseHeldError."""
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=True, actor=actor("apply")) as journal:
            with looking(desired) as seen:
                done = await preview(desired, hosts, journal, options, seen)
            settled: dict[str, Outcome] = {}
            if asking.permit is not None:
                known = runs.progress(journal, asking.permit)
                plan, settled = resumed(asking.permit, done.plan, known, asking.anew)
                done = replace(done, plan=plan)
            _show(done.plan, asking.as_json)
            work = execution(done, hosts, journal, lambda event: tell(event), options)
            if not asking.approved and done.plan.effective and not await asyncio.to_thread(_asked):
                return None
            if done.plan.effective:
                write_down(journal, done, options, asking.how)
            this = _begin(journal, done.plan, options, asking.permit)
            with progress(asking.as_json) as tell:
                _handle_signals(work)
                leases = await open_leases(desired, "reconciler apply", lambda words: typer.echo(words, err=True))
                try:
                    report = await carry_out(work, done, journal, leases)
                except LeaseHeldError as error:
                    if error.remedy.endswith(ANEW):
                        error.remedy = error.remedy.removesuffix(ANEW) + asking.again(this)
                    raise
                report = replace(report, outcomes=(*report.outcomes, *settled.values()))
            this = _ended(journal, this, report)
            await _archive(done, hosts, report, asking.as_json)
    _recap(report, asking, this)
    return report


def _begin(journal: Journal, plan: Plan, options: Options, permit: Run | None) -> Run:
    """The run of this apply, in the journal before anything is done: from now on it may be cut off at any moment."""
    at = time.time()
    saved = saved_of(plan, at, options.restart, options.take_over, options.max_stop)
    this = permit or Run(saved, at, len(saved.actions), options.ignore_windows)
    if this.count:
        runs.keep(journal, this)
    return this


def _ended(journal: Journal, this: Run, report: Report) -> Run:
    """What is left of it."""
    known = runs.progress(journal, this).done
    left = remaining(after(this, report), known)
    if this.count:
        runs.keep(journal, left)
    return left


async def _archive(done: Pass, hosts: Hosts, report: Report, as_json: bool) -> None:
    """Copy what is new in the conversations; what does not work is said, and is no failure of the apply."""
    if report.interrupted:
        return
    for result in await archive_all(done, hosts):
        if result.outcome in ("failed", "diverged"):
            typer.echo(f"warning: {done.address(result.session)}: not archived: {escaped(result.message)}", err=True)


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
    typer.echo(json.dumps({"type": "version", "format_version": "1.0", "run": plan.id}))
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


def _recap(report: Report, asking: Asking, this: Run) -> None:
    """What came of it; and how to go on, where something may still be done."""
    waits = report.interrupted or any(o.status != "done" and o.code != "stale" for o in report.outcomes)
    again = asking.again(this) if waits and this.left.actions else ""
    if asking.as_json:
        line = {"type": "recap", **report.counts, "interrupted": report.interrupted, "run": this.id, "resume": again}
        typer.echo(json.dumps(line))
    if report.outcomes or any(a.verb in ("blocked", "unknown") for a in report.plan.actions):
        typer.echo(recap(report), err=asking.as_json)
    if again:
        typer.echo(f"continue with: {again}", err=asking.as_json)
