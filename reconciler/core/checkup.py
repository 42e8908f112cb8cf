"""What `doctor` makes of a host: checks with their remedies, and its agents. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from reconciler.core import machine
from reconciler.core.agent import Agent, trustable
from reconciler.core.facts import Check, Facts
from reconciler.core.launching import Context, command_of, workdir_of
from reconciler.core.observed import Reached
from reconciler.core.spec import BUILT_IN_AGENTS, Desired, Session


@dataclass(frozen=True)
class AgentFound:
    """An agent CLI on a host. `login` says how it is logged in; "" where nothing shows it, None where nobody asked."""

    name: str
    path: str
    version: str | None = None
    login: str | None = None


@dataclass(frozen=True)
class Examined:
    """Everything about one host."""

    name: str
    error: str = ""
    hostname: str = ""
    user: str = ""
    platform: str = ""
    checks: tuple[Check, ...] = ()
    agents: tuple[AgentFound, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether sessions can run there."""
        return all(check.ok is not False for check in self.checks)


def wanted_agents(desired: Desired, host: str, everything: bool) -> list[str]:
    """The agents of a host's sessions; with `everything`, all that are known."""
    found = {session.agent for session in desired.sessions.values() if session.host == host}
    if everything:
        found |= {*BUILT_IN_AGENTS, *desired.agents}
    return sorted(found - {"shell"})


def questions(desired: Desired, agents: Mapping[str, Agent], host: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """What a look is asked about agents and directories, as its checks."""
    found = []
    for name in names:
        command = command_on(desired, agents, host, name)
        found.append(("command", command))
        if agents[name].version_args:
            found.append(("version", " ".join((command, *agents[name].version_args))))
    found += [("directory", workdir_of(desired, session)) for session in _sessions(desired, host).values()]
    return list(dict.fromkeys(found))


def command_on(desired: Desired, agents: Mapping[str, Agent], host: str, name: str) -> str:
    """The program of an agent on a host."""
    context = Context(desired, agents, "", "")
    session = next((n for n, s in _sessions(desired, host).items() if s.agent == name), None)
    if session is not None:
        return command_of(context, session)
    own = desired.hosts[host].agents.get(name)
    return (own.command if own is not None else None) or agents[name].command


def _sessions(desired: Desired, host: str) -> dict[str, Session]:
    return {name: session for name, session in desired.sessions.items() if session.host == host}


def examined(
    desired: Desired, agents: Mapping[str, Agent], names: Sequence[str], seen: Reached, facts: Facts, now: float,
    channels: int, said: str = "",
) -> Examined:  # fmt: skip
    """The verdicts. `now` is our clock when the host told its own; `channels` is how many it opened at once, `said` is
    what `ssh -G` prints of it."""
    found = tuple(_agent(desired, agents, name, seen, facts) for name in names)
    platform = f"{seen.system} {facts.values.get('arch', '')}".strip()
    checks = [
        Check("reach", True, f"{seen.user}@{seen.hostname}, {platform}"),
        Check("shell", True, facts.values.get("shell", "") or "none is set"),
        Check("path", True, seen.path),
        transport_hint(said),
        _trust(desired, seen),
        machine.tmux(seen, facts, needed=_needs_tmux(desired, seen.name)),
        machine.git(seen, facts),
        *_directories(desired, seen),
        *(_installed(agents[agent.name], agent, seen) for agent in found),
        *(_login(seen.name, agents[agent.name], agent) for agent in found if agent.path),
        *(_trusts(desired, agents[agent.name], agent.name, seen, facts) for agent in found if agent.path),
        *(_retention(agents[agent.name], agent, seen, facts) for agent in found if agent.path),
        machine.scope(seen, facts),
        *machine.memory(seen, facts, len(_sessions(desired, seen.name))),
        machine.disk(seen, facts),
        machine.clock(seen, facts, now),
        machine.channels(channels),
    ]
    kept = tuple(check for check in checks if check is not None)
    return Examined(seen.name, "", seen.hostname, seen.user, platform, kept, found)


def _agent(desired: Desired, agents: Mapping[str, Agent], name: str, seen: Reached, facts: Facts) -> AgentFound:
    agent, command = agents[name], command_on(desired, agents, seen.name, name)
    path = seen.commands.get(command, "")
    version = None
    if path and agent.version_args:
        version = agent.parse_version(seen.versions.get(" ".join((command, *agent.version_args)), ""))
    login = agent.login
    if not path or not (login.files or login.variables):
        return AgentFound(name, path, version)
    how = [file for file in (f.replace("{home}", seen.home) for f in login.files) if facts.has("login", file)]
    how += [variable for variable in login.variables if facts.has("variable", variable)]
    how += [f"{variable}, by the specs" for variable in login.variables if variable in _given(desired, seen.name, name)]
    return AgentFound(name, path, version, how[0] if how else "")


def _given(desired: Desired, host: str, agent: str) -> set[str]:
    """The variables that specs set for an agent on a host."""
    own, spec = desired.hosts[host].agents.get(agent), desired.agents.get(agent)
    found = {*desired.hosts[host].env, *(own.env if own else ()), *(spec.env if spec else ())}
    return found.union(*(s.env for s in _sessions(desired, host).values() if s.agent == agent))


def _trust(desired: Desired, seen: Reached) -> Check | None:
    host = desired.hosts[seen.name]
    if host.host_key_policy != "accept_all" or host.host_key is not None or host.transport == "local":
        return None
    what = "accept_all: nobody proves that it is the right machine"
    return Check("trust", None, what, 'host_key_policy = "accept_new"')


def transport_hint(said: str) -> Check | None:
    """What in the user's own SSH configuration only the system's ssh honours; `said` is what `ssh -G` prints."""
    values: dict[str, list[str]] = {}
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)
    found = []
    if values.get("pkcs11provider", ["none"])[0] not in ("none", ""):
        found.append("PKCS11Provider")
    shares = values.get("controlmaster", ["false"])[0] not in ("false", "no")
    if shares and values.get("controlpath", ["none"]) != ["none"]:
        found.append("ControlMaster")
    if not found:
        return None
    what = f"your SSH config has {' and '.join(found)}, which the built-in SSH does not use"
    return Check("transport", None, what, 'transport = "openssh"')


