"""What has changed from one status of the fleet to the next, and since when each condition is as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.core.status import Condition, Key, Status


@dataclass(frozen=True)
class Transition:
    """One resource whose phase or one of whose conditions is another one now. `type` is `Phase` or the condition's."""

    address: str
    host: str
    type: str
    before: str
    after: str
    reason: str = ""
    message: str = ""


def key(status: Status) -> Key:
    """By what a status is found again."""
    return status.address, status.host


def dated(before: Mapping[Key, Status], found: Iterable[Status], now: float) -> tuple[Status, ...]:
    """The same statuses, with the time at which each condition became what it is."""
    return tuple(_all_dated(before.get(key(status)), status, now) for status in found)


def _all_dated(before: Status | None, status: Status, now: float) -> Status:
    if _same(before, status):
        return status
    return replace(status, conditions=tuple(_dated(before, condition, now) for condition in status.conditions))


def _same(before: Status | None, status: Status) -> bool:
    """Whether a status has the very conditions of the last one, dates included: it was taken from there."""
    return before is not None and before.conditions is status.conditions


def _dated(before: Status | None, condition: Condition, now: float) -> Condition:
    known = _condition(before, condition.type)
    same = known is not None and (known.status, known.reason) == (condition.status, condition.reason)
    return replace(condition, since=known.since if same and known is not None else now)


def _condition(status: Status | None, kind: str) -> Condition | None:
    return next((c for c in status.conditions if c.type == kind), None) if status else None


def transitions(before: Mapping[Key, Status], found: Iterable[Status]) -> list[Transition]:
    """What is different, in the order of the statuses; what was not there before counts from "nothing"."""
    changed = []
    for status in found:
        old = before.get(key(status))
        if _same(old, status) and old is not None and old.phase == status.phase:
            continue
        if old is None or old.phase != status.phase:
            words = status.message or (status.conditions[0].message if status.conditions else "")
            reason = status.conditions[0].reason if status.conditions else ""
            changed.append(
                Transition(status.address, status.host, "Phase", old.phase if old else "", status.phase, reason, words)
            )
        changed += _conditions(old, status)
    return changed


def _conditions(old: Status | None, status: Status) -> Iterable[Transition]:
    for kind in ("Stalled", "Reachable"):
        now, known = _condition(status, kind), _condition(old, kind)
        if kind == "Reachable" and not status.address.startswith("host."):
            continue  # said once, of the host
        was = (known.status, known.reason) if known else ("", "")
        if now is not None and (now.status, now.reason) != was and (known or now.status != "True" or kind == "Stalled"):
            yield Transition(status.address, status.host, kind, was[0], now.status, now.reason, now.message)
        elif now is None and known is not None:
            yield Transition(status.address, status.host, kind, was[0], "False", known.reason)
