"""Ask the `reconciler run` that is at work on this machine: over a local socket that only its user can open.

One JSON object a line, both ways. A request has `ask`; answers have `progress` (more will come), `error`, or the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.core.spec import Desired
from reconciler.errors import LeaseHeldError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.journal import state_directory
from reconciler.leases import Leases
from reconciler.reconcile import leases_of
from reconciler.runtimes.operations import Credentials

LINE_LIMIT = 64 * 1024 * 1024  # bytes of one answer: the status of a very large fleet
_PATIENCE = 5.0  # seconds that a controller may take to say that it is there
_LONGEST = 100  # bytes of a socket's path that every system takes


def socket_path(fleet: str) -> Path:
    """Where the controller of a fleet listens; below the temporary directory where the proper path is too long."""
    proper = state_directory(fleet) / "run.sock"
    if len(os.fsencode(proper)) <= _LONGEST:
        return proper
    short = hashlib.sha256(os.fsencode(proper)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"reconciler-{os.getuid()}" / f"{short}.sock"


class Controller:
    """A connection to the running controller of a fleet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, what: str, told: Callable[[str], None] = lambda _: None, **more: Any) -> dict[str, Any]:
        """Its answer. `told` hears what it says meanwhile. Raises ReconcilerError with its error, or when it ends."""
        self._writer.write(json.dumps({"ask": what, **more}).encode() + b"\n")
        await self._writer.drain()
        while True:
            line = await self._reader.readline()
            if not line:
                raise ReconcilerError("the running controller has ended", code="controller-gone", retry=True)
            answer = json.loads(line)
            if "progress" in answer:
                told(str(answer["progress"]))
                continue
            if "error" in answer:
                raise _error(answer)
            return dict(answer)

    async def close(self) -> None:
        """Close it; what was borrowed is given back by that."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _error(answer: dict[str, Any]) -> ReconcilerError:
    code, message, remedy = (str(answer.get(key, "")) for key in ("error", "message", "remedy"))
    kind = LeaseHeldError if code == "lease-held" else ReconcilerError
    return kind(message, code=code, remedy=remedy)


async def controller_of(fleet: str) -> Controller | None:
    """The controller that runs for this fleet on this machine; None when there is none."""
    path = socket_path(fleet)
    try:
        if path.parent.stat().st_uid != os.getuid():
            return None
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
    except (OSError, TimeoutError):
        return None
    return Controller(reader, writer)


class Borrowed(Leases):
    """Leases that a running controller lends, so that people can act while it keeps the fleet."""

    def __init__(self, desired: Desired, controller: Controller, who: str, told: Callable[[str], None]) -> None:
        super().__init__(desired.fleet.name, "")
        self._own = leases_of(desired)
        self._controller = controller
        self._who = who
        self._told = told

    async def acquire(self, connections: Iterable[Connection], others: Iterable[Connection] = ()) -> None:
        """Borrow them; a host that the controller does not know has its lease taken as ever."""
        aside = list(others)
        found = [connection for connection in (*connections, *aside) if connection.name not in self._held]
        names = [connection.name for connection in found]
        answer = await self._controller.ask("borrow", self._told, hosts=names, who=self._who)
        lent = {str(name): int(fence) for name, fence in dict(answer["fences"]).items()}
        base = replace(self._base, holder=str(answer["holder"]), ttl=int(answer["ttl"]))
        for connection in found:
            if connection.name in lent:
                self._held[connection.name] = (connection, replace(base, fence=lent[connection.name]))
        own = [connection for connection in found if connection.name not in lent]
        await self._own.acquire((c for c in own if c not in aside), (c for c in own if c in aside))
        self.failed = self._own.failed

    def passed(self, seen: Mapping[str, int]) -> frozenset[str]:
        """All: the controller that lends may itself have acted since, and its fence does not tell."""
        return frozenset(seen)

    def credentials(self, host: str) -> Credentials:
        """What an operation on this host carries."""
        return super().credentials(host) if host in self._held else self._own.credentials(host)

    async def release(self) -> None:
        """Give all back."""
        self._held.clear()
        await self._own.release()
        await self._controller.close()


async def open_leases(desired: Desired, who: str, told: Callable[[str], None] = lambda _: None) -> Leases:
    """The leases for one command: borrowed from a controller that runs here for this fleet, else its own."""
    controller = await controller_of(desired.fleet.name)
    if controller is None:
        return leases_of(desired)
    return Borrowed(desired, controller, f"{who} (pid {os.getpid()})", told)
