"""What came of a plan: one outcome an action, and the exit code that follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from reconciler.core.plan import Action, Plan

Status = Literal["done", "failed", "skipped", "unknown"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one action ended. `unknown`: it was cut off, and only the next look can tell."""

    address: str
    host: str
    verb: str
    status: Status
    seconds: float = 0.0
    code: str = ""
    message: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that people may want to see while it happens. `type` is a word of the JSON lines of `apply`."""

    type: Literal["apply_start", "apply_progress", "apply_complete", "apply_errored", "apply_skipped"]
    action: Action
    message: str = ""
    seconds: float = 0.0
    code: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of all effective actions of a plan."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    interrupted: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many outcomes of each status."""
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status: found[status] for status in ("done", "failed", "skipped", "unknown")}


def plan_exit_code(plan: Plan, *, detailed: bool) -> int:
    """0, or with `detailed` 2 when something would change (blocked counts), 4 when a host is unknown."""
    if not detailed:
        return 0
    if any(action.verb != "unknown" for action in plan.actions):
        return 2
    return 4 if plan.actions else 0


def apply_exit_code(report: Report) -> int:
    """0 done · 1 nothing done · 3 partial · 4 unknown hosts left · 5 stale · 7 nothing but blocked · 9 · 130."""
    if report.interrupted:
        return 130
    status = {outcome.status for outcome in report.outcomes}
    if status & {"failed", "skipped", "unknown"}:
        if "done" in status:
            return 3
        if all(o.code == "stale" for o in report.outcomes):
            return 5
        waits = all(o.code in ("not-ready", "not-idle", "dependency") for o in report.outcomes)
        return 9 if waits else 1
    return _rest(report.plan.actions, bool(status))


def _rest(actions: Iterable[Action], something_done: bool) -> int:
    found = list(actions)
    verbs = {action.verb for action in found}
    if not something_done and verbs == {"blocked"} and all(action.reason == "starting" for action in found):
        return 6  # another controller is at work on all that there is to do
    if "blocked" in verbs:
        return 3 if something_done else 7
    return 4 if "unknown" in verbs else 0
