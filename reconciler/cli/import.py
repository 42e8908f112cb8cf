"""`reconciler import`: hosts that an SSH config knows become tables of the specs, below what is there."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.common import Specs
from reconciler.errors import UsageError


def command(
    what: Annotated[str, typer.Argument(metavar="ssh-config", help="Where hosts come from: an SSH config.")],
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Only these, such as 'gpu-*'.")] = "*",
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="The SSH config.")] = "~/.ssh/config",
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Where to put them. [hosts.toml of the specs]")
    ] = None,
    directory: Specs = "specs",
) -> None:
    """Append hosts of the SSH config to the specs. Patterns (`Host *`) and hosts that only serve git are left out.

    What a file holds already stays as it is, comments too. Hosts that the specs have already are not added again.
    """
    from reconciler.core.ssh_aliases import tables
    from reconciler.ssh_configs import known_hosts_of

    if what != "ssh-config":
        raise UsageError(f"import {what}: only `ssh-config` can be imported")
    path = Path(config).expanduser()
    try:
        known = known_hosts_of(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    wanted = [alias for alias in known if fnmatchcase(alias.name, pattern) and not alias.only_git]
    target = Path(file) if file is not None else Path(directory) / "hosts.toml"
    texts = tables(wanted, _declared(directory))
    if not texts:
        typer.echo(f"{path} names no host like {pattern} that the specs lack; nothing was written")
        return
    _append(target, texts)
    typer.echo(f"Added to {target}: {', '.join(texts)}. Try them: reconciler doctor {' '.join(texts)}")


def _declared(directory: str) -> dict[str, str]:
    """Hosts of the specs with their addresses; none where there are no specs yet."""
    from reconciler.cli.common import load

    if not os.path.isdir(directory) or not any(Path(directory).rglob("*.toml")):
        return {}
    return {name: host.address or name for name, host in load(directory).hosts.items()}


def _append(target: Path, texts: dict[str, str]) -> None:
    """Whole, or not at all: beside, then renamed."""
    before = target.read_text(encoding="utf-8") if target.exists() else ""
    between = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    beside.write_text(before + between + "\n".join(texts.values()), encoding="utf-8")
    if target.exists():
        beside.chmod(target.stat().st_mode)
    beside.replace(target)
