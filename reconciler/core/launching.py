"""How one session is launched: from its spec, its agent and what its host is like, to a complete step."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.agent import Agent, Invocation, LaunchRequest, Probe
from reconciler.core.chats import Document, document
from reconciler.core.diff import digest, fingerprint, written
from reconciler.core.observed import Reached, SessionSeen
from reconciler.core.record import Record
from reconciler.core.spec import Desired, Ready, Session
from reconciler.core.steps import LaunchStep, ReadyStep, SendStep, Step
from reconciler.core.transcript import Archived, Relation
from reconciler.errors import OperationError, ReconcilerError

# The look puts the id in, so that an id which is learned or changes later is looked for as well.
ID_AT_LOOK = "{session_id}"
_AT_ONCE = Ready()
_NAMESPACE = uuid.NAMESPACE_OID.bytes


@dataclass(frozen=True)
class Context:
    """What every launch of one plan shares: the specs, the drivers, and the plan's id, from which ids are derived."""

    desired: Desired
    agents: Mapping[str, Agent]
    plan_id: str
    controller: str
    archive: Mapping[str, Archived] = field(default_factory=dict)
    relations: Mapping[str, Relation] = field(default_factory=dict)  # host's copy to archive's, where both are
    forgotten: frozenset[str] = frozenset()  # conversations that were let go of and go on
    taken: frozenset[str] = frozenset()  # sessions that a person takes over from a host which does not answer
    # What many sessions have in common is worked out once: by what it depends on.
    _commands: dict[tuple[str, str, tuple[str, ...]], str] = field(default_factory=dict, repr=False, compare=False)
    _probes: dict[str, tuple[Probe, ...]] = field(default_factory=dict, repr=False, compare=False)

    def agent(self, name: str) -> Agent:
        """The driver for a session, by the session's name."""
        return self.agents[self.desired.sessions[name].agent]

    def program(self, session: Session, command: str) -> str:
        """The first word of what a launch runs, where `command` is the agent's program."""
        key = (session.agent, command, session.args)
        if key not in self._commands:
            self._commands[key] = _program(self.agents[session.agent], command, session.args)
        return self._commands[key]

    def probes(self, agent: str) -> tuple[Probe, ...]:
        """What each look wants to know for this agent's sessions."""
        if agent not in self._probes:
            self._probes[agent] = self.agents[agent].probes(ID_AT_LOOK)
        return self._probes[agent]


def strategy_of(desired: Desired, session: Session) -> str:
    """The session's strategy, or its host's."""
    return session.strategy or desired.hosts[session.host].strategy


def workdir_of(desired: Desired, session: Session) -> str:
    """The session's working directory, or its host's, as written; with the prefixes of the host's `path_map`."""
    host = desired.hosts[session.host]
    workdir = session.workdir or host.workdir
    if not host.path_map:
        return workdir
    for here, there in sorted(host.path_map.items(), key=lambda item: -len(item[0])):
        if workdir == here or workdir.startswith(here.rstrip("/") + "/"):
            return there.rstrip("/") + workdir[len(here.rstrip("/")) :]
    return workdir


def host_command(context: Context, name: str) -> str:
    """The agent's program: what its host says, or what its driver says."""
    session = context.desired.sessions[name]
    here = context.desired.hosts[session.host].agents.get(session.agent)
    return here.command if here is not None and here.command else context.agent(name).command


def command_of(context: Context, name: str) -> str:
    """The program that a launch of the session runs, as it is written; the host's PATH finds it."""
    return context.program(context.desired.sessions[name], host_command(context, name))


def _program(agent: Agent, command: str, args: tuple[str, ...]) -> str:
    try:
        return agent.start(LaunchRequest(command, workdir="/", session_dir="/", args=args)).argv[0]
    except (ValueError, ReconcilerError):  # said where it matters: at the launch
        return command


def checks_of(desired: Desired, agents: Mapping[str, Agent]) -> dict[str, tuple[tuple[str, str], ...]]:
    """What a look at each host has to check: the programs and directories that its sessions need."""
    context = Context(desired, agents, "", "")
    found: dict[str, dict[tuple[str, str], None]] = {name: {} for name in desired.hosts}
    for name, session in desired.sessions.items():
        if session.state == "running":
            here = found[session.host]
            here["command", command_of(context, name)] = None
            here["directory", workdir_of(desired, session)] = None
    return {host: tuple(checks) for host, checks in found.items()}


