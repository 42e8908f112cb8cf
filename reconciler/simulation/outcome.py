"""What a simulation came to: its timeline, its outages, how every session ended, and which promises were kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.simulation.mishaps import Mishap

FORMAT_VERSION = "1.0"
PROMISES = {
    "I1": "after the faults the fleet reaches its specs",
    "I2": "then there is nothing left to do",
    "I3": "never two live processes of one session, or on one conversation",
    "I4": "nothing is done on a host that is unknown",
    "I5": "nothing happens that is in no plan",
    "I6": "no conversation is lost or cut short",
    "I7": "every intent has an outcome",
    "I8": "no host obeys an older controller",
    "I9": "no secret lies anywhere",
}


@dataclass(frozen=True)
class Entry:
    """One line of the timeline. `kind`: fault, over, saw, does, did, failed, skipped, broken."""

    at: float
    kind: str
    host: str
    address: str
    message: str


@dataclass(frozen=True)
class Outage:
    """A time in which a session did not run, though it is wanted; `until` None: to the end. `cause`: which fault."""

    address: str
    since: float
    until: float | None
    cause: str


@dataclass(frozen=True)
class SessionEnd:
    """How a session is in the end; `right`: as the specs say. `why`: what the plan says of it."""

    address: str
    host: str
    state: str
    right: bool
    why: str


@dataclass(frozen=True)
class Result:
    """All of it. `broken`: promises that were not kept, with what happened; `lasting`: faults that never ended."""

    fleet: str
    seed: int
    seconds: float
    empty: bool
    mishaps: tuple[Mishap, ...]
    entries: tuple[Entry, ...]
    sessions: tuple[SessionEnd, ...]
    outages: tuple[Outage, ...]
    broken: Mapping[str, str]
    lasting: tuple[str, ...]
    reached: bool
    notes: tuple[str, ...]

    @property
    def promises(self) -> dict[str, str]:
        """Of each promise `kept`, `broken`, or `not judged` where a fault lasts to the end."""
        said = {name: "broken" if name in self.broken else "kept" for name in PROMISES}
        if not self.reached:
            said["I1"] = "not judged" if self.lasting else "broken"
        if self.lasting and "I2" not in self.broken:
            said["I2"] = "not judged"
        return said

    @property
    def exit_code(self) -> int:
        """0: the specs are reached and every promise was kept."""
        return int(not self.reached or bool(self.broken))


def clock_of(seconds: float) -> str:
    """`05:00`, or `1:05:00` from the first hour on."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def to_json(result: Result) -> dict[str, Any]:
    """The document of `simulate --json`."""
    return {
        "format_version": FORMAT_VERSION,
        "fleet": result.fleet,
        "seed": result.seed,
        "seconds": result.seconds,
        "from_empty": result.empty,
        "faults": [str(mishap) for mishap in result.mishaps],
        "timeline": [
            {"at": round(e.at, 1), "kind": e.kind, "host": e.host, "address": e.address, "message": e.message}
            for e in result.entries
        ],
        "sessions": [
            {"address": s.address, "host": s.host, "state": s.state, "as_declared": s.right, "why": s.why}
            for s in result.sessions
        ],
        "outages": [
            {"address": o.address, "since": o.since, "until": o.until, "fault": o.cause} for o in result.outages
        ],
        "promises": [
            {"name": name, "promise": PROMISES[name], "state": state, "message": result.broken.get(name, "")}
            for name, state in result.promises.items()
        ],
        "reached": result.reached,
        "lasting": list(result.lasting),
        "notes": list(result.notes),
    }
