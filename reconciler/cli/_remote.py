"""`HOST:PATH`, for the commands that read and write files of hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.cli.common import declared_host
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.errors import OperationError, UsageError
from reconciler.hosts import Hosts
from reconciler.transports import Transport

LIMIT = 256_000_000  # bytes of one file: it is held in memory
# $1 with a leading `~` as the far home, for programs that do not know it.
EXPAND = 'case $1 in "~") p=$HOME ;; "~/"*) p=$HOME/${1#"~/"} ;; /*) p=$1 ;; *) p=./$1 ;; esac; '


def place(desired: Desired, text: str) -> tuple[str, str] | None:
    """The host and the path of `HOST:PATH`; None for a path of this machine (no colon, or a slash before it)."""
    host, colon, path = text.partition(":")
    if not colon or "/" in host:
        return None
    return declared_host(desired, host), path or "~"


def remote(desired: Desired, text: str) -> tuple[str, str]:
    """The same, where a path of this machine makes no sense. Raises UsageError."""
    found = place(desired, text)
    if found is None:
        raise UsageError(f"{text}: expected HOST:PATH")
    return found


@asynccontextmanager
async def reached(desired: Desired, host: str) -> AsyncIterator[Transport]:
    """The open way to a host."""
    async with Hosts() as hosts:
        yield await hosts.connection(host, desired.hosts[host]).transport()


async def mode_of(transport: Transport, path: str) -> int:
    """The permissions of a file; those of a new one where it cannot be told."""
    script = f'{EXPAND}stat -c %a "$p" 2>/dev/null || stat -f %Lp "$p"'
    said = (await transport.run(("sh", "-c", script, "mode", path))).out.strip()
    return int(said, 8) & 0o777 if said.isdigit() and len(said) <= 4 and not set(said) & set(b"89") else 0o644


def translated(host: str, error: OSError) -> OperationError:
    """What a file of a host refuses, in words."""
    return OperationError(f"{host}:{error.filename or ''}: {error.strerror}", code="file", retry=False)


def shown(data: bytes) -> bytes:
    """As it may go to a terminal: what a file holds gives it no orders."""
    return "".join(c if c in "\n\t" else escaped(c) for c in data.decode("utf-8", "replace")).encode()
