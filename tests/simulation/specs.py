"""Specs to generate: a few sessions on a few hosts, as values that print themselves as TOML."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hypothesis import strategies as st

from reconciler.core.parse import parse
from reconciler.core.spec import Desired

SECRET_NAME, SECRET = "RECONCILER_TEST_SECRET", "s3cr3t-MARKER-0f0e"
NAMES = ("a", "b", "c", "d")
AGENTS = """
[agents.mine]
command = "mine"
start = ["{command}", "--id", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
resume = ["{command}", "--resume", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
turn = ["{command}", "--once", "--id", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
resume_turn = ["{command}", "--once", "--resume", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
store = ["{home}/.mine/{session_id}.*"]
[agents.bare]
command = "bare"
start = ["{command}", "--id", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
resume = ["{command}", "--resume", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
turn = ["{command}", "--once", "--id", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
resume_turn = ["{command}", "--once", "--resume", "{session_id}", "--model", "{model}", "--say", "{prompt}"]
[agents.claude-code]
env = { FROM_AGENT = "${env:RECONCILER_TEST_SECRET}" }
[agents.careful]
extends = "claude-code"
args = ["--careful"]
"""


@lru_cache(500)
def _parsed(text: str) -> Desired:
    return parse({"fleet.toml": text}, {})


@dataclass(frozen=True)
class SessionSpec:
    """One session; None and defaults are left out of the text."""

    host: str
    workdir: str | None = None
    agent: str = "claude-code"
    args: tuple[str, ...] = ()
    state: str = "running"
    lifecycle: str = "service"
    prompt: str | None = None
    on_prompt_change: str = "send"
    model: str | None = None
    strategy: str = "tmux"
    protect: bool = False
    policy: str = "on_failure"
    secret: bool = False
    when: str = "idle"
    label: str | None = None
    depends: tuple[tuple[str, str], ...] = ()

    def text(self, name: str) -> str:
        """The table."""
        keys: dict[str, object] = {
            "host": self.host, "workdir": self.workdir, "agent": self.agent, "args": list(self.args),
            "state": self.state, "lifecycle": self.lifecycle, "prompt": self.prompt,
            "on_prompt_change": self.on_prompt_change, "model": self.model, "strategy": self.strategy,
            "protect": self.protect,
        }  # fmt: skip
        lines = [f"[sessions.{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value not in (None, [])]
        lines.append(f'restart = {{ policy = "{self.policy}" }}')
        lines.append(f'stop = {{ when = "{self.when}", timeout = "20s" }}')
        if self.secret:
            lines.append(f'env = {{ TOKEN = "${{env:{SECRET_NAME}}}" }}')
        if self.label:
            lines.append(f'labels = {{ team = "{self.label}" }}')
        inner = ", ".join(f'{{ session = "{other}", until = "{until}" }}' for other, until in self.depends)
        return "\n".join([*lines, f"depends_on = [{inner}]", ""])


@dataclass(frozen=True)
class FleetSpec:
    """A whole fleet."""

    hosts: tuple[str, ...]
    sessions: dict[str, SessionSpec] = field(default_factory=dict)
    homes: tuple[str, ...] = ()  # where the sessions of NAMES run, those that are not there yet included
    prune: bool = True
    removed: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """The spec file."""
        fleet = f'[fleet]\nmax_stop = "100%"\nprune = {json.dumps(self.prune)}\n'
        hosts = "".join(f'[hosts.{name}]\nenv = {{ H = "${{env:{SECRET_NAME}}}" }}\n' for name in self.hosts)
        sessions = "".join(spec.text(name) for name, spec in self.sessions.items())
        removed = "".join(f'[[removed]]\naddress = "session.{n}"\n' for n in self.removed if n not in self.sessions)
        moved = "".join(f'[[moved]]\nfrom = "session.{old}"\nto = "session.{new}"\n' for old, new in self.moved)
        return fleet + hosts + AGENTS + sessions + removed + moved

    def desired(self) -> Desired:
        """As the program reads it."""
        return _parsed(self.text())


def some(values: tuple[str, ...], usual: str, weight: int = 4) -> st.SearchStrategy[str]:
    return st.sampled_from((*[usual] * weight, *values))


@st.composite
def session_specs(draw: st.DrawFn, home: str, before: tuple[str, ...]) -> SessionSpec:
    agent = draw(st.sampled_from(("claude-code", "claude-code", "mine", "mine", "careful", "shell", "bare")))
    lifecycle = draw(some(("task",), "service", 6))
    prompt = draw(st.sampled_from((None, "p"))) if lifecycle == "service" else "p"
    depends = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
    if draw(st.booleans()):
        depends = []
    untils = st.sampled_from(("started", "ready", "idle"))  # a service is never completed
    return SessionSpec(
        host=home,
        agent=agent,
        args=(draw(some(("job", "broken"), "serve", 8)),) if agent == "shell" else (),
        state=draw(some(("stopped",), "running", 8)),
        lifecycle=lifecycle,
        prompt=prompt,
        on_prompt_change=draw(some(("restart", "ignore"), "send", 2)),
        model=draw(st.sampled_from((None, "m1"))) if agent != "shell" else None,
        strategy=draw(some(("process",), "tmux")),
        protect=draw(some(("yes",), "no", 8)) == "yes",
        policy=draw(some(("always", "never"), "on_failure", 8)),
        secret=draw(st.booleans()),
        when=draw(st.sampled_from(("idle", "now"))),
        depends=tuple((name, draw(untils)) for name in depends),
    )


@st.composite
def fleets(draw: st.DrawFn) -> FleetSpec:
    hosts = ("local", "h1", "h2", "h3")[: draw(st.integers(1, 4))]
    homes = tuple(draw(st.sampled_from(hosts)) for _ in NAMES)
    names = NAMES[: draw(st.integers(2, 4))]
    sessions = {name: draw(session_specs(homes[index], names[:index])) for index, name in enumerate(names)}
    return FleetSpec(hosts, sessions, homes)


KINDS = (
    "model", "model", "prompt", "state", "state", "protect", "label", "leave", "leave", "secret", "forget",
    *["move"] * 6, "workdir", "rename",
)  # fmt: skip


@st.composite
def edits(draw: st.DrawFn, fleet: FleetSpec, number: int) -> FleetSpec:
    """The fleet after one edit of its specs. Every new prompt has words of its own."""
    name = draw(st.sampled_from(tuple(dict.fromkeys((*NAMES, *fleet.sessions)))))
    kind = draw(st.sampled_from(KINDS))
    if name not in fleet.sessions:
        earlier = tuple(other for other in NAMES if other < name and other in fleet.sessions)
        added = draw(session_specs(fleet.homes[NAMES.index(name)], earlier))
        kept = tuple(moved for moved in fleet.moved if moved[0] != name)
        return replace(fleet, sessions={**fleet.sessions, name: added}, moved=kept)
    needed = any(name == other for spec in fleet.sessions.values() for other, _ in spec.depends)
    if kind in ("leave", "forget") and not needed and len(fleet.sessions) > 1:
        rest = {key: value for key, value in fleet.sessions.items() if key != name}
        kept = tuple(moved for moved in fleet.moved if moved[1] != name)
        removed = (*fleet.removed, name) if kind == "forget" else fleet.removed
        return replace(fleet, sessions=rest, moved=kept, removed=removed)
    if kind == "rename" and not needed:
        return _renamed(fleet, name, f"{name}{number}")
    changed = _changed(fleet.sessions[name], kind, number, draw(st.sampled_from(fleet.hosts)))
    return replace(fleet, sessions={**fleet.sessions, name: changed})


def _renamed(fleet: FleetSpec, old: str, new: str) -> FleetSpec:
    """Another name for a session; whatever led to the old one leads to the new one as well."""
    sessions = {new if name == old else name: spec for name, spec in fleet.sessions.items()}
    return replace(fleet, sessions=sessions, moved=(*(m for m in fleet.moved if m[1] != old), (old, new)))


def _changed(old: SessionSpec, kind: str, number: int, host: str) -> SessionSpec:
    match kind:
        case "model" if old.agent != "shell":
            return replace(old, model=f"m{number}")
        case "model":
            return replace(old, args=("serve", str(number)))
        case "prompt":
            return replace(old, prompt=f"p{number}")
        case "state":
            return replace(old, state="stopped" if old.state == "running" else "running")
        case "protect":
            return replace(old, protect=not old.protect)
        case "secret":
            return replace(old, secret=not old.secret)
        case "workdir":
            return replace(old, workdir=None if old.workdir else "~/w")
        case "move":
            return replace(old, host=host)
        case _:
            return replace(old, label=f"l{number}")
