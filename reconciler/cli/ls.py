"""`reconciler ls`: a directory of a host."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reconciler.cli._completion import remote_paths
from reconciler.cli._remote import EXPAND, reached, remote, shown
from reconciler.cli.common import Specs, load, run
from reconciler.core.spec import Desired

# One line a name (-q), which is no reason to lose those that are not ASCII.
_UTF8 = "case ${LC_ALL:-${LC_CTYPE:-$LANG}} in *[Uu][Tt][Ff]*8) ;; *) LC_ALL=C.UTF-8; export LC_ALL ;; esac; "


def command(
    what: Annotated[
        str, typer.Argument(metavar="HOST:PATH", help="`~/` is the far home.", autocompletion=remote_paths)
    ],
    directory: Specs = "specs",
) -> None:
    """List a directory of a host, as its own `ls -la` does."""
    desired = load(directory)
    raise typer.Exit(run(_ls(desired, *remote(desired, what))))


async def _ls(desired: Desired, host: str, path: str) -> int:
    async with reached(desired, host) as transport:
        done = await transport.run(("sh", "-c", f'{EXPAND}{_UTF8}exec ls -laq -- "$p"', "ls", path))
    sys.stdout.buffer.write(shown(done.out))
    sys.stderr.buffer.write(shown(done.err))
    return done.exit
