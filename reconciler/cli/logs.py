"""`reconciler logs`: what a session has printed."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from reconciler import drivers
from reconciler.cli._completion import session_names
from reconciler.cli.common import Specs, find, load, run, session_name
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.hosts import Hosts
from reconciler.redaction import redact
from reconciler.secret_values import recognise
from reconciler.transports.quoting import quote

_PAUSE = 1.0  # seconds between two looks at the output


def command(
    session: Annotated[str, typer.Argument(help="Its name or address.", autocompletion=session_names)],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it prints, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=20000, help="The last so many lines.")] = 200,
    directory: Specs = "specs",
) -> None:
    """Print what a session has printed: its screen and history, or its log. Also after it has ended."""
    desired = load(directory)
    name = session_name(desired, session)
    try:
        run(_logs(desired, name, lines, follow))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _logs(desired: Desired, name: str, lines: int, follow: bool) -> None:
    async with Hosts() as hosts:
        connection, reached, seen = await find(hosts, desired, name)
        recognise(_given(desired, name))
        assert seen.record is not None
        line = drivers.runtime(seen.record.strategy).log(reached.state_dir, name, lines, seen.record.terminal)
        line = f"PATH={quote([reached.path])}; {line}"
        shown: list[str] = []
        while True:
            found = redact((await connection.shell(line)).decode("utf-8", "replace")).splitlines()
            for text in found[overlap(shown, found) :]:
                # A screen may hold anything: only text reaches this terminal.
                typer.echo(escaped(text.replace("\t", "    ").replace("\xa0", " ").rstrip()))
            sys.stdout.flush()
            shown = found
            if not follow:
                return
            await asyncio.sleep(_PAUSE)


def _given(desired: Desired, name: str) -> list[str]:
    """The values of the environment that the specs give a session: it may have printed one."""
    session = desired.sessions[name]
    host, agent = desired.hosts[session.host], desired.agents.get(session.agent)
    own = host.agents.get(session.agent)
    tables = (session.env, host.env, agent.env if agent else {}, own.env if own else {})
    return [value for table in tables for value in table.values()]


def overlap(before: list[str], now: list[str]) -> int:
    """How many lines of `now` were shown already: the longest end of `before` that `now` begins with.

    A screen that was drawn anew shares nothing with the one before and is shown whole.
    """
    for size in range(min(len(before), len(now)), 0, -1):
        if before[-size:] == now[:size]:
            return size
    return 0
