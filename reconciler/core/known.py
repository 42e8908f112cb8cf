"""What the last pass found, with all that it rested on: whatever rests on the very same is not worked out again. Pure.

Everything is kept for one `Desired`, and forgotten with it. A reason to take something again is always that what it
rested on is the same object, or equal; never that nobody said it had changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from reconciler.core.observed import HostSeen, Observed, Reached, SessionSeen
from reconciler.core.spec import Desired

Place = tuple[str, SessionSeen]  # a host, and what it has of a session
# Time goes on and fences rise with every look; sessions are compared one by one.
_ALIKE = attrgetter(*(f.name for f in fields(Reached) if f.name not in ("now", "fence", "sessions")))


@dataclass(frozen=True, slots=True)
class HostKnown:
    """One host as it was seen. `facts` is another number whenever it says anything else of itself but its time."""

    seen: HostSeen
    facts: int
    sessions: Mapping[str, SessionSeen]  # each the same object for as long as it is equal; so is the whole
    places: Mapping[str, tuple[Place, ...]]  # of the sessions with a record or a process, as one place each

    def same(self, other: HostKnown | None) -> bool:
        """Whether both say the same, but for the time."""
        return other is self or (other is not None and self.facts == other.facts and self.sessions is other.sessions)


NEVER_SEEN = HostKnown(Reached("", "", "", "", "", "", "", "", 0, 0), 0, {}, {})


class Known:
    """What one caller's passes leave for the next. Whatever they give is equal to what they give without it.

    `anew` names, by kind, what the last pass had to work out.
    """

    def __init__(self) -> None:
        self._forget(None)

    def _forget(self, desired: Desired | None) -> None:
        self.anew: dict[str, list[Any]] = {}
        self.compared: Any = None  # what `compare`, `make_plan` and `statuses` leave here for themselves
        self.planned: Any = None
        self.told: Any = None
        self.agents: Any = None  # the drivers, and the names that they were looked up by
        self.hosts: Mapping[str, HostKnown] = {}
        self.places: dict[str, tuple[Place, ...]] = {}  # where each session has a record or a process
        self._desired = desired
        self._observed: Observed | None = None
        self._count = 0

    def about(self, desired: Desired) -> None:
        """Forget everything unless it is about these very specs."""
        if self._desired is not desired:
            self._forget(desired)

    def recognise(self, observed: Observed) -> None:
        """What is equal to what was seen before is the same object again, in `hosts` and in `places`."""
        if self._observed is observed:
            return
        self._observed = observed
        before = self.hosts
        now = {name: self._recognised(name, before.get(name), seen) for name, seen in observed.hosts.items()}
        self.hosts = now
        if tuple(before) != tuple(now):  # places stand in the order of the hosts
            self.places = {}
            for name in now:
                self._place(now[name].places, name)
            return
        for name in different(before, now):
            self._place(before[name].places.keys() | now[name].places.keys(), name)

    def _place(self, sessions: Iterable[str], host: str) -> None:
        here = self.hosts[host].places
        for name in sessions:
            elsewhere = any(place != host for place, _ in self.places.get(name, ()))
            found = [known.places.get(name, ()) for known in self.hosts.values()] if elsewhere else [here.get(name, ())]
            if places := tuple(place for there in found for place in there):
                self.places[name] = places
            else:
                self.places.pop(name, None)

    def _recognised(self, name: str, before: HostKnown | None, seen: HostSeen) -> HostKnown:
        if before is not None and before.seen is seen:
            return before
        if not isinstance(seen, Reached):
            return before if before is not None and before.seen == seen else HostKnown(seen, self._next(), {}, {})
        if before is None or not isinstance(before.seen, Reached):
            return HostKnown(seen, self._next(), seen.sessions, _places(name, seen.sessions))
        facts = before.facts if _ALIKE(before.seen) == _ALIKE(seen) else self._next()
        old, new = before.sessions, seen.sessions
        if before.seen.sessions is new:
            return HostKnown(seen, facts, old, before.places)
        sessions = {key: _same(old.get(key), session) for key, session in new.items()}
        if old.keys() == new.keys() and all(old[key] is session for key, session in sessions.items()):
            return HostKnown(seen, facts, old, before.places)
        return HostKnown(seen, facts, sessions, _places(name, sessions))

    def _next(self) -> int:
        self._count += 1
        return self._count


def different(before: Mapping[str, HostKnown], now: Mapping[str, HostKnown]) -> list[str]:
    """The hosts that say something else than before, that are new, or that nobody looks at any more."""
    if before is now:
        return []
    changed = [name for name, host in now.items() if not host.same(before.get(name))]
    return changed + [name for name in before if name not in now]


def _same(before: SessionSeen | None, seen: SessionSeen) -> SessionSeen:
    return before if before is not None and before == seen else seen


def _places(host: str, sessions: Mapping[str, SessionSeen]) -> dict[str, tuple[Place, ...]]:
    return {
        name: ((host, session),) for name, session in sessions.items() if session.record is not None or session.live
    }
