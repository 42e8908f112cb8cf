"""Whether a session is started, ready, idle or completed, from one look at it."""

from __future__ import annotations

from reconciler.core.agent import Activity, Agent
from reconciler.core.observed import SessionSeen
from reconciler.core.steps import Need

UNKNOWN = Activity("unknown")


def activity_of(agent: Agent, seen: SessionSeen) -> Activity:
    """What the session's agent does; unknown unless it runs."""
    return agent.activity(seen.facts) if seen.state == "running" else UNKNOWN


def busy(agent: Agent, seen: SessionSeen) -> bool:
    """Whether a stop would lose work: only an *observed* busy or waiting counts."""
    return activity_of(agent, seen).state in ("busy", "waiting")


def completed(seen: SessionSeen) -> bool:
    """Whether the session is a task that has ended well."""
    return (
        seen.record is not None
        and seen.record.lifecycle == "task"
        and seen.state == "exited"
        and seen.exit is not None
        and seen.exit.code == 0
    )


def ready_by_agent(agent: Agent, seen: SessionSeen) -> bool:
    """Past start-up, by the agent's own sign; where it has none, a live process is all that can be known."""
    return completed(seen) or (seen.state == "running" and agent.ready(seen.facts) is not False)


def satisfied(agent: Agent, seen: SessionSeen | None, need: Need) -> bool:
    """Whether a dependency's condition holds. A `ready` of the spec's own (pattern, command, port) has to be
    asked for on the host, so it never counts as seen here."""
    if seen is None:
        return False
    match need.until:
        case "started":
            return seen.state == "running" or completed(seen)
        case "ready":
            own = need.ready.pattern or need.ready.command or need.ready.port
            return completed(seen) or (not own and ready_by_agent(agent, seen))
        case "idle":
            if completed(seen):
                return True
            return ready_by_agent(agent, seen) and (
                activity_of(agent, seen).state == "idle" or not agent.activity_source
            )
        case "completed":
            return completed(seen)
