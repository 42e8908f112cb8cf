"""A fleet that runs exactly as some specs declare, imagined: what a change of specs would do to it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace

from reconciler.core.agent import Agent
from reconciler.core.diff import fingerprint
from reconciler.core.launching import Context, record_for
from reconciler.core.observed import Exit, Facts, Observed, Process, Reached, SessionSeen, StoreFile
from reconciler.core.record import Record
from reconciler.core.spec import Desired

_NOW = 1_000_000_000  # any time: nothing that is imagined has an age
_BOOT = "imagined"


def imagined(before: Desired, after: Desired, agents: Mapping[str, Agent]) -> Observed:
    """What a look at the hosts of `after` would see if `before` had been applied: every session as it declares.

    Services run, tasks are complete, every conversation exists; hosts have all that sessions need. `agents` are the
    drivers of `before`. A host that `after` does not declare is not looked at.
    """
    context = Context(before, agents, "imagined", "")
    sessions: dict[str, dict[str, SessionSeen]] = {}
    for name, session in before.sessions.items():
        if before.hosts[session.host].enabled:
            sessions.setdefault(session.host, {})[name] = _seen(context, name)
    return Observed({
        name: _host(name, sessions.get(name, {})) for name, host in after.hosts.items() if host.enabled
    })  # fmt: skip


def places(before: Desired) -> dict[str, str]:
    """On which host each session of `before` would have been seen last."""
    return {name: session.host for name, session in before.sessions.items() if before.hosts[session.host].enabled}


def _host(name: str, sessions: Mapping[str, SessionSeen]) -> Reached:
    return Reached(
        name=name, hostname=name, user="imagined", home="/imagined", system="Linux", machine=name, boot=_BOOT,
        state_dir="/imagined", now=_NOW, fence=0, tmux="tmux", shell="/bin/sh", sessions=sessions,
    )  # fmt: skip


def _seen(context: Context, name: str) -> SessionSeen:
    session = context.desired.sessions[name]
    agent = context.agent(name)
    conversation = _conversation(agent, name) if agent.resumable else None
    record: Record = record_for(context, name, None, conversation, _NOW)
    prompt = context.desired.prompts.get(name)
    record = replace(record, prompt=None if prompt is None else fingerprint(prompt))
    process = Process(1, "1", record.incarnation, 1, session.lifecycle == "service", _BOOT)
    facts = Facts(store=_store(agent, conversation))
    if session.state == "stopped":
        stopped = replace(record, intent="stopped")
        return SessionSeen(name, "stopped", stopped, record.incarnation, process=replace(process, alive=False))
    if session.lifecycle == "task":
        ended = Exit(0, _NOW, record.incarnation)
        return SessionSeen(name, "exited", record, record.incarnation, process=process, exit=ended, facts=facts)
    return SessionSeen(name, "running", record, record.incarnation, process=process, facts=facts)


def _conversation(agent: Agent, name: str) -> str:
    """An id that the agent takes for one of its own: most give out UUIDs, some begin with a word."""
    found = uuid.uuid5(uuid.NAMESPACE_OID, f"imagined/{name}")
    return next((text for text in (str(found), f"ses_{found.hex}") if agent.export_args(text) is not None), str(found))


def _store(agent: Agent, conversation: str | None) -> tuple[StoreFile, ...] | None:
    """A transcript that the agent would find, where it looks for one: which name that has, only its host could tell."""
    probes = [probe for probe in agent.probes(conversation) if probe.kind == "store"] if conversation else []
    if not probes:
        return None
    paths = (probe.path.replace("{session_id}", str(conversation)).replace("*", str(conversation)) for probe in probes)
    files = tuple(StoreFile(path, 1, 0.0) for path in paths)
    return files if agent.exists(Facts(store=files)) is not False else None
