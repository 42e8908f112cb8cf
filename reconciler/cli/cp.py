"""`reconciler cp`: one file from a host, to a host, or from host to host."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from reconciler.cli._completion import local_or_remote_paths
from reconciler.cli._remote import LIMIT, mode_of, place, reached, translated
from reconciler.cli.common import Specs, load, run
from reconciler.core.spec import Desired
from reconciler.errors import UsageError
from reconciler.transports import Transport
from reconciler.transports.local import LocalTransport


def command(
    source: Annotated[
        str,
        typer.Argument(metavar="[HOST:]PATH", help="What to copy: one file.", autocompletion=local_or_remote_paths),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="[HOST:]PATH", help="Where to; a directory ends with `/`.", autocompletion=local_or_remote_paths
        ),
    ],
    directory: Specs = "specs",
) -> None:
    """Copy one file, with its permissions. The target is replaced whole, or not at all."""
    desired = load(directory)
    if place(desired, source) is None and place(desired, target) is None:
        raise UsageError("cp copies from or to a host", remedy="cp, without reconciler")
    run(_cp(desired, source, target))


async def _cp(desired: Desired, source: str, target: str) -> None:
    if target.endswith(("/", ":")):
        found = place(desired, source)
        target += os.path.basename(found[1] if found else source)
    async with _at(desired, source) as (transport, path):
        data, mode = await transport.read(path, LIMIT), await mode_of(transport, path)
    async with _at(desired, target) as (transport, path):
        await transport.write(path, data, mode)


@asynccontextmanager
async def _at(desired: Desired, text: str) -> AsyncIterator[tuple[Transport, str]]:
    """The machine of `[HOST:]PATH` and the path there; what a file refuses is said in words."""
    found = place(desired, text)
    try:
        if found is None:
            yield LocalTransport(), _whole(text)
        else:
            async with reached(desired, found[0]) as transport:
                yield transport, found[1]
    except OSError as error:
        raise translated(found[0] if found else "this machine", error) from None


def _whole(path: str) -> str:
    """From the directory that it was typed in: a transport begins in the home."""
    return os.path.abspath(path)
