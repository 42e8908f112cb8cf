"""Exit codes: computed from planned actions and outcomes, never from a text."""

from __future__ import annotations

from typing import get_args

import pytest

from reconciler.core.plan import Action, Plan
from reconciler.core.report import Outcome, Report, Status, apply_exit_code, plan_exit_code
from reconciler.core.steps import Verb

Ends = tuple[Status, str]


def plan(*verbs: Verb) -> Plan:
    actions = tuple(Action(f"session.s{index}", "gpu", verb, "", "") for index, verb in enumerate(verbs))
    return Plan("p", "f", "r", actions, 0, 0)


def report(*ends: Ends, rest: tuple[Verb, ...] = (), interrupted: bool = False) -> Report:
    found = tuple(
        Outcome(f"session.s{index}", "gpu", "start", status, 0.0, code) for index, (status, code) in enumerate(ends)
    )
    starts: list[Verb] = ["start"] * len(ends)
    return Report(plan(*starts, *rest), found, interrupted)


@pytest.mark.parametrize(
    ("verbs", "plain", "detailed"),
    [
        ((), 0, 0), (("start",), 0, 2), (("blocked",), 0, 2), (("unknown",), 0, 4), (("start", "unknown"), 0, 2),
        (("blocked", "unknown"), 0, 2), (("update",), 0, 2), (("forget",), 0, 2),
    ],
)  # fmt: skip
def test_plan_says_2_for_changes_and_4_for_hosts_that_are_unknown(
    verbs: tuple[Verb, ...], plain: int, detailed: int
) -> None:
    assert plan_exit_code(plan(*verbs), detailed=False) == plain
    assert plan_exit_code(plan(*verbs), detailed=True) == detailed


DONE: Ends = ("done", "")
FAILED: Ends = ("failed", "failed")
SKIPPED: Ends = ("skipped", "dependency")
CUT: Ends = ("unknown", "dropped")


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (report(), 0),
        (report(DONE), 0),
        (report(rest=("unknown",)), 4),
        (report(DONE, rest=("unknown",)), 4),
        (report(rest=("blocked",)), 7),
        (report(rest=("blocked", "unknown")), 7),
        (report(DONE, rest=("blocked",)), 3),
        (report(("failed", "fence-stale"), ("failed", "lease-held"), SKIPPED), 6),
        (report(DONE, ("failed", "fence-stale")), 3),
        (report(("failed", "fence-stale"), FAILED), 1),
        (report(FAILED), 1),
        (report(FAILED, SKIPPED), 1),
        (report(CUT), 1),
        (report(DONE, FAILED), 3),
        (report(DONE, SKIPPED), 3),
        (report(DONE, CUT, rest=("unknown",)), 3),
        (report(("failed", "not-ready")), 9),
        (report(("failed", "not-idle"), SKIPPED), 9),
        (report(DONE, ("failed", "not-ready")), 3),
        (report(DONE, interrupted=True), 130),
        (report(interrupted=True), 130),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "report",
)
def test_apply_says_how_much_came_of_it(made: Report, code: int) -> None:
    assert apply_exit_code(made) == code


def test_every_status_is_counted() -> None:
    assert report(DONE, DONE, FAILED, SKIPPED, CUT).counts == {"done": 2, "failed": 1, "skipped": 1, "unknown": 1}
    assert set(report().counts) == set(get_args(Status))


def test_a_plan_that_only_waits_for_another_controller_says_6() -> None:
    busy = Action("session.s", "gpu", "blocked", "starting", "an operation is at work on it")
    assert apply_exit_code(Report(Plan("p", "f", "r", (busy,), 0, 0), ())) == 6
