"""What a log comes to: who owes a turn, what is to be closed, what a reply leads to. Pure: a fold, nothing else."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from reconciler.chat._prose import shortened
from reconciler.chat.entries import Entry
from reconciler.chat.routing import REPLY_LIMIT, route

State = Literal["idle", "moderating", "gathering", "closed"]
# Why a message, or the chat, is closed.
REASONS: Mapping[str, str] = {
    "final": "the moderator gave the final answer",
    "max_rounds": "max_rounds is reached",
    "budget": "max_cost is spent",
    "unclear": "the moderator's answer named nobody who is there, twice",
    "moderator": "the moderator gave no answer",
    "closed": "the chat is closed",
}
TRIES = 2  # a moderator's turn that failed is asked for once more: it changes nothing
_BEGUN = ("ok", "unclear", "failed", "timeout", "lost")  # outcomes of turns that reached the agent, or may have
_HEARD = ("ok", "unclear", "timeout")  # of turns whose prompt surely did
MESSAGES_LIMIT = 1_000_000  # characters of all that one reply says to each alone


@dataclass(frozen=True)
class Limits:
    """How much one message may take: moderator rounds, US dollars (None: no bound)."""

    max_rounds: int = 8
    max_cost: float | None = None


@dataclass(frozen=True)
class Owed:
    """A turn that somebody owes. `cause` is the entry that led to it; `message` what was said to them alone."""

    turn_id: str
    who: str
    role: Literal["moderator", "participant"]
    cause: int
    round: int
    attempt: int = 1
    message: str = ""
    trouble: str = ""  # why the moderator's last answer could not be followed
    anew: bool = False  # its agent does not know the conversation any more: all of the log is told again

    def again(self, turn_id: str, **changes: object) -> Owed:
        """The same turn once more."""
        return replace(self, turn_id=turn_id, attempt=self.attempt + 1, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Talk:
    """An agent's conversation in this chat. `number` counts how often it was started anew."""

    number: int = 0
    begun: bool = False
    id: str | None = None  # where the agent named it itself
    heard: int = 0  # the last entry that it was surely told


@dataclass(frozen=True)
class Chat:
    """The chat after some entries of its log."""

    id: str = ""
    moderator: str = ""
    participants: tuple[str, ...] = ()
    seq: int = 0
    current: int | None = None  # the message that is being worked on
    round: int = 0
    queue: tuple[int, ...] = ()
    taken: Mapping[int, int] = field(default_factory=dict)  # users' messages: after which entry they were taken up
    owed: tuple[Owed, ...] = ()
    closing: str = ""  # why the present message is to be closed next
    withheld: tuple[Owed, ...] = ()  # what would be owed but for a limit
    closed: bool = False
    heard: frozenset[str] = frozenset()  # ids of users' messages
    prompt: str = ""  # the id of the last message that came from the specs
    talks: Mapping[str, Talk] = field(default_factory=dict)
    done: frozenset[str] = frozenset()  # turns that have an outcome
    spent: float = 0.0  # of the present message
    cost: float = 0.0
    unclear: bool = False  # the moderator was told once that its answer could not be followed

    @property
    def state(self) -> State:
        """One word."""
        if self.closed:
            return "closed"
        if self.current is None:
            return "idle"
        return "gathering" if any(owed.role == "participant" for owed in self.owed) else "moderating"

    @property
    def between(self) -> bool:
        """Whether no participant owes a turn, so that members may change."""
        return self.state != "gathering"


def fold(entries: Iterable[Entry], limits: Limits) -> Chat:
    """The chat after all of these."""
    chat = Chat()
    for entry in entries:
        chat = after(chat, entry, limits)
    return chat


def conversation_of(chat: Chat, who: str) -> str:
    """The id that we give to the conversation of `who` in this chat; another one each time it is started anew."""
    number = chat.talks.get(who, Talk()).number
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{chat.id}/{who}/{number}"))


def turn_id(chat: Chat, who: str, cause: int, attempt: int) -> str:
    """The same for the same turn, whoever works it out, however often: hosts answer a repeat with what is there."""
    return f"{chat.id[:8]}.{cause:06d}.{who}.{attempt}"


def after(chat: Chat, entry: Entry, limits: Limits) -> Chat:
    """The chat after one more entry."""
    chat = replace(chat, seq=entry.seq, cost=chat.cost + entry.cost, spent=chat.spent + entry.cost)
    if any(owed.turn_id == entry.turn_id for owed in chat.withheld):
        # The limits were others then: they bound what is yet to come, and never undo what was said.
        chat = replace(chat, owed=chat.withheld, withheld=(), closing="", round=chat.withheld[0].round)
    match entry.kind:
        case "system":
            return _happened(chat, entry)
        case "user":
            return _asked(chat, entry)
    owed = next((owed for owed in chat.owed if owed.turn_id == entry.turn_id), None)
    if owed is None:
        return _late(chat, entry)
    if entry.kind == "moderator":
        return _moderated(_settled(chat, entry, owed), entry, owed, limits)
    return _gathered(_settled(chat, entry, owed), limits)


