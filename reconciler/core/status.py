"""The status of every session and host: one phase, conditions in the kstatus manner, what was seen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from reconciler.core.agent import Agent
from reconciler.core.decision import since
from reconciler.core.diff import Diff, Entry
from reconciler.core.holds import Hold
from reconciler.core.known import Known
from reconciler.core.observed import Observed, Reached, Unreached, clean
from reconciler.core.plan import Action, Plan
from reconciler.core.readiness import activity_of, completed
from reconciler.core.spec import Desired

Truth = Literal["True", "False", "Unknown"]
Key = tuple[str, str]  # address and host: an orphan may bear a name on two hosts
# Reasons for which nothing is done now, and which pass by themselves.
PASSING = frozenset({"in-progress", "back-off", "starting", "dependency", "borrowed"})
_WAITING = ("suspended", "window")  # blocked until a time or a person, not because something is wrong


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is so, is not so, or is not known."""

    type: str
    status: Truth
    reason: str
    message: str = ""
    since: float | None = None  # seconds of the wall clock; None where nobody has followed it


@dataclass(frozen=True, slots=True)
class Status:
    """One resource: `phase` is one word for people; `seen` are the fields of `observed` in the JSON."""

    address: str
    host: str
    phase: str
    conditions: tuple[Condition, ...]
    seen: Mapping[str, Any] = field(default_factory=dict)
    revision: Mapping[str, str | None] = field(default_factory=dict)
    message: str = ""
    remedy: str = ""  # what lifts what holds it


def statuses(
    desired: Desired,
    observed: Observed,
    diff: Diff,
    plan: Plan,
    agents: Mapping[str, Agent],
    before: Mapping[Key, Status] | None = None,
    known: Known | None = None,
) -> tuple[Status, ...]:
    """Hosts first, then sessions in the order of the diff.

    `before` is what was published last, and `known` what the last time left there: a status of which all but the age
    is the same is taken from `before`, dates of its conditions included.
    """
    known = known or Known()
    known.about(desired)
    was: _Told = known.told if known.told is not None and known.told.agents == agents else _Told(agents)
    now = known.told = _Told(agents)
    anew: list[Key] = []
    known.anew["statuses"] = anew
    actions = {(action.address, action.host): action for action in plan.actions}
    found = [_host(name, seen) for name, seen in observed.hosts.items()]
    for entry in diff.entries:
        said, status = was.said.get(id(entry)), None
        at = said.at if said is not None else (entry.address, entry.host)
        host, action, hold = observed.hosts.get(entry.host), actions.get(at), plan.suspended.get(at[0])
        if (
            said is not None
            and said.action is action
            and said.hold == hold
            and said.reached is isinstance(host, Reached)
        ):
            status = _again(said, (before or {}).get(at), host)
        if status is None:
            status = _session(desired, observed, entry, action, agents, plan)
            anew.append(at)
        now.said[id(entry)] = _Said(entry, at, action, hold, isinstance(host, Reached), status.seen)
        found.append(status)
    return tuple(found)


@dataclass(slots=True)
class _Said:
    """What the status of an entry rested on, but for the time. While this is kept no other entry has the same id."""

    entry: Entry
    at: Key
    action: Action | None
    hold: Hold | None
    reached: bool
    seen: Mapping[str, Any]  # that very table of the status, by which the status is known again after it was dated


@dataclass(slots=True)
class _Told:
    """What the statuses of the last time rested on, by the identity of their entries."""

    agents: Mapping[str, Agent]
    said: dict[int, _Said] = field(default_factory=dict)


def _again(said: _Said, status: Status | None, host: Reached | Unreached | None) -> Status | None:
    """The same status with the age of now; None where it was not published."""
    if status is None or status.seen is not said.seen:
        return None
    if not isinstance(host, Reached) or said.seen.get("since") is None:
        return status
    age = _age(host, said.seen["since"])
    if age == said.seen["age"]:
        return status
    seen = {**said.seen, "age": age}
    return Status(
        status.address, status.host, status.phase, status.conditions, seen, status.revision, status.message,
        status.remedy,
    )  # fmt: skip


class Trouble(Protocol):
    """Why the newest revision of a source is not in force."""

    @property
    def code(self) -> str:
        """A stable word."""

    @property
    def message(self) -> str:
        """One sentence."""


def source_status(revision: str | None, trouble: Trouble | None) -> Status:
    """Where the specs come from: the revision in force, and why a newer one is not."""
    desired = {"desired": revision, "attempted": revision, "applied": revision}
    if trouble is None:
        ready: Truth = "True" if revision else "Unknown"
        verified = Condition("SourceVerified", ready, "Verified" if revision else "NotRead")
        return Status("source.specs", "local", "ready" if revision else "unknown",
                      (Condition("Ready", ready, "InForce" if revision else "NotRead"), verified),
                      {"state": "verified" if revision else "unknown"}, desired)  # fmt: skip
    why = f"{trouble.message}; " + (f"{revision} stays in force" if revision else "nothing is in force")
    conditions = (
        Condition("Ready", "False", trouble.code, why),
        Condition("SourceVerified", "False", trouble.code, trouble.message),
        Condition("Stalled", "True", trouble.code, trouble.message),
    )
    return Status("source.specs", "local", "stalled", conditions, {"state": "stalled"}, desired, why)


