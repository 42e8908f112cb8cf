"""The audit log as a chain: each entry's hash covers the hash before it, so that no entry can change unnoticed.

`hash = SHA-256(hash before, newline, canonical JSON of the entry)`. Canonical: keys sorted, no blanks, ASCII only; the
hash itself and what is empty ("" and 0) are left out, so that a field that comes later changes no older hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from reconciler.errors import ReconcilerError

GENESIS = "0" * 64  # what stands for the hash before the first entry
OPENS = ("intent", "found")  # kinds that say of an operation that it was begun
CLOSES = ("outcome", "settled")  # kinds that say what came of it
_NUMBERS = ("seq", "fence")


@dataclass(frozen=True)
class Actor:
    """Who acts: a person (or a service's user) on a machine, through one process, by one command of ours."""

    user: str = ""
    machine: str = ""
    controller: str = ""
    command: str = ""


@dataclass(frozen=True)
class Entry:
    """One thing that was about to be done, came of it, was permitted, or was done at once. Empty: does not apply.

    `seq` counts from 1 without gaps. `at` is UTC, ISO 8601. `revision` is that of the specs, `commit` and `author` say
    more of it where it came from git. `precondition` is the digest and `evidence` the words for what the decision
    rested on. `op` ties outcomes to their intent, `run` the entries of one run of a command.
    """

    seq: int
    at: str
    kind: str
    address: str = ""
    host: str = ""
    verb: str = ""
    revision: str = ""
    commit: str = ""
    author: str = ""
    precondition: str = ""
    evidence: str = ""
    user: str = ""
    machine: str = ""
    controller: str = ""
    command: str = ""
    run: str = ""
    op: str = ""
    fence: int = 0
    outcome: str = ""
    message: str = ""
    hash: str = ""


FIELDS = tuple(item.name for item in fields(Entry))


@dataclass(frozen=True)
class Kept:
    """What the table of intents says of one operation, to be held against the chain. `at` like that of an entry, or ""
    for what the chain does not know."""

    op: str
    at: str
    address: str
    host: str
    verb: str
    precondition: str
    revision: str
    fence: int
    outcome: str | None
    message: str


@dataclass(frozen=True)
class Verdict:
    """What a check of a chain, or of a part of it, found. `broken` says what is wrong, entry by entry; empty: it holds.

    `start` is the number of the first entry checked, `begun` what the first of all says of how the log began.
    """

    count: int = 0
    start: int = 0
    first: str = ""
    last: str = ""
    head: str = GENESIS
    begun: str = ""
    after_head: int | None = None  # entries since the one with the hash that was asked for; None: nobody asked
    broken: tuple[tuple[int, str], ...] = ()


def canonical(entry: Entry) -> str:
    """What is hashed of an entry."""
    values = {name: value for name, value in vars(entry).items() if value and name != "hash"}
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def link(previous: str, entry: Entry) -> str:
    """The hash of an entry that follows the one with the hash `previous`."""
    return hashlib.sha256(f"{previous}\n{canonical(entry)}".encode()).hexdigest()


def exported(previous: str, entry: Entry) -> str:
    """One line of an export: what was hashed, with both hashes, so that it can be checked anywhere."""
    values = {name: value for name, value in vars(entry).items() if value}
    return json.dumps({**values, "previous": previous}, sort_keys=True, separators=(",", ":"))


def entry_of(values: Mapping[str, Any]) -> Entry:
    """An entry from a row or a line of somebody's. Raises ReconcilerError(audit-entry) for what cannot be one."""
    for name, value in values.items():
        if name not in FIELDS:
            raise ReconcilerError(f"it has a field {name[:40]!r} that no entry has", code="audit-entry")
        wanted = int if name in _NUMBERS else str
        if type(value) is not wanted:
            raise ReconcilerError(f"its {name} is no {'number' if wanted is int else 'text'}", code="audit-entry")
    for name in ("seq", "at", "kind", "hash"):
        if not values.get(name):
            raise ReconcilerError(f"it has no {name}", code="audit-entry")
    return Entry(**values)


def imported(line: str) -> tuple[str, Entry]:
    """The hash before, and the entry, of one line of an export. Raises ReconcilerError(audit-entry)."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("previous"), str):
        raise ReconcilerError("it is no line of an export", code="audit-entry", remedy="reconciler audit export")
    previous = values.pop("previous")
    return previous, entry_of(values)


@dataclass
class Check:
    """Follows a chain entry by entry, and never has more than one of them in hand.

    `previous` is the hash before the first that comes and `before` its number: 0, unless a later part is checked by
    itself. `head`, where given, is a hash that has to turn up. What is broken ends it: from there on nothing holds.
    """

    previous: str = GENESIS
    before: int = 0
    head: str | None = None
    broken: list[tuple[int, str]] = field(default_factory=list)
    known: dict[str, Kept] = field(default_factory=dict)  # what the chain says of operations, as far as it was seen
    _ended: set[str] = field(default_factory=set)  # operations of which only the end was seen
    _first: Entry | None = None
    _last: Entry | None = None
    _found: int | None = None

    def __post_init__(self) -> None:
        if self.head == self.previous:
            self._found = self.before

    def take(self, entry: Entry, previous: str | None = None) -> bool:
        """The next entry; `previous` is the hash before as an export gives it. False: the chain is broken there."""
        if problem := self._problem(entry, previous):
            self.broken.append((entry.seq, problem))
            return False
        self._first = self._first or entry
        self._last, self.previous, self.before = entry, entry.hash, entry.seq
        if entry.hash == self.head:
            self._found = entry.seq
        if entry.op:
            self._remember(entry)
        return True

    def _problem(self, entry: Entry, previous: str | None) -> str:
        if entry.seq != self.before + 1:
            return f"it follows entry {self.before}: entries in between are gone, or the order is another"
        if previous is not None and previous != self.previous:
            return f"it was written after an entry with the hash {previous}, and follows {self.previous}"
        if (wanted := link(self.previous, entry)) != entry.hash:
            return f"what it says gives the hash {wanted}, and it bears {entry.hash}: it is not what was written"
        return ""

    def _remember(self, entry: Entry) -> None:
        before = self.known.get(entry.op)
        if entry.kind in OPENS:
            basis = before or entry  # a repeat keeps the first time
            at = before.at if before else entry.at if entry.kind == "intent" else ""  # the time of a find is its own
            self.known[entry.op] = Kept(
                entry.op, at, basis.address, basis.host, basis.verb, basis.precondition, basis.revision,
                entry.fence, entry.outcome or None, entry.message,
            )  # fmt: skip
        elif entry.kind in CLOSES and before is not None:
            self.known[entry.op] = Kept(
                before.op, before.at, before.address, before.host, before.verb, before.precondition, before.revision,
                before.fence, entry.outcome, entry.message,
            )  # fmt: skip
        elif entry.kind in CLOSES:
            self._ended.add(entry.op)

    def compare(self, kept: Iterable[Kept], since: str = "") -> None:
        """Hold the table of intents against the chain: an end that was cut off shows there. `since`: only what was
        begun from then on has to be in the part that was checked."""
        seen = set()
        for row in kept:
            seen.add(row.op)
            said = self.known.get(row.op)
            if said is None:
                if row.at >= since and row.op not in self._ended:
                    self.broken.append((0, f"{_named(row)} is in the journal, and no entry tells of it"))
            elif differing := list(_differing(said, row)):
                self.broken.append((0, f"{_named(row)}: " + "; ".join(differing)))
        for op, said in self.known.items():
            if op not in seen:
                self.broken.append((0, f"{_named(said)} has an entry, and is not in the journal any more"))

    def verdict(self) -> Verdict:
        """What was found so far."""
        first, last = self._first, self._last
        count = last.seq - first.seq + 1 if first and last else 0
        broken = list(self.broken)
        if self.head is not None and self._found is None:
            broken.append((0, f"no entry has the hash {self.head}: the end was cut off, or what was before is changed"))
        return Verdict(
            count, first.seq if first else 0, first.at if first else "", last.at if last else "", self.previous,
            first.message if first and first.seq == 1 else "",
            None if self.head is None or self._found is None else self.before - self._found, tuple(broken),
        )  # fmt: skip


def _named(row: Kept) -> str:
    return f"the intent {row.op} ({row.verb} {row.address} on {row.host})"


def _differing(said: Kept, row: Kept) -> Iterator[str]:
    names = ("at", "address", "host", "verb", "precondition", "revision", "fence", "outcome", "message")
    for name in names if said.at else names[1:]:
        chain, journal = getattr(said, name), getattr(row, name)
        if chain != journal:
            yield f"its {name} is {chain!r} in the chain and {journal!r} in the journal"


def verify(entries: Iterable[Entry], head: str | None = None) -> Verdict:
    """Check a whole chain."""
    check = Check(head=head)
    for entry in entries:
        if not check.take(entry):
            break
    return check.verdict()
