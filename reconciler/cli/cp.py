"""`reconciler cp`: one file from a host, to a host, or from host to host."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli._remote import LIMIT, place, reached, translated
from reconciler.cli.common import Specs, load, run
from reconciler.core.spec import Desired
from reconciler.errors import OperationError, UsageError


def command(
    source: Annotated[str, typer.Argument(metavar="[HOST:]PATH", help="What to copy: one file.")],
    target: Annotated[str, typer.Argument(metavar="[HOST:]PATH", help="Where to; a directory ends with `/`.")],
    directory: Specs = "specs",
) -> None:
    """Copy one file. The target is replaced whole, or not at all."""
    desired = load(directory)
    if place(desired, source) is None and place(desired, target) is None:
        raise UsageError("cp copies from or to a host", remedy="cp, without reconciler")
    run(_cp(desired, source, target))


async def _cp(desired: Desired, source: str, target: str) -> None:
    if target.endswith(("/", ":")):
        target += os.path.basename(source.rpartition(":")[2])
    data, mode = await _read(desired, source)
    found = place(desired, target)
    if found is None:
        await asyncio.to_thread(_write, Path(target), data, mode)
        return
    async with reached(desired, found[0]) as transport:
        try:
            await transport.write(found[1], data, mode)
        except OSError as error:
            raise translated(found[0], error) from None


async def _read(desired: Desired, source: str) -> tuple[bytes, int]:
    found = place(desired, source)
    if found is None:
        return await asyncio.to_thread(_local, Path(source))
    async with reached(desired, found[0]) as transport:
        try:
            return await transport.read(found[1], LIMIT), 0o644
        except OSError as error:
            raise translated(found[0], error) from None


def _local(path: Path) -> tuple[bytes, int]:
    try:
        if path.stat().st_size > LIMIT:
            raise OperationError(f"{path} is larger than {LIMIT >> 20} MiB", code="file", remedy="rsync")
        return path.read_bytes(), path.stat().st_mode & 0o777
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}", code="file") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(data)
        beside.chmod(mode)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OperationError(f"{path}: {error.strerror}", code="file") from None
