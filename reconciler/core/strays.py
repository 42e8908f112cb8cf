"""Agents that run on a host and belong to no session of any fleet. Pure; everything that a host said is hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.core.agent import Agent
from reconciler.core.observed import Facts, Process, clean
from reconciler.core.values import is_name
from reconciler.errors import HostError

_MOST = 50  # agents told of one host
_LINES = 40_000
_DEPTH = 60  # generations looked up


@dataclass(frozen=True)
class Pane:
    """A terminal in a tmux server of the user's: socket, id (`%3`), session, working directory, `WINDOW.PANE`."""

    socket: str
    id: str
    session: str
    directory: str
    place: str = "0.0"

    @property
    def targets(self) -> frozenset[str]:
        """The words by which tmux finds it."""
        window = self.place.partition(".")[0]
        return frozenset({self.id, self.session, f"{self.session}:{window}", f"{self.session}:{self.place}"})


@dataclass(frozen=True)
class Stray:
    """One agent that nobody manages. `agents` are those whose program it is; the first one, unless more is known.

    `seconds` is how long it has run. `was` is `FLEET/forgotten/NAME-...` of a session that was let go of. `start`,
    `boot` and `group` say which process it is, beyond its pid, and are empty until the host was asked.
    """

    agents: tuple[str, ...]
    pid: int
    seconds: int | None = None
    pane: Pane | None = None
    was: str = ""
    directory: str = ""
    conversation: str | None = None
    start: str = ""
    boot: str = ""
    group: int = 0


def parse_strays_found(
    host: str, nonce: str, answer: bytes, commands: Mapping[str, Sequence[str]]
) -> tuple[Stray, ...]:
    """From lines `owned PID SESSION`, `process PID PPID ELAPSED ARGS` and `pane PID SOCKET ID PLACE SESSION DIRECTORY`.

    `commands` maps a program to the agents that it may be. What descends from a session of a fleet, or from another
    agent, is a part of that. Raises HostError (look-truncated) where the answer is cut short.
    """
    lines = answer.decode("utf-8", "replace").partition(f"begin\t{nonce}\n")[2].splitlines()
    if not lines or lines[-1] != f"end\t{nonce}":
        raise HostError(f"{host}: what it told of its processes was cut short", code="look-truncated")
    parents: dict[int, int] = {}
    found: dict[int, Stray] = {}
    panes: dict[int, Pane] = {}
    owned: dict[int, str] = {}
    for line in lines[:-1][:_LINES]:
        if match := re.fullmatch(r"process\s+([0-9]{1,18})\s+([0-9]{1,18})\s+(\S+)\s+(.*)", line):
            pid = int(match[1])
            parents[pid] = int(match[2])
            words = [word.rpartition("/")[2] for word in match[4].split()[:2]]
            if agents := next((commands[word] for word in words if word in commands), None):
                found[pid] = Stray(tuple(agents), pid, _seconds(match[3]))
        elif match := re.fullmatch(r"pane\t([0-9]{1,18})\t(/[^\t]*)\t(%[0-9]{1,9})\t([\d.]+)\t([^\t]*)\t(.*)", line):
            panes[int(match[1])] = Pane(match[2], match[3], clean(match[5], 60), clean(match[6], 300), match[4])
        elif match := re.fullmatch(r"owned\t([0-9]{1,18})\t([A-Za-z0-9_./+-]+)", line):
            owned[int(match[1])] = match[2]
    strays = [_placed(found[pid], parents, panes, owned) for pid in sorted(found)]
    return tuple(stray for stray in strays if stray is not None and not _within(stray.pid, parents, found))[:_MOST]


def _placed(
    stray: Stray, parents: Mapping[int, int], panes: Mapping[int, Pane], owned: Mapping[int, str]
) -> Stray | None:
    """With the terminal that it runs in; None for a part of a session of a fleet."""
    line = _ancestors(stray.pid, parents)
    owner = next((owned[pid] for pid in line if pid in owned), "")
    if owner and "/forgotten/" not in owner:
        return None
    return replace(stray, was=owner, pane=next((panes[pid] for pid in line if pid in panes), None))


def _within(pid: int, parents: Mapping[int, int], found: Mapping[int, Stray]) -> bool:
    return any(parent in found for parent in _ancestors(pid, parents)[1:])


def _ancestors(pid: int, parents: Mapping[int, int]) -> list[int]:
    line = [pid]
    while (pid := parents.get(pid, 0)) > 1 and len(line) < _DEPTH:
        line.append(pid)
    return line


def _seconds(elapsed: str) -> int | None:
    """Of `ps -o etime`: [[DD-]HH:]MM:SS."""
    match = re.fullmatch(r"(?:(?:(\d{1,6})-)?(\d{1,2}):)?(\d{1,2}):(\d{1,2})", elapsed)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def known(stray: Stray, process: Process, facts: Facts, agents: Mapping[str, Agent]) -> Stray:
    """The same with what the host told of this very process; the agent that knows its conversation comes first."""
    told = {name: agents[name].works_on(facts) for name in stray.agents}
    names = sorted(stray.agents, key=lambda name: told[name] is None)
    return replace(
        stray, agents=tuple(names), conversation=told[names[0]], directory=clean(facts.texts.get("cwd", ""), 300),
        start=process.start, boot=process.boot, group=process.group,
    )  # fmt: skip


def name_for(stray: Stray, taken: frozenset[str]) -> str:
    """A name for the session that it could be: of its terminal's session, else its directory, else its agent."""
    directory = (stray.directory or (stray.pane.directory if stray.pane else "")).rstrip("/").rpartition("/")[2]
    words = [stray.pane.session if stray.pane else "", directory, stray.agents[0]]
    for word in words:
        name = re.sub(r"[^a-z0-9_-]+", "-", word.lower()).strip("-_")[:50].strip("-_")
        if is_name(name) and not name.isdigit():
            break
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
