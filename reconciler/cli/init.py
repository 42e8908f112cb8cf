"""`reconciler init`: writes one commented starter spec, and never overwrites anything."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated

import typer

FILE = "fleet.toml"
STARTER = """\
# What should run, and where. Check it with `reconciler validate`, see what would happen with
# `reconciler plan`, make it so with `reconciler apply`.

[fleet]
# Marks this fleet's sessions on hosts: two fleets never touch each other's.
name = "default"

# What every session has in common.
[defaults.session]
agent = "claude-code"

# Machines to run sessions on. This machine is the host `local`; it needs no table.
#
# [hosts.gpu]
# address = "gpu-server"            # a host name, or an alias of ~/.ssh/config
# workdir = "~/code"

# One agent session. Without `host` it runs on this machine.
[sessions.hello]
workdir = "~"
prompt = "Say hello, then wait for what I ask you."

# [sessions.tests]
# host = "gpu"
# agent = "codex"
# workdir = "~/code/app"
# prompt_file = "prompts/tests.md"  # relative to this file
# depends_on = ["hello"]
"""


def command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where to put the specs.")] = "specs",
    discover: Annotated[
        bool, typer.Option("--discover", help="Ask the hosts of the SSH config what they have; 5 s each, no question.")
    ] = False,
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="The SSH config.")] = "~/.ssh/config",
) -> None:
    """Write a starter spec, with comments, into a directory."""
    path = os.path.join(directory, FILE)
    text = STARTER
    try:
        _refuse_existing(directory)
        if discover:
            text = _discovered(config)
        os.makedirs(directory, exist_ok=True)
        # "x": made by us or not at all, whatever else happens at the same time.
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        what = error.filename
        typer.echo(f"error: {what} exists; nothing was written\nhelp: edit it, or name another directory", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"error: {path} cannot be written: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Wrote {path}. Edit it, then run `reconciler plan{'' if directory == 'specs' else ' ' + directory}`.")


def _discovered(config: str) -> str:
    from reconciler.cli.common import run
    from reconciler.core.discovered import Found, spec_text
    from reconciler.core.printed import escaped
    from reconciler.discovering import discover
    from reconciler.errors import UsageError
    from reconciler.ssh_configs import known_hosts_of

    def told(found: Found) -> None:
        words = found.error or (f"has {', '.join(found.agents)}" if found.agents else "has no agent on its PATH")
        typer.echo(f"  {escaped(found.alias.name)}: {escaped(words)}", err=True)

    path = os.path.expanduser(config)
    try:
        hosts = [alias for alias in known_hosts_of(Path(path)) if not alias.only_git]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", remedy="--config FILE, or init without --discover") from None
    typer.echo(f"{path} names {len(hosts)} hosts; asking them:", err=True)
    return spec_text(run(discover(hosts, path, told)), "default")


def _refuse_existing(directory: str) -> None:
    """A second starter beside other specs would contradict them."""
    if os.path.isdir(directory):
        for name in sorted(os.listdir(directory)):
            if name.endswith(".toml"):
                raise FileExistsError(errno.EEXIST, "exists", os.path.join(directory, name))
