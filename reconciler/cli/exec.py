"""`reconciler exec`: a command on a host, over our connection."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reconciler.cli._completion import host_names
from reconciler.cli.common import Specs, declared_host, load, run
from reconciler.core.spec import Desired
from reconciler.hosts import Hosts

_TIMEOUT = 24 * 3600.0  # seconds; a person ends it with Ctrl-C
_LIMIT = 256_000_000  # bytes of output


def command(
    host: Annotated[str, typer.Argument(help="Its name in the specs.", autocompletion=host_names)],
    words: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The program and its arguments.")],
    directory: Specs = "specs",
) -> None:
    """Run a command on a host, with the login PATH, and end with its exit code.

    On a terminal it gets a terminal there; else its output is printed when it ends. The words reach the program as
    they are: no shell reads them.
    """
    desired = load(directory)
    raise typer.Exit(run(_exec(desired, declared_host(desired, host), words)))


async def _exec(desired: Desired, host: str, words: list[str]) -> int:
    async with Hosts() as hosts:
        connection = hosts.connection(host, desired.hosts[host])
        seen = await connection.look(desired.fleet.name)
        transport = await connection.transport()
        argv = ("env", f"PATH={seen.path}", *words)
        if sys.stdin.isatty() and sys.stdout.isatty():
            return await transport.terminal(argv)
        stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
        done = await transport.run(argv, stdin=stdin, timeout=_TIMEOUT, limit=_LIMIT)
        sys.stdout.buffer.write(done.out)
        sys.stderr.buffer.write(done.err)
        return done.exit