def _host(name: str, seen: Reached | Unreached) -> Status:
    if isinstance(seen, Unreached):
        reached = Condition("Reachable", "Unknown", seen.code, seen.message)
        return Status(f"host.{name}", name, "unknown", (Condition("Ready", "Unknown", seen.code), reached),
                      {"state": "unknown"}, {}, seen.message)  # fmt: skip
    facts = {"state": "reachable", "hostname": seen.hostname, "user": seen.user, "system": seen.system,
             "tmux": seen.tmux}  # fmt: skip
    yes = (Condition("Ready", "True", "Reached"), Condition("Reachable", "True", "Reached"))
    return Status(f"host.{name}", name, "ready", yes, facts)


def _session(
    desired: Desired,
    observed: Observed,
    entry: Entry,
    action: Action | None,
    agents: Mapping[str, Agent],
    plan: Plan,
) -> Status:
    seen, host = entry.seen, observed.hosts.get(entry.host)
    phase = _phase(entry, action, agents)
    hold = plan.suspended.get(entry.address) if entry.kind != "unknown" else None
    ready: Truth = "True" if phase in ("running", "idle", "busy", "waiting", "completed", "stopped") else "False"
    if entry.kind == "unknown":
        ready = "Unknown"
    message = action.message if action else ""
    remedy = action.remedy if action is not None and action.verb == "blocked" else ""
    conditions = [Condition("Ready", ready, entry.reason, message or entry.message)]
    if hold is not None:
        phase, message, remedy = "suspended", hold.message, hold.remedy
        conditions.append(Condition("Suspended", "True", "suspended", hold.message))
    if seen is not None and seen.record is not None and seen.record.is_protected:
        reason = "by-command" if seen.record.protected_by else "by-specs"
        who = clean(seen.record.protected_by, 80)
        conditions.append(
            Condition("Protected", "True", reason, who + (since(seen.record.protected_at) if who else ""))
        )
    if action is not None and action.verb == "blocked" and action.reason not in _WAITING:
        kind = "Reconciling" if action.reason in PASSING else "Stalled"
        conditions.append(Condition(kind, "True", action.reason, action.message))
    elif action is not None and action.verb != "unknown":
        conditions.append(Condition("Drifted", "True", action.reason, action.message))
    reachable: Truth = "True" if isinstance(host, Reached) else "Unknown"
    conditions.append(Condition("Reachable", reachable, "Reached" if reachable == "True" else entry.reason))
    record = seen.record if seen else None
    revision = {
        "desired": desired.revision if entry.desired else None,
        "attempted": record.revision if record else None,
        "applied": record.revision if record and seen and seen.state != "lost" else None,
    }
    return Status(
        entry.address, entry.host, phase, tuple(conditions), _observed(entry, host, agents), revision,
        message or (entry.message if entry.kind == "unknown" or entry.reason == "suspended" else ""),
        remedy,
    )  # fmt: skip


def _phase(entry: Entry, action: Action | None, agents: Mapping[str, Agent]) -> str:
    seen = entry.seen
    if entry.reason == "suspended":
        return "suspended"
    if entry.kind == "unknown":
        return "unknown"
    if action is not None and action.reason == "in-progress":
        return "reconciling"
    if seen is None or (seen.record is None and not seen.live):
        return "blocked" if action is not None and action.verb == "blocked" else "absent"
    if seen.state != "running" and action is not None and action.verb == "blocked":
        return "blocked"
    if completed(seen):
        return "completed"
    if seen.state == "running" and seen.record is not None and seen.record.agent in agents:
        state = activity_of(agents[seen.record.agent], seen).state
        return "running" if state == "unknown" else state
    return seen.state


def _observed(entry: Entry, host: object, agents: Mapping[str, Agent]) -> dict[str, Any]:
    seen = entry.seen
    if seen is None or not isinstance(host, Reached):
        return {"state": "unknown" if entry.kind == "unknown" else "absent", "activity": None, "host": entry.host,
                "pid": None, "conversation_id": None, "since": None, "age": None}  # fmt: skip
    record = seen.record
    agent = agents.get(record.agent) if record else None
    activity = activity_of(agent, seen) if agent else None
    since = activity.since if activity else None
    if since is None and record is not None:
        since = float(record.at)
    return {
        "state": seen.state,
        "activity": activity.state if activity else None,
        "source": activity.source if activity else None,
        "detail": clean(activity.detail, 400) if activity and activity.detail else None,
        "waiting_for": clean(activity.detail, 120) if activity and activity.state == "waiting" else None,
        "host": entry.host,
        "agent": record.agent if record else None,
        "pid": seen.process.pid if seen.process and seen.process.alive else None,
        "conversation_id": record.conversation if record else None,
        "incarnation": seen.incarnation,
        "since": since,
        "age": _age(host, since) if since is not None else None,
        "exit_code": seen.exit.code if seen.exit else None,
        "attached": seen.attached,
    }


def _age(host: Reached, since: float) -> int:
    return max(0, host.now - int(since))


def status_of(found: Mapping[str, Any]) -> Status:
    """A status again that went through `dataclasses.asdict` and JSON."""
    conditions = tuple(Condition(**condition) for condition in found["conditions"])
    return Status(**{**found, "conditions": conditions})


def status_json(found: tuple[Status, ...]) -> dict[str, Any]:
    """The document that `status --json` prints, format 1.0."""
    return {
        "format_version": "1.0",
        "resources": [
            {
                "address": s.address,
                "phase": s.phase,
                "conditions": [
                    {"type": c.type, "status": c.status, "reason": c.reason, "message": c.message,
                     "last_transition": c.since}
                    for c in s.conditions
                ],
                "observed": dict(s.seen),
                "revision": dict(s.revision),
                "remedy": s.remedy,
            }
            for s in found
        ],
    }  # fmt: skip
