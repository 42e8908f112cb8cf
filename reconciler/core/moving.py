"""Moving a session to another host, with its memory, and the way back if that fails."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.decision import (
    Decision,
    archived_copy,
    archived_size,
    can_be_copied,
    diverged,
    host_size,
    lacking,
    protected,
    stop_steps,
)
from reconciler.core.diff import Entry
from reconciler.core.launching import Context, launch_steps
from reconciler.core.observed import Observed, Reached, SessionSeen
from reconciler.core.spec import Session
from reconciler.core.steps import IdleStep, LaunchStep, PullStep, RecordStep, Step, StopStep


def move(context: Context, observed: Observed, host: Reached, entry: Entry, session: Session) -> Decision:
    """Stop at the source, copy from it, put in place at the target, resume and verify; else resume at the source."""
    source = observed.hosts[entry.origin_host]
    origin = entry.origin
    assert isinstance(source, Reached)
    assert origin is not None
    assert origin.record is not None
    agent = context.agent(entry.name)
    if origin.record.is_protected:
        return protected(context, entry, origin.record, "move")
    if blocked := lacking(context, host, entry, session):
        return replace(blocked, changes=entry.changes)
    if origin.record.agent != session.agent:
        return Decision(
            "blocked", "two-changes", "its host and its agent changed at once", "move it first, then change the agent",
            changes=entry.changes,
        )  # fmt: skip
    there = replace(entry, seen=origin)
    # Also where nothing runs: who sees the source and not the target must not take its record for the present one.
    stopped = replace(origin.record, intent="stopped", at=source.now, to=host.name)
    steps, note = stop_steps(there, source, agent, session.stop, origin, stopped)
    ends = StopStep if origin.state != "running" else (IdleStep, StopStep)
    steps = tuple(step for step in steps if isinstance(step, ends))
    exists = agent.exists(origin.facts)
    archived = archived_copy(context, entry.name, origin.record)
    if archived is not None and archived.diverged:
        return replace(diverged(entry, archived.diverged), changes=entry.changes)
    if archived is not None and context.relations.get(entry.name) == "diverged":
        why = f"{host.name} has another continuation of it"
        return replace(diverged(entry, why), changes=entry.changes)
    # One that was let go of on a third host goes on there: this is the record of before it went there.
    ours = origin.record.conversation is not None and origin.record.conversation not in context.forgotten
    carried = agent.resumable and ours and (exists is not False or archived)
    if carried and archived is None and not can_be_copied(agent, origin):
        return Decision(
            "blocked", "no-store", f"nobody knows where {session.agent} keeps its conversation: it cannot go with it",
            f"declare `store` in [agents.{session.agent}]", changes=entry.changes,
        )  # fmt: skip
    if carried:
        pull: tuple[Step, ...] = (PullStep(entry.name, source.name, origin.record.agent, required=True),)
        at_least = max(host_size(origin), archived_size(archived))
        launch = launch_steps(
            context, entry.name, host, entry.seen, resume=True, message=None, origin=origin.record, bring=True,
            at_least=at_least,
        )  # fmt: skip
    else:
        pull = ()
        prompt = context.desired.prompts.get(entry.name)
        launch = launch_steps(context, entry.name, host, entry.seen, resume=False, message=prompt, origin=origin.record)
    goes = "its conversation goes with it" if carried else "it has no conversation to take along"
    return Decision(
        "move", "host-changed", f"from {source.name} to {host.name}; {goes}{note}",
        steps=(*steps, *pull, *launch), changes=entry.changes, fallback=_back(context, source, entry, origin, launch),
    )  # fmt: skip


def _back(
    context: Context, source: Reached, entry: Entry, origin: SessionSeen, launch: tuple[Step, ...]
) -> tuple[Step, ...]:
    """What makes a failed move undone: end what came up at the target, resume at the source what ran there."""
    first = launch[0]
    assert isinstance(first, LaunchStep)
    assert origin.record is not None
    session = context.desired.sessions[entry.name].model_copy(update={"host": source.name})
    home = replace(
        context, desired=replace(context.desired, sessions={**context.desired.sessions, entry.name: session})
    )
    ended = replace(first.record, intent="stopped")
    stop = StopStep(entry.name, first.host, first.strategy, first.record.incarnation, (), "TERM", ended)
    if origin.state != "running":
        return (stop, RecordStep(entry.name, source.name, origin.incarnation, origin.record))
    agent = context.agent(entry.name)
    resume = agent.resumable and origin.record.conversation is not None and agent.exists(origin.facts) is not False
    record = replace(origin.record, moves=first.record.moves)
    message = None if resume else context.desired.prompts.get(entry.name)
    return (stop, *launch_steps(home, entry.name, source, origin, resume=resume, message=message, origin=record))
