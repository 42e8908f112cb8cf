"""The entries of a group chat's log: one JSON object a line, append-only. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from reconciler.core import jsons

Kind = Literal["user", "moderator", "participant", "system"]
# What became of a turn. `late`: it answered after its outcome was logged; what it says is not routed.
OUTCOMES = ("ok", "failed", "timeout", "lost", "unreachable", "removed", "unclear", "late")
# What a system entry is about. `idle` closes a message, `closed` the chat.
EVENTS = ("opened", "members", "conversation", "note", "idle", "closed")
LINE_LIMIT = 20_000_000  # bytes; a line of ours is far shorter
NUMBER_LIMIT = 1e15  # amounts and times beyond that are none


@dataclass(frozen=True)
class Entry:
    """One contribution, or something that happened.

    `seq` counts from 1 without gaps. `turn_id` is the turn that it is the outcome of, or the id of a user's message.
    `round` is the moderator's round of the present message. `at` is in seconds of the runner's clock. `status` is an
    outcome for turns, an event for system entries, and `ok` for users' messages. `data` holds what is not for people:
    the messages that a moderator delegates, members, why a message is closed, the agent's conversation.
    """

    seq: int
    kind: Kind
    sender: str
    to: tuple[str, ...] = ()
    text: str = ""
    status: str = "ok"
    turn_id: str = ""
    round: int = 0
    at: float = 0.0
    usage: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """US dollars, as far as its agent told."""
        return max(0.0, self.usage.get("cost", 0.0))

    @property
    def said(self) -> bool:
        """Whether it is a contribution that others get to read."""
        return self.kind == "user" or (self.kind in ("moderator", "participant") and self.status in ("ok", "unclear"))

    def to_json(self) -> str:
        """One line; `from` is the sender's name."""
        values = asdict(self)
        values["from"] = values.pop("sender")
        order = ("seq", "turn_id", "round", "at", "from", "to", "kind", "text", "status", "usage", "data")
        kept = {key: values[key] for key in order if values[key] not in ("", {}) or key in ("from", "text")}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))

    def numbered(self, seq: int, at: float) -> Entry:
        """The same as it stands in the log."""
        return replace(self, seq=seq, at=at)


def parse_entry(line: str) -> Entry:
    """One line of a log. Raises ValueError saying what is wrong with it."""
    data = jsons.loads(line)
    if not isinstance(data, dict) or "from" not in data:
        raise ValueError("no entry of a chat's log")
    if "\\ud" in line.lower() and not _whole_characters(data):
        raise ValueError("it holds half a character")
    data["sender"] = data.pop("from")
    values = {key: data[key] for key in (f.name for f in fields(Entry)) if key in data}
    if not isinstance(values.get("to", []), list):
        raise ValueError("`to` is no list")
    values["to"] = tuple(values.get("to", ()))
    try:
        entry = Entry(**values)
    except TypeError as error:
        raise ValueError("keys are missing") from error
    _check(entry)
    return entry


def _whole_characters(data: object) -> bool:
    """Whether it can be written in UTF-8: escapes of JSON can stand for halves of characters."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(entry: Entry) -> None:
    texts = (entry.sender, entry.text, entry.status, entry.turn_id, *entry.to)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text in it is none")
    if not all(isinstance(n, int) and _number(n) and n >= 0 for n in (entry.seq, entry.round)):
        raise ValueError("a number in it is none")
    if not _number(entry.at):
        raise ValueError("`at` is no time")
    known = EVENTS if entry.kind == "system" else OUTCOMES
    if entry.kind not in get_args(Kind) or entry.status not in known:
        raise ValueError("kind or status is not a known word")
    if not isinstance(entry.usage, dict) or not isinstance(entry.data, dict):
        raise ValueError("`usage` or `data` is no table")
    if not all(_number(n) for n in entry.usage.values()):
        raise ValueError("`usage` holds what is no number")


def _number(value: object) -> bool:
    """Whether it can be reckoned with: neither infinite, nor so large that sums fail."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= NUMBER_LIMIT
