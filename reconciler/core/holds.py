"""Why nothing is done about a session although something would be: holds, and the suspensions that make some. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.core.decision import Decision
from reconciler.core.diff import Diff, Entry
from reconciler.core.spec import Desired

FLEET = "fleet"  # the address of everything at once


@dataclass(frozen=True)
class Hold:
    """Why an action is blocked: a stable word for scripts, one sentence, what to do about it."""

    reason: str
    message: str
    remedy: str = ""


# What depends on the decision itself, such as a window that lets dead sessions come back and nothing else.
Gate = Callable[[Entry, Decision], Hold | None]


def open_gate(entry: Entry, decision: Decision) -> Hold | None:
    """The gate that holds nothing."""
    return None


@dataclass(frozen=True)
class Suspension:
    """Somebody said that nothing is to be done at an address (session.NAME, host.NAME, fleet), until then if ever."""

    address: str
    until: datetime | None = None
    reason: str = ""
    by: str = ""
    at: datetime | None = None

    def sentence(self) -> str:
        """`suspended by ann since 2026-11-30 18:00 until 2026-12-01 08:00: REASON`, for people."""
        what = "" if self.address.startswith(("session.", "group_chat.")) else f"{self.address} is "
        by = f" by {self.by}" if self.by else ""
        by += f" since {self.at:%Y-%m-%d %H:%M}" if self.at else ""
        until = f" until {self.until:%Y-%m-%d %H:%M}" if self.until else ""
        return f"{what}suspended{by}{until}" + (f": {self.reason}" if self.reason else "")


def hosts_of(entry: Entry) -> frozenset[str]:
    """Every host that an entry is about: where the session is, where it comes from, where it is wanted."""
    found = {entry.host, entry.origin_host, entry.desired.host if entry.desired else ""}
    return frozenset(found - {""})


def addresses_of(entry: Entry) -> tuple[str, ...]:
    """Every address by which an entry can be suspended, the nearest first.

    A session that is to be renamed is still suspended by the name that its host knows.
    """
    old = (f"session.{entry.seen.name}",) if entry.seen is not None and entry.seen.name != entry.name else ()
    return (entry.address, *old, *(f"host.{name}" for name in sorted(hosts_of(entry))), FLEET)


def suspended(desired: Desired, diff: Diff, suspensions: Iterable[Suspension]) -> dict[str, Hold]:
    """The holds of all entries that are suspended: by somebody, or by `suspend` in the specs."""
    by_address = {suspension.address: suspension for suspension in suspensions}
    held = {}
    for entry in diff.entries:
        hold = _suspended(desired, entry, by_address)
        if hold is not None:
            held[entry.address] = hold
    return held


def _suspended(desired: Desired, entry: Entry, by_address: Mapping[str, Suspension]) -> Hold | None:
    declared = entry.desired is not None and entry.desired.suspend
    if not declared and not by_address:
        return None
    found = next((by_address[address] for address in addresses_of(entry) if address in by_address), None)
    if found is not None and (found.address.startswith(("session.", "group_chat.")) or not declared):
        return Hold("suspended", found.sentence(), f"reconciler unsuspend {found.address}")
    if declared:
        place = desired.locate(entry.address, "suspend")
        where = f" at {place.file}:{place.line}" if place else ""
        return Hold("suspended", f"suspended by the specs{where}", "set suspend = false there, then: reconciler apply")
    return None
