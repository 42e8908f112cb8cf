"""What the last pass found, with all that it rested on: whatever rests on the very same is not worked out again. Pure.

Everything is kept for one `Desired`, and forgotten with it. A reason to take something again is always that what it
rested on is the same object, or equal; never that nobody said it had changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from reconciler.core.observed import HostSeen, Observed, Reached, SessionSeen
from reconciler.core.spec import Desired

V = TypeVar("V")
Place = tuple[str, SessionSeen]  # a host, and what it has of a session
# Time goes on and fences rise with every look; sessions are compared one by one.
_ALIKE = attrgetter(*(f.name for f in fields(Reached) if f.name not in ("now", "fence", "sessions")))


@dataclass(slots=True)
class Kept(Generic[V]):
    """Values by key, each with what it rests on. `anew` names those that the last pass had to work out."""

    values: dict[Any, V] = field(default_factory=dict)
    anew: list[Any] = field(default_factory=list)

    def next(self) -> tuple[dict[Any, V], dict[Any, V]]:
        """What the last pass kept, and where this one keeps; what is not kept again is forgotten."""
        before, self.values = self.values, {}
        self.anew = []
        return before, self.values


@dataclass(frozen=True, slots=True)
class _Host:
    """One host as it was seen. `facts` is another number whenever it says anything else of itself."""

    seen: HostSeen
    facts: int
    sessions: Mapping[str, SessionSeen]
    places: Mapping[str, tuple[Place, ...]]  # of the sessions with a record or a process, as one place each


class Known:
    """What one caller's passes leave for the next. Whatever they give is equal to what they give without it."""

    def __init__(self) -> None:
        self._forget(None)

    def _forget(self, desired: Desired | None) -> None:
        self.entries = Kept[Any]()  # of the diff
        self.decisions = Kept[Any]()
        self.statuses = Kept[Any]()
        self.agents: Any = None  # the drivers, and the names that they were looked up by
        self.order: list[str] | None = None  # the sessions that depend on others
        self._desired = desired
        self._observed: Observed | None = None
        self._hosts: dict[str, _Host] = {}
        self._count = 0
        self._rest: Any = None

    def about(self, desired: Desired) -> None:
        """Forget everything unless it is about these very specs."""
        if self._desired is not desired:
            self._forget(desired)

    def recognise(self, observed: Observed) -> None:
        """What is equal to what was seen before is the same object again: `facts`, `sessions` and `places` tell."""
        if self._observed is not observed:
            before, self._observed = self._hosts, observed
            self._hosts = {
                name: self._recognised(name, before.get(name), seen) for name, seen in observed.hosts.items()
            }

    def decide_by(self, *rest: object) -> None:
        """Forget all decisions unless everything that all of them rest on is the same."""
        if self._rest != rest:
            self._rest = rest
            self.decisions = Kept()

    def facts(self, host: str) -> int:
        """A number that stands for all that a host says of itself but its time; 0 of one that nobody looked at."""
        found = self._hosts.get(host)
        return found.facts if found is not None else 0

    def sessions(self, host: str) -> Mapping[str, SessionSeen]:
        """What a host has, each the same object for as long as it is equal."""
        found = self._hosts.get(host)
        return found.sessions if found is not None else {}

    def places(self) -> dict[str, tuple[Place, ...]]:
        """Where each session has a record or a process."""
        found: dict[str, tuple[Place, ...]] = {}
        for host in self._hosts.values():
            if found.keys().isdisjoint(host.places):
                found.update(host.places)
            else:
                for name, place in host.places.items():
                    found[name] = (*found.get(name, ()), *place)
        return found

    def _recognised(self, name: str, before: _Host | None, seen: HostSeen) -> _Host:
        if before is not None and before.seen is seen:
            return before
        if not isinstance(seen, Reached):
            return before if before is not None and before.seen == seen else _Host(seen, self._next(), {}, {})
        if before is None or not isinstance(before.seen, Reached):
            return _Host(seen, self._next(), seen.sessions, _places(name, seen.sessions))
        facts = before.facts if _ALIKE(before.seen) == _ALIKE(seen) else self._next()
        if before.seen.sessions is seen.sessions:
            return _Host(seen, facts, before.sessions, before.places)
        sessions = {key: _same(before.sessions.get(key), session) for key, session in seen.sessions.items()}
        return _Host(seen, facts, sessions, _places(name, sessions))

    def _next(self) -> int:
        self._count += 1
        return self._count


def _same(before: SessionSeen | None, seen: SessionSeen) -> SessionSeen:
    return before if before is not None and before == seen else seen


def _places(host: str, sessions: Mapping[str, SessionSeen]) -> dict[str, tuple[Place, ...]]:
    return {
        name: ((host, session),) for name, session in sessions.items() if session.record is not None or session.live
    }