def _late(chat: Chat, entry: Entry) -> Chat:
    """It leads to nothing; but whoever answered has a conversation."""
    chat = replace(chat, done=chat.done | {entry.turn_id})
    if entry.status not in ("ok", "late"):
        return chat
    talk = chat.talks.get(entry.sender, Talk())
    named = entry.data.get("conversation")
    talk = replace(talk, begun=True, id=named if isinstance(named, str) and named else talk.id)
    return replace(chat, talks={**chat.talks, entry.sender: talk})


def _happened(chat: Chat, entry: Entry) -> Chat:
    match entry.status:
        case "opened" | "members":
            identity = str(entry.data.get("id", "")) or chat.id
            members = tuple(str(name) for name in entry.data.get("participants", ()))
            chat = replace(chat, id=identity, moderator=str(entry.data.get("moderator", "")), participants=members)
            chat = replace(
                chat,
                owed=tuple(_by_moderator(chat, owed) for owed in chat.owed),
                withheld=tuple(_by_moderator(chat, owed) for owed in chat.withheld),
            )
            return _next_message(replace(chat, closed=False)) if entry.status == "opened" else chat
        case "conversation":
            return _anew(chat, entry)
        case "idle":
            return _next_message(_over(chat))
        case "closed":
            return replace(_over(chat), closed=True)
    return chat


def _over(chat: Chat) -> Chat:
    return replace(chat, current=None, round=0, owed=(), withheld=(), closing="", spent=0.0, unclear=False)


def _by_moderator(chat: Chat, owed: Owed) -> Owed:
    """A turn that the moderator owes is owed by whoever moderates now."""
    if owed.role == "participant" or owed.who == chat.moderator:
        return owed
    return _moderators(chat, owed.cause, owed.attempt, owed.trouble, owed.anew)


def _anew(chat: Chat, entry: Entry) -> Chat:
    """An agent does not know its conversation any more: it gets another one, and the same turn once more."""
    who = str(entry.data.get("who", ""))
    talk = chat.talks.get(who, Talk())
    chat = replace(chat, talks={**chat.talks, who: Talk(talk.number + 1)}, done=chat.done | {entry.turn_id})
    return replace(chat, owed=tuple(
        owed.again(turn_id(chat, who, owed.cause, owed.attempt + 1), anew=True) if owed.turn_id == entry.turn_id
        else owed
        for owed in chat.owed
    ))  # fmt: skip


def _asked(chat: Chat, entry: Entry) -> Chat:
    if entry.turn_id in chat.heard:
        return chat
    known = chat.heard | {entry.turn_id}
    prompt = entry.turn_id if entry.turn_id.startswith("prompt-") else chat.prompt
    chat = replace(chat, heard=known, prompt=prompt, queue=(*chat.queue, entry.seq))
    return _next_message(chat)


def _next_message(chat: Chat) -> Chat:
    """Take up the message that waits longest."""
    if not chat.queue or chat.current is not None or chat.closed:
        return chat
    first, *rest = chat.queue
    taken = {**chat.taken, first: chat.seq}
    chat = replace(chat, current=first, queue=tuple(rest), taken=taken, round=1, spent=0.0)
    return replace(chat, owed=(_moderators(chat, chat.seq),))


def _moderators(chat: Chat, cause: int, attempt: int = 1, trouble: str = "", anew: bool = False) -> Owed:
    """A turn of whoever moderates now, under an id that no turn with an outcome has."""
    who = chat.moderator
    while turn_id(chat, who, cause, attempt) in chat.done:
        attempt += 1
    identity = turn_id(chat, who, cause, attempt)
    return Owed(identity, who, "moderator", cause, chat.round, attempt, trouble=trouble, anew=anew)


def _settled(chat: Chat, entry: Entry, owed: Owed) -> Chat:
    """The turn has its outcome: its agent has heard what led to it, and may have named its conversation."""
    talk = chat.talks.get(owed.who, Talk())
    named = entry.data.get("conversation")
    if entry.status == "failed" and not talk.begun:
        # Whatever it made of its first turn, the next one begins another conversation, and is told all.
        talk = Talk(talk.number + 1)
    elif entry.status in _BEGUN and entry.data.get("begun") is not False:
        known = named if isinstance(named, str) and named else talk.id
        heard = max(talk.heard, owed.cause) if entry.status in _HEARD else talk.heard
        talk = replace(talk, begun=True, id=known, heard=heard)
    rest = tuple(other for other in chat.owed if other is not owed)
    return replace(chat, owed=rest, done=chat.done | {entry.turn_id}, talks={**chat.talks, owed.who: talk})


