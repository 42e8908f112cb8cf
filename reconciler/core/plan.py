"""From a diff to a plan: an ordered set of actions that already holds every decision, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from heapq import heapify, heappop, heappush

from reconciler.core.agent import Agent
from reconciler.core.decide import decide
from reconciler.core.decision import Decision
from reconciler.core.diff import Change, Diff, Entry
from reconciler.core.holds import Gate, Hold, open_gate
from reconciler.core.launching import Context, ready_of
from reconciler.core.observed import Observed, Reached, SessionSeen, Unreached
from reconciler.core.readiness import satisfied
from reconciler.core.spec import Dependency, Desired, Source
from reconciler.core.steps import LaunchStep, Need, Step, Verb
from reconciler.core.transcript import Archived, Relation

SEVERITY: Mapping[Verb, int] = {
    "unknown": 0, "blocked": 0, "adopt": 1, "update": 1, "forget": 1, "start": 2, "resume": 2, "restart": 4,
    "move": 5, "stop": 6,
}  # fmt: skip
LAUNCHES = ("start", "resume", "restart", "move")
WAIT_LIMIT = 3600.0  # seconds that an action waits for a dependency to become idle or complete


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
    steps: tuple[Step, ...] = ()
    fallback: tuple[Step, ...] = ()
    needs: tuple[Need, ...] = ()
    stops_running: bool = False
    anyway: bool = False  # it begins whatever became of those that come first

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


@dataclass(frozen=True, slots=True)
class Plan:
    """All actions in an order in which they may be carried out one by one, and what needs none."""

    id: str
    fleet: str
    revision: str
    actions: tuple[Action, ...]
    unchanged: int
    running: int  # sessions of ours that run now
    hosts: Mapping[str, str | None] = field(default_factory=dict)  # name -> error message, None when reached
    suspended: Mapping[str, Hold] = field(default_factory=dict)  # also of sessions without any action

    @property
    def summary(self) -> dict[str, int]:
        """How many actions of each verb, and how many sessions need none."""
        counts = dict.fromkeys(SEVERITY, 0)
        for action in self.actions:
            counts[action.verb] += 1
        return {
            **{verb: counts[verb] for verb in
               ("start", "resume", "move", "update", "restart", "stop", "adopt", "forget", "blocked", "unknown")},
            "unchanged": self.unchanged,
        }  # fmt: skip

    @property
    def effective(self) -> tuple[Action, ...]:
        """The actions that do something."""
        return tuple(a for a in self.actions if a.verb not in ("blocked", "unknown"))


def make_plan(
    diff: Diff,
    desired: Desired,
    observed: Observed,
    agents: Mapping[str, Agent],
    *,
    plan_id: str,
    controller: str = "",
    hold: Mapping[str, str | Hold | None] | None = None,
    gate: Gate = open_gate,
    restart: frozenset[str] = frozenset(),
    archive: Mapping[str, Archived] | None = None,
    relations: Mapping[str, Relation] | None = None,
    taken: frozenset[str] = frozenset(),
) -> Plan:
    """Decide for every entry of the diff what is done, and in which order.

    `hold` maps addresses to the reason why nothing is done there (shown as blocked), or to None for what was not
    selected (not shown at all). `gate` is asked about every decision that would do something. `restart` names
    addresses to restart though nothing changed, `taken` sessions whose silent host a person says is gone.
    """
    hold = hold or {}
    reached = [host for host in observed.hosts.values() if isinstance(host, Reached)]
    forgotten = frozenset(conversation for host in reached for conversation in host.forgotten)
    context = Context(desired, agents, plan_id, controller, archive or {}, relations or {}, forgotten, taken)
    actions: dict[str, Action] = {}
    unchanged = 0
    for entry in diff.entries:
        at = entry.address
        if at in hold and hold[at] is None:
            continue
        decision = decide(context, observed, entry, forced=at in restart)
        if decision is None:
            unchanged += 1
            continue
        actions[_key(entry)] = _action(desired, entry, _held(entry, decision, hold.get(at), gate))
    actions |= _silent_hosts(observed, actions, hold)
    _connect(context, observed, actions)
    return Plan(
        id=plan_id,
        fleet=desired.fleet.name,
        revision=desired.revision,
        actions=tuple(_ordered(actions.values())),
        unchanged=unchanged,
        running=sum(1 for e in diff.entries if e.seen is not None and e.seen.state == "running"),
        hosts={name: seen.message if isinstance(seen, Unreached) else None for name, seen in observed.hosts.items()},
        suspended={at: why for at, why in hold.items() if isinstance(why, Hold) and why.reason == "suspended"},
    )


def _held(entry: Entry, decision: Decision, reason: str | Hold | None, gate: Gate) -> Decision:
    """The decision, or the reason why it has to wait. What is blocked or unknown by itself stays that."""
    if decision.verb in ("unknown", "blocked"):
        return decision
    held = Hold("held", reason) if isinstance(reason, str) else reason or gate(entry, decision)
    if held is None:
        return decision
    return Decision("blocked", held.reason, held.message, held.remedy, changes=decision.changes)


def _key(entry: Entry) -> str:
    # An orphan may bear a name twice over the hosts.
    return entry.address if entry.desired is not None else f"{entry.address}@{entry.host}"


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


def _action(desired: Desired, entry: Entry, decision: Decision) -> Action:
    return Action(
        address=entry.address,
        host=decision.host or entry.host,
        verb=decision.verb,
        reason=decision.reason,
        message=decision.message,
        remedy=decision.remedy,
        changes=decision.changes,
        source=_source(desired, entry, decision),
        precondition=precondition(entry.seen) + (f" {precondition(entry.origin)}" if entry.origin else ""),
        steps=decision.steps,
        fallback=decision.fallback,
        stops_running=decision.verb == "stop" and entry.seen is not None and entry.seen.state == "running",
    )


def _source(desired: Desired, entry: Entry, decision: Decision) -> Source | None:
    for change in decision.changes:
        if place := desired.locate(entry.address, change.field.partition(".")[0]):
            return place
    return desired.locate(entry.address, None)


def _silent_hosts(
    observed: Observed, actions: Mapping[str, Action], hold: Mapping[str, str | Hold | None]
) -> dict[str, Action]:
    """A host that did not answer and has no session in the plan is still said to be unknown."""
    spoken = {action.host for action in actions.values()}
    return {
        f"host.{name}": Action(f"host.{name}", name, "unknown", seen.code, seen.message, seen.remedy)
        for name, seen in observed.hosts.items()
        if isinstance(seen, Unreached) and name not in spoken and f"host.{name}" not in hold
    }


def _connect(context: Context, observed: Observed, actions: dict[str, Action]) -> None:
    """Draw the edges: dependencies before dependents, stops the other way round."""
    for name in _dependencies_first(context.desired):
        for dependency in context.desired.sessions[name].depends_on:
            action = actions.get(context.desired.address(name))
            other = actions.get(f"session.{dependency.session}")
            if action is None:
                continue
            if name in context.desired.group_chats and action.verb in LAUNCHES:
                # A chat goes on without a participant that fails, and says so itself.
                if other is not None and other.verb in LAUNCHES:
                    action = replace(action, after=(*action.after, other.address), anyway=True)
                actions[action.address] = action
            elif action.verb == "stop" and other is not None and other.verb == "stop":
                actions[other.address] = replace(other, after=(*other.after, action.address))
            elif action.verb in LAUNCHES:
                actions[action.address] = _wait_for(context, observed, action, dependency, other)


def _dependencies_first(desired: Desired) -> list[str]:
    """All sessions, each after what it depends on, so that a blocked one blocks the whole chain behind it.

    With a stack of its own: chains of thousands are no recursion.
    """
    found: dict[str, None] = {}
    for start in desired.sessions:
        pending = [start]
        while pending:
            name = pending[-1]
            lacking = [d.session for d in desired.sessions[name].depends_on if d.session not in found]
            if lacking:
                pending += lacking
            else:
                found[pending.pop()] = None
    return list(found)


def _wait_for(
    context: Context,
    observed: Observed,
    action: Action,
    dependency: Dependency,
    other: Action | None,
) -> Action:
    name = dependency.session
    session = context.desired.sessions[name]
    ready = ready_of(context.desired, session)
    need = Need(
        name, session.host, session.agent, dependency.until, ready,
        ready.timeout if dependency.until in ("started", "ready") else WAIT_LIMIT,
    )  # fmt: skip
    # What a window holds stays as it is meanwhile, and may well be what is waited for.
    if other is not None and other.verb in ("blocked", "unknown", "stop") and other.reason != "window":
        why = f"depends on session.{name}, which is {'to stop' if other.verb == 'stop' else other.verb}"
        return replace(
            action, verb="blocked", reason="dependency", message=f"{why}: {other.message}", steps=(), needs=(),
            changes=(), stops_running=False,
        )  # fmt: skip
    if other is not None and other.verb in LAUNCHES:
        return replace(action, after=(*action.after, other.address), needs=(*action.needs, need))
    host = observed.hosts.get(session.host)
    seen = host.sessions.get(name) if isinstance(host, Reached) else None
    if satisfied(context.agents[session.agent], seen, need):
        return action
    if seen is None or seen.state != "running":
        return replace(
            action, verb="blocked", reason="dependency", steps=(), needs=(), changes=(), stops_running=False,
            message=f"depends on session.{name}, which is not {dependency.until} and not about to be",
        )  # fmt: skip
    return replace(action, needs=(*action.needs, need))


def _ordered(actions: Iterable[Action]) -> list[Action]:
    """Dependencies first; apart from that as declared."""
    found = list(actions)
    place = {action.address: index for index, action in enumerate(found)}
    graph = {index: [place[first] for first in action.after if first in place] for index, action in enumerate(found)}
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    ready = list(sorter.get_ready())
    heapify(ready)
    order = []
    while ready:
        index = heappop(ready)
        order.append(found[index])
        sorter.done(index)
        for following in sorter.get_ready():
            heappush(ready, following)
    return order


def components(actions: Iterable[Action]) -> list[tuple[Action, ...]]:
    """Actions in groups that have nothing to do with each other: those that wait for one another stay together."""
    found = list(actions)
    group = list(range(len(found)))
    place: dict[str, int] = {}
    for index, action in enumerate(found):
        place.setdefault(action.address, index)

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for index, action in enumerate(found):
        for first in (action.address, *action.after):
            if first in place:
                group[root(index)] = root(place[first])
    together: dict[int, list[Action]] = {}
    for index, action in enumerate(found):
        together.setdefault(root(index), []).append(action)
    return [tuple(members) for members in together.values()]