def environment_of(desired: Desired, session: Session) -> dict[str, str]:
    """Host's, host's agent's, then the session's own environment; references unresolved."""
    host = desired.hosts[session.host]
    here = host.agents.get(session.agent)
    return {**host.env, **here.env, **session.env} if here else {**host.env, **session.env}


def new_conversation(context: Context, name: str) -> str | None:
    """A conversation id for a new conversation, where the agent takes one."""
    if not context.agent(name).assigns_id:
        return None
    return _uuid5(f"{context.plan_id}/{context.desired.fleet.name}/{name}")


def _uuid5(name: str) -> str:
    """What `str(uuid.uuid5(uuid.NAMESPACE_OID, name))` gives, without the object: a plan has thousands of them."""
    digest = hashlib.sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def record_for(context: Context, name: str, seen: SessionSeen | None, conversation: str | None, at: int) -> Record:
    """The record of the launch that is being planned; its incarnation is the next one."""
    session = context.desired.sessions[name]
    values = written(context.desired, name)
    before = seen.record if seen else None
    return Record(
        fleet=context.desired.fleet.name,
        name=name,
        agent=session.agent,
        strategy=strategy_of(context.desired, session),
        digest=digest(values),
        lifecycle=session.lifecycle,
        incarnation=(seen.incarnation if seen else 0) + 1,
        conversation=conversation,
        workdir=workdir_of(context.desired, session),
        written=values,
        prompt=before.prompt if before else None,
        labels=session.labels,
        protected=session.protect,
        protected_by=before.protected_by if before else "",
        protected_at=before.protected_at if before else 0,
        restarts=before.restarts if before else (),
        moves=before.moves if before else 0,
        op=context.plan_id,
        controller=context.controller,
        revision=context.desired.revision,
        at=at,
    )


def launch_steps(
    context: Context,
    name: str,
    host: Reached,
    seen: SessionSeen | None,
    *,
    resume: bool,
    message: str | None,
    restarts: tuple[int, ...] | None = None,
    origin: Record | None = None,
    bring: bool = False,
    at_least: int = 0,
) -> tuple[Step, ...]:
    """Launch, wait until ready, and hand over `message` where it did not fit the launch.

    `origin` is the record on the host that the session moves from; `bring` puts the archive's copy in place first;
    `at_least` is how many bytes the conversation has to have then. Raises ValueError where the agent refuses the
    request (an unknown permission mode, say).
    """
    session = context.desired.sessions[name]
    agent = context.agent(name)
    before = origin or (seen.record if seen else None)
    archived = context.archive.get(name)
    old = before.conversation if before else archived.conversation if archived else None
    conversation = old if resume else new_conversation(context, name)
    record = record_for(context, name, seen, conversation, host.now)
    if origin is not None:
        record = replace(
            record, moves=origin.moves + 1, prompt=origin.prompt, restarts=origin.restarts,
            protected_by=origin.protected_by, protected_at=origin.protected_at,
        )  # fmt: skip
    elif before is None and resume:
        # Its record went with a disk: what was handed over then stands in the conversation itself.
        record = replace(record, prompt=_digest_of_prompt(context, name))
    if name in context.taken:
        # How often it has moved stands on the host that does not answer: a number that no count of moves gets to.
        record = replace(record, moves=max(record.moves + 1, host.now))
    if restarts is not None:
        record = replace(record, restarts=restarts)
    chat = chat_of(context, name, conversation)
    request = LaunchRequest(
        command=host_command(context, name),
        workdir=_as_trusted(host, record.workdir),
        session_dir=f"{host.state_dir}/sessions/{name}",
        session_id=conversation,
        prompt=message,
        model=session.model,
        permission_mode=session.permission_mode,
        args=session.args,
        env={**environment_of(context.desired, session), **chat.values},
        store=(seen.facts.store or ()) if seen and resume and not bring else (),
        chat=chat.text,
    )
    invocation = _invoke(agent, session, request, resume)
    if message is not None and invocation.delivered in ("argv", "stdin"):
        record = replace(record, prompt=fingerprint(context.desired.prompts[name]))
    where = context.desired.hosts[session.host]
    launch = LaunchStep(
        session=name,
        host=session.host,
        strategy=record.strategy,
        expect=record.incarnation - 1,
        record=record,
        command=invocation.argv[0],
        invocation=invocation,
        workdir=record.workdir,
        probes=context.probes(session.agent),
        environment={**request.env, **invocation.env},
        shell=where.shell or "",
        tmux_conf=where.tmux_conf or "",
        bring=conversation if bring else None,
        real_workdir=host.directories.get(record.workdir, ""),
        snapshot=tuple(file.path for file in (seen.facts.store or ())) if seen and resume else (),
    )
    return (launch, *_after(context, name, agent, session, record, invocation, message, at_least))


