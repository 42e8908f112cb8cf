"""How to reach a machine: one narrow protocol, one file per way (`ssh`, `local`).

A transport runs a command, reads and writes a file, and opens a channel; it knows nothing of agents,
sessions or plans. Every foreign error leaves it as a `HostError` with a code and a remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reconciler.transports._patience import Room

__all__ = ["Channel", "Completed", "Limited", "Room", "Spare", "Transport"]


@dataclass(frozen=True)
class Completed:
    """What one command came to: exit status (128+N when a signal ended it), stdout and stderr as bytes."""

    exit: int
    out: bytes
    err: bytes


class Channel(Protocol):
    """A running remote process: bytes in, bytes out."""

    async def write(self, data: bytes) -> None:
        """Send to its stdin. Raises HostError(dropped) when the far end is gone."""

    async def read(self, limit: int = 65536) -> bytes:
        """The next bytes of its stdout, at least one; b"" at the end. Raises HostError(dropped)."""

    async def close(self) -> None:
        """End the channel; safe to call twice."""


class Transport(Protocol):
    """One connection to one machine."""

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """Run a program to its end. More than `limit` bytes of output, or `timeout` seconds, is a HostError."""

    async def open(self, argv: Sequence[str]) -> Channel:
        """Start a program and keep its stdin and stdout open (no terminal)."""

    async def terminal(self, argv: Sequence[str]) -> int:
        """Run a program on the user's own terminal (raw mode, resize, signals); its exit status."""

    async def read(self, path: str, limit: int = 16_000_000) -> bytes:
        """A whole file (`~/` is the far home). FileNotFoundError, PermissionError as for `open`."""

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Replace a file by way of a temporary name beside it and a rename."""

    async def close(self) -> None:
        """Close the connection; safe to call twice."""


@runtime_checkable
class Limited(Protocol):
    """A transport to a host that may limit how many programs run at once on one connection."""

    room: Room

    async def sessions_at_once(self, most: int) -> int:
        """How many run at once, those that run now among them; looks no further than `most`. Raises HostError."""


@runtime_checkable
class Spare(Protocol):
    """A transport that can tell at once whether the host has room for one more program."""

    async def spare(self, argv: Sequence[str]) -> Channel | None:
        """As `open`; None where the host opens no more: nothing is waited for or asked to end. Raises HostError."""
