"""One action of a plan: what is decided about a session, held or not, with all that people and hosts are told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.decide import decide
from reconciler.core.decision import Decision
from reconciler.core.diff import Change, Diff, Entry
from reconciler.core.evidence import facts
from reconciler.core.holds import Gate, Hold
from reconciler.core.known import Known
from reconciler.core.launching import Context
from reconciler.core.observed import HostSeen, Observed, Reached, SessionSeen
from reconciler.core.spec import Desired, Source
from reconciler.core.steps import LaunchStep, Need, Step, Verb

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
    plan_id: str
    decision: Decision | None
    held: Decision | None = None
    action: Action | None = None


def decided(
    context: Context,
    observed: Observed,
    diff: Diff,
    hold: Mapping[str, str | Hold | None],
    gate: Gate,
    restart: frozenset[str],
    known: Known,
) -> tuple[dict[str, Action], int]:
    """The action of each entry that needs one, orphans by their hosts too; and how many entries need none.

    For the arguments see `make_plan`.
    """
    known.decide_by(context.agents, context.controller, context.forgotten, context.taken)
    before, kept = known.decisions.next()
    moments = {name: (known.facts(name), seen) for name, seen in observed.hosts.items()}
    found: dict[str, Action] = {}
    unchanged = 0
    for entry in diff.entries:
        name = entry.name
        # An orphan may bear a name twice over the hosts.
        key = name if entry.desired is not None else (name, entry.host)
        was: _Decided | None = before.get(key)
        if was is not None and was.entry is not entry:
            was = None
        at = was.address if was is not None else entry.address
        if at in hold and hold[at] is None:
            continue
        facts, host = moments.get(entry.host, _NOWHERE)
        basis = (facts, context.archive.get(name), context.relations.get(name), at in restart)
        now = host.now if isinstance(host, Reached) else None
        if was is None or was.basis != basis or (was.decision is not None and was.now != now):
            known.decisions.anew.append(key)
            decision = decide(context, observed, entry, forced=at in restart)
            rests = basis if _rests_on_it_alone(entry, host) else None
            was = _Decided(entry, at, rests, now, context.plan_id, decision)
        kept[key] = was
        if was.decision is None:
            unchanged += 1
            continue
        held = _held(entry, was.decision, hold.get(at), gate)
        if held.steps and was.plan_id != context.plan_id:
            # Its steps bear the id of an earlier plan, and nothing but the steps does: it was held until now.
            known.decisions.anew.append(key)
            held = decide(context, observed, entry, forced=at in restart) or held
            was.plan_id, was.decision = context.plan_id, held
        if was.action is None or held.steps or held != was.held:
            was.held, was.action = held, _action(context.desired, entry, at, held)
        found[at if entry.desired is not None else f"{at}@{entry.host}"] = was.action
    return found, unchanged


_NOWHERE: tuple[int, HostSeen | None] = (0, None)


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
