"""Guards that look at the whole: specs that declare nothing, a plan that would stop too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reconciler.core.observed import Observed, Reached
from reconciler.core.plan import LAUNCHES, Action, Plan
from reconciler.core.spec import Desired, name_of
from reconciler.errors import GuardError

EMPTY = "the specs declare nothing at all: this is taken for a mistake, and nothing is stopped"
NOT_EMPTY = (
    'to stop everything keep the hosts, or set state = "stopped" in [defaults.session], then: reconciler apply; '
    "whether the files are back: reconciler validate"
)
_NAMED = 3  # sessions that a refusal names


def check_emptiness(desired: Desired) -> None:
    """Specs without any resource are taken for a mistake, not for a wish to stop everything."""
    if desired.empty:
        raise GuardError(
            EMPTY,
            code="empty-specs",
            remedy=NOT_EMPTY,
        )


def allowed_stops(max_stop: str, running: int) -> int:
    """How many running sessions one run may stop: a number, or a percentage of those that run, at least 2."""
    if max_stop.endswith("%"):
        return max(2, running * int(max_stop[:-1]) // 100)
    return int(max_stop)


def limit_of(desired: Desired) -> str:
    """Where the specs say how many sessions may be stopped, for people."""
    place = desired.locate("fleet", "max_stop")
    return f" at {place.file}:{place.line}" if place else " by default"


def check_stops(plan: Plan, max_stop: str, where: Callable[[], str] = str) -> None:
    """Refuse a plan that stops more of the running sessions than `max_stop` allows, which stands where `where` says."""
    stopped = [action.address for action in plan.actions if action.stops_running]
    stops = len(stopped)
    more = f" and {stops - _NAMED} more" if stops > _NAMED else ""
    allowed = allowed_stops(max_stop, plan.running)
    if stops > allowed:
        said = where()  # reads the specs once more, for the number of a line
        raise GuardError(
            f"the plan stops {stops} of {plan.running} running sessions; max_stop = {max_stop} allows {allowed}"
            f"{f' (said{said})' if said else ''}: {', '.join(stopped[:_NAMED])}{more}",
            code="max-stop",
            remedy=f"if it is meant: reconciler apply --max-stop {stops}",
        )


def contested(observed: Observed, actions: Iterable[Action]) -> dict[str, int]:
    """The fences of the hosts whose leases these actions need, as they were seen.

    Not only of hosts on which they do something: that a session lives nowhere else was seen on others too, and nobody
    may launch it there meanwhile, not even who began to before, slept, and wakes up. Those are the hosts that know of
    it; where none does, all that answered.
    """
    reached = {name: host for name, host in observed.hosts.items() if isinstance(host, Reached)}
    needed: set[str] = set()
    for action in actions:
        needed |= action.hosts
        if action.verb in LAUNCHES:
            needed |= _knowing(reached, name_of(action.address)) or set(reached)
    return {name: host.fence for name, host in reached.items() if name in needed}


def _knowing(reached: dict[str, Reached], session: str) -> set[str]:
    seen = {name: host.sessions[session] for name, host in reached.items() if session in host.sessions}
    return set(seen) | {found.record.to for found in seen.values() if found.record is not None and found.record.to}
