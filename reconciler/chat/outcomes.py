"""What it means for the log that a turn has ended on its host, or never will. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.chat._prose import shortened
from reconciler.chat.cast import Cast
from reconciler.chat.entries import Entry
from reconciler.chat.routing import REPLY_LIMIT
from reconciler.chat.turns import Chat, Owed, answered, forgot, missed
from reconciler.core.agent import Reply

_TOLD = {
    "agent-missing": "its agent is not on the PATH of the login shell: {}",
    "workdir-missing": "its working directory {} does not exist",
}


@dataclass(frozen=True)
class Ended:
    """A turn that is over. `exit` None: nobody knows how, its host was restarted, say. `error` is our own word.

    `begun` says whether its agent was started.
    """

    turn: str
    owner: str
    exit: int | None
    error: str
    detail: str
    begun: bool
    out: str
    err: str


def entry_of(chat: Chat, cast: Cast, owed: Owed, ended: Ended) -> Entry:
    """The entry for an owed turn that has ended. `cast` is the one that it was asked under."""
    if ended.error == "timeout":
        return missed(chat, owed, "timeout", f"it was ended after {ended.detail or 'its time'}")
    if not ended.begun:
        return unasked(chat, owed, "failed" if ended.error else "unreachable", _why(ended))
    if ended.error:
        return missed(chat, owed, "failed", _why(ended))
    if ended.exit is None:
        return missed(chat, owed, "lost", "its host lost the turn: it was restarted, or the process killed")
    reply = _reply(cast, owed.who, ended)
    usage: dict[str, float] = {"cost": reply.cost} if reply.cost else {}
    if reply.tokens and not reply.running:
        usage["tokens"] = reply.tokens
    if ended.exit == 0 and not reply.error:
        return answered(chat, owed, reply.text, usage, reply.conversation)
    if (reply.unknown or reply.taken) and owed.attempt < 3 and not owed.anew:
        return forgot(owed)
    why = reply.error or f"its agent ended with exit code {ended.exit}"
    return missed(chat, owed, "failed", why, usage, reply.conversation)


def unasked(chat: Chat, owed: Owed, status: str, why: str) -> Entry:
    """The entry for a turn that came to nothing before its agent got it: its conversation is where it was."""
    return replace(missed(chat, owed, status, why), data={"begun": False})


def late(cast: Cast, given_up: Entry, ended: Ended) -> Entry | None:
    """The entry for a turn that ended after its outcome was written down; it leads to nothing. None: it never began."""
    if not ended.begun:
        return None
    who = given_up.sender
    reply = _reply(cast, who, ended) if cast.knows(who) and not ended.error and ended.exit is not None else Reply()
    text = shortened(reply.text or reply.error or _why(ended), REPLY_LIMIT)
    data = {"conversation": reply.conversation} if reply.conversation else {}
    return Entry(0, given_up.kind, who, (), text, "late", given_up.turn_id, given_up.round, data=data)


def _reply(cast: Cast, who: str, ended: Ended) -> Reply:
    return cast.agent(who).reply(1 if ended.exit is None else ended.exit, ended.out, ended.err)


def _why(ended: Ended) -> str:
    if not ended.error and not ended.detail:
        return "it ended without a trace" if ended.begun else "its host was restarted, or out of space, before it began"
    return _TOLD.get(ended.error, "{}").format(ended.detail or ended.error)
