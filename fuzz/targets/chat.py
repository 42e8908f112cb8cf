"""Group chats: the log and its fold, replies and whom they go to, messages in the inbox, what the process says."""

from __future__ import annotations

import contextlib
import io
import json
from functools import cache

from fuzz.oracles import harmless, scratch, split, text_of
from reconciler.chat import log
from reconciler.chat.cast import read_cast
from reconciler.chat.entries import Entry, parse_entry
from reconciler.chat.prompts import Scene, compose
from reconciler.chat.routing import mentions, prose, route
from reconciler.chat.turns import Chat, Limits, after, answered, close, conversation_of, fold, missed
from reconciler.cli._chat import Place, Tail, standing
from reconciler.cli.render._chat_overview import document, overview
from reconciler.cli.render.chat import Plain, lasting, working
from reconciler.core.parse import parse
from reconciler.errors import OperationError, ReconcilerError

NAMES = ("web", "api", "db", "a_b", "a-b")
LIMITS = Limits(4, 1.0)


@cache
def _place() -> Place:
    folder = scratch()
    (folder / log.INBOX).mkdir()
    text = '[sessions.web]\nagent = "codex"\n[sessions.lead]\nagent = "codex"\n[group_chats.c]\nmoderator = "lead"\n' \
           'participants = ["web"]\n'  # fmt: skip
    return Place("c", folder, parse({"a.toml": text}, {}).group_chats["c"], "lead", {"web": "gpu"})


def _log(data: bytes) -> None:
    """A whole log; lines are given their numbers, so that what they say is read."""
    lines = []
    for number, line in enumerate(data.split(b"\n")[:400], 1):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            line = json.dumps({**value, "seq": number}).encode() if isinstance(value, dict) else line
        lines.append(line + b"\n")
    place = _place()
    (place.folder / log.LOG).write_bytes(b"".join(lines))
    try:
        entries = log.read(place.folder)
    except OperationError:
        return
    assert [entry for _, entry in Tail(place).news()] == entries
    _shown(place, entries)
    _folded(entries)


def _shown(place: Place, entries: list[Entry]) -> None:
    out = io.StringIO()
    plain = Plain(out, place.hosts)
    for entry in entries:
        plain.entry(entry)
    now = standing(place)
    rows = overview(place, now, fold(entries, LIMITS), lasting(1_800_000_000.0))
    plain.head("c", rows)
    out.write(document(place, rows, entries, place.hosts))
    out.write(working(now, 1_800_000_000.0) + "\n")
    harmless(out.getvalue())


def _folded(entries: list[Entry]) -> None:
    chat = Chat()
    for entry in entries:
        assert parse_entry(entry.to_json()) == entry, "an entry is another after it was written"
        chat = after(chat, entry, LIMITS)
        assert len({owed.turn_id for owed in chat.owed}) == len(chat.owed), "a turn is owed twice"
        assert not (chat.closed and chat.owed), "a closed chat owes turns"
    for owed in chat.owed[:3]:
        conversation_of(chat, owed.who)
        assert len(compose(Scene("c"), chat, entries, owed)) < 400_000
    if chat.closing:
        close(chat)


def _route(data: bytes) -> None:
    text = text_of(data)
    found = route(text, NAMES, "lead")
    assert set(found.messages) <= set(NAMES), "somebody who is not there"
    assert bool(found.messages) + (found.final is not None) + bool(found.trouble) == 1, "not one of three"
    mentions(text)
    prose(text)


def _turns(data: bytes) -> None:
    """One reply after another, divided by lines of dashes, each for whoever owes a turn first."""
    opened = {"id": "11111111-2222-4333-8444-555555555555", "moderator": "lead", "participants": list(NAMES)}
    entries = [
        Entry(1, "system", "chat", status="opened", data=opened),
        Entry(2, "user", "ann", text="hi", turn_id="m1"),
    ]
    chat = fold(entries, LIMITS)
    for number, reply in enumerate(text_of(data).split("\n----\n")[:60], 3):
        if chat.owed:
            owed = chat.owed[0]
            entry = missed(chat, owed, "failed", reply) if reply.startswith("!") else answered(chat, owed, reply)
        elif chat.closing:
            entry = close(chat)
        else:
            entry = Entry(0, "user", "ann", text=reply, turn_id=f"m{number}")
        line = entry.numbered(number, float(number)).to_json().encode("utf-8", "replace").decode()
        entries.append(parse_entry(line))
        chat = after(chat, entries[-1], LIMITS)
    assert len(entries) == chat.seq
    _folded(entries)


def _folder(data: bytes) -> None:
    """A message in the inbox, and the same as what the chat's process says of itself."""
    place = _place()
    (place.folder / log.INBOX / "00000000000000000001-x.json").write_bytes(data)
    for _, _, message in log.received(place.folder):
        assert isinstance(message["text"], str)
        Entry(1, "user", str(message.get("from", "")), text=message["text"]).to_json().encode("utf-8", "replace")
    (place.folder / log.STATE).write_bytes(data)
    (place.folder / log.LOG).write_bytes(b"")
    _shown(place, [])


def _cast(data: bytes) -> None:
    with contextlib.suppress(ReconcilerError):
        read_cast(text_of(data), {"A": "b"})


CASES = {"log": _log, "route": _route, "turns": _turns, "folder": _folder, "cast": _cast}


def check(data: bytes) -> None:
    """The first line says which reader the rest is for."""
    split(data, CASES)
