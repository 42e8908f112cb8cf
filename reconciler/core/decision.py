"""What a decision is, and what several kinds of decisions need: what a host lacks, how a session begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.core.agent import Agent
from reconciler.core.diff import Change, Entry
from reconciler.core.launching import Context, command_of, launch_steps, strategy_of, workdir_of
from reconciler.core.observed import Reached, SessionSeen, clean
from reconciler.core.readiness import activity_of, busy
from reconciler.core.record import Record
from reconciler.core.spec import Session, Stop
from reconciler.core.steps import IdleStep, PullStep, Step, StopStep, Verb
from reconciler.core.transcript import Archived


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done about one session, and why."""

    verb: Verb
    reason: str
    message: str
    remedy: str = ""
    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()
    host: str = ""
    fallback: tuple[Step, ...] = ()


def look_at(entry: Entry, host: Reached) -> str:
    """Where to look at what cannot be read."""
    return f"look at {host.state_dir}/sessions/{entry.name} on {host.name}"


def lacking(context: Context, host: Reached, entry: Entry, session: Session) -> Decision | None:
    """What the host lacks for a launch, where the look could tell."""
    desired = context.desired
    command, workdir = command_of(context, entry.name), workdir_of(desired, session)
    other = host.sessions.get(host.links.get(entry.name, ""))
    if other is not None and other.live and other.name != entry.name:
        return Decision(
            "blocked", "name-taken", f"session.{other.name} was renamed and still runs in the directory of this name",
            f"reconciler apply --restart session.{other.name}",
        )  # fmt: skip
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


def protection(context: Context, entry: Entry, record: Record) -> tuple[str, str]:
    """Who protects a session and since when, as `by ...`; and what lifts it."""
    lift = f"reconciler unprotect {entry.address}"
    if record.protected_by:
        return f"by {clean(record.protected_by, 80)}{_since(record.protected_at)}", lift
    if entry.desired is None or not entry.desired.protect:
        return "by the specs that were applied last", lift
    place = context.desired.locate(entry.address, "protect")
    return f"by the specs{f' at {place.file}:{place.line}' if place else ''}", "set protect = false first"


def _since(at: int) -> str:
    try:
        return f" since {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # whatever a host says
        return ""


def protected(context: Context, entry: Entry, record: Record, verb: str) -> Decision:
    """Blocked, since what would be done ends the process of a session that is protected."""
    by, lift = protection(context, entry, record)
    return Decision("blocked", "protected", f"it is protected {by}: it would {verb}", lift, changes=entry.changes)


def begin(
    context: Context, host: Reached, entry: Entry, reason: str, message: str, restarts: tuple[int, ...] | None = None
) -> Decision:
    """A new conversation, first prompt included."""
    prompt = context.desired.prompts.get(entry.name)
    steps = launch_steps(context, entry.name, host, entry.seen, resume=False, message=prompt, restarts=restarts)
    return Decision("start", reason, message, steps=steps)


def archived_size(archived: Archived | None) -> int:
    """The bytes of a conversation's largest file, which is its transcript."""
    return max((file.size for file in archived.files.values()), default=0) if archived else 0


def host_size(seen: SessionSeen) -> int:
    """The bytes of the host's largest file of a conversation, which is its transcript."""
    return max((file.size for file in seen.facts.store or ()), default=0)


def diverged(entry: Entry, why: str) -> Decision:
    """Blocked, until somebody says which copy counts."""
    return Decision(
        "blocked", "diverged", f"the host's and the archive's copy of its conversation differ: {why}",
        f"reconciler sync {entry.name} --take archive, or --take host",
    )  # fmt: skip


def can_be_copied(agent: Agent, seen: SessionSeen) -> bool:
    """Whether the agent says where its conversation lies, or exports it."""
    conversation = seen.record.conversation if seen.record else None
    return seen.facts.store is not None or (conversation is not None and agent.export_args(conversation) is not None)


def archived_copy(context: Context, name: str, record: Record) -> Archived | None:
    """What the archive has of this very conversation."""
    found = context.archive.get(name)
    return found if found is not None and found.conversation == record.conversation and not found.empty else None


def stop_steps(
    entry: Entry, host: Reached, agent: Agent | None, stop: Stop, seen: SessionSeen, record: Record
) -> tuple[tuple[Step, ...], str]:
    """Wait for idle where that is asked for and can be known, then stop. And how to say so."""
    clean = agent.clean_stop() if agent else None
    ending = StopStep(
        entry.name, host.name, record.strategy, seen.incarnation,
        clean.keys if clean else (), clean.signal if clean else "TERM", record,
    )  # fmt: skip
    endings: tuple[Step, ...] = (ending,)
    if agent is not None and agent.resumable and record.conversation is not None:
        endings = (ending, PullStep(entry.name, host.name, record.agent))
    if stop.when == "now" or agent is None or not agent.activity_source:
        return endings, ""
    note = ""
    if busy(agent, seen):
        then = "then interrupts" if stop.then == "interrupt" else "then leaves it"
        note = f"; {activity_of(agent, seen).state}: waits up to {span(stop.timeout)} for idle, {then}"
    return (IdleStep(entry.name, host.name, record.agent, stop), *endings), note


def span(seconds: float) -> str:
    """A span of seconds in one short word."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
