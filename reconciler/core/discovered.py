"""What `init --discover` found, as specs with comments. Pure; everything that a host said is hostile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.core.observed import clean
from reconciler.core.ssh_aliases import Alias, tables

_MOST = 50  # agents listed of one host


@dataclass(frozen=True)
class Running:
    """One agent that runs on a host, outside of any fleet: in which tmux session, "" outside of tmux."""

    agent: str
    pid: int
    session: str
    directory: str


@dataclass(frozen=True)
class Found:
    """One host: what it has, or why it did not answer."""

    alias: Alias
    error: str = ""
    agents: tuple[str, ...] = ()
    running: tuple[Running, ...] = ()


def parse_running(nonce: str, answer: bytes, commands: dict[str, str]) -> tuple[Running, ...]:
    """From lines `process PID PPID ARGS` and `pane PID SESSION DIRECTORY`; `commands` maps a program to its agent."""
    text = answer.decode("utf-8", "replace").partition(f"begin\t{nonce}\n")[2]
    parents: dict[int, int] = {}
    agents: dict[int, str] = {}
    panes: dict[int, tuple[str, str]] = {}
    for line in text.splitlines()[:20_000]:
        if match := re.fullmatch(r"process\s+(\d+)\s+(\d+)\s+(.*)", line):
            pid = int(match[1])
            parents[pid] = int(match[2])
            words = [word.rpartition("/")[2] for word in match[3].split()[:2]]
            if name := next((commands[word] for word in words if word in commands), None):
                agents[pid] = name
        elif match := re.fullmatch(r"pane\t(\d+)\t([^\t]*)\t(.*)", line):
            panes[int(match[1])] = (clean(match[2], 60), clean(match[3], 300))
    found = []
    for pid, name in sorted(agents.items()):
        if agents.get(parents.get(pid, 0)) == name:
            continue  # a wrapper's child is no second agent
        session, directory = _pane(pid, parents, panes)
        found.append(Running(name, pid, session, directory))
    return tuple(found[:_MOST])


def _pane(pid: int, parents: dict[int, int], panes: dict[int, tuple[str, str]]) -> tuple[str, str]:
    for _ in range(30):
        if pid in panes:
            return panes[pid]
        pid = parents.get(pid, 0)
    return "", ""


def spec_text(found: Sequence[Found], fleet: str) -> str:
    """One commented spec file."""
    answered = [host for host in found if not host.error]
    silent = [host for host in found if host.error]
    lines = [
        "# Made by `reconciler init --discover` from the SSH config. Nothing runs by it yet: add sessions, then",
        "# `reconciler plan` shows what would happen.", "", "[fleet]", f'name = "{fleet}"', "",
    ]  # fmt: skip
    texts = tables([host.alias for host in answered], {})
    for host, text in zip(answered, texts.values(), strict=False):
        lines += [*_comments(host), *text.splitlines(), ""]
    if silent:
        lines += [
            "# These did not answer within five seconds, or do not let us in. `reconciler doctor` says more.",
            "#",
        ]
        texts = tables([host.alias for host in silent], dict.fromkeys(texts, ""))
        for host, text in zip(silent, texts.values(), strict=False):
            lines += [f"# {clean(host.error, 200)}", *(f"# {line}" for line in text.splitlines()), "#"]
    return "\n".join(lines).rstrip() + "\n"


def _comments(host: Found) -> Iterable[str]:
    yield f"# agents there: {', '.join(host.agents)}" if host.agents else "# no agent was found on its PATH"
    for one in host.running:
        where = f"in the tmux session {one.session}, {one.directory}" if one.session else "outside of tmux"
        where = clean(where, 400)
        yield f"# runs there already: {one.agent} (pid {one.pid}), {where}"
