"""What a group chat is at this moment, in rows; and all of it as a Markdown document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from reconciler.chat.entries import Entry
from reconciler.chat.turns import Chat
from reconciler.cli._chat import Owes, Place, Standing
from reconciler.cli.render._written import readable
from reconciler.cli.render.chat import WAITING, money, owes, remark, spoken
from reconciler.core.markdown import code
from reconciler.core.printed import escaped

_LONGEST = 2000  # characters of a row
Moment = Callable[[float], str]  # `for 12s`, `since 2026-…`


def overview(place: Place, now: Standing, chat: Chat, moment: Moment) -> list[tuple[str, str]]:
    """Members, state, who owes a turn and since when, cost: from the process, or from the log where none runs."""
    members = chat.participants or place.spec.participants
    owed = now.owed if now.alive else tuple(Owes(o.who, now.hosts.get(o.who, "")) for o in chat.owed)
    queued = now.queued if now.alive else len(chat.queue)
    rows = [("state", _state(place, now, chat, moment))]
    rows += [("moderator", _member(chat.moderator or place.moderator, now.hosts))]
    rows += [("participants", ", ".join(_member(name, now.hosts) for name in members))]
    rows += [("owes a turn" if n == 0 else "", owes(item, moment)) for n, item in enumerate(owed)]
    rows += [("queued", f"{queued} message{'s' if queued > 1 else ''}")] if queued else []
    rows += [("cost", money(max(chat.cost, now.cost)))] if chat.cost or now.cost else []
    rows += [("trouble", escaped(now.trouble))] if now.alive and now.trouble else []
    return [(key, value[:_LONGEST]) for key, value in rows]


def _state(place: Place, now: Standing, chat: Chat, moment: Moment) -> str:
    if not now.alive:
        state = "closed" if chat.closed else f"{chat.state}; its process does not run"
        return f"not begun; {state}" if not chat.seq else state
    words = [escaped(now.state) or "starting"]
    if now.state in WAITING:
        words.append(f"round {now.round} of {now.max_rounds or place.spec.max_rounds}")
    if now.since:
        words.append(moment(now.since))
    return ", ".join(words)


def _member(name: str, hosts: Mapping[str, str]) -> str:
    return escaped(f"{name} ({hosts[name]})" if hosts.get(name) else name)


def document(place: Place, rows: Sequence[tuple[str, str]], entries: Sequence[Entry], hosts: Mapping[str, str]) -> str:
    """All of it as Markdown. What was said is quoted, so that it cannot look like a heading of ours."""
    lines = [f"# Group chat {code(place.name)}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {code(value, _LONGEST)} |" for key, value in rows]
    for entry in entries:
        lines += ["", *_entry(entry, hosts)]
    return "\n".join(lines) + "\n"


def _entry(entry: Entry, hosts: Mapping[str, str]) -> list[str]:
    if entry.kind == "system":
        return [f"*{stamp(entry.at)}* {code(entry.text, _LONGEST)}"]
    who = code(entry.sender) + (
        f" → {', '.join(map(code, entry.to))}" if entry.kind == "moderator" and entry.to else ""
    )
    where = [code(hosts[entry.sender])] if entry.kind != "user" and hosts.get(entry.sender) else []
    where += [f"round {entry.round}"] if entry.kind != "user" and entry.round else []
    where += [money(entry.cost)] if entry.cost else []
    lines = [f"## {' · '.join([who, *where, stamp(entry.at)])}"]
    if said := remark(entry):
        lines += ["", code(said, _LONGEST)]
    text, alone = spoken(entry)
    if text.strip():
        lines += ["", *_quoted(text)]
    for name, message in alone:
        lines += ["", f"To {code(name)}:", "", *_quoted(message)]
    return lines


def _quoted(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in readable(text.strip("\n"))]


def stamp(at: float) -> str:
    """A moment as everybody reads it; `-` for what is none."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "-"
