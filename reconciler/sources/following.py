"""Holds the last good revision of a source: what is refused leaves it in force, and says why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.core.guards import EMPTY, NOT_EMPTY
from reconciler.core.location import check_commit
from reconciler.errors import SourceError, SpecError, UsageError
from reconciler.sources import Revision, Source

_MANY = 4  # below so many files, losing half of them is an everyday edit


class Memory(Protocol):
    """What survives a restart of the program."""

    def recall(self, key: str) -> str | None:
        """What was kept last under a key."""
        ...

    def keep(self, key: str, value: str) -> None:
        """Keep it, durably; "" is as good as nothing."""
        ...


@dataclass(frozen=True)
class SourceTrouble:
    """Why the newest revision is not in force. `attempted` is its id where that is known; `since` the first time."""

    code: str
    message: str
    remedy: str
    diagnostics: tuple[object, ...]
    attempted: str
    since: float

    def same(self, other: SourceTrouble | None) -> bool:
        """Whether it is the same trouble, whenever that began."""
        return other is not None and dataclasses.replace(other, since=self.since) == self


@dataclass(frozen=True)
class _Last:
    """What is remembered of the last good revision."""

    id: str
    commit: str
    files: int


class Following:
    """One source and what is in force of it. `good` None: nothing yet, and nothing may be done then."""

    def __init__(self, source: Source, memory: Memory, *, now: Callable[[], float]) -> None:
        self.source = source
        self.good: Revision | None = None
        self.trouble: SourceTrouble | None = None
        self._memory = memory
        self._now = now
        self._last = _last(self._recall("good"))
        self._accepted = self._recall("accepted")
        self.pinned: str | None = self._recall("pinned") or None
        self._hold()

    async def refresh(self) -> bool:
        """One attempt. True when a revision is in force that was not before; `trouble` says what is refused, and why.

        Cancelled, it leaves everything as it was.
        """
        pinned = self.pinned
        try:
            found = await self._attempt(pinned)
            trouble = self._refused(found, pinned)
        except (SourceError, SpecError) as error:
            found, trouble = None, self._trouble_of(error)
        if trouble is None:
            return self._put_in_force(found)
        restored = await self._restore() if self.good is None else None
        # From here on nothing waits: all of it happens, or nothing.
        self.trouble = self.trouble if trouble.same(self.trouble) else trouble
        if restored is not None:
            self.good = restored
        return restored is not None

    def accept(self, revision: str) -> None:
        """This revision may have lost most of its files: at the next refresh it is in force."""
        self._accepted = revision
        self._keep("accepted", revision)

    def pin(self, commit: str) -> None:
        """From the next refresh on this commit is in force, whatever the ref says; also after a restart.

        Raises UsageError for a source without commits, SourceError(bad-url) for what is no whole commit id.
        """
        if not self.source.polls:
            raise UsageError(f"{self.source.name} has no revisions to pin", code="pin-directory")
        self.pinned = check_commit(commit)
        self._keep("pinned", self.pinned)
        self._hold()

    def unpin(self) -> None:
        """From the next refresh on the ref counts again."""
        self.pinned = None
        self._keep("pinned", "")
        self._hold()

    async def _attempt(self, pinned: str | None) -> Revision | None:
        if pinned is None:
            return await self.source.read()
        if self.good is not None and self.good.commit == pinned:
            return self.good
        return await self.source.recall(pinned, fetch=True)

    def _refused(self, found: Revision | None, pinned: str | None) -> SourceTrouble | None:
        if found is None:
            return self._trouble("ref-not-found", f"there is no commit {pinned}", "unpin it, or pin another one")
        if found.desired.empty:
            return self._trouble(
                "empty-specs",
                EMPTY,
                NOT_EMPTY,
                found.id,
            )
        before = self._last.files if self._last else 0
        lost = before - found.files
        # Whoever pins a commit has said which one is meant.
        if before >= _MANY and lost * 2 > before and found.id != self._accepted and pinned is None:
            good = self._last.id if self._last else ""
            message = f"{lost} of {before} spec files are gone since the last good revision {good}: taken for a mistake"
            return self._trouble(
                "mass-loss", message, f"if it is meant: reconciler reconcile --accept {found.id}", found.id
            )
        return None

    def _put_in_force(self, found: Revision | None) -> bool:
        assert found is not None
        new = self.good is None or self.good.id != found.id
        last = _Last(found.id, found.commit, found.files)
        if last != self._last:
            self._keep("good", json.dumps(dataclasses.asdict(last)))
        self.good, self.trouble, self._last = found, None, last
        self._hold()
        return new

    async def _restore(self) -> Revision | None:
        """After a restart: the last good revision, as far as this machine still has it."""
        if self._last is None or not self._last.commit:
            return None
        found = await self.source.recall(self._last.commit)
        if found is None or found.desired.empty:
            return None
        return dataclasses.replace(
            found, id=self._last.id, desired=dataclasses.replace(found.desired, revision=self._last.id)
        )

    def _hold(self) -> None:
        commits = {self._last.commit if self._last else "", self.good.commit if self.good else "", self.pinned or ""}
        self.source.hold(frozenset(commits - {""}))

    def _trouble_of(self, error: SourceError | SpecError) -> SourceTrouble:
        found = error.diagnostics if isinstance(error, SpecError) else ()
        return SourceTrouble(error.code, error.message, error.remedy, found, error.revision, self._now())

    def _trouble(self, code: str, message: str, remedy: str, attempted: str = "") -> SourceTrouble:
        return SourceTrouble(code, message, remedy, (), attempted, self._now())

    def _recall(self, key: str) -> str:
        return self._memory.recall(f"source {key} {self.source.name}") or ""

    def _keep(self, key: str, value: str) -> None:
        self._memory.keep(f"source {key} {self.source.name}", value)


def _last(text: str) -> _Last | None:
    """What was kept; None for nothing, and for what nobody can have kept."""
    try:
        values: Any = json.loads(text) if text else None
        last = _Last(str(values["id"]), str(values["commit"]), int(values["files"])) if values else None
        if last and last.commit:
            check_commit(last.commit)
    except (ValueError, TypeError, KeyError, SourceError):
        return None
    return last
