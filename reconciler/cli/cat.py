"""`reconciler cat`: a file of a host."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reconciler.cli._completion import remote_paths
from reconciler.cli._remote import LIMIT, reached, remote, shown, translated
from reconciler.cli.common import Specs, load, run
from reconciler.core.spec import Desired


def command(
    what: Annotated[
        str, typer.Argument(metavar="HOST:PATH", help="`~/` is the far home.", autocompletion=remote_paths)
    ],
    directory: Specs = "specs",
) -> None:
    """Print a file of a host; on a terminal without the orders that it may hold for it."""
    desired = load(directory)
    data = run(_cat(desired, *remote(desired, what)))
    sys.stdout.buffer.write(shown(data) if sys.stdout.isatty() else data)


async def _cat(desired: Desired, host: str, path: str) -> bytes:
    async with reached(desired, host) as transport:
        try:
            return await transport.read(path, LIMIT)
        except OSError as error:
            raise translated(host, error) from None
