"""A run: what one apply was approved of and has not done yet; and what of that may be done another time. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.plan import Action, Plan
from reconciler.core.report import Outcome, Report
from reconciler.core.saved import Approved, SavedPlan, Verdict, approve, bounded, parse_table, strict, to_table
from reconciler.core.steps import LaunchStep, StopStep

SHORT = 12  # characters of an id that people are shown
ANEW = "reconciler apply"  # shows the plan as it is now, and asks


@dataclass(frozen=True)
class Run:
    """One apply. `left` is the permission for what is not done yet; `count` actions were approved of at `at`."""

    left: SavedPlan
    at: float
    count: int
    ignore_windows: bool = False

    @property
    def id(self) -> str:
        """The same as the plan's that it carries out."""
        return self.left.id

    @property
    def short(self) -> str:
        """Its id as people are shown it and may type it."""
        return self.id[:SHORT]


@dataclass(frozen=True)
class Progress:
    """What the journal knows of a run's actions, by their keys: which are done, which were begun, and how often one
    has failed for certain."""

    done: frozenset[str] = frozenset()
    begun: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)


def to_json(run: Run) -> str:
    """For the journal; it holds no step and no value of an environment."""
    return json.dumps(
        {"at": run.at, "count": run.count, "ignore_windows": run.ignore_windows, "left": to_table(run.left)}
    )


def parse_run(text: str) -> Run:
    """Read what `to_json` wrote. Raises ValueError saying what is wrong with it."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("no table")
    at, count, ignore = found.get("at"), found.get("count"), found.get("ignore_windows")
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError("`at` is no time")
    if isinstance(count, bool) or not isinstance(count, int) or not isinstance(ignore, bool):
        raise ValueError("`count` or `ignore_windows` is not what it should be")
    return Run(parse_table(found.get("left")), float(at), count, ignore)


def remaining(run: Run, done: Iterable[str]) -> Run:
    """The run without the actions of these keys."""
    gone = frozenset(done)
    return replace(run, left=replace(run.left, actions=tuple(a for a in run.left.actions if a.key not in gone)))


def after(run: Run, report: Report) -> Run:
    """The run without what a report says is done."""
    return remaining(run, (f"{o.address}@{o.host}" for o in report.outcomes if o.status == "done"))


def resumed(run: Run, fresh: Plan, progress: Progress, anew: str = ANEW) -> tuple[Plan, dict[str, Outcome]]:
    """What of a fresh plan the run may still do, and the outcomes of what it does not begin; as `bounded`.

    Where the run itself was cut off within an action, what that action lacks is approved of too. An action that hosts
    may have answered already keeps its operation id, so that it is not done twice; one that failed gets another one.
    """
    known = {action.key: action for action in run.left.actions}

    def judge(approved: Approved, action: Action) -> Verdict:
        same = strict(approved, action)
        return same if same == "begin" or approved.key not in progress.begun else _rest(approved, action)

    plan, outcomes = bounded(remaining(run, progress.done).left, fresh, judge, anew)
    return replace(plan, actions=tuple(_again(known, progress, action) for action in plan.actions)), outcomes


def _again(known: Mapping[str, Approved], progress: Progress, action: Action) -> Action:
    key = f"{action.address}@{action.host}"
    failures = progress.failures.get(key, 0)
    words = [str(failures)] if failures else []
    if approve(action) != known[key]:
        words = [str(failures), action.verb, action.precondition]
    return replace(action, again=" ".join(words))


def _rest(approved: Approved, action: Action) -> Verdict:
    """What to do with an action that is not the approved one, which was begun: whether it is only the rest of it.

    It never ends a process: whatever runs now, nobody approved of stopping it.
    """
    if action.host != approved.host or not action.hosts <= set(approved.hosts):
        return "stale"
    fields = {change.field for change in action.changes}
    if approved.verb == "restart" and action.verb == "restart" and action.reason == "asked" and not fields:
        return "done"  # it was asked for whatever is there, and what is there is another process
    if action.verb == "update":
        # It was launched, and nobody has written down yet which conversation its agent began.
        return (
            "begin"
            if approved.verb in ("start", "resume", "restart", "move") and fields == {"conversation"}
            else "stale"
        )
    if approved.verb == "move" and action.verb == "move":
        back = any(isinstance(step, LaunchStep) for step in action.fallback)
        return "stale" if back else "begin"  # where something would be resumed at the source, it runs there
    halves = approved.verb in ("restart", "move") and action.verb in ("start", "resume") and action.reason == "returns"
    return "begin" if halves and not any(isinstance(step, StopStep) for step in action.steps) else "stale"
