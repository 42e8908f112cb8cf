"""A service of the user's own that keeps `reconciler run` running: a systemd user unit, or a launchd agent on macOS.

Agents on the host `local` are children of the controller's children: nothing that a service manager can take away from
the controller (files, privileges, its control group) may be taken from them. So the unit hides and forbids nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import typer

from reconciler.errors import GuardError, UsageError

_STAMP = re.compile(r"reconciler-stamp: ([0-9a-f]{64})")
_UNIT = """\
[Unit]
Description=reconciler, fleet {fleet}

[Service]
Type=exec
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={directory}
Environment={path}
# Keys in an ssh-agent are found by its socket, which a user manager does not know by itself. One of these:
#Environment=SSH_AUTH_SOCK=%t/ssh-agent.socket
#Environment=SSH_AUTH_SOCK=%t/gcr/ssh
Restart=on-failure
RestartSec=5
# A command line that is wrong stays wrong.
RestartPreventExitStatus=64
# Stopping the controller never touches an agent: agents on this machine are in this control group.
KillMode=process
# What is being carried out is finished first.
TimeoutStopSec=15min
# An agent that takes all memory is no reason to end the others.
OOMPolicy=continue
TasksMax=infinity

[Install]
WantedBy=default.target
"""


def install(
    arguments: list[str], fleet: str, *, force: bool = False, platform: str = sys.platform, home: Path | None = None
) -> Path:
    """Write the service that runs `reconciler ARGUMENTS` from this directory, and print how to start it.

    Raises GuardError where a person has changed the file that is there (unless `force`), UsageError where a path or an
    argument cannot stand in such a file.
    """
    path = place(fleet, platform, home or Path.home())
    argv = [sys.executable, "-m", "reconciler", *arguments]
    text = (plist if platform == "darwin" else unit)(argv, fleet, os.getcwd(), os.environ.get("PATH", os.defpath))
    if not force and path.exists() and _changed(path.read_text(encoding="utf-8", errors="replace")):
        raise GuardError(
            f"{path} was changed by hand: it was left as it is", code="changed", remedy="--force writes it anew"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(_stamped(text), encoding="utf-8")
    fresh.replace(path)
    typer.echo(f"Wrote {path}. To start it now and at every boot:")
    for command in commands(path, platform):
        typer.echo(f"  {command}")
    return path


def place(fleet: str, platform: str, home: Path) -> Path:
    """Where the service of a fleet is written."""
    if platform == "darwin":
        return home / "Library" / "LaunchAgents" / f"{label(fleet)}.plist"
    config = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    return Path(config) / "systemd" / "user" / f"reconciler-{fleet}.service"


def label(fleet: str) -> str:
    """The name of the service on macOS."""
    return f"dev.reconciler.{fleet}"


def commands(path: Path, platform: str) -> tuple[str, str]:
    """The two commands that start it, for a person to run."""
    if platform == "darwin":
        from shlex import quote

        domain = f"gui/{os.getuid()}"
        return f"launchctl bootstrap {domain} {quote(str(path))}", f"launchctl kickstart {domain}/{path.stem}"
    return f"systemctl --user enable --now {path.name}", "loginctl enable-linger   # so that it outlives the login"


def unit(argv: list[str], fleet: str, directory: str, search: str) -> str:
    """The text of the systemd unit. Raises UsageError."""
    for text in (*argv, directory, search):
        _check(text)
    if not directory.isprintable() or directory != directory.strip() or directory.endswith("\\"):
        raise UsageError(f"systemd takes no working directory such as {directory!r}")
    first, *rest = argv
    # Only arguments know `$`; the program's own path does not.
    command = " ".join([quoted(first), *(quoted(word.replace("$", "$$")) for word in rest)])
    return _UNIT.format(
        fleet=fleet, command=command, directory=directory.replace("%", "%%"), path=quoted(f"PATH={search}")
    )


def quoted(word: str) -> str:
    """One word as systemd reads it back: in double quotes, C escapes, `%` doubled."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "%": "%%"}
    found = (escapes.get(c) or (c if c >= " " and c != "\x7f" else f"\\x{ord(c):02x}") for c in word)
    return f'"{"".join(found)}"'


def plist(argv: list[str], fleet: str, directory: str, search: str) -> str:
    """The text of the launchd agent. Raises UsageError."""
    import plistlib

    for text in (*argv, directory, search):
        _check(text)
    logs = os.path.expanduser(f"~/Library/Logs/reconciler-{fleet}.log")
    document: dict[str, Any] = {
        "Label": label(fleet),
        "ProgramArguments": argv,
        "WorkingDirectory": directory,
        "EnvironmentVariables": {"PATH": search},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "AbandonProcessGroup": True,  # stopping the controller never touches an agent
        "ExitTimeOut": 900,
        "StandardOutPath": logs,
        "StandardErrorPath": logs,
    }
    try:
        return plistlib.dumps(document).decode("utf-8")
    except ValueError:  # control characters, which XML does not have
        raise UsageError("a path or an argument holds a control character: launchd cannot be told of it") from None


def _check(text: str) -> None:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise UsageError(f"{text!r} cannot stand in a file of a service manager: it is no UTF-8 text")


def _stamped(text: str) -> str:
    """With a comment that holds the digest of all the rest, so that a change by hand is seen later."""
    stamp = f"reconciler-stamp: {hashlib.sha256(text.encode()).hexdigest()}"
    if text.startswith("<?xml"):
        head, _, rest = text.partition("\n")
        return f"{head}\n<!-- {stamp} -->\n{rest}"
    return f"# {stamp}\n{text}"


def _changed(text: str) -> bool:
    """Whether a file is not as we wrote it; one without our stamp is somebody else's."""
    match = _STAMP.search(text)
    if match is None:
        return True
    lines = text.split("\n")
    rest = "\n".join(line for line in lines if match[0] not in line)
    return hashlib.sha256(rest.encode()).hexdigest() != match[1]
