"""`reconciler shell`: a login shell on a host, on this terminal, over our connection."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reconciler.cli._completion import host_names
from reconciler.cli.common import Specs, declared_host, load, run
from reconciler.core.spec import Desired
from reconciler.errors import UsageError
from reconciler.hosts import Hosts


def command(
    host: Annotated[str, typer.Argument(help="Its name in the specs.", autocompletion=host_names)],
    directory: Specs = "specs",
) -> None:
    """Open the login shell of a host, in the host's `workdir`."""
    desired = load(directory)
    name = declared_host(desired, host)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("shell needs a terminal", remedy=f"reconciler exec {name} -- COMMAND")
    raise typer.Exit(run(_shell(desired, name)))


async def _shell(desired: Desired, name: str) -> int:
    async with Hosts() as hosts:
        host = desired.hosts[name]
        connection = hosts.connection(name, host)
        seen = await connection.look(desired.fleet.name)
        transport = await connection.transport()
        workdir = seen.home if host.workdir == "~" else host.workdir.replace("~/", f"{seen.home}/", 1)
        # A directory that is not there is no reason to have no shell.
        script = 'cd "$1" 2>/dev/null; exec "$2" -l'
        return await transport.terminal(("sh", "-c", script, "shell", workdir, host.shell or seen.shell or "/bin/sh"))
