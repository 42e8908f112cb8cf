"""Who takes part in a chat and how each is asked, from the document that its process is given. Reads no file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from reconciler import drivers
from reconciler.chat.prompts import Scene
from reconciler.chat.turns import Limits
from reconciler.core.agent import Agent, Invocation, LaunchRequest
from reconciler.core.chats import VARIABLE, VERSION
from reconciler.core.launching import Context, environment_of, host_command, workdir_of
from reconciler.core.spec import AgentSpec, Desired, Fleet, Host, Session
from reconciler.errors import OperationError


@dataclass(frozen=True)
class Cast:
    """A chat as it is declared. `desired` holds only what its turns need; its values are resolved already."""

    chat: str
    id: str
    moderator: str
    participants: tuple[str, ...]
    prompt: str | None
    follows_prompt: bool  # an edited prompt is the next message
    limits: Limits
    turn_timeout: float
    read_only: frozenset[str]  # who may change no file
    desired: Desired
    agents: Mapping[str, Agent]
    about: Mapping[str, str]

    @property
    def scene(self) -> Scene:
        """What participants are told of it."""
        purpose = (self.prompt or "")[:2000]
        forgetful = frozenset(who for who in self.members if not self.remembers(who))
        return Scene(self.chat, purpose, self.about, self.limits.max_rounds, forgetful)

    @property
    def members(self) -> tuple[str, ...]:
        """Everybody, the moderator first."""
        return (self.moderator, *self.participants)

    def knows(self, who: str) -> bool:
        """Whether `who` can be asked."""
        return who in self.desired.sessions

    def host_of(self, who: str) -> str:
        """The name of the host that the turns of `who` run on."""
        return self.desired.sessions[who].host if self.knows(who) else ""

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts on which somebody may be asked; a disabled one is left alone."""
        return frozenset(self.host_of(who) for who in self.members if self.knows(who) and self.host(who).enabled)

    def host(self, who: str) -> Host:
        """The host that the turns of `who` run on."""
        return self.desired.hosts[self.host_of(who)]

    def agent(self, who: str) -> Agent:
        """The agent of `who`."""
        return self.agents[self.desired.sessions[who].agent]

    def remembers(self, who: str) -> bool:
        """Whether the agent of `who` can go on with the conversation of an earlier turn."""
        if not self.knows(who):
            return True
        spec = self.desired.agents.get(self.desired.sessions[who].agent)
        if spec is not None and (spec.turn or spec.resume_turn):
            return spec.resume_turn is not None
        return self.agent(who).resumable

    def invocation(
        self, who: str, directory: str, prompt: str, conversation: tuple[str | None, bool], read_only: bool
    ) -> Invocation:
        """How `who` is run for one turn, in a conversation of that id, which has begun or has not.

        Raises ReconcilerError or ValueError where its agent refuses the request.
        """
        session, agent = self.desired.sessions[who], self.agent(who)
        request = LaunchRequest(
            command=host_command(Context(self.desired, self.agents, "", ""), who),
            workdir=self.workdir(who),
            session_dir=directory,
            session_id=conversation[0],
            prompt=prompt,
            model=session.model,
            permission_mode=session.permission_mode,
            args=session.args,
            env=self.environment(who),
            read_only=read_only,
        )
        return agent.resume_turn(request) if conversation[1] else agent.turn(request)

    def workdir(self, who: str) -> str:
        """Where the turns of `who` run, as written."""
        return workdir_of(self.desired, self.desired.sessions[who])

    def environment(self, who: str) -> dict[str, str]:
        """The environment of the turns of `who`, over that of a login."""
        return environment_of(self.desired, self.desired.sessions[who])


def read_cast(text: str, values: Mapping[str, str]) -> Cast:
    """The chat of a document. `values` are those that variables stand for in it. Raises OperationError(chat-broken)."""
    try:
        table = _filled(json.loads(text), values)
        if table["version"] != VERSION:
            raise ValueError(f"version {table['version']!r}, this program knows {VERSION}")
        return _cast(table)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OperationError(f"chat.json: {why}", code="chat-broken", remedy="reconciler apply") from None


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, str) and value.startswith(VARIABLE):
        return values[value]
    return value


def _cast(table: Mapping[str, Any]) -> Cast:
    about = {name: session.get("description", "") for name, session in table["sessions"].items()}
    desired = Desired(
        fleet=Fleet(name=table["fleet"]),
        hosts={name: _host(name, host) for name, host in table["hosts"].items()},
        agents={name: AgentSpec.model_validate(agent) for name, agent in table["agents"].items()},
        sessions={name: Session.model_validate(session) for name, session in table["sessions"].items()},
        group_chats={}, playbooks={}, moved=(), removed=(), prompts={}, revision="",
    )  # fmt: skip
    return Cast(
        chat=str(table["chat"]),
        id=str(table["id"]),
        moderator=str(table["moderator"]),
        participants=tuple(map(str, table["participants"])),
        prompt=table["prompt"],
        follows_prompt=table["on_prompt_change"] == "send",
        limits=Limits(int(table["max_rounds"]), table["max_cost"]),
        turn_timeout=float(table["turn_timeout"]),
        read_only=frozenset(map(str, table["read_only"])),
        desired=desired,
        agents=drivers.agents(desired),
        about=about,
    )


def _host(name: str, table: Mapping[str, Any]) -> Host:
    host = Host.model_validate({key: value for key, value in table.items() if key != "transport"})
    return host.model_copy(update={"transport": table["transport"]})
