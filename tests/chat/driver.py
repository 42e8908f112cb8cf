"""Plays a chat against the pure modules: whatever can happen to turns, in any order, with no agent and no host.

After each entry the chat is folded again from the log as it would be read from disk, as after a crash at that very
moment, and everything that must always hold is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.chat.entries import Entry, parse_entry
from reconciler.chat.prompts import Scene, compose
from reconciler.chat.turns import (
    TRIES,
    Chat,
    Limits,
    Owed,
    Talk,
    after,
    answered,
    close,
    fold,
    forgot,
    missed,
)

EVERYBODY = ("web", "api", "db", "a_b", "a-b")
MODERATORS = ("lead", "boss")
REPLIES: Mapping[str, str] = {
    "final": "done",
    "one": "@web look",
    "many": "@Web and @API, look!",
    "all": '```route\n{"to": ["everyone"], "message": "look"}\n```',
    "block": 'x\n```route\n{"to": [{"name": "db", "message": "m"}, {"name": "web", "message": "n"}]}\n```',
    "exact": "@a_b, not the other",
    "self": "as I, @lead and @boss, said to @user",
    "unknown": "@nobody look",
    "broken": '```route\n{"to": [\n```',
    "nobody": '```route\n{"to": []}\n```',
    "empty": " \n",
}
MISSES = ("failed", "timeout", "lost", "unreachable", "removed")


@dataclass
class Play:
    """One chat. Every method is something that happens; those for which it is not the time do nothing."""

    limits: Limits = field(default_factory=Limits)
    entries: list[Entry] = field(default_factory=list)
    chat: Chat = field(default_factory=Chat)
    asked: dict[str, int] = field(default_factory=dict)  # ids of users' messages -> seq
    outcomes: set[str] = field(default_factory=set)  # turns that have one
    ever: set[str] = field(default_factory=set)  # turns that were ever owed
    read: dict[tuple[str, int], str] = field(default_factory=dict)  # all that a conversation surely holds

    def log(self, entry: Entry) -> None:
        numbered = parse_entry(entry.numbered(len(self.entries) + 1, float(len(self.entries))).to_json())
        before = self.chat
        if any(owed.turn_id == entry.turn_id for owed in before.owed):
            self.outcomes.add(entry.turn_id)
        self.entries.append(numbered)
        self.chat = after(before, numbered, self.limits)
        self.check(before)

    # -- what can happen ---------------------------------------------------------------------------------------------

    def open(self, moderator: str = "lead", participants: tuple[str, ...] = ("web", "api")) -> None:
        if not self.chat.id or self.chat.closed:
            self.log(self._members("opened", moderator, participants))

    def members(self, moderator: str, participants: tuple[str, ...]) -> None:
        if self.chat.between and not self.chat.closed:
            self.log(self._members("members", moderator, participants))

    def _members(self, event: str, moderator: str, participants: tuple[str, ...]) -> Entry:
        data = {"id": "0123456789ab", "moderator": moderator, "participants": list(participants)}
        return Entry(0, "system", "chat", (), "members", event, data=data)

    def say(self) -> None:
        identity = f"m{len(self.asked)}"
        self.asked[identity] = len(self.entries) + 1
        self.log(Entry(0, "user", "lead", ("lead",), f"<<{identity}>>", turn_id=identity))

    def repeat(self, which: int) -> None:
        """The inbox was not emptied before a crash: the same message is logged again."""
        if self.asked:
            identity = list(self.asked)[which % len(self.asked)]
            self.log(Entry(0, "user", "lead", ("lead",), "again", turn_id=identity))

    def reply(self, which: int, text: str, cost: float = 0.0, conversation: str | None = None) -> None:
        if owed := self._owed(which):
            self._reads(owed)
            text = text if owed.role == "moderator" else f"({owed.turn_id})"
            self.log(answered(self.chat, owed, text, {"cost": cost} if cost else None, conversation))

    def miss(self, which: int, status: str) -> None:
        if owed := self._owed(which):
            if status == "timeout":
                self._reads(owed)
            self.log(missed(self.chat, owed, status, "no reason"))

    def forget(self, which: int) -> None:
        owed = self._owed(which)
        if owed and self.chat.talks.get(owed.who, Talk()).begun and not owed.anew:
            self.log(forgot(owed))

    def late(self, which: int) -> None:
        """A reply to a turn that has its outcome, or whose message is closed."""
        gone = sorted(self.ever - {owed.turn_id for owed in (*self.chat.owed, *self.chat.withheld)})
        if gone:
            identity = gone[which % len(gone)]
            self.outcomes.add(identity)
            who = identity.split(".")[2]
            self.log(Entry(0, "participant", who, (), "@web too late", "late", identity))

    def settle(self) -> None:
        if self.chat.closing:
            self.log(close(self.chat))

    def close(self) -> None:
        if not self.chat.closed:
            self.log(close(self.chat, "closed"))

    def _owed(self, which: int) -> Owed | None:
        return self.chat.owed[which % len(self.chat.owed)] if self.chat.owed else None

    def _reads(self, owed: Owed) -> None:
        talk = (owed.who, self.chat.talks.get(owed.who, Talk()).number)
        self.read[talk] = self.read.get(talk, "") + compose(Scene("c"), self.chat, self.entries, owed)

    def finish(self) -> None:
        """Everybody answers, and nothing more is asked."""
        for _ in range(20 * (len(self.asked) + 1)):
            if self.chat.closing:
                self.settle()
            elif self.chat.owed:
                self.reply(0, "done")

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self, before: Chat) -> None:
        chat = self.chat
        assert fold(self.entries, self.limits) == chat, "a fold from the log knows all"
        ids = [owed.turn_id for owed in chat.owed]
        assert len(ids) == len(set(ids))
        assert not self.outcomes & set(ids), "a turn with an outcome is never owed again"
        self.ever |= set(ids)
        if chat.state in ("idle", "closed"):
            assert not chat.owed
            assert not chat.closing
            assert chat.current is None
        else:
            assert chat.owed or chat.closing, "silence"
        assert not (chat.owed and chat.closing)
        assert chat.closed or chat.current is not None or not chat.queue
        assert chat.round <= self.limits.max_rounds
        self._check_messages()
        for owed in chat.owed:
            assert (owed.who == chat.moderator) == (owed.role == "moderator")
            assert owed.attempt <= TRIES + 2
            if owed not in before.owed:
                self._check_prompt(owed)

    def _check_messages(self) -> None:
        closed = Counter(e.data.get("message") for e in self.entries if e.status in ("idle", "closed"))
        closed.pop(None, None)
        for seq in self.asked.values():
            places = closed[seq] + (seq == self.chat.current) + self.chat.queue.count(seq)
            assert places == 1, "a message is closed once, or worked on, or waits"
        assert set(closed) <= set(self.asked.values())

    def _check_prompt(self, owed: Owed) -> None:
        prompt = compose(Scene("c"), self.chat, self.entries, owed)
        told = prompt + self.read.get((owed.who, self.chat.talks.get(owed.who, Talk()).number), "")
        for identity, seq in self.asked.items():
            if seq in self.chat.queue:
                assert f"<<{identity}>>" not in prompt, "a message that waits is not told yet"
            if seq == self.chat.current:
                assert f"<<{identity}>>" in told, "whoever is asked knows what for"
                assert owed.role == "participant" or "moderate" in told
        assert "too late" not in prompt
