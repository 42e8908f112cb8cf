"""What the process of a chat says of itself: a small file, which looks and `reconciler chat` read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.chat.cast import Cast
from reconciler.chat.entries import Entry
from reconciler.chat.log import STATE, replace_file
from reconciler.chat.turns import Chat, Owed
from reconciler.errors import OperationError

LIMIT = 3900  # bytes of it that a look reads


@dataclass(frozen=True)
class Present:
    """What follows from no log: which turns were asked for, what is wrong, by host or by a word of our own."""

    asked: Collection[str]
    trouble: Mapping[str, str]
    closing: bool = False


def text_of(chat: Chat, cast: Cast, entries: Sequence[Entry], now: Present) -> str:
    """The state of a chat as JSON, never more than a look reads."""
    owed = [_owed(item, cast, entries, now) for item in chat.owed]
    hosts = {cast.host_of(item.who) for item in chat.owed}
    trouble = [
        words for key, words in sorted(now.trouble.items()) if key in hosts or key not in cast.desired.hosts
    ]  # of hosts where nobody is waited for nothing is said
    table: dict[str, Any] = {
        "pid": os.getpid(), "state": _state(chat, cast, now), "round": chat.round,
        "max_rounds": cast.limits.max_rounds, "since": entries[-1].at if entries else 0, "owed": owed,
        "queued": len(chat.queue), "cost": round(chat.cost, 6), "trouble": "; ".join(trouble)[:400],
        "hosts": {who: cast.host_of(who) for who in cast.members},
    }  # fmt: skip
    text = json.dumps(table)
    if len(text) > LIMIT:
        shorter = {"hosts": {}, "owed": [{"who": item["who"]} for item in owed[:30]], "trouble": table["trouble"][:80]}
        text = json.dumps({**table, **shorter})
    return text


def _owed(owed: Owed, cast: Cast, entries: Sequence[Entry], now: Present) -> dict[str, Any]:
    status = "asked" if owed.turn_id in now.asked else "to be asked"
    return {"who": owed.who, "host": cast.host_of(owed.who), "since": entries[owed.cause - 1].at, "status": status}


def _state(chat: Chat, cast: Cast, now: Present) -> str:
    if now.closing and not chat.closed:
        return "closing"
    if chat.state == "moderating" and cast.host_of(chat.moderator) in now.trouble:
        return "waiting"
    return chat.state


def write(folder: Path, text: str) -> bool:
    """Put it where it is read; whether that worked. A full disk must be said all the same: where there is no room for
    another file, it is written over the last one, which is always as long as one can be."""
    text = text.ljust(LIMIT)
    try:
        replace_file(folder / STATE, text)
    except OperationError:
        with contextlib.suppress(OSError), open(folder / STATE, "r+b", buffering=0) as file:
            return file.write(text.encode("ascii")) == len(text)
        return False
    return True
