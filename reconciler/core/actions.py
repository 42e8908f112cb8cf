"""One action of a plan: what is decided about a session, held or not, with all that people and hosts are told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.core.decide import decide
from reconciler.core.decision import Decision
from reconciler.core.diff import Change, Diff, Entry
from reconciler.core.evidence import facts
from reconciler.core.holds import Gate, Hold
from reconciler.core.known import NEVER_SEEN, HostKnown, Known, different
from reconciler.core.launching import Context
from reconciler.core.observed import HostSeen, Observed, Reached, SessionSeen
from reconciler.core.spec import Desired, Source
from reconciler.core.steps import LaunchStep, Need, Step, Verb
from reconciler.core.transcript import Archived, Relation

SEVERITY: Mapping[Verb, int] = {
    "unknown": 0, "blocked": 0, "adopt": 1, "update": 1, "forget": 1, "start": 2, "resume": 2, "restart": 4,
    "move": 5, "stop": 6,
}  # fmt: skip
LAUNCHES = ("start", "resume", "restart", "move")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, or the reason why it is not done. `after` are the addresses that come first."""

    address: str
    host: str
    verb: Verb
    reason: str
    message: str
    remedy: str = ""
    changes: tuple[Change, ...] = ()
    source: Source | None = None
    after: tuple[str, ...] = ()
    precondition: str = ""
    evidence: str = ""  # the observed facts that it rests on, in words
    steps: tuple[Step, ...] = ()
    fallback: tuple[Step, ...] = ()
    needs: tuple[Need, ...] = ()
    stops_running: bool = False
    anyway: bool = False  # it begins whatever became of those that come first
    again: str = ""  # tells a repeat under the same plan from the first time, where hosts must not take them for one

    @property
    def to_remote_sync(self) -> bool:
        """Whether the archive's copy of the conversation is put in place first."""
        return any(isinstance(step, LaunchStep) and step.bring for step in self.steps)

    @property
    def hosts(self) -> frozenset[str]:
        """Every host on which it does something."""
        return frozenset({self.host, *(step.host for step in (*self.steps, *self.fallback))})

    @property
    def severity(self) -> int:
        """How much it takes away: 0 nothing, 6 a running session."""
        return SEVERITY[self.verb]


@dataclass(slots=True)
class _Decided:
    """What was decided about an entry, and what that rested on besides it. `held` is what came of it after holds."""

    entry: Entry
    address: str
    basis: object
    now: int | None
    plan: tuple[str, str]  # its id and whose it is, which show in steps and nowhere else
    decision: Decision | None
    held: Decision | None = None
    action: Action | None = None


@dataclass(slots=True)
class _Planned:
    """What was decided the last time, by the identity of the entries, and what all of it rested on."""

    shared: tuple[object, ...]
    decided: dict[int, _Decided] = field(default_factory=dict)
    again: set[int] = field(default_factory=set)  # of these: what has an action, or rests on more than is kept of it
    hosts: Mapping[str, HostKnown] = field(default_factory=dict)
    archive: Mapping[str, Archived] = field(default_factory=dict)
    relations: Mapping[str, Relation] = field(default_factory=dict)
    restart: frozenset[str] = frozenset()


def decided(
    context: Context,
    observed: Observed,
    diff: Diff,
    hold: Mapping[str, str | Hold | None],
    gate: Gate,
    restart: frozenset[str],
    known: Known | None,
) -> tuple[dict[str, Action], int]:
    """The action of each entry that needs one, orphans by their hosts too; and how many entries need none.

    For the arguments see `make_plan`.
    """
    if known is None:
        return _all_decided(context, observed, diff, hold, gate, restart)
    known.about(context.desired)
    known.recognise(observed)
    shared = (context.agents, context.forgotten, context.taken)
    was: _Planned | None = known.planned
    if was is None or was.shared != shared:
        was = _Planned(shared)
    now = replace(
        was, hosts=known.hosts, archive=context.archive, relations=dict(context.relations), restart=restart
    )  # fmt: skip
    anew: list[Any] = []
    known.anew["decisions"] = anew
    known.planned = None
    hidden = {at for at, why in hold.items() if why is None}
    skipped = 0
    found: dict[str, Action] = {}
    for entry in _concerned(diff, was, now) if not hidden else diff.entries:
        at = entry.address
        if at in hidden:
            skipped += 1
            continue
        item = _decide(context, observed, entry, at, now, anew)
        if item.decision is None:
            (now.again.discard if item.basis is not None else now.again.add)(id(entry))
            continue
        now.again.add(id(entry))
        held = _held(entry, item.decision, hold.get(at), gate)
        if held.steps and item.plan != (context.plan_id, context.controller):
            # Its steps are those of an earlier plan.
            now.decided.pop(id(entry))
            item = _decide(context, observed, entry, at, now, anew)
            held = item.decision or held
        if item.action is None or held.steps or held != item.held:
            item.held, item.action = held, _action(context.desired, entry, at, held)
        found[_key(entry, at)] = item.action
    known.planned = now
    return found, len(diff.entries) - skipped - len(found)


