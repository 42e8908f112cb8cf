"""`reconciler attach`: a real attach of this terminal to a session, through our connection."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reconciler import drivers
from reconciler.cli._completion import session_names
from reconciler.cli.common import Specs, find, load, run, session_name
from reconciler.core.spec import Desired
from reconciler.errors import OperationError, UsageError
from reconciler.hosts import Hosts


def command(
    session: Annotated[str, typer.Argument(help="Its name or address.", autocompletion=session_names)],
    directory: Specs = "specs",
) -> None:
    """Attach this terminal to a session. Detach as tmux does (C-b d): it goes on running."""
    desired = load(directory)
    name = session_name(desired, session)
    if name in desired.group_chats:
        raise OperationError(
            f"group_chat.{name} has no terminal", code="no-terminal", remedy=f"reconciler chat log {name} -f"
        )
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("attach needs a terminal", remedy=f"reconciler logs {name} -f")
    raise typer.Exit(run(_attach(desired, name)))


async def _attach(desired: Desired, name: str) -> int:
    async with Hosts() as hosts:
        connection, reached, seen = await find(hosts, desired, name)
        assert seen.record is not None
        if seen.state != "running":
            raise OperationError(f"session.{name} is {seen.state}", code="stale", remedy=f"reconciler logs {name}")
        argv = drivers.runtime(seen.record.strategy).attach(reached.state_dir, name, seen.record.terminal)
        transport = await connection.transport()
        return await transport.terminal(("env", f"PATH={reached.path}", "TMUX=", *argv))
