"""Taking over what runs already: which process is meant, whether it fits its spec, the record that follows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.core.diff import fingerprint
from reconciler.core.launching import Context, record_for, strategy_of, workdir_of
from reconciler.core.observed import Observed, Reached, SessionSeen
from reconciler.core.record import Record
from reconciler.core.spec import Desired, Session
from reconciler.core.strays import Stray
from reconciler.errors import GuardError, UsageError


def refuse_unfit(desired: Desired, name: str, host: str | None) -> Session:
    """The session that is to be it. Raises UsageError where its specs cannot be those of a process that runs."""
    session = desired.sessions.get(name)
    if session is None:
        raise UsageError(
            f"no session {name} in the specs: what is adopted has to be declared",
            remedy=f'[sessions.{name}] with host, agent and workdir; and suspend = true where `reconciler run` '
            "would start it first",
        )  # fmt: skip
    why = ""
    if host is not None and session.host != host:
        why = f"its host is {session.host}, not {host}"
    elif name in desired.group_chats:
        why = "it is a group chat"
    elif session.state != "running" or session.lifecycle != "service":
        why = (
            f"its state is {session.state}, its lifecycle {session.lifecycle}: only what is kept running can be adopted"
        )
    if why:
        raise UsageError(
            f"{desired.address(name)} cannot be a process that runs already: {why}", remedy="edit its specs"
        )
    return session


def chosen(session: Session, host: str, strays: Sequence[Stray], pid: int | None, target: str | None) -> Stray:
    """The one that is meant: by pid, by tmux target, else the only one of the agent. Raises UsageError."""
    found = [
        stray
        for stray in strays
        if (pid is None or stray.pid == pid) and (target is None or (stray.pane and target in stray.pane.targets))
    ]
    if pid is None and target is None:
        found = [stray for stray in found if session.agent in stray.agents]
    what = f"pid {pid}" if pid is not None else f"{target}" if target is not None else f"a {session.agent}"
    if not found:
        raise UsageError(
            f"{what} on {host} is no agent that runs and belongs to nobody", remedy="reconciler orphans"
        )  # fmt: skip
    if len(found) > 1:
        pids = ", ".join(str(stray.pid) for stray in found)
        raise UsageError(f"{what} on {host} may be any of {len(found)} agents: pid {pids}", remedy="--pid PID")
    if session.agent not in found[0].agents:
        raise UsageError(
            f"pid {found[0].pid} on {host} is {found[0].agents[0]}, and the specs say {session.agent}",
            remedy=f'agent = "{found[0].agents[0]}"',
        )
    return found[0]


def refuse_untold(context: Context, name: str, host: Reached, stray: Stray) -> None:
    """Raises GuardError where it cannot be told what would be adopted, or the specs say otherwise."""
    session = context.desired.sessions[name]
    agent = context.agent(name)
    if agent.resumable and stray.conversation is None:
        raise GuardError(
            f"which conversation pid {stray.pid} works on cannot be told: it could not be resumed after its end",
            code="no-conversation", remedy=f"end it, and resume its conversation by hand with `{agent.command}` first",
        )  # fmt: skip
    workdir = workdir_of(context.desired, session)
    real = host.directories.get(workdir)
    if stray.directory and real != stray.directory:
        raise GuardError(
            f"pid {stray.pid} works in {stray.directory}, and the specs say {workdir}", code="other-workdir",
            remedy=f'workdir = "{stray.directory}"',
        )  # fmt: skip


def refuse_second(observed: Observed, name: str, conversation: str | None) -> None:
    """Raises GuardError where the name has another conversation, or the conversation another session."""
    for host in observed.hosts.values():
        for seen in host.sessions.values() if isinstance(host, Reached) else ():
            record = seen.record
            if seen.name == name and seen.live:
                raise GuardError(
                    f"session.{name} is {seen.state} on {host.name} already", code="already-running",
                    remedy=f"reconciler why {name}",
                )  # fmt: skip
            if seen.name == name and record is not None and record.conversation not in (None, conversation):
                raise GuardError(
                    f"session.{name} has conversation {record.conversation} on {host.name}", code="other-conversation",
                    remedy=f"another name; or take it out of the specs, then: reconciler forget session.{name}",
                )  # fmt: skip
            same = conversation is not None and record is not None and record.conversation == conversation
            if same and seen.live and seen.name != name:
                raise GuardError(
                    f"session.{seen.name} on {host.name} works on conversation {conversation}", code="twice",
                    remedy=f"what it is: reconciler why {seen.name}; or take that out of the specs, then: "
                    f"reconciler forget session.{seen.name}",
                )  # fmt: skip


def adopted(context: Context, name: str, host: Reached, seen: SessionSeen | None, stray: Stray) -> Record:
    """The record that says that the specs are applied as they stand: the next plan has nothing to do.

    Its prompt counts as handed over: the conversation began without it.
    """
    record = record_for(context, name, seen, stray.conversation, host.now)
    prompt = context.desired.prompts.get(name)
    strategy = strategy_of(context.desired, context.desired.sessions[name])
    terminal = (stray.pane.socket, stray.pane.id) if stray.pane else ()
    return replace(
        record, prompt=None if prompt is None else fingerprint(prompt), restarts=(), terminal=terminal,
        # Without a terminal of its own there is nothing to type into, whatever the specs say of the next launch.
        strategy="tmux" if terminal else "process" if strategy == "tmux" else strategy,
    )  # fmt: skip
