"""Who is told of what happens while nobody looks: people by a message, a forge of what became of its commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.core.notices import Notice
from reconciler.core.spec import Desired
from reconciler.core.verdicts import Verdict
from reconciler.errors import ReconcilerError


class NotifyError(ReconcilerError):
    """Somebody could not be told. `retry` says whether another attempt may help."""


class Notifier(Protocol):
    """One of `[notifiers]`. Both methods block and may be called on any thread; they raise NotifyError, which never
    holds a secret. What a notifier is not for, it ignores."""

    def notices(self, fleet: str, notices: Sequence[Notice]) -> None:
        """Tell people."""

    def verdict(self, fleet: str, verdict: Verdict) -> None:
        """Tell a forge."""


def open_notifiers(desired: Desired) -> dict[str, Notifier]:
    """All that the specs declare, by name. Nothing is contacted, and no secret is read, before there is news."""
    from reconciler.notifiers.forges import Forge
    from reconciler.notifiers.messages import Messages

    return {
        name: Messages(name, desired, spec) if spec.kind == "message" else Forge(name, spec)
        for name, spec in desired.notifiers.items()
    }
