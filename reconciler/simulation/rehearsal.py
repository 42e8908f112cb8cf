"""The specs of a user as they are simulated: without their secrets, and with a program for each of their agents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from reconciler.core.references import holds_reference
from reconciler.core.spec import Desired
from reconciler.simulation.agents import Kinds

# Stands for every value from elsewhere: nothing is read, run or asked for in a simulation.
VARIABLE, SECRET = "RECONCILER_SIMULATED_SECRET", "simulated-secret-5b1f7c"
_KINDS = {"claude-code": "claude"}
_BUILT_IN = ("claude-code", "codex", "opencode", "gemini", "shell", "moderator")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Rehearsal:
    """What is simulated. `notes` say what of the specs is not."""

    desired: Desired
    kinds: Kinds
    notes: tuple[str, ...] = ()


def rehearse(desired: Desired) -> Rehearsal:
    """The same specs for a simulated fleet."""
    families = {name: _family(desired, name) for name in {*desired.agents, *_BUILT_IN}}
    exporting = {name for name, family in families.items() if family == "opencode"}
    notes = []
    if desired.group_chats:
        notes.append("the processes of group chats are simulated, not what is said in them")
    if any(session.agent in exporting for session in desired.sessions.values()):
        notes.append("conversations of opencode are not copied to the archive")
    if any(session.ready for session in desired.sessions.values()):
        notes.append("`ready` conditions of the specs hold as soon as an agent runs")
    sessions = {}
    for name, session in desired.sessions.items():
        # A pattern would be looked for on a screen, and simulated programs have none.
        ready = session.ready.model_copy(update={"pattern": None}) if session.ready else None
        sync = session.sync.model_copy(
            update={"transcript": session.sync.transcript and session.agent not in exporting}
        )
        sessions[name] = _harmless(session, {"ready": ready} if ready else {}).model_copy(update={"sync": sync})
    agents = {
        name: _harmless(agent, {"ready_pattern": None} if agent.ready_pattern else {})
        for name, agent in desired.agents.items()
    }
    hosts = {name: _harmless(host, {"auth": None} if host.auth else {}) for name, host in desired.hosts.items()}
    for name, host in hosts.items():
        if host.agents:
            here = {key: _harmless(agent, {}) for key, agent in host.agents.items()}
            hosts[name] = host.model_copy(update={"agents": here})
    imagined = replace(desired, hosts=hosts, agents=agents, sessions=sessions, notifiers={})
    return Rehearsal(imagined, _kinds(families), tuple(notes))


def _harmless(model: M, update: dict[str, Any]) -> M:
    """A copy whose environment refers to nothing of this machine."""
    env: Mapping[str, str] = getattr(model, "env", None) or {}
    kept = {name: f"${{env:{VARIABLE}}}" if holds_reference(value) else value for name, value in env.items()}
    if kept != dict(env):
        update = {**update, "env": kept}
    return model.model_copy(update=update) if update else model


def _family(desired: Desired, name: str) -> str:
    """The built-in agent that it behaves like, or `template`."""
    for _ in range(len(desired.agents) + 1):
        spec = desired.agents.get(name)
        if spec is None or not spec.extends or spec.extends == name:
            break
        name = spec.extends
    return _KINDS.get(name, name) if name in _BUILT_IN else "template"


def _kinds(families: Mapping[str, str]) -> Kinds:
    def kind(record: str, _argv: tuple[str, ...]) -> str:
        return families.get(str(json.loads(record)["agent"]), "template") if record else "template"

    return kind
