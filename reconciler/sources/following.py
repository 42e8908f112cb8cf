"""The revision in force: the last good one, whatever happens to newer ones, and why they are not taken."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from reconciler.core.diagnostics import Diagnostic
from reconciler.errors import ReconcilerError, SourceError, SpecError
from reconciler.sources import Revision, Source

ENOUGH_FILES = 4  # with fewer, losing half of them is an edit like any other


class Memory(Protocol):
    """Texts by key that outlive the program."""

    def recall(self, key: str) -> str | None:
        """What was kept under a key."""

    def keep(self, key: str, value: str) -> None:
        """Keep it."""


@dataclass(frozen=True)
class Trouble:
    """Why what is new is not in force. `since` is a time of the wall clock."""

    code: str
    message: str
    remedy: str = ""
    since: float = field(default=0.0, compare=False)
    diagnostics: tuple[Diagnostic, ...] = field(default=(), compare=False)


class Following:
    """Follows one source. A revision that does not fetch, verify, parse or validate changes nothing."""

    def __init__(self, source: Source, memory: Memory, *, now: Callable[[], float]) -> None:
        self._source = source
        self._memory = memory
        self._now = now
        self.name = source.name
        self.polls = source.polls
        self.good: Revision | None = None
        self.trouble: Trouble | None = None
        self.pinned: str | None = None
        self._accepted: str | None = None
        self._known = self._recall()

    def _recall(self) -> dict[str, Any]:
        """What was in force when the program ran last: commit, number of files, name of the fleet."""
        with contextlib.suppress(ValueError, TypeError):
            found = json.loads(self._memory.recall("good") or "{}")
            if isinstance(found, dict):
                if hasattr(self._source, "verified"):
                    self._source.verified = found.get("verified")
                return found
        return {}

    async def refresh(self) -> bool:
        """Ask the source; whether another revision is in force now. What went wrong is `trouble`, never raised."""
        try:
            revision = await self._newest()
            self._check(revision)
        except SpecError as error:
            found = tuple(d for d in error.diagnostics if isinstance(d, Diagnostic))
            return await self._fail(error.code, _first(error, found), error.remedy, found)
        except ReconcilerError as error:
            return await self._fail(error.code, error.message, error.remedy)
        self.trouble = None
        return self._take(revision)

    async def _newest(self) -> Revision:
        if self.pinned is None:
            return await self._source.read()
        found = await self._source.recall(self.pinned)
        if found is None:
            raise SourceError(
                f"{self.name}: it is pinned to {self.pinned}, which cannot be had", code="ref-not-found",
                remedy="reconciler rollback --unpin",
            )  # fmt: skip
        return found

    def _check(self, revision: Revision) -> None:
        """Raises SourceError for a revision that is valid and must be a mistake all the same."""
        if self.good is not None and revision.id == self.good.id:
            return
        if revision.desired.empty:
            raise SourceError(
                f"{revision.id} declares nothing at all: this is taken for a mistake", code="empty-specs",
                remedy='to stop everything, keep the hosts, or set state = "stopped" in [defaults.session]',
            )  # fmt: skip
        fleet = self._known.get("fleet")
        if self.good is not None and fleet not in (None, revision.desired.fleet.name):
            raise SourceError(
                f"{revision.id} renames the fleet {fleet} to {revision.desired.fleet.name}", code="renamed",
                remedy="start reconciler run again, once nothing of the old name is wanted any more",
            )  # fmt: skip
        before = self._known.get("files", 0)
        lost = isinstance(before, int) and before >= ENOUGH_FILES and revision.files * 2 < before
        if lost and revision.id != self._accepted:
            raise SourceError(
                f"{revision.id} has {revision.files} of {before} spec files: this is taken for a mistake",
                code="mass-loss", remedy=f"if it is meant: reconciler reconcile --accept {revision.id}",
            )  # fmt: skip

    async def _fail(self, code: str, message: str, remedy: str, found: tuple[Diagnostic, ...] = ()) -> bool:
        trouble = Trouble(code, message, remedy, self._now(), found)
        if trouble != self.trouble:  # the same again is not new
            self.trouble = trouble
        return self.good is None and await self._last_good()

    async def _last_good(self) -> bool:
        """At the start, with a source that gives nothing: what was in force last, where this machine has it."""
        commit = self._known.get("commit")
        if not isinstance(commit, str) or not commit:
            return False
        try:
            revision = await self._source.recall(commit)
        except ReconcilerError:
            return False
        return revision is not None and self._take(revision)

    def _take(self, revision: Revision) -> bool:
        if self.good is not None and revision.id == self.good.id:
            return False
        self.good = revision
        self._known = {
            "id": revision.id, "commit": revision.commit, "files": revision.files,
            "fleet": revision.desired.fleet.name, "verified": getattr(self._source, "verified", None),
        }  # fmt: skip
        self._memory.keep("good", json.dumps(self._known))
        return True

    def accept(self, revision: str) -> None:
        """A person says that this revision, which lost most of its files, is meant."""
        self._accepted = revision
        self.poke()

    def pin(self, commit: str | None) -> None:
        """Keep one commit in force whatever the branch says; None follows the branch again."""
        if commit != self.pinned:
            self.pinned = commit
            self.poke()

    async def changed(self) -> None:
        """Return when there may be something new."""
        await self._source.changed()

    def poke(self) -> None:
        """Ask the source now."""
        self._source.poke()


def _first(error: SpecError, found: tuple[Diagnostic, ...]) -> str:
    if not found:
        return error.message
    first = found[0]
    place = f" at {first.file}:{first.line}" if first.file else ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{error.message}: {first.summary}{place}{more}"
