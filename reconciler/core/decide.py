"""What is done about one entry of the diff: the verb, the reason, and every step with all that it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.agent import Agent
from reconciler.core.diff import Change, Entry, fingerprint
from reconciler.core.launching import Context, command_of, launch_steps, send_step, strategy_of, workdir_of
from reconciler.core.observed import Observed, Reached, SessionSeen, Unreached
from reconciler.core.readiness import activity_of, busy, completed
from reconciler.core.record import Record
from reconciler.core.spec import Session, Stop
from reconciler.core.steps import ForgetStep, IdleStep, RecordStep, Step, StopStep, Verb
from reconciler.errors import ReconcilerError


@dataclass(frozen=True)
class Decision:
    """What is done about one session, and why."""

    verb: Verb
    reason: str
    message: str
    remedy: str = ""
    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()
    host: str = ""


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
        return Decision("blocked", entry.reason, entry.message, _look_at(entry, host))
    if entry.reason == "moved":
        return Decision(
            "blocked", "not-implemented", f"{entry.message}: moving a session is not implemented yet",
            "set host back, or stop it there and forget it", changes=entry.changes,
        )  # fmt: skip
    try:
        return _declared(context, host, entry, entry.desired, forced)
    except ValueError as error:
        return Decision("blocked", "refused", str(error))
    except ReconcilerError as error:
        return Decision("blocked", error.code, error.message, error.remedy)


def _look_at(entry: Entry, host: Reached) -> str:
    return f"look at {host.state_dir}/sessions/{entry.name} on {host.name}"


def _orphan(context: Context, host: Reached, entry: Entry) -> Decision | None:
    seen = entry.seen
    assert seen is not None
    forget = any(item.address == entry.address for item in context.desired.removed)
    if forget and seen.record is not None:
        return Decision(
            "forget", "removed", "declared as removed: it goes on, unmanaged",
            steps=(ForgetStep(entry.name, host.name, seen.incarnation),),
        )  # fmt: skip
    if not context.desired.fleet.prune:
        return None
    if entry.reason in ("broken", "starting") or seen.record is None:
        return Decision("blocked", entry.reason, entry.message, _look_at(entry, host))
    if seen.record.protected:
        return Decision(
            "blocked", "protected", "no spec declares it any more, but it is protected",
            f"declare it again with protect = false, or [[removed]] address = \"{entry.address}\"",
        )  # fmt: skip
    agent = context.agents.get(seen.record.agent)
    return _stop(entry, host, agent, Stop(), "left-specs", "no spec declares it any more")


def _declared(context: Context, host: Reached, entry: Entry, session: Session, forced: bool) -> Decision | None:
    agent = context.agent(entry.name)
    seen = entry.seen
    if seen is None or seen.record is None:
        if session.state == "stopped":
            return None
        return _missing(context, host, entry, session) or _start(context, host, entry, "new", "not on the host yet")
    if seen.state == "running":
        return _running(context, host, entry, session, agent, seen, forced)
    if session.state == "stopped":
        return None
    return _gone(context, host, entry, session, agent, seen, forced)


def _missing(context: Context, host: Reached, entry: Entry, session: Session) -> Decision | None:
    """What the host lacks for a launch, where the look could tell."""
    desired = context.desired
    command, workdir = command_of(context, entry.name), workdir_of(desired, session)
    if strategy_of(desired, session) == "tmux" and not host.tmux:
        return Decision(
            "blocked", "tmux-missing", f"tmux is not on the PATH of {host.name}'s login shell: {host.path}",
            f"install tmux on {host.name} (apt install tmux, brew install tmux), or strategy = \"process\"",
        )  # fmt: skip
    if host.commands.get(command) == "":
        install = context.agent(entry.name).install
        return Decision(
            "blocked", "agent-missing",
            f"{command} is not on the PATH of {host.name}'s login shell: {host.path}",
            f"on {host.name}: {install}" if install else f"install {command} on {host.name}",
        )  # fmt: skip
    if host.directories.get(workdir) == "":
        return Decision(
            "blocked", "workdir-missing", f"{workdir} does not exist on {host.name}",
            f"reconciler exec {host.name} -- mkdir -p {workdir}",
        )  # fmt: skip
    return None


def _start(
    context: Context, host: Reached, entry: Entry, reason: str, message: str, restarts: tuple[int, ...] | None = None
) -> Decision:
    prompt = context.desired.prompts.get(entry.name)
    steps = launch_steps(context, entry.name, host, entry.seen, resume=False, message=prompt, restarts=restarts)
    return Decision("start", reason, message, steps=steps)


def _next_message(context: Context, entry: Entry) -> str | None:
    """The prompt, where it changed since it was handed over."""
    if any(change.field == "prompt" for change in entry.live):
        return context.desired.prompts.get(entry.name)
    return None


def _can_resume(agent: Agent, seen: SessionSeen, session: Session) -> bool:
    record = seen.record
    if record is None or not agent.resumable or record.conversation is None or record.agent != session.agent:
        return False
    return agent.exists(seen.facts) is not False


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
    if lacking := _missing(context, host, entry, session):
        return replace(lacking, message=f"{why_now}; {lacking.message}")
    if not _can_resume(agent, seen, session):
        why = "; it has no conversation to resume yet" if agent.resumable else ""
        if agent.resumable and seen.record is not None and seen.record.agent != session.agent:
            why = f"; {session.agent} begins a new conversation"
        return _start(context, host, entry, reason, why_now + why, restarts)
    # A task is its prompt: a headless turn without one would fail at once.
    task = session.lifecycle == "task"
    message = context.desired.prompts.get(entry.name) if task else _next_message(context, entry)
    steps = launch_steps(context, entry.name, host, seen, resume=True, message=message, restarts=restarts)
    return Decision("resume", reason, why_now, steps=steps, changes=entry.changes)


def _running(
    context: Context, host: Reached, entry: Entry, session: Session, agent: Agent, seen: SessionSeen, forced: bool
) -> Decision | None:
    record = seen.record
    assert record is not None
    if session.state == "stopped":
        if record.protected:
            return _protected(entry, "stop")
        return _stop(entry, host, context.agents.get(record.agent), session.stop, "declared", 'state = "stopped"')
    new_prompt = any(c.field == "prompt" for c in entry.live) and session.on_prompt_change == "restart"
    if entry.changes or forced or new_prompt:
        if record.protected and session.protect:
            return _protected(entry, "restart")
        return _restart(context, host, entry, session, agent, seen, forced)
    learned = agent.conversation(seen.facts)
    if learned and learned != record.conversation and session.lifecycle == "service":
        entry = replace(entry, live=(*entry.live, Change("conversation", record.conversation, learned)))
    return _update(context, entry, agent, seen, learned) if entry.live else None


def _protected(entry: Entry, verb: str) -> Decision:
    return Decision(
        "blocked", "protected", f"it is protected: it would {verb}", "set protect = false first", changes=entry.changes
    )


def _update(context: Context, entry: Entry, agent: Agent, seen: SessionSeen, learned: str | None) -> Decision:
    record = seen.record
    assert record is not None
    session = context.desired.sessions[entry.name]
    record = replace(
        record, labels=dict(session.labels), protected=session.protect, revision=context.desired.revision,
        conversation=learned or record.conversation,
    )  # fmt: skip
    steps: tuple[Step, ...] = (RecordStep(entry.name, session.host, seen.incarnation, record),)
    message = "in place"
    prompt = _next_message(context, entry)
    if prompt is not None:
        if record.strategy == "process":
            return Decision(
                "blocked", "no-terminal", "its prompt changed, and a process without a terminal takes no message",
                'on_prompt_change = "restart", or strategy = "tmux"',
            )  # fmt: skip
        sent = replace(record, prompt=fingerprint(prompt))
        steps = (send_step(context, entry.name, agent, prompt, sent, seen.incarnation),)
        message = "the changed prompt is sent as the next message"
    return Decision("update", "changed", message, steps=steps, changes=entry.live)


def _stop_steps(
    entry: Entry, host: Reached, agent: Agent | None, stop: Stop, seen: SessionSeen, record: Record
) -> tuple[tuple[Step, ...], str]:
    """Wait for idle where that is asked for and can be known, then stop. And how to say so."""
    clean = agent.clean_stop() if agent else None
    ending = StopStep(
        entry.name, host.name, record.strategy, seen.incarnation,
        clean.keys if clean else (), clean.signal if clean else "TERM", record,
    )  # fmt: skip
    if stop.when == "now" or agent is None or not agent.activity_source:
        return (ending,), ""
    note = ""
    if busy(agent, seen):
        then = "then interrupts" if stop.then == "interrupt" else "then leaves it"
        note = f"; {activity_of(agent, seen).state}: waits up to {_short(stop.timeout)} for idle, {then}"
    return (IdleStep(entry.name, host.name, record.agent, stop), ending), note


def _short(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _stop(entry: Entry, host: Reached, agent: Agent | None, stop: Stop, reason: str, message: str) -> Decision:
    seen = entry.seen
    assert seen is not None
    assert seen.record is not None
    record = replace(seen.record, intent="stopped", at=host.now)
    steps, note = _stop_steps(entry, host, agent, stop, seen, record)
    return Decision("stop", reason, message + note, steps=steps)


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
    steps, note = _stop_steps(entry, host, old, session.stop, seen, stopped)
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
            f"{entry.message}; restarted {len(recent)} times in {_short(policy.per)}, which is its budget",
            _lift(entry),
        )  # fmt: skip
    return _relaunch(context, host, entry, entry.reason, entry.message, (*recent, host.now))


def _lift(entry: Entry) -> str:
    return f"reconciler apply --restart {entry.address}"
