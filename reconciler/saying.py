"""What `run` says: statuses, and what changes in them. What was seen is said before it is thought about."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from reconciler import garbage
from reconciler.core.diff import Entry
from reconciler.core.diff import seen_again as entry_again
from reconciler.core.known import Known
from reconciler.core.observed import Reached
from reconciler.core.status import Key, Status, older, statuses
from reconciler.core.status import seen_again as status_again
from reconciler.core.transitions import dated, key, transitions
from reconciler.reconcile import Pass
from reconciler.surroundings import Told


class Saying:
    """The statuses of one controller, and to whom it tells them."""

    def __init__(self, told: Told, clock: Callable[[], float]) -> None:
        """`clock` gives the time of day."""
        self._told = told
        self._clock = clock
        self._done: Pass | None = None
        self._by_host: dict[str, list[Entry]] = {}
        self._at = 0.0  # when everything was thought about last
        self._later: dict[Key, float] = {}  # when something was said of one alone since
        self.statuses: tuple[Status, ...] = ()

    def now(self) -> tuple[Status, ...]:
        """The statuses, as old as they are by now."""
        now = self._clock()
        return tuple(older(status, now - self._later.get(key(status), self._at)) for status in self.statuses)

    def decided(self, source: Status, done: Pass, known: Known | None = None) -> None:
        """Everything was thought about; `source` is the status of the specs, `known` what the last time left."""
        self._at = self._clock()
        with garbage.held_off():
            before = {key(status): status for status in self.statuses}
            found = statuses(done.desired, done.observed, done.diff, done.plan, done.agents, before, known)
            found = (source, *found)
            changed = transitions(before, found)
            self.statuses = dated(before, found, self._at)
        self._done = done
        self._later.clear()
        self._by_host.clear()
        for transition in changed:
            self._told.transition(transition)
        self._told.published(self.statuses)

    def looked(self, seen: Reached, heard: float | None, under_way: Collection[str]) -> None:
        """One host was looked at: what its sessions are now is told, though what follows from it is not known yet.

        `heard` is the wall-clock time at which the host itself said that something had changed. Of the addresses that
        are `under_way` whoever does something to them says what becomes of them.
        """
        done = self._done
        if done is None:
            return
        entries = self._again(done, seen, {*under_way, *done.plan.suspended})
        if not entries:
            return
        before, now = {}, []
        for status in self.statuses:
            if status.host == seen.name and status.address in entries:
                before[key(status)] = status
                now.append(status_again(status, entries[status.address], seen, done.agents))
        changed = [replace(found, heard=heard) for found in transitions(before, now)]
        at = self._clock()
        fresh = {key(status): status for status in dated(before, now, at)}
        self._later |= dict.fromkeys(fresh, at)
        self.statuses = tuple(fresh.get(key(status), status) for status in self.statuses)
        for transition in changed:
            self._told.transition(transition)

    def _again(self, done: Pass, seen: Reached, held: Collection[str]) -> dict[str, Entry]:
        """The entries of sessions that are not what they were when anything was said of them last, by address."""
        if not self._by_host:
            for entry in done.diff.entries:
                self._by_host.setdefault(entry.host, []).append(entry)
        known, found = self._by_host.get(seen.name, []), {}
        for number, entry in enumerate(known):
            now = entry_again(done.desired, entry, seen) if entry.address not in held else None
            if now is not None:
                known[number] = found[now.address] = now
        return found
