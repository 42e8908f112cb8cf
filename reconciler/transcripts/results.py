"""What a sync is asked for, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reconciler.core.agent import Agent
from reconciler.core.decision import since
from reconciler.core.observed import SessionSeen
from reconciler.core.transcript import Archived
from reconciler.errors import ReconcilerError
from reconciler.transcripts.manifest import Head

Outcome = Literal["synced", "unchanged", "archive-ahead", "diverged", "purged", "unknown", "failed"]


@dataclass(frozen=True)
class Item:
    """One session whose conversation is wanted. The last three are for agents that export: how they are run."""

    session: str
    agent: Agent
    seen: SessionSeen
    command: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # resolved; travels on stdin only
    shell: str = ""


@dataclass(frozen=True)
class Fork:
    """A file of which there are two continuations: the host's head and the archive's."""

    name: str
    host: Head
    archive: Head


@dataclass(frozen=True)
class PullResult:
    """What came of one session. `new` are the bytes that were archived; `error` says why it failed."""

    session: str
    conversation: str
    host: str
    outcome: Outcome
    new: int = 0
    forks: tuple[Fork, ...] = ()
    archived: Archived | None = None
    error: ReconcilerError | None = None
    purged_at: float = 0.0

    @property
    def message(self) -> str:
        """One sentence."""
        if self.error is not None:
            return self.error.message
        return {
            "synced": f"{self.new} new bytes archived",
            "unchanged": "nothing new",
            "archive-ahead": f"{self.host} has only a beginning of what the archive has",
            "diverged": "; ".join(_fork_words(self.host, fork) for fork in self.forks) or "the copies differ",
            "purged": f"it has been purged{since(self.purged_at) if self.purged_at else ''}; "
            "the copy on the host is left alone",
            "unknown": "nobody looked at its files",
        }.get(self.outcome, self.outcome)


def _fork_words(host: str, fork: Fork) -> str:
    def head(found: Head) -> str:
        return f"{found.size} bytes, {found.sha256[:12]}" + (f", last {found.last}" if found.last else "")

    return f"{fork.name}: {host} has {head(fork.host)}; the archive has {head(fork.archive)}"
