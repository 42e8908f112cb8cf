"""The plan that a change of specs gives, without a look at any host: for pull requests, and before a rollback."""

from __future__ import annotations

from reconciler import drivers
from reconciler.core.diff import compare
from reconciler.core.guards import check_emptiness
from reconciler.core.holds import suspended
from reconciler.core.imagined import imagined, places
from reconciler.core.plan import Plan, make_plan
from reconciler.core.selection import Selection, address, hold_for
from reconciler.core.spec import Desired


def offline_plan(
    before: Desired, after: Desired, selection: Selection | None = None, restart: tuple[str, ...] = ()
) -> Plan:
    """What `after` would do to a fleet that runs exactly as `before` declares. Knows no clock: windows do not count.

    Raises GuardError for specs that declare nothing.
    """
    check_emptiness(after)
    observed = imagined(before, after, drivers.agents(before))
    diff = compare(after, observed, places(before))
    used = frozenset(session.agent for session in before.sessions.values())
    hold = {**suspended(after, diff, ()), **hold_for(after, diff, selection or Selection())}
    return make_plan(
        diff, after, observed, drivers.agents(after, used), plan_id="offline", hold=hold,
        restart=frozenset(address(after, text) for text in restart),
    )  # fmt: skip
