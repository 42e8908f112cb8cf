"""`reconciler edit`: a file of a host in the editor of this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli._completion import remote_paths
from reconciler.cli._remote import LIMIT, mode_of, reached, remote, translated
from reconciler.cli.common import Specs, load, run
from reconciler.core.spec import Desired
from reconciler.errors import GuardError, UsageError


def command(
    what: Annotated[
        str, typer.Argument(metavar="HOST:PATH", help="`~/` is the far home.", autocompletion=remote_paths)
    ],
    directory: Specs = "specs",
) -> None:
    """Edit a file of a host with $VISUAL or $EDITOR. Where it changed there meanwhile, nothing is overwritten."""
    desired = load(directory)
    host, path = remote(desired, what)
    if not sys.stdin.isatty() and not os.environ.get("EDITOR"):
        raise UsageError("edit needs a terminal, or EDITOR", remedy=f"reconciler cp {what} .")
    before = run(_read(desired, host, path))
    with tempfile.TemporaryDirectory(prefix="reconciler-") as place:
        file = Path(place) / os.path.basename(path)
        file.write_bytes(before or b"")
        editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
        code = subprocess.run([*editor, str(file)], check=False).returncode
        after = file.read_bytes()
        if code or after == (before or b""):
            typer.echo(f"{what} is as it was")
            raise typer.Exit(1 if code else 0)
        try:
            run(_write(desired, host, path, before, after))
        except BaseException:
            kept = Path(tempfile.mkdtemp(prefix="reconciler-")) / file.name
            kept.write_bytes(after)
            typer.echo(f"what you wrote is in {kept}", err=True)
            raise
    typer.echo(f"{what} is written")


async def _read(desired: Desired, host: str, path: str) -> bytes | None:
    async with reached(desired, host) as transport:
        try:
            return await transport.read(path, LIMIT)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise translated(host, error) from None


async def _write(desired: Desired, host: str, path: str, before: bytes | None, after: bytes) -> None:
    async with reached(desired, host) as transport:
        try:
            try:
                present: bytes | None = await transport.read(path, LIMIT)
            except FileNotFoundError:
                present = None
            if present != before:
                raise GuardError(f"{host}:{path} was changed by somebody else meanwhile", code="changed",
                                 remedy="merge the two, then copy it: reconciler cp")  # fmt: skip
            await transport.write(path, after, await mode_of(transport, path))
        except OSError as error:
            raise translated(host, error) from None
