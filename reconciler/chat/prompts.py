"""What a participant, or the moderator, is told for one turn: what it has not heard yet. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from reconciler.chat._prose import shortened
from reconciler.chat.entries import Entry
from reconciler.chat.routing import prose
from reconciler.chat.turns import Chat, Owed, Talk

ONE_LIMIT = 20_000  # characters of one contribution as others get to read it
ALL_LIMIT = 80_000  # characters of all that is told at once; the oldest goes first
_LEFT_OUT = "[older contributions are left out]"

_BLOCK = """\
To ask participants, end your answer with a block like this one, and nothing behind it:

```route
{{"to": [{{"name": "{first}", "message": "what you want of {first}"}}]}}
```

Everyone you name is asked at the same time; their answers come back to you. When you have what you need, give the \
final answer to the user, without such a block or with {{"final": "..."}} in it."""


@dataclass(frozen=True)
class Scene:
    """What people should know of the chat: its name and purpose, and what each participant is for."""

    chat: str
    purpose: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    max_rounds: int = 8
    forgetful: frozenset[str] = frozenset()  # who takes every turn in a conversation of its own


def compose(scene: Scene, chat: Chat, entries: Sequence[Entry], owed: Owed) -> str:
    """The prompt of one turn. `entries` is the log up to and beyond its cause."""
    heard = 0 if owed.who in scene.forgetful else chat.talks.get(owed.who, Talk()).heard
    first = not heard
    placed = ((_place(chat, entry), entry) for entry in entries)
    new = sorted((item for item in placed if heard < item[0] <= owed.cause), key=itemgetter(0))
    # Who has heard nothing and said something has forgotten it: its own words are news to it as well.
    others = [entry for _, entry in new if not _own(entry, owed.who) or (first and entry.said)]
    told = [(line, entry.seq == chat.current) for entry in others if (line := _told(entry, owed))]
    parts = [_introduction(scene, chat, owed)] if first else []
    if told:
        parts.append(("The chat so far:" if first else "New in the chat:") + "\n\n" + _bounded(told))
    cause = next((entry for entry in entries if entry.seq == owed.cause), None)
    own = _for_moderator(scene, owed, first) if owed.role == "moderator" else _for_participant(chat, owed, cause)
    parts.append(own)
    return "\n\n".join(part for part in parts if part) + "\n"


def _place(chat: Chat, entry: Entry) -> int:
    """When an entry became part of what is talked about: a user's message once it is taken up, not while it waits."""
    return chat.taken.get(entry.seq, 0) if entry.kind == "user" else entry.seq


def _own(entry: Entry, who: str) -> bool:
    """Whether somebody said it in a turn. A user may be called the same."""
    return entry.sender == who and entry.kind in ("moderator", "participant")


def _introduction(scene: Scene, chat: Chat, owed: Owed) -> str:
    others = [name for name in chat.participants if name != owed.who]
    lines = [f"- {name}: {scene.about[name]}" if scene.about.get(name) else f"- {name}" for name in others]
    if owed.role == "moderator":
        purpose = f" Its purpose: {scene.purpose.strip()}" if scene.purpose.strip() else ""
        block = _BLOCK.format(first=(chat.participants or ("name",))[0])
        return (
            f"You moderate the group chat `{scene.chat}`.{purpose}\n\nThe participants, each an agent in its own "
            f"workspace:\n" + "\n".join(lines) + "\n\nYou cannot change files yourself. " + block
        )
    with_others = " With you: " + ", ".join(others) + "." if others else ""
    return (
        f"You are `{owed.who}` in the group chat `{scene.chat}`, which `{chat.moderator}` moderates.{with_others} "
        "Answer what you are asked; your answer goes back to the chat as it is."
    )


def _told(entry: Entry, owed: Owed) -> str:
    """One entry as others get to read it; nothing for what is no contribution and no news."""
    if entry.kind == "moderator" and entry.said:
        return _delegated(entry, owed.who if entry.seq == owed.cause else "")
    if entry.said:
        return f"[{entry.sender}]\n{_cut(entry.text)}"
    if entry.kind in ("participant", "moderator") and entry.status != "late":
        return f"[{entry.sender} gave no answer: {entry.status}. {_cut(entry.text)}]"
    if entry.status == "members":
        return f"[{_cut(entry.text)}]"
    return ""


def _delegated(entry: Entry, but: str) -> str:
    """A moderator's answer: its prose, and what was said to each alone but to one, who is told that apart."""
    final, messages = entry.data.get("final"), entry.data.get("messages")
    spoken = prose(entry.text) or (final if isinstance(final, str) else "")
    to = f" to {', '.join(entry.to)}" if entry.to else ""
    lines = [f"[{entry.sender}{to}]\n{_cut(spoken)}" if spoken else f"[{entry.sender}{to}]"]
    for name, message in messages.items() if isinstance(messages, Mapping) else ():
        if message and message != entry.text.strip() and name != but:
            lines.append(f"(to {name}) {_cut(str(message))}")
    return "\n".join(lines) if spoken or len(lines) > 1 or not but else ""


def _cut(text: str) -> str:
    return shortened(text, ONE_LIMIT)


def _bounded(told: Sequence[tuple[str, bool]]) -> str:
    """As much as may be told, but the message in question in any case."""
    kept: list[str] = []
    size = 0
    for text, asked in reversed(told):
        size += len(text)
        if asked or not kept or size <= ALL_LIMIT:
            kept.append(text)
        elif kept[-1] != _LEFT_OUT:
            kept.append(_LEFT_OUT)
    return "\n\n".join(reversed(kept))


def _for_moderator(scene: Scene, owed: Owed, first: bool) -> str:
    if owed.trouble:
        return f"Your last answer could not be followed: {owed.trouble}. Delegate again, or give the final answer."
    if owed.round >= scene.max_rounds:
        return "This is the last round: nobody can be asked any more. Give the final answer now."
    if first:
        return "Delegate, or answer."
    return "Delegate again, or give the final answer."


def _for_participant(chat: Chat, owed: Owed, cause: Entry | None) -> str:
    told_already = cause is not None and owed.message == cause.text.strip()
    return f"[{chat.moderator} to you]\n{owed.message}" if owed.message and not told_already else "Your turn."
