"""Checks that need more than one value: names that must exist, cycles, keys that exclude each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from reconciler.core import ssh_keywords
from reconciler.core.diagnostics import did_you_mean, suggest
from reconciler.core.merge import KINDS, Entry, Raw
from reconciler.core.notifier_spec import FORGES
from reconciler.core.positions import Path
from reconciler.core.spec import (
    BUILT_IN_AGENTS,
    AgentSpec,
    Desired,
    GroupChat,
    Host,
    Moved,
    Notifier,
    Removed,
    Session,
    Window,
)
from reconciler.core.values import is_name

_PLACEHOLDERS = ("session_id", "prompt", "model", "workdir")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TEMPLATES = ("start", "resume", "turn", "resume_turn")

At = tuple[str, Path]


def check_all(
    raw: Raw,
    desired: Desired,
    moved: Sequence[tuple[At, Moved]],
    removed: Sequence[tuple[At, Removed]],
) -> None:
    """Adds a finding for everything that does not fit together."""
    for name, host in desired.hosts.items():
        if name in raw.entries["hosts"]:
            _check_host(raw, raw.entries["hosts"][name], host)
    for name, agent in desired.agents.items():
        _check_agent(raw, raw.entries["agents"][name], agent)
    for name, session in desired.sessions.items():
        _check_session(raw, raw.entries["sessions"][name], session, desired)
    for name, chat in desired.group_chats.items():
        _check_chat(raw, raw.entries["group_chats"][name], chat)
    for name, notifier in desired.notifiers.items():
        _check_notifier(raw, raw.entries["notifiers"][name], notifier)
    _check_cycles(raw, desired.sessions)
    _check_moved(raw, moved)
    for at, item in removed:
        if _check_address(raw, at, "address", item.address) and _declared(raw, item.address):
            detail = "remove its table, or this entry"
            raw.findings.error(_below(at, "address"), f"`{item.address}` is removed but still declared", detail)


def _check_host(raw: Raw, entry: Entry, host: Host) -> None:
    if entry.name == "local" and "transport" in entry.table and host.transport != "local":
        detail = "declare a host under another name to reach this machine over SSH"
        raw.findings.about(entry, ("transport",), "`local` is this machine: it has no other transport", detail)
    for agent in host.agents:
        _known(raw, entry, ("agents", agent), "agent", agent, _agents(raw))
    for key, value in host.ssh_options.items():
        _check_ssh_option(raw, entry, host, key, value)


def _check_ssh_option(raw: Raw, entry: Entry, host: Host, key: str, value: object) -> None:
    at: Path = ("ssh_options", key)
    word = ssh_keywords.known(key)
    if word is None:
        hint = did_you_mean(key, ssh_keywords.KEYWORDS)
        raw.findings.about(entry, at, f"`{key}` is no option of ssh_config{hint}", "see `man ssh_config`", part="key")
    elif host.transport == "ssh" and word not in ssh_keywords.BUILT_IN:
        detail = 'a key of `[hosts]` may say it; else transport = "openssh" gives it to the system\'s `ssh`'
        raw.findings.about(entry, at, f"the built-in SSH does not know `{word}`", detail, part="key")
    if isinstance(value, str) and (not value.isprintable() or not value.strip()):
        raw.findings.about(entry, at, f"`{key}` has to be one line of text")


def _check_agent(raw: Raw, entry: Entry, agent: AgentSpec) -> None:
    built_in = entry.name in BUILT_IN_AGENTS
    if agent.extends is not None:
        if built_in:
            summary = f"`{entry.name}` is built in: it cannot extend another agent"
            raw.findings.about(entry, ("extends",), summary, "declare an agent under a name of your own")
        elif agent.extends not in BUILT_IN_AGENTS:
            hint = did_you_mean(agent.extends, BUILT_IN_AGENTS)
            detail = "" if hint else f"built in are {', '.join(BUILT_IN_AGENTS)}"
            raw.findings.about(entry, ("extends",), f"`{agent.extends}` is no built-in agent{hint}", detail)
    elif not built_in and (agent.command is None or agent.start is None):
        missing = [key for key in ("command", "start") if getattr(agent, key) is None]
        summary = f"agent `{entry.name}` needs {' and '.join(f'`{key}`' for key in missing)}"
        hint = did_you_mean(entry.name, BUILT_IN_AGENTS)
        detail = "or `extends`, to start from a built-in agent"
        raw.findings.about(entry, (), summary + hint, detail, part="key")
    for template in _TEMPLATES:
        for index, word in enumerate(getattr(agent, template) or ()):
            _check_placeholders(raw, entry, (template, index), word)


def _check_placeholders(raw: Raw, entry: Entry, path: Path, word: str) -> None:
    for name in _PLACEHOLDER.findall(word):
        # Other braces are the user's own text; only what looks like a misspelt placeholder is refused.
        if name not in _PLACEHOLDERS and (match := suggest(name, _PLACEHOLDERS)):
            raw.findings.about(entry, path, f"unknown placeholder `{{{name}}}`; did you mean `{{{match}}}`?")


def _check_session(raw: Raw, entry: Entry, session: Session, desired: Desired) -> None:
    if session.host != "local" and session.host not in raw.entries["hosts"]:
        _known(raw, entry, ("host",), "host", session.host, {"local", *raw.entries["hosts"]})
    if session.agent not in BUILT_IN_AGENTS and session.agent not in raw.entries["agents"]:
        _known(raw, entry, ("agent",), "agent", session.agent, _agents(raw))
    for index, dependency in enumerate(session.depends_on):
        if dependency.session not in raw.entries["sessions"]:
            others = raw.entries["sessions"].keys() - {entry.name}
            _known(raw, entry, _dependency_path(entry, index), "session", dependency.session, others)
        other = desired.sessions.get(dependency.session)
        if dependency.until == "completed" and other is not None and other.lifecycle != "task":
            summary = f"session `{dependency.session}` is a service, which is never completed"
            detail = 'wait until it is "ready" or "idle", or make it a task: lifecycle = "task"'
            raw.findings.about(entry, _dependency_path(entry, index), summary, detail)
    _check_prompt(raw, entry, session, desired)
    if session.ready is not None:
        _check_ready(raw, entry, session)
    for index, key in enumerate(session.ignore):
        if key not in Session.model_fields:
            summary = f"`ignore` names `{key}`, which is no key of a session"
            raw.findings.about(entry, ("ignore", index), summary + did_you_mean(key, Session.model_fields))


def _check_prompt(raw: Raw, entry: Entry, session: Session, desired: Desired) -> None:
    if session.prompt is not None and session.prompt_file is not None:
        raw.findings.about(entry, ("prompt_file",), "`prompt` and `prompt_file` exclude each other", "keep one of them")
    declared = desired.agents.get(session.agent)
    shell = session.agent == "shell" or (declared is not None and declared.extends == "shell")
    if shell and not session.args and not (declared and declared.args):
        detail = 'such as `args = ["npm", "run", "dev"]`: `shell` runs the session\'s `args` as its command'
        raw.findings.about(entry, ("agent",), "a session of the agent `shell` needs `args`", detail)
    if session.lifecycle == "task" and not shell and session.prompt is None and session.prompt_file is None:
        detail = "add `prompt` or `prompt_file`: a task is one prompt"
        raw.findings.about(entry, ("lifecycle",), "a task needs a prompt", detail)


def _check_ready(raw: Raw, entry: Entry, session: Session) -> None:
    said = [key for key in ("pattern", "command", "port") if getattr(session.ready, key) is not None]
    if len(said) > 1:
        listed = " and ".join(f"`{key}`" for key in said)
        raw.findings.about(entry, ("ready", said[1]), f"{listed} of `ready` exclude each other", "keep one of them")


def _check_chat(raw: Raw, entry: Entry, chat: GroupChat) -> None:
    sessions = raw.entries["sessions"]
    moderator = chat.moderator
    if moderator.session is not None:
        _known(raw, entry, ("moderator",), "session", moderator.session, sessions)
    elif moderator.agent is None:
        raw.findings.about(entry, ("moderator",), "`moderator` needs an `agent`, or to be a session's name")
    else:
        _known(raw, entry, ("moderator", "agent"), "agent", moderator.agent, _agents(raw))
        _known(raw, entry, ("moderator", "host"), "host", moderator.host, {"local", *raw.entries["hosts"]})
    for index, name in enumerate(chat.participants):
        _known(raw, entry, ("participants", index), "session", name, sessions)
        if name in chat.participants[:index]:
            raw.findings.about(entry, ("participants", index), f"`{name}` takes part twice", "remove it")
        if name == moderator.session:
            summary = f"`{name}` cannot take part in the chat that it moderates"
            raw.findings.about(entry, ("participants", index), summary, "remove it here, or let another one moderate")
    for name in chat.readers:
        if name not in chat.participants:
            hint = did_you_mean(name, chat.participants)
            raw.findings.about(entry, ("read_only",), f"`{name}` in `read_only` is no participant{hint}")
    if entry.name in sessions:
        detail = "a group chat runs as a session of its name: give one of them another name"
        raw.findings.about(entry, (), f"there is a session `{entry.name}` too", detail, part="key")
    if chat.prompt is not None and chat.prompt_file is not None:
        raw.findings.about(entry, ("prompt_file",), "`prompt` and `prompt_file` exclude each other", "keep one of them")


def _check_notifier(raw: Raw, entry: Entry, notifier: Notifier) -> None:
    forge = notifier.kind in FORGES
    for key in ("repository", "token") if forge else ("url",):
        if getattr(notifier, key) is None and key not in entry.table:
            summary = f'notifier `{entry.name}` with kind = "{notifier.kind}" needs `{key}`'
            raw.findings.about(entry, (), summary, part="key")
    for key in ("events", "select") if forge else ("repository", "token"):
        if getattr(notifier, key) is not None:
            raw.findings.about(entry, (key,), f'`{key}` means nothing with kind = "{notifier.kind}"', "remove it")


def check_windows(raw: Raw, windows: Sequence[tuple[At, Window]]) -> None:
    """Adds a finding for every session and host that a window names and nobody declares."""
    for at, window in windows:
        for key, what, names in (("sessions", "session", window.sessions), ("hosts", "host", window.hosts)):
            known = {*raw.entries[key], *(("local",) if what == "host" else ())}
            for index, name in enumerate(names or ()):
                _known_at(raw, (at[0], (*at[1], key, index)), what, name, known)


def _known(raw: Raw, entry: Entry, path: Path, what: str, name: str, known: Iterable[str]) -> None:
    """A finding unless `name` is declared."""
    _known_at(raw, entry.place(path), what, name, known, entry.address)


def _known_at(raw: Raw, at: At, what: str, name: str, known: Iterable[str], address: str = "") -> None:
    """The same at any place. With a file unread nobody knows what is declared."""
    names = set(known)
    if name in names or not raw.complete:
        return
    hint = did_you_mean(name, names)
    detail = "" if hint else _how_to_declare(what, name, names)
    raw.findings.error(at, f"unknown {what} `{name}`{hint}", detail, address=address, code=f"unknown-{what}")


def _how_to_declare(what: str, name: str, names: set[str]) -> str:
    some = sorted(names)[:12]
    listed = f"; there are {', '.join(some)}{', …' if len(names) > len(some) else ''}" if some else ""
    return f"declare it as `[{what}s.{name}]`{listed}" if is_name(name) else listed.removeprefix("; ")


def _agents(raw: Raw) -> set[str]:
    return {*BUILT_IN_AGENTS, *raw.entries["agents"]}


def _dependency_path(entry: Entry, index: int) -> Path:
    items: Any = entry.merged["depends_on"]
    return ("depends_on", index, "session") if isinstance(items[index], dict) else ("depends_on", index)


def _check_cycles(raw: Raw, sessions: Mapping[str, Session]) -> None:
    """A depth-first walk with its own stack: chains of thousands are no recursion."""
    edges = {
        name: [d.session for d in s.depends_on if d.session in sessions] for name, s in sessions.items() if s.depends_on
    }
    done: set[str] = set()
    for start in edges:
        trail, on_trail, pending = [start], {start}, [iter(edges[start] if start not in done else ())]
        while pending:
            following = next((n for n in pending[-1] if n not in done), None)
            if following is None:
                pending.pop()
                on_trail.discard(last := trail.pop())
                done.add(last)
            elif following in on_trail:
                _report_cycle(raw, sessions, [*trail[trail.index(following) :], following])
            else:
                trail.append(following)
                on_trail.add(following)
                pending.append(iter(edges.get(following, ())))


def _report_cycle(raw: Raw, sessions: Mapping[str, Session], cycle: list[str]) -> None:
    least = cycle.index(min(cycle))  # the same cycle reads the same wherever the walk entered it
    cycle = [*cycle[least:-1], *cycle[: least + 1]]
    first, second = next(pairwise(cycle))
    index = next(i for i, d in enumerate(sessions[first].depends_on) if d.session == second)
    entry = raw.entries["sessions"][first]
    summary = f"dependency cycle: {' -> '.join(cycle)}"
    raw.findings.about(entry, _dependency_path(entry, index), summary, "remove one of these dependencies", code="cycle")


def _check_moved(raw: Raw, moved: Sequence[tuple[At, Moved]]) -> None:
    seen: dict[str, At] = {}
    for at, item in moved:
        fine = [_check_address(raw, at, "from", item.from_), _check_address(raw, at, "to", item.to)]
        if not all(fine):
            continue
        if item.from_.partition(".")[0] != item.to.partition(".")[0]:
            raw.findings.error(_below(at, "to"), f"`{item.from_}` cannot become `{item.to}`: another kind")
        elif item.from_ == item.to:
            raw.findings.error(_below(at, "to"), f"`{item.from_}` is moved to itself")
        elif _declared(raw, item.from_):
            detail = f"rename its table to `{item.to.partition('.')[2]}`, or remove this entry"
            raw.findings.error(_below(at, "from"), f"`{item.from_}` is moved away but still declared", detail)
        elif item.from_ in seen:
            first = raw.findings.show(*_below(seen[item.from_], "from"))
            raw.findings.error(_below(at, "from"), f"`{item.from_}` is moved twice", f"first moved at {first}")
        seen.setdefault(item.from_, at)


def _check_address(raw: Raw, at: At, key: str, address: str) -> bool:
    kind, dot, name = address.partition(".")
    if dot and kind in KINDS.values() and is_name(name):
        return True
    hint = did_you_mean(kind, KINDS.values()) if dot else ""
    detail = "" if hint else "an address is a kind and a name, such as `session.api`"
    raw.findings.error(_below(at, key), f"`{address}` is no address{hint}", detail)
    return False


def _declared(raw: Raw, address: str) -> bool:
    kind, _, name = address.partition(".")
    return any(name in raw.entries[plural] for plural, singular in KINDS.items() if singular == kind)


def _below(at: At, key: str) -> At:
    return at[0], (*at[1], key)
