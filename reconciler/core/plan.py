"""From a diff to a plan: an ordered set of actions that already holds every decision, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.actions import LAUNCHES, SEVERITY, Action, decided, precondition
from reconciler.core.agent import Agent
from reconciler.core.diff import Diff
from reconciler.core.holds import Gate, Hold, open_gate
from reconciler.core.known import Known
from reconciler.core.launching import Context, ready_of
from reconciler.core.observed import Observed, Reached, Unreached
from reconciler.core.ordering import components, dependents, ordered
from reconciler.core.readiness import satisfied
from reconciler.core.spec import Dependency, Desired
from reconciler.core.steps import Need
from reconciler.core.transcript import Archived, Relation

__all__ = [
    "LAUNCHES", "SEVERITY", "WAIT_LIMIT", "Action", "Plan", "components", "make_plan", "precondition",
]  # fmt: skip
WAIT_LIMIT = 3600.0  # seconds that an action waits for a dependency to become idle or complete


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
    known: Known | None = None,
) -> Plan:
    """Decide for every entry of the diff what is done, and in which order.

    `hold` maps addresses to the reason why nothing is done there (shown as blocked), or to None for what was not
    selected (not shown at all). `gate` is asked about every decision that would do something. `restart` names
    addresses to restart though nothing changed, `taken` sessions whose silent host a person says is gone. `known` is
    what the last time left there, as for `compare`: what rests on the same is not decided again.
    """
    hold = hold or {}
    reached = [host for host in observed.hosts.values() if isinstance(host, Reached)]
    forgotten = frozenset(conversation for host in reached for conversation in host.forgotten)
    context = Context(desired, agents, plan_id, controller, archive or {}, relations or {}, forgotten, taken)
    actions, unchanged = decided(context, observed, diff, hold, gate, restart, known)
    actions |= _silent_hosts(observed, actions, hold)
    _connect(context, observed, actions)
    return Plan(
        id=plan_id,
        fleet=desired.fleet.name,
        revision=desired.revision,
        actions=tuple(ordered(actions.values())),
        unchanged=unchanged,
        running=sum(1 for e in diff.entries if e.seen is not None and e.seen.state == "running"),
        hosts={name: seen.message if isinstance(seen, Unreached) else None for name, seen in observed.hosts.items()},
        suspended={at: why for at, why in hold.items() if isinstance(why, Hold) and why.reason == "suspended"},
    )


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
    for name in dependents(context.desired) if actions else ():
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