def _needs_tmux(desired: Desired, host: str) -> bool:
    own = desired.hosts[host].strategy
    return any((session.strategy or own) == "tmux" for session in _sessions(desired, host).values())


def _directories(desired: Desired, seen: Reached) -> list[Check]:
    found = []
    for name, session in _sessions(desired, seen.name).items():
        workdir = workdir_of(desired, session)
        if workdir in seen.directories and not seen.directories[workdir]:
            there = f"~/{quote(workdir[2:])}" if workdir.startswith("~/") else quote(workdir)
            remedy = f"reconciler exec {seen.name} -- sh -c {quote(f'mkdir -p {there}')}"
            found.append(Check("workdir", False, f"session.{name}: there is no directory {workdir}", remedy))
    return found


def _installed(agent: Agent, found: AgentFound, seen: Reached) -> Check:
    if not found.path:
        remedy = f"reconciler doctor {seen.name} --install {found.name}" if agent.install else "install it"
        return Check(found.name, False, f"{agent.command} is not on the PATH of {seen.name}", remedy)
    version = found.version or "of an unknown version"
    known = agent.known_versions
    if known and found.version and not found.version.startswith(known):
        what = f"{found.path}, {version}: the driver was verified with {known}"
        again = f"reconciler exec {seen.name} -- sh -c {quote(agent.install)}" if agent.install else f"install {known}"
        return Check(found.name, None, what, again)
    return Check(found.name, True, f"{found.path}, {version}")


def _login(host: str, agent: Agent, found: AgentFound) -> Check | None:
    if found.login is None:
        return None
    name = f"{found.name} login"
    if found.login:
        return Check(name, True, found.login)
    remedy = f"reconciler shell {host}, and there: {agent.login.command}"
    return Check(name, None, "nothing shows that it is logged in", remedy)


def _trusts(desired: Desired, agent: Agent, name: str, seen: Reached, facts: Facts) -> Check | None:
    """Which directories the agent trusts by its own list. For the others each launch says so; never for a home."""
    if agent.login.trust is None:
        return None
    listed = facts.sets.get(f"trusts {agent.login.trust[1].replace('{home}', seen.home)}", frozenset())
    own, by_launch, asks = [], [], []
    for session, spec in _sessions(desired, seen.name).items():
        if spec.agent != name:
            continue
        workdir = workdir_of(desired, spec)
        path = f"{seen.home}/{workdir[2:]}" if workdir.startswith("~/") else seen.home if workdir == "~" else workdir
        real = seen.directories.get(workdir) or path
        if any(p == each or p.startswith(each.rstrip("/") + "/") for each in listed for p in (path, real)):
            own.append(workdir)
        elif trustable(workdir) and path != seen.home:
            by_launch.append(workdir)
        else:
            asks.append((session, workdir))
    if asks:
        session, workdir = asks[0]
        what = f"session.{session}: {workdir} is a whole home and not in its list: it asks whether it is trusted"
        return Check(f"{name} trust", None, what, f"reconciler attach {session}; or a workdir below it")
    parts = [f"by its own list: {', '.join(dict.fromkeys(own))}"] if own else []
    parts += [f"said by each launch, for it alone: {', '.join(dict.fromkeys(by_launch))}"] if by_launch else []
    return Check(f"{name} trust", True, "; ".join(parts)) if parts else None


def _retention(agent: Agent, found: AgentFound, seen: Reached, facts: Facts) -> Check | None:
    if agent.login.retention is None:
        return None
    file, _, advice = agent.login.retention
    if facts.has("text", file.replace("{home}", seen.home)):
        return None
    return Check(f"{found.name} retention", None, *_halves(advice))


def _halves(advice: str) -> tuple[str, str]:
    what, _, remedy = advice.partition(": ")
    return what, remedy


def examined_json(found: Sequence[Examined]) -> dict[str, Any]:
    """The document that `doctor --json` prints, format 1.0."""
    return {
        "format_version": "1.0",
        "hosts": [
            {
                "name": host.name, "reachable": not host.error, "error": host.error or None,
                "hostname": host.hostname or None, "user": host.user or None, "platform": host.platform or None,
                "checks": [
                    {"name": c.name, "ok": c.ok, "message": c.message, "remedy": c.remedy} for c in host.checks
                ],
                "agents": [
                    {"name": a.name, "found": bool(a.path), "path": a.path or None, "version": a.version,
                     "login": a.login} for a in host.agents
                ],
            }
            for host in found
        ],
    }  # fmt: skip