def _moderated(chat: Chat, entry: Entry, owed: Owed, limits: Limits) -> Chat:
    if entry.status == "unclear":
        if chat.unclear:
            return replace(chat, closing="unclear")
        told = replace(chat, unclear=True)
        return replace(told, owed=(_moderators(told, entry.seq, trouble=str(entry.data.get("trouble", ""))),))
    if entry.status != "ok":
        if owed.attempt >= TRIES:
            return replace(chat, closing="moderator")
        return replace(chat, owed=(_moderators(chat, owed.cause, owed.attempt + 1, owed.trouble, owed.anew),))
    if not entry.to:
        return replace(chat, closing="final")
    messages = entry.data.get("messages")
    said = messages if isinstance(messages, Mapping) else {}
    owing = tuple(_delegated(chat, entry, who, said) for who in dict.fromkeys(entry.to))
    chat = replace(chat, owed=owing, unclear=False)
    return _withheld(chat, "max_rounds") if entry.round >= limits.max_rounds else _within_budget(chat, limits)


def _delegated(chat: Chat, entry: Entry, who: str, said: Mapping[str, object]) -> Owed:
    message = str(said.get(who, ""))
    return Owed(turn_id(chat, who, entry.seq, 1), who, "participant", entry.seq, chat.round, message=message)


def _gathered(chat: Chat, limits: Limits) -> Chat:
    if chat.owed:
        return chat
    chat = replace(chat, round=chat.round + 1)
    return _within_budget(replace(chat, owed=(_moderators(chat, chat.seq),)), limits)


def _within_budget(chat: Chat, limits: Limits) -> Chat:
    spent = limits.max_cost is not None and chat.spent >= limits.max_cost
    return _withheld(chat, "budget") if spent else chat


def _withheld(chat: Chat, reason: str) -> Chat:
    return replace(chat, owed=(), withheld=chat.owed, closing=reason)


def answered(
    chat: Chat, owed: Owed, text: str, usage: Mapping[str, float] | None = None, conversation: str | None = None
) -> Entry:
    """The entry for a turn that its agent has answered; a moderator's answer is routed."""
    data: dict[str, object] = {"conversation": conversation} if conversation else {}
    to: tuple[str, ...] = (chat.moderator,)
    status, text = "ok", shortened(text, REPLY_LIMIT)
    if owed.role == "moderator":
        found = route(text, chat.participants, chat.moderator)
        to = tuple(found.messages)
        if found.trouble:
            status, data["trouble"] = "unclear", found.trouble
        elif found.messages:
            data["messages"] = _alone(found.messages, text)
        else:
            data["final"] = found.final
    return Entry(0, owed.role, owed.who, to, text, status, owed.turn_id, owed.round, 0.0, _counted(usage), data)


def _alone(messages: Mapping[str, str], text: str) -> dict[str, str]:
    """What is said to each alone, in bounds; nothing where that is the reply itself, which everybody reads."""
    limit = MESSAGES_LIMIT // len(messages)
    return {who: "" if said == text.strip() else shortened(said, limit) for who, said in messages.items()}


def _counted(usage: Mapping[str, float] | None) -> dict[str, float]:
    """What an agent says that it used, as far as these are amounts."""
    found = {str(key): float(value) for key, value in (usage or {}).items()}
    return {key: value for key, value in found.items() if math.isfinite(value) and value >= 0}


def missed(
    chat: Chat, owed: Owed, status: str, why: str, usage: Mapping[str, float] | None = None,
    conversation: str | None = None
) -> Entry:  # fmt: skip
    """The entry for a turn that came to nothing: failed, timeout, lost, unreachable, removed."""
    to = () if owed.role == "moderator" else (chat.moderator,)
    data = {"conversation": conversation} if conversation else {}
    why = shortened(why, REPLY_LIMIT)
    return Entry(0, owed.role, owed.who, to, why, status, owed.turn_id, owed.round, 0.0, _counted(usage), data)


def forgot(owed: Owed) -> Entry:
    """The entry for an agent that does not know its conversation any more."""
    text = f"{owed.who} no longer knew its conversation: it was started anew from this log"
    data = {"who": owed.who}
    return Entry(0, "system", "chat", (), text, "conversation", owed.turn_id, owed.round, data=data)


def close(chat: Chat, reason: str = "") -> Entry:
    """The entry that closes the present message, or with the reason `closed` the chat."""
    reason = reason or chat.closing
    status = "closed" if reason == "closed" else "idle"
    data = {"reason": reason, "message": chat.current}
    return Entry(0, "system", "chat", (), REASONS[reason], status, "", chat.round, data=data)
