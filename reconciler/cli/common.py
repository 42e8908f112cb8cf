"""What the commands that talk to hosts share: options, loading, signals, colour."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from reconciler.core.observed import Reached, SessionSeen
from reconciler.core.selection import Selection
from reconciler.core.spec import Desired, name_of
from reconciler.errors import HostError, UsageError
from reconciler.hosts import Connection, Hosts
from reconciler.sources.directory import load

T = TypeVar("T")

Directory = Annotated[str, typer.Argument(metavar="DIR", help="The spec directory.")]
Specs = Annotated[str, typer.Option("--specs", metavar="DIR", help="The spec directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout; words for people on stderr.")]
Target = Annotated[list[str] | None, typer.Option("--target", metavar="ADDRESS", help="Only this, and what it needs.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="ADDRESS", help="All but this.")]
Select = Annotated[str | None, typer.Option("--select", metavar="EXPR", help="Only what fits key=value,key!=value.")]
Restart = Annotated[list[str] | None, typer.Option("--restart", metavar="ADDRESS", help="Restart it in any case.")]


def selection(target: list[str] | None, exclude: list[str] | None, select: str | None) -> Selection:
    """The options `--target`, `--exclude` and `--select`."""
    return Selection(tuple(target or ()), tuple(exclude or ()), select)


def colours(stream: Any = None) -> bool:
    """Whether to colour what goes to this stream (stdout): a terminal, and nobody said no."""
    out = stream or sys.stdout
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one asynchronous command; Ctrl-C cancels it cleanly."""
    return asyncio.run(work)


def on_signals(handler: Callable[[], None]) -> None:
    """Call `handler` at each SIGINT and SIGTERM, in place of dying."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handler)


def session_name(desired: Desired, text: str) -> str:
    """The session that a person means by `NAME` or `session.NAME`. Raises UsageError with a suggestion."""
    name = name_of(text)
    if name not in desired.sessions:
        from difflib import get_close_matches

        close = get_close_matches(name, desired.sessions, 1)
        hint = f"did you mean {close[0]}?" if close else "sessions: " + (", ".join(desired.sessions) or "none")
        raise UsageError(f"no session {name} in the specs", remedy=hint)
    return name


def host_name(desired: Desired, text: str) -> str:
    """The host that a person means by `NAME` or `host.NAME`. Raises UsageError."""
    name = text.removeprefix("host.")
    if name not in desired.hosts:
        raise UsageError(f"no host {name} in the specs", remedy=f"hosts: {', '.join(desired.hosts)}")
    return name


def declared_host(desired: Desired, text: str) -> str:
    """The same, for something to be done there. Raises HostError where it is disabled."""
    name = host_name(desired, text)
    if not desired.hosts[name].enabled:
        raise HostError(f"host.{name} is not enabled", code="disabled")
    return name


async def find(hosts: Hosts, desired: Desired, name: str) -> tuple[Connection, Reached, SessionSeen]:
    """A session on its host. Raises HostError where the host does not answer, UsageError where it is not there."""
    host = desired.sessions[name].host
    connection = hosts.connection(host, desired.hosts[host])
    if not desired.hosts[host].enabled:
        raise HostError(f"host.{host} is not enabled", code="disabled")
    reached = await connection.look(desired.fleet.name)
    seen = reached.sessions.get(name)
    if seen is None or seen.record is None:
        raise UsageError(f"{desired.address(name)} is not on {host} yet", remedy="reconciler apply")
    return connection, reached, seen


__all__ = [
    "AsJson", "Directory", "Exclude", "Restart", "Select", "Specs", "Target", "colours", "declared_host", "find",
    "host_name", "load", "on_signals", "run", "selection", "session_name",
]  # fmt: skip
