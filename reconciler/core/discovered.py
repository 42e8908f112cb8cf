"""What `init --discover` found, as specs that start nothing. Pure; everything that a host said is hostile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.core.observed import clean
from reconciler.core.ssh_aliases import Alias, tables
from reconciler.core.strays import Stray, name_for


@dataclass(frozen=True)
class Found:
    """One host: what it has, or why it did not answer."""

    alias: Alias
    error: str = ""
    agents: tuple[str, ...] = ()
    running: tuple[Stray, ...] = ()


def spec_text(found: Sequence[Found], fleet: str) -> str:
    """One spec file: hosts, and suspended sessions for the agents that run there and can be adopted."""
    answered = [host for host in found if not host.error]
    silent = [host for host in found if host.error]
    lines = [
        "# Made by `reconciler init --discover` from the SSH config. Nothing runs by it yet: add sessions, then",
        "# `reconciler plan` shows what would happen.", "", "[fleet]", f'name = "{fleet}"', "",
    ]  # fmt: skip
    texts = tables([host.alias for host in answered], {})
    taken: set[str] = set()
    for host, (name, text) in zip(answered, texts.items(), strict=False):
        there = f"# agents there: {', '.join(host.agents)}" if host.agents else "# no agent was found on its PATH"
        lines += [there, *text.splitlines(), ""]
        for stray in host.running:
            lines += [*_session(name, stray, taken), ""]
    if silent:
        lines += [
            "# These did not answer within five seconds, or do not let us in. `reconciler doctor` says more.",
            "#",
        ]
        texts = tables([host.alias for host in silent], dict.fromkeys(texts, ""))
        for host, text in zip(silent, texts.values(), strict=False):
            lines += [f"# {clean(host.error, 200)}", *(f"# {line}" for line in text.splitlines()), "#"]
    return "\n".join(lines).rstrip() + "\n"


def _session(host: str, stray: Stray, taken: set[str]) -> Iterable[str]:
    """One agent that runs already: declared, and suspended, so that nothing is started beside it meanwhile."""
    where = f"in the tmux session {stray.pane.session}" if stray.pane else "outside of tmux"
    at = clean(stray.directory, 300)
    yield f"# runs there already: {stray.agents[0]} (pid {stray.pid}), {clean(where, 80)}, {at or 'nobody knows where'}"
    if stray.conversation is None or not at.startswith("/"):
        yield "# which conversation it works on cannot be told, so it cannot be adopted"
        return
    name = name_for(stray, frozenset(taken))
    taken.add(name)
    yield "# take it over without a restart, then remove `suspend`:"
    yield f"#   reconciler adopt {name} --host {host} --pid {stray.pid}"
    yield f"[sessions.{name}]"
    yield f'host = "{host}"'
    yield f'agent = "{stray.agents[0]}"'
    yield f"workdir = {json.dumps(at, ensure_ascii=False)}"
    yield "suspend = true"
