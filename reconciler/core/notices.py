"""What people are told while nobody looks: each trouble once, when it has lasted, and its end. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, get_args

from reconciler.core.expressions import fits
from reconciler.core.notifier_spec import NoticeKind, Notifier
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.core.status import Status

LOOPING = 3  # failures in a row from which on a session counts as crash-looping
_LENGTH = 300  # characters of one line; a chat is no log
_LINES = 20
_CRASHES = ("budget-spent", "stalled")


@dataclass(frozen=True)
class Notice:
    """One thing to tell. `since` is a time of the wall clock, None where nobody knows."""

    kind: NoticeKind
    address: str
    host: str
    reason: str
    message: str
    since: float | None = None


Key = tuple[str, str, str]  # address, host, kind


@dataclass(frozen=True)
class Told:
    """What people know of: the reason of each trouble that they were told and that is not over."""

    reasons: Mapping[Key, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As one line, to survive a restart of the program."""
        return json.dumps([[*key, reason] for key, reason in sorted(self.reasons.items())])

    @staticmethod
    def from_json(text: str | None) -> Told:
        """What `to_json` gave; nothing for what it cannot have given."""
        try:
            rows = json.loads(text or "[]")
            found = {(str(a), str(host), str(kind)): str(reason) for a, host, kind, reason in rows}
        except (ValueError, TypeError):
            return Told()
        return Told({key: reason for key, reason in found.items() if key[2] in get_args(NoticeKind)})


def noticed(
    told: Told, statuses: Sequence[Status], failures: Mapping[str, int], now: float, after: float
) -> tuple[Told, list[Notice]]:
    """What is to be told now, and what people know of then.

    `failures` counts by address how often in a row something failed; `after` are the seconds that waiting for a person
    and a host's silence have to last. A trouble of which nothing is known just now is neither told nor over.
    """
    found: dict[Key, Notice] = {(n.address, n.host, n.kind): n for n in _troubles(statuses, failures, now, after)}
    reasons: dict[Key, str] = {key: notice.reason for key, notice in found.items()}
    fresh = [notice for key, notice in found.items() if told.reasons.get(key) != notice.reason]
    by_key = {(status.address, status.host): status for status in statuses}
    for (address, host, kind), reason in told.reasons.items():
        status = by_key.get((address, host))
        if (address, host, kind) in found or status is None:
            continue
        if _unknown(status, kind):
            reasons[address, host, kind] = reason
        elif kind != "waiting":  # whoever answered it knows
            fresh.append(Notice("healed", address, host, kind, f"no longer {_WORDS[kind]}"))
    return Told(reasons), fresh


_WORDS = {
    "waiting": "waiting for a person", "crash-looping": "crash-looping", "diverged": "diverged", "blocked": "blocked",
    "source": "refused: the newest revision is in force", "unreachable": "unreachable",
}  # fmt: skip


def _troubles(statuses: Sequence[Status], failures: Mapping[str, int], now: float, after: float) -> Iterator[Notice]:
    for status in statuses:
        if status.address.startswith("source."):
            yield from _of_source(status, now, after)
        elif status.address.startswith("host."):
            yield from _of_host(status, now, after)
        else:
            yield from _of_session(status, failures.get(status.address, 0), now, after)


def _of_source(status: Status, now: float, after: float) -> Iterator[Notice]:
    for condition in status.conditions:
        # A server that is away for a moment is no news; a revision that is refused is.
        brief = condition.reason == "fetch-failed" and now - (condition.since or now) < after
        if (condition.type, condition.status) == ("Stalled", "True") and not brief:
            words = f"{condition.reason} {condition.message}"  # another refused revision is another trouble
            yield Notice("source", status.address, status.host, words, status.message, condition.since)


def _of_host(status: Status, now: float, after: float) -> Iterator[Notice]:
    for condition in status.conditions:
        lasted = condition.since is not None and now - condition.since >= after
        if condition.type == "Reachable" and condition.status != "True" and lasted:
            yield Notice("unreachable", status.address, status.host, "", condition.message, condition.since)


def _of_session(status: Status, failures: int, now: float, after: float) -> Iterator[Notice]:
    age = status.seen.get("age")
    if status.seen.get("activity") == "waiting" and isinstance(age, int) and age >= after:
        detail = status.seen.get("waiting_for") or "an answer"
        yield Notice("waiting", status.address, status.host, "", f"waits for a person: {detail}", now - age)
    for condition in status.conditions:
        if condition.status != "True" or condition.type not in ("Stalled", "Reconciling"):
            continue
        if condition.reason in _CRASHES or (condition.reason == "back-off" and failures >= LOOPING):
            yield Notice("crash-looping", status.address, status.host, "", condition.message, condition.since)
        elif condition.type == "Stalled":
            kind: NoticeKind = "diverged" if condition.reason == "diverged" else "blocked"
            yield Notice(kind, status.address, status.host, condition.reason, condition.message, condition.since)


def _unknown(status: Status, kind: str) -> bool:
    """Whether nobody can say just now that it is over."""
    if kind == "crash-looping" and any(c.type == "Reconciling" and c.status == "True" for c in status.conditions):
        return True  # the next attempt is under way, or waited for
    return kind != "unreachable" and any(c.type == "Ready" and c.status == "Unknown" for c in status.conditions)


def resumed(told: Told, address: str, host: str, message: str) -> tuple[Told, Notice]:
    """A session that had died is alive again, by the program's own doing: said at once, and once."""
    rest = {key: reason for key, reason in told.reasons.items() if key[:2] != (address, host)}
    return replace(told, reasons=rest), Notice("healed", address, host, "resumed", f"was resumed: {message}")


def wanted(desired: Desired, notifier: Notifier, notices: Iterable[Notice]) -> list[Notice]:
    """Those that a notifier is for."""

    def fitting(notice: Notice) -> bool:
        kind, _, name = notice.address.partition(".")
        if notifier.events is not None and notice.kind not in notifier.events:
            return False
        if notifier.select is None:
            return True
        session = desired.sessions.get(name) if kind == "session" else None
        return session is not None and fits(session.labels, notifier.select)

    return [notice for notice in notices if fitting(notice)]


def message(fleet: str, notices: Sequence[Notice]) -> tuple[str, str]:
    """Title and text of one message. Nothing in it can give an order to a terminal or run over many screens."""
    kinds = ", ".join(dict.fromkeys(notice.kind for notice in notices))
    count = f"{len(notices)} × " if len(notices) > 1 else ""
    lines = [_line(notice) for notice in notices[:_LINES]]
    if len(notices) > _LINES:
        lines.append(f"… and {len(notices) - _LINES} more: reconciler status")
    return f"{fleet}: {count}{kinds}", "\n".join(lines)


def _line(notice: Notice) -> str:
    where = f" on {notice.host}" if notice.host and notice.address.startswith(("session.", "group_chat.")) else ""
    since = f" (since {datetime.fromtimestamp(notice.since, UTC):%d %b %H:%M} UTC)" if notice.since is not None else ""
    text = escaped(f"{notice.kind}: {notice.address}{where}: {notice.message}")
    return text[:_LENGTH] + ("…" if len(text) > _LENGTH else "") + since


def notice_json(notice: Notice) -> dict[str, Any]:
    """One notice for logs and `--json`."""
    return {"type": "notice", "kind": notice.kind, "address": notice.address, "host": notice.host,
            "reason": notice.reason, "message": notice.message}  # fmt: skip
