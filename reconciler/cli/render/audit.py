"""Entries of the audit log, and what came of checking it, in words and as JSON."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime
from typing import Any

from reconciler.core.audit import Entry, Verdict
from reconciler.core.printed import escaped

_MOST = 20  # findings that are shown
_DIGEST = re.compile(r"[0-9a-f]{40,64}")


def moment(at: str) -> str:
    """A time of an entry, in the local zone; what is none as it stands."""
    try:
        return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return at


def short(revision: str) -> str:
    """A revision with the first characters of its digest."""
    return _DIGEST.sub(lambda found: found[0][:12], revision)


def by(user: str, machine: str, command: str, revision: str, author: str = "") -> str:
    """Who it was, by which command, at which revision; "" where nothing of that is known."""
    who = f"by {user}@{machine}" + (f" ({command})" if command else "") if user else ""
    what = f"at {short(revision)}" + (f" of {author}" if author else "") if revision else ""
    return ", ".join(part for part in (who, what) if part)


def line(entry: Entry) -> str:
    """One entry in one line, made harmless for a terminal."""
    what = f"{entry.kind} {entry.verb}" if entry.verb and entry.verb != entry.kind else entry.kind
    place = f" on {entry.host}" if entry.host else ""
    words = [f"{entry.outcome}: {entry.message}" if entry.outcome and entry.message else entry.outcome or entry.message]
    words += [by(entry.user, entry.machine, entry.command, entry.revision, entry.author), entry.evidence]
    said = "; ".join(word for word in words if word)
    return escaped(f"{entry.seq:>6}  {moment(entry.at)}  {what:<16} {entry.address}{place}  {said}".rstrip())


def entry_json(entry: Entry) -> dict[str, Any]:
    """All fields of an entry."""
    return asdict(entry)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """All that was found."""
    return {
        "format_version": "1.0", "valid": not verdict.broken, "entries": verdict.count, "start": verdict.start,
        "first": verdict.first, "last": verdict.last, "head": verdict.head, "begun": verdict.begun,
        "after_head": verdict.after_head,
        "broken": [{"entry": number or None, "message": message} for number, message in verdict.broken],
    }  # fmt: skip


def verdict_lines(verdict: Verdict) -> list[str]:
    """The same for people."""
    if not verdict.count:
        lines = ["the audit log has no entries yet"] if not verdict.broken else []
    else:
        kind = "entry" if verdict.count == 1 else "entries"
        part = f", from entry {verdict.start} on; those before were not checked" if verdict.start > 1 else ""
        lines = [
            f"{verdict.count} {kind}, {moment(verdict.first)} to {moment(verdict.last)}{part}",
            *([verdict.begun] if verdict.begun else []),
            f"head: {verdict.head}",
        ]
    lines += [
        f"broken{f' at entry {number}' if number else ''}: {message}" for number, message in verdict.broken[:_MOST]
    ]
    if len(verdict.broken) > _MOST:
        lines.append(f"and {len(verdict.broken) - _MOST} more (--json shows all)")
    if verdict.broken:
        return [escaped(text) for text in lines]
    if verdict.after_head is not None:
        lines.append(f"nothing up to the hash that you kept was changed or cut off; {verdict.after_head} came after it")
    elif verdict.count:
        lines.append("keep this hash elsewhere: with --head HASH it proves that nothing before was changed or cut off")
    return [escaped(text) for text in lines]
