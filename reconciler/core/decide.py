"""What is done about one entry of the diff: the verb, the reason, and every step with all that it needs."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.agent import Agent
from reconciler.core.chats import CLOSE, CONFIG
from reconciler.core.decision import (
    Decision,
    archived_copy,
    archived_size,
    begin,
    can_be_copied,
    diverged,
    host_size,
    lacking,
    look_at,
    protected,
    protection,
    since,
    span,
    stop_steps,
)
from reconciler.core.diff import Change, Entry, digest, fingerprint, written
from reconciler.core.launching import Context, chat_of, launch_steps, send_step, workdir_of
from reconciler.core.moving import move
from reconciler.core.observed import Observed, Reached, SessionSeen, Unreached
from reconciler.core.readiness import completed
from reconciler.core.record import Record
from reconciler.core.spec import Session, Stop
from reconciler.core.steps import (
    ForgetStep,
    PullStep,
    RecordStep,
    RenameStep,
    Step,
)
from reconciler.errors import ReconcilerError


def decide(context: Context, observed: Observed, entry: Entry, *, forced: bool = False) -> Decision | None:
    """The decision for one entry; None when there is nothing to do or to say."""
    if entry.reason == "suspended":
        return None
    if entry.kind == "unknown":
        silent = observed.hosts.get(entry.host)
        remedy = silent.remedy if isinstance(silent, Unreached) else ""
        return Decision("unknown", entry.reason, entry.message, remedy)
    host = observed.hosts[entry.host]
    assert isinstance(host, Reached), "an entry of a host that did not answer is unknown"
    if entry.desired is None:
        return _orphan(context, host, entry)
    if entry.reason in ("broken", "starting"):
        return Decision("blocked", entry.reason, entry.message, look_at(entry, host))
    if entry.reason == "twice":
        return _twice(observed, entry)
    if entry.reason == "renamed" and entry.seen is not None and entry.seen.record is not None:
        return _renamed(host, entry, entry.seen, replace(entry.seen.record, name=entry.name))
    try:
        if entry.reason == "moved":
            return move(context, observed, host, entry, entry.desired)
        return _declared(context, host, entry, entry.desired, forced)
    except ValueError as error:
        return Decision("blocked", "refused", str(error))
    except ReconcilerError as error:
        return Decision("blocked", error.code, error.message, error.remedy)


def _twice(observed: Observed, entry: Entry) -> Decision:
    """Blocked until a person ends one of the two: nobody else can tell which one is meant."""
    said, ends = [], []
    for host in observed.hosts.values():
        seen = host.sessions.get(entry.name) if isinstance(host, Reached) else None
        if seen is None or not seen.live:
            continue
        process = seen.process
        pid = f"pid {process.pid}" if process and process.alive else seen.state
        said.append(f"{host.name}: {pid}{since(seen.record.at) if seen.record else ''}")
        kill = f"kill {process.pid}" if process and process.alive else "ps -ef"
        ends.append(f"reconciler exec {host.name} -- {kill}")
    return Decision(
        "blocked", "twice", f"{entry.message} ({'; '.join(said)})", f"end one of the two: {', or '.join(ends)}"
    )


def _renamed(host: Reached, entry: Entry, seen: SessionSeen, record: Record) -> Decision:
    change = Change("name", seen.called or seen.name, entry.name)
    if seen.called:
        step: Step = RecordStep(entry.name, host.name, seen.incarnation, record)
        return Decision("update", "renamed", f"{entry.message}: its rename is ended", "", (step,), (change,))
    step = RenameStep(seen.name, host.name, record.strategy, seen.incarnation, record)
    return Decision("update", "renamed", f"{entry.message}: renamed without a restart", "", (step,), (change,))


def _orphan(context: Context, host: Reached, entry: Entry) -> Decision | None:
    seen = entry.seen
    assert seen is not None
    forget = any(item.address == entry.address for item in context.desired.removed)
    if forget and seen.record is not None:
        return Decision(
            "forget", "removed", "declared as removed: it goes on, unmanaged",
            steps=(ForgetStep(entry.name, host.name, seen.record.strategy, seen.incarnation),),
        )  # fmt: skip
    if not context.desired.fleet.prune:
        return None
    if entry.reason in ("broken", "starting") or seen.record is None:
        return Decision("blocked", entry.reason, entry.message, look_at(entry, host))
    if seen.record.is_protected:
        by, lift = protection(context, entry, seen.record)
        return Decision(
            "blocked", "protected", f"no spec declares it any more, but it is protected {by}",
            f"{lift}, or [[removed]] address = \"{entry.address}\"",
        )  # fmt: skip
    agent = context.agents.get(seen.record.agent)
    return _stop(entry, host, agent, Stop(), "left-specs", "no spec declares it any more")


def _declared(context: Context, host: Reached, entry: Entry, session: Session, forced: bool) -> Decision | None:
    agent = context.agent(entry.name)
    seen = entry.seen
    if seen is None or seen.record is None:
        if session.state == "stopped":
            return None
        return lacking(context, host, entry, session) or _first(context, host, entry, session, agent)
    if seen.state == "running":
        return _running(context, host, entry, session, agent, seen, forced)
    if session.state == "stopped":
        return None
    return _gone(context, host, entry, session, agent, seen, forced)


def _next_message(context: Context, entry: Entry) -> str | None:
    """The prompt, where it changed since it was handed over."""
    if any(change.field == "prompt" for change in entry.live):
        return context.desired.prompts.get(entry.name)
    return None


def _first(context: Context, host: Reached, entry: Entry, session: Session, agent: Agent) -> Decision:
    """Nothing of it is on any host: a new conversation, unless the archive has its old one."""
    archived = context.archive.get(entry.name)
    if archived is None or archived.empty or archived.agent != session.agent or not agent.resumable:
        return begin(context, host, entry, "new", "not on the host yet")
    if archived.conversation in context.forgotten:
        # Whoever let go of it has an archive of their own.
        return begin(context, host, entry, "new", "it was let go of, and its conversation goes on without us")
    if archived.diverged:
        return diverged(entry, archived.diverged)
    steps = launch_steps(
        context, entry.name, host, entry.seen, resume=True, message=None, bring=True, at_least=archived_size(archived)
    )
    return Decision(
        "resume", "from-archive", "not on the host any more: its conversation comes from the archive", steps=steps
    )


def _can_resume(context: Context, agent: Agent, seen: SessionSeen, session: Session) -> bool:
    record = seen.record
    if record is None or not agent.resumable or record.conversation is None or record.agent != session.agent:
        return False
    if record.conversation in context.forgotten:
        return False
    return agent.exists(seen.facts) is not False or archived_copy(context, seen.name, record) is not None


def _relaunch(
    context: Context,
    host: Reached,
    entry: Entry,
    reason: str,
    why_now: str,
    restarts: tuple[int, ...] | None = None,
) -> Decision:
    """Resume the same conversation; where there is none yet, begin it, first prompt included."""
    session, seen = entry.desired, entry.seen
    assert session is not None
    assert seen is not None
    agent = context.agent(entry.name)
    if blocked := lacking(context, host, entry, session):
        return replace(blocked, message=f"{why_now}; {blocked.message}")
    if not _can_resume(context, agent, seen, session):
        why = "; it has no conversation to resume yet" if agent.resumable else ""
        if agent.resumable and seen.record is not None and seen.record.agent != session.agent:
            why = f"; {session.agent} begins a new conversation"
        elif seen.record is not None and seen.record.conversation in context.forgotten:
            why = "; it was let go of, and its conversation goes on without us"
        return begin(context, host, entry, reason, why_now + why, restarts)
    archived = archived_copy(context, entry.name, seen.record) if seen.record else None
    if archived is not None and archived.diverged:
        return diverged(entry, archived.diverged)
    relation = context.relations.get(entry.name, "equal") if archived else "equal"
    if relation == "diverged":
        return diverged(entry, "neither is a beginning of the other")
    if relation == "unknown":
        return Decision("unknown", "relation", f"{why_now}; how its copies stand to each other could not be told")
    assert seen.record is not None
    bring = relation == "archive-ahead" or agent.exists(seen.facts) is False
    first: tuple[Step, ...] = ()
    if bring:
        why_now += "; the archive has more of its conversation than the host"
    elif seen.record.workdir != workdir_of(context.desired, session) and can_be_copied(agent, seen):
        # Agents tie a conversation to its directory: it goes to the archive, and from there to where they will look.
        bring, first = True, (PullStep(entry.name, host.name, seen.record.agent, required=True),)
    # A task is its prompt: a headless turn without one would fail at once.
    task = session.lifecycle == "task"
    message = context.desired.prompts.get(entry.name) if task else _next_message(context, entry)
    steps = launch_steps(
        context, entry.name, host, seen, resume=True, message=message, restarts=restarts,
        bring=bring, at_least=max(archived_size(archived) if bring else 0, host_size(seen)),
    )  # fmt: skip
    return Decision("resume", reason, why_now, steps=(*first, *steps), changes=entry.changes)


def _running(
    context: Context, host: Reached, entry: Entry, session: Session, agent: Agent, seen: SessionSeen, forced: bool
) -> Decision | None:
    record = seen.record
    assert record is not None
    if session.state == "stopped":
        if record.is_protected:
            return protected(context, entry, record, "stop")
        return _stop(entry, host, context.agents.get(record.agent), session.stop, "declared", 'state = "stopped"')
    new_prompt = any(c.field == "prompt" for c in entry.live) and session.on_prompt_change == "restart"
    if entry.changes or forced or new_prompt:
        if record.protected_by or (record.protected and session.protect):
            return protected(context, entry, record, "restart")
        return _restart(context, host, entry, session, agent, seen, forced)
    learned = agent.conversation(seen.facts)
    if learned in context.forgotten:
        learned = None  # what was let go of under this name still reports where it always did
    if learned and learned != record.conversation and session.lifecycle == "service":
        entry = replace(entry, live=(*entry.live, Change("conversation", record.conversation, learned)))
    return _update(context, entry, agent, seen, learned) if entry.live else None


def _update(context: Context, entry: Entry, agent: Agent, seen: SessionSeen, learned: str | None) -> Decision:
    record = seen.record
    assert record is not None
    before = record.prompt
    session = context.desired.sessions[entry.name]
    record = replace(
        record, labels=dict(session.labels), protected=session.protect, revision=context.desired.revision,
        conversation=learned or record.conversation,
    )  # fmt: skip
    steps: tuple[Step, ...] = (RecordStep(entry.name, session.host, seen.incarnation, record),)
    message = "in place"
    if entry.name in context.desired.group_chats:
        values = written(context.desired, entry.name)
        record = replace(record, written=values, digest=digest(values))
        given = (CONFIG, chat_of(context, entry.name, record.conversation).text)
        steps = (RecordStep(entry.name, session.host, seen.incarnation, record, given),)
    prompt = _next_message(context, entry)
    if prompt is not None:
        if record.strategy == "process":
            return Decision(
                "blocked", "no-terminal", "its prompt changed, and a process without a terminal takes no message",
                'on_prompt_change = "restart", or strategy = "tmux"',
            )  # fmt: skip
        sent = replace(record, prompt=fingerprint(prompt))
        steps = (send_step(context, entry.name, agent, prompt, sent, seen.incarnation, before),)
        message = "the changed prompt is sent as the next message"
    return Decision("update", "changed", message, steps=steps, changes=entry.live)


def _stop(entry: Entry, host: Reached, agent: Agent | None, stop: Stop, reason: str, message: str) -> Decision:
    seen = entry.seen
    assert seen is not None
    assert seen.record is not None
    record = replace(seen.record, intent="stopped", at=host.now)
    steps, note = stop_steps(entry, host, agent, stop, seen, record)
    if entry.is_chat:
        steps = (_asked_to_close(entry, host, seen), *steps)
        note = "; turns that run may end first"
    return Decision("stop", reason, message + note, steps=steps)


def _asked_to_close(entry: Entry, host: Reached, seen: SessionSeen) -> Step:
    assert seen.record is not None
    return RecordStep(entry.name, host.name, seen.incarnation, seen.record, (CLOSE, f"{seen.incarnation}\n"))


def _restart(
    context: Context, host: Reached, entry: Entry, session: Session, agent: Agent, seen: SessionSeen, forced: bool
) -> Decision:
    assert seen.record is not None
    launch = _relaunch(context, host, entry, "changed", entry.message)
    if launch.verb == "blocked":
        return launch
    old = context.agents.get(seen.record.agent)
    # Between the two the record says stopped: if the launch fails, nothing is lost and the next plan resumes.
    stopped = replace(seen.record, intent="stopped", at=host.now)
    # The turns of a chat go on while its process is another one.
    stop = Stop(when="now") if entry.is_chat else session.stop
    steps, note = stop_steps(entry, host, old, stop, seen, stopped)
    if not entry.changes and forced:
        reason, message = "asked", "asked for"
    else:
        reason, message = "changed", entry.message
    goes_on = "; the conversation goes on" if launch.verb == "resume" else "; a new conversation begins"
    if not agent.resumable:
        goes_on = ""
    return Decision("restart", reason, message + goes_on + note, steps=(*steps, *launch.steps), changes=entry.changes)


def _gone(
    context: Context, host: Reached, entry: Entry, session: Session, agent: Agent, seen: SessionSeen, forced: bool
) -> Decision | None:
    """It has a record and no process: stopped by us, ended by itself, or lost."""
    record = seen.record
    assert record is not None
    if completed(seen) and session.lifecycle == "service":
        return _relaunch(context, host, entry, "changed", "it was a task, is complete, and is a service now")
    if completed(seen) and not forced:
        if _next_message(context, entry) is None or session.on_prompt_change == "ignore":
            return None
        return _relaunch(context, host, entry, "changed", "a changed prompt is the next task")
    if record.intent == "stopped":
        return _relaunch(context, host, entry, "returns", "it was stopped and is wanted again")
    if forced:
        return _relaunch(context, host, entry, "asked", "asked for")
    policy = session.restart
    if policy.policy == "never":
        return Decision("blocked", entry.reason, f"{entry.message}; restart.policy is never", _lift(entry))
    if entry.reason == "clean-exit" and policy.policy == "on_failure":
        return Decision(
            "blocked", "clean-exit", f"{entry.message}; restart.policy on_failure leaves a clean exit alone",
            _lift(entry) + ', or restart = { policy = "always" }',
        )  # fmt: skip
    if entry.reason in ("rebooted", "agent-missing", "workdir-missing", "aborted"):
        return _relaunch(context, host, entry, entry.reason, entry.message)
    recent = tuple(at for at in record.restarts if host.now - policy.per < at <= host.now)
    if len(recent) >= policy.budget:
        return Decision(
            "blocked", "budget-spent",
            f"{entry.message}; restarted {len(recent)} times in {span(policy.per)}"
            f"{since(min(recent)) if recent else ''}, which is its budget",
            _lift(entry),
        )  # fmt: skip
    return _relaunch(context, host, entry, entry.reason, entry.message, (*recent, host.now))


def _lift(entry: Entry) -> str:
    return f"reconciler apply --restart {entry.address}"