_NO_CHAT = Document("", {})


def chat_of(context: Context, name: str, conversation: str | None) -> Document:
    """What the process of a group chat is given; nothing for other sessions.

    Raises OperationError(read-only) where a participant cannot be held to changing no file.
    """
    chat = context.desired.group_chats.get(name)
    if chat is None:
        return _NO_CHAT
    for member in chat.readers:
        if not context.agent(member).can_be_read_only:
            agent = context.desired.sessions[member].agent
            raise OperationError(
                f"{member} cannot take part in a read-only chat: agent {agent} has no read-only mode",
                code="read-only",
                remedy=f"read_only = [...] in [agents.{agent}], or leave {member} out of the chat's read_only",
            )
    return document(context.desired, name, conversation)


def _digest_of_prompt(context: Context, name: str) -> str | None:
    prompt = context.desired.prompts.get(name)
    return None if prompt is None else fingerprint(prompt)


def _as_trusted(host: Reached, workdir: str) -> str:
    """The working directory as drivers judge it: one that is really the home or the root is never trusted."""
    return "~" if host.directories.get(workdir) in (host.home, "/") else workdir


def ready_of(desired: Desired, session: Session) -> Ready:
    """When the session counts as ready by its spec: its own `ready`, else the pattern of its agent's table."""
    own = session.ready or _AT_ONCE
    if own is _AT_ONCE and not desired.agents:
        return own
    if own.pattern or own.command or own.port:
        return own
    name: str | None = session.agent
    for _ in range(len(desired.agents)):
        table = desired.agents.get(name) if name else None
        if table is None or table.ready_pattern:
            return own.model_copy(update={"pattern": table.ready_pattern}) if table else own
        name = table.extends
    return own


def _invoke(agent: Agent, session: Session, request: LaunchRequest, resume: bool) -> Invocation:
    if session.lifecycle == "task":
        return agent.resume_turn(request) if resume and agent.resumable else agent.turn(request)
    return agent.resume(request) if resume and agent.resumable else agent.start(request)


def _after(
    context: Context,
    name: str,
    agent: Agent,
    session: Session,
    record: Record,
    invocation: Invocation,
    message: str | None,
    at_least: int,
) -> tuple[Step, ...]:
    learn = not agent.assigns_id and agent.resumable and record.conversation is None
    ready = ReadyStep(
        session=name,
        host=session.host,
        agent=session.agent,
        incarnation=record.incarnation,
        ready=ready_of(context.desired, session),
        conversation=record.conversation,
        learn=learn,
        record=record,
        at_least=at_least,
    )
    if message is None or invocation.delivered != "paste":
        return (ready,)
    if record.strategy == "process":
        raise OperationError(
            "its prompt has to be pasted, and a process without a terminal takes no message",
            code="no-terminal",
            remedy='strategy = "tmux", or no prompt',
        )
    sent = replace(record, prompt=fingerprint(context.desired.prompts[name]))
    return (ready, send_step(context, name, agent, message, sent, record.incarnation, record.prompt))


def send_step(
    context: Context, name: str, agent: Agent, message: str, record: Record, expect: int, before: str | None
) -> SendStep:
    """Paste `message`; the record says then that it was handed over, in place of the one `before`."""
    session = context.desired.sessions[name]
    return SendStep(
        session=name,
        host=session.host,
        agent=session.agent,
        strategy=record.strategy,
        expect=expect,
        message=agent.paste_text(message),
        record=record,
        timeout=max(60.0, session.stop.timeout),
        before=before,
    )
