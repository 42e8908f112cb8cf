"""What became of a commit, for the forge that it came from: pending, success or failure, in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reconciler.core.printed import escaped
from reconciler.core.status import Status

_LENGTH = 140  # characters; GitHub takes no more


@dataclass(frozen=True)
class Verdict:
    """The state of one commit."""

    commit: str
    state: Literal["pending", "success", "failure"]
    description: str


def refused(commit: str, message: str) -> Verdict:
    """The verdict on a revision that is not in force."""
    return Verdict(commit, "failure", _short(f"not in force: {message}"))


def verdict(commit: str, statuses: Sequence[Status]) -> Verdict:
    """The verdict on the revision in force, from the statuses of its sessions."""
    sessions = [status for status in statuses if status.address.startswith(("session.", "group_chat."))]
    stalled = [status for status in sessions if _is(status, "Stalled")]
    waiting = [s for s in sessions if s not in stalled and (_is(s, "Reconciling") or _is(s, "Drifted"))]
    unknown = [s for s in sessions if any(c.type == "Ready" and c.status == "Unknown" for c in s.conditions)]
    if stalled:
        first = stalled[0]
        why = next(c.message for c in first.conditions if c.type == "Stalled")
        return Verdict(commit, "failure", _short(f"{len(stalled)} of {len(sessions)} stalled: {first.address}: {why}"))
    if waiting or unknown:
        done = len(sessions) - len({s.address for s in (*waiting, *unknown)})
        names = (waiting or unknown)[0].address
        return Verdict(commit, "pending", _short(f"{done} of {len(sessions)} sessions are as declared; next {names}"))
    what = "1 session is" if len(sessions) == 1 else f"{len(sessions)} sessions are"
    return Verdict(commit, "success", f"{what} as declared")


def _is(status: Status, kind: str) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in status.conditions)


def _short(text: str) -> str:
    line = " ".join(escaped(text).split())
    return line if len(line) <= _LENGTH else f"{line[: _LENGTH - 1]}…"