def _all_decided(
    context: Context,
    observed: Observed,
    diff: Diff,
    hold: Mapping[str, str | Hold | None],
    gate: Gate,
    restart: frozenset[str],
) -> tuple[dict[str, Action], int]:
    """The same of who keeps nothing for a next time."""
    found: dict[str, Action] = {}
    unchanged = 0
    for entry in diff.entries:
        at = entry.address
        if hold and at in hold and hold[at] is None:
            continue
        decision = decide(context, observed, entry, forced=at in restart)
        if decision is None:
            unchanged += 1
        else:
            held = _held(entry, decision, hold.get(at), gate)
            found[_key(entry, at)] = _action(context.desired, entry, at, held)
    return found, unchanged


def _key(entry: Entry, at: str) -> str:
    # An orphan may bear a name twice over the hosts.
    return at if entry.desired is not None else f"{at}@{entry.host}"


def _concerned(diff: Diff, was: _Planned, now: _Planned) -> Iterable[Entry]:
    """In the order of the diff: what had an action, and what may have one now since it rests on something else."""
    ids = set(map(id, diff.entries))  # what is decided holds its entry: while it does, no other has that id
    for gone in was.decided.keys() - ids:
        del was.decided[gone]
        was.again.discard(gone)
    if not was.decided:
        return diff.entries
    wanted = (ids - was.decided.keys()) | was.again
    hosts = {name for name in different(was.hosts, now.hosts) if _facts(was, name) != _facts(now, name)}
    names: set[str] = set()
    for before, after in ((was.archive, now.archive), (was.relations, now.relations)):
        if before is not after and before != after:
            names.update(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    restart = was.restart ^ now.restart
    if hosts or names or restart:
        wanted.update(id(e) for e in diff.entries if e.host in hosts or e.name in names or e.address in restart)
    return [entry for entry in diff.entries if id(entry) in wanted] if wanted else ()


def _facts(known: _Planned, host: str) -> int:
    return known.hosts.get(host, NEVER_SEEN).facts


def _decide(context: Context, observed: Observed, entry: Entry, at: str, now: _Planned, anew: list[Any]) -> _Decided:
    """What is decided about an entry: what was, where all that it rests on is the same.

    What has steps was made for one plan. Whoever takes them makes sure that it is this one.
    """
    name, forced = entry.name, at in now.restart
    host = observed.hosts.get(entry.host)
    clock = host.now if isinstance(host, Reached) else None
    basis = (_facts(now, entry.host), context.archive.get(name), context.relations.get(name), forced)
    item = now.decided.get(id(entry))
    if item is None or item.basis != basis or (item.decision is not None and item.now != clock):
        anew.append(name if entry.desired is not None else (entry.host, name))
        decision = decide(context, observed, entry, forced=forced)
        rests = basis if _rests_on_it_alone(entry, host) else None
        item = now.decided[id(entry)] = _Decided(
            entry, at, rests, clock, (context.plan_id, context.controller), decision
        )
    return item


def _rests_on_it_alone(entry: Entry, host: HostSeen | None) -> bool:
    """Whether a decision rests on no other host, and on no other session of its own."""
    links = host.links if isinstance(host, Reached) else {}
    return entry.origin is None and entry.reason != "twice" and entry.name not in links


def _held(entry: Entry, decision: Decision, reason: str | Hold | None, gate: Gate) -> Decision:
    """The decision, or the reason why it has to wait. What is blocked or unknown by itself stays that."""
    if decision.verb in ("unknown", "blocked"):
        return decision
    held = Hold("held", reason) if isinstance(reason, str) else reason or gate(entry, decision)
    if held is None:
        return decision
    return Decision("blocked", held.reason, held.message, held.remedy, changes=decision.changes)


def precondition(seen: SessionSeen | None) -> str:
    """A digest of what a decision rests on: liveness, incarnation, digests, conversation; no ages, no activity."""
    if seen is None:
        return "absent"
    process = seen.process if seen.process and seen.process.alive else None
    record = seen.record
    basis = [
        seen.state, seen.incarnation, process and [process.pid, process.start],
        record
        and [record.digest, record.conversation, record.prompt, record.protected, record.protected_by, record.intent],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:32]


def _evidence(entry: Entry) -> str:
    seen = facts(entry.host, entry.seen)
    return f"{seen}; {facts(entry.origin_host, entry.origin)}" if entry.origin else seen


def _action(desired: Desired, entry: Entry, at: str, decision: Decision) -> Action:
    return Action(
        address=at,
        host=decision.host or entry.host,
        verb=decision.verb,
        reason=decision.reason,
        message=decision.message,
        remedy=decision.remedy,
        changes=decision.changes,
        source=_source(desired, at, decision),
        precondition=precondition(entry.seen) + (f" {precondition(entry.origin)}" if entry.origin else ""),
        evidence=_evidence(entry),
        steps=decision.steps,
        fallback=decision.fallback,
        stops_running=decision.verb == "stop" and entry.seen is not None and entry.seen.state == "running",
    )


def _source(desired: Desired, address: str, decision: Decision) -> Source | None:
    for change in decision.changes:
        if place := desired.locate(address, change.field.partition(".")[0]):
            return place
    return desired.locate(address, None)
