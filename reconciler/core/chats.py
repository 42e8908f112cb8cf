"""A group chat as the session that it is: whom it concerns, what its process is given, what of it a person wrote. Pure.

The process reads one JSON document, in which every value that may be a secret is replaced by the name of a variable;
the values travel like those of any session.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from reconciler.core.spec import MODERATOR, Dependency, Desired, GroupChat, Session, Stop

CONFIG = "chat.json"
CLOSE = "close"
VERSION = 1
VARIABLE = "RECONCILER_VALUE_"
MODERATING = "moderator"  # what a moderator is called that is no session
_SESSION_KEYS = ("host", "agent", "workdir", "model", "permission_mode", "args", "env", "description")
_HOST_LEFT_OUT = {"strategy", "max_parallel_starts", "labels", "node", "tmux_conf"}
_EXCERPT = 400  # characters of a session's prompt that say what it is for


@dataclass(frozen=True)
class Document:
    """What the process of a chat is given: `text` as JSON, `values` by the variables that stand for them in it."""

    text: str
    values: Mapping[str, str]


def as_session(chat: GroupChat) -> Session:
    """The session whose agent leads the chat; after its participants."""
    members = (*chat.participants, *((chat.moderator.session,) if chat.moderator.session else ()))
    return Session(
        host="local",
        agent=MODERATOR,
        strategy="process",
        workdir="~",
        state="running" if chat.state == "open" else "stopped",
        stop=Stop().model_copy(update={"timeout": chat.turn_timeout + 30}),  # for turns that run when it is closed
        depends_on=tuple(Dependency(session=name, until="started") for name in members),
    )


def moderator_of(desired: Desired, name: str) -> str:
    """What the chat's moderator is called: its session's name, or a word that no participant has."""
    chat = desired.group_chats[name]
    if chat.moderator.session is not None:
        return chat.moderator.session
    return MODERATING if MODERATING not in chat.participants else name


def document(desired: Desired, name: str, conversation: str | None) -> Document:
    """What the process of a chat is given for the conversation of that id."""
    chat = desired.group_chats[name]
    hidden = _Hidden()
    table = {
        "version": VERSION,
        "fleet": desired.fleet.name,
        "chat": name,
        "id": conversation,
        "prompt": desired.openings.get(name),
        "moderator": moderator_of(desired, name),
        "participants": list(chat.participants),
        **_limits(chat),
        **_concerned(desired, name, hidden),
    }
    return Document(json.dumps(table, ensure_ascii=False, sort_keys=True), hidden.values)


def written_of(desired: Desired, name: str) -> dict[str, Any]:
    """What a person wrote that the chat depends on, by key. Only what is new in `env` needs a new process."""
    chat = desired.group_chats[name]
    hidden = _Hidden()
    result: dict[str, Any] = {
        "moderator": chat.moderator.model_dump(mode="json", exclude_unset=True),
        "participants": list(chat.participants),
        **{key: value for key, value in _limits(chat).items() if key in chat.model_fields_set},
    }
    for kind, tables in _concerned(desired, name, hidden).items():
        for owner, table in tables.items():
            result |= {f"{kind}.{owner}.{key}": value for key, value in table.items() if key != "env"}
    prompt = desired.openings.get(name)
    if prompt is not None and chat.on_prompt_change == "send":
        result["prompt"] = _fingerprint(prompt)
    result["env"] = {place: _fingerprint(value) for place, value in hidden.places.items()}
    return result


def _limits(chat: GroupChat) -> dict[str, Any]:
    return {
        "max_rounds": chat.max_rounds, "turn_timeout": chat.turn_timeout, "read_only": list(chat.readers),
        "max_cost": chat.max_cost, "on_prompt_change": chat.on_prompt_change,
    }  # fmt: skip


def _fingerprint(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class _Hidden:
    """Takes values that may be secrets out of tables, and leaves the names of variables in their places."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.places: dict[str, str] = {}

    def __call__(self, place: str, value: str) -> str:
        # The same for the same value in the same place, so that a process which has it may go on.
        variable = VARIABLE + _fingerprint(f"{place}={value}").partition(":")[2][:16]
        self.values[variable] = value
        self.places[place] = value
        return variable

    def all(self, place: str, table: Mapping[str, str]) -> dict[str, str]:
        """A whole environment."""
        return {name: self(f"{place}.{name}", value) for name, value in sorted(table.items())}


def _concerned(desired: Desired, name: str, hidden: _Hidden) -> dict[str, dict[str, dict[str, Any]]]:
    """The hosts, agents and sessions that the chat's turns need, as tables; in an order of names."""
    sessions = {member: _session(desired, member) for member in sorted(_members(desired, name))}
    chat = desired.group_chats[name]
    if chat.moderator.session is None:
        own = chat.moderator.model_dump(mode="json", exclude_unset=True)
        sessions[moderator_of(desired, name)] = {"host": chat.moderator.host, **own}
    for member, table in sessions.items():
        if "env" in table:
            table["env"] = hidden.all(f"sessions.{member}", table["env"])
    used = {table["host"] for table in sessions.values()}
    agents = {table["agent"] for table in sessions.values()}
    return {
        "hosts": {host: _host(desired, host, agents, hidden) for host in sorted(used)},
        "agents": {agent: _agent(desired, agent, hidden) for agent in sorted(agents & set(desired.agents))},
        "sessions": sessions,
    }


def _members(desired: Desired, name: str) -> set[str]:
    chat = desired.group_chats[name]
    return {*chat.participants, *((chat.moderator.session,) if chat.moderator.session else ())}


def _session(desired: Desired, member: str) -> dict[str, Any]:
    session = desired.sessions[member]
    table = session.model_dump(mode="json", include=set(_SESSION_KEYS), exclude_defaults=True)
    table |= {"host": session.host, "agent": session.agent}
    about = session.description or desired.prompts.get(member, "")
    return {**table, "description": about[:_EXCERPT]} if about else table


def _host(desired: Desired, name: str, agents: set[str], hidden: _Hidden) -> dict[str, Any]:
    host = desired.hosts[name]
    table = host.model_dump(mode="json", exclude_unset=True, exclude=_HOST_LEFT_OUT | {"auth", "agents", "env"})
    table["transport"] = host.transport
    if host.env:
        table["env"] = hidden.all(f"hosts.{name}", host.env)
    if host.auth is not None:
        table["auth"] = {
            key: hidden(f"hosts.{name}.auth.{key}", value.get_secret_value()) if isinstance(value, SecretStr) else value
            for key, value in host.auth.model_dump(exclude_unset=True).items()
        }
    special = {agent: here for agent, here in sorted(host.agents.items()) if agent in agents}
    if special:
        table["agents"] = {
            agent: {
                **({"command": here.command} if here.command else {}),
                **({"env": hidden.all(f"hosts.{name}.agents.{agent}", here.env)} if here.env else {}),
            }
            for agent, here in special.items()
        }
    return table


def _agent(desired: Desired, name: str, hidden: _Hidden) -> dict[str, Any]:
    spec = desired.agents[name]
    table = spec.model_dump(mode="json", exclude_unset=True, exclude={"env"})
    return {**table, "env": hidden.all(f"agents.{name}", spec.env)} if spec.env else table
