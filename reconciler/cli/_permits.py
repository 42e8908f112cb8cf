"""What a person permitted before a plan was carried out, written down before anything is done."""

from __future__ import annotations

from reconciler.core.guards import check_stops
from reconciler.core.printed import summary_line
from reconciler.core.selection import address
from reconciler.errors import GuardError
from reconciler.journal import Journal
from reconciler.reconcile import Options, Pass


def write_down(journal: Journal, done: Pass, options: Options, how: str) -> None:
    """The approval (`how` it was given), each guard that would have refused the plan, each host taken for gone."""
    plan, desired = done.plan, done.desired
    with journal.together():
        journal.record(
            "approval", "fleet", verb="apply", revision=plan.revision, evidence=summary_line(plan),
            message=f"{how}, plan {plan.id}",
        )  # fmt: skip
        if options.max_stop is not None:
            try:
                check_stops(plan, desired.fleet.max_stop)
            except GuardError as error:
                journal.record(
                    "guard-lifted", "fleet", verb="max-stop", revision=plan.revision, evidence=error.message,
                    message=f"--max-stop {options.max_stop}",
                )  # fmt: skip
        if options.ignore_windows:
            journal.record(
                "guard-lifted", "fleet", verb="windows", revision=plan.revision, message="--ignore-windows"
            )  # fmt: skip
        for text in options.take_over:
            journal.record(
                "take-over", address(desired, text), verb="take-over", revision=plan.revision,
                message="its host does not answer, and is taken for gone because a person says so",
            )  # fmt: skip
