"""The running controller's side of the local socket: answers at once from what it knows, and takes requests."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from reconciler import __version__
from reconciler.asking import socket_path
from reconciler.core import jsons
from reconciler.core.plan import Plan
from reconciler.core.printed import plan_json, render
from reconciler.core.report import plan_exit_code
from reconciler.core.status import Status
from reconciler.errors import LeaseHeldError, ReconcilerError, UsageError
from reconciler.loop import LEASE_TTL, Loop
from reconciler.redaction import redact, redact_json

_REQUEST_LIMIT = 1024 * 1024
_SETTLED = 3600.0  # seconds that --wait waits at the most, unless told otherwise

Write = Callable[[Mapping[str, Any]], Awaitable[None]]


class Lock:
    """One controller a fleet on a machine: held as long as the process lives, and no longer."""

    def __init__(self, fleet: str) -> None:
        """Raises LeaseHeldError where another one has it."""
        path = socket_path(fleet)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.parent.stat().st_uid != os.getuid():
            raise ReconcilerError(f"{path.parent} belongs to somebody else", code="socket-path")
        self.path = path
        self._file: IO[str] = path.with_suffix(".lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            pid = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise LeaseHeldError(
                f"reconciler run (pid {pid}) keeps the fleet {fleet} on this machine already",
                code="lease-held",
                remedy=f"reconciler status, or end it: kill {pid}",
            ) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """The next may come."""
        self.path.unlink(missing_ok=True)
        self._file.close()


class Control:
    """Serves the socket of one loop."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self._loop = loop
        self._path = path
        self._since = time.time()
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. What a killed controller left there is taken away: the lock says that nobody uses it."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._client, self._path, limit=_REQUEST_LIMIT)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Close it, and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)

        async def write(answer: Mapping[str, Any]) -> None:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

        borrowed: list[str] = []
        try:
            while line := await reader.readline():
                await self._answer(line, write, borrowed)
        except (OSError, ValueError):  # it has gone, or sends what is no line
            pass
        finally:
            self._clients.discard(task)
            if borrowed:
                self._loop.give_back(borrowed)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes, write: Write, borrowed: list[str]) -> None:
        try:
            request = _request(line)
            what = str(request.get("ask"))
            if what == "borrow":
                await self._borrow(request, write, borrowed)
            elif what == "reconcile":
                await self._reconcile(request, write)
            else:
                await write(self._at_once(what, request))
        except ReconcilerError as error:
            await write({"error": error.code, "message": redact(error.message), "remedy": redact(error.remedy)})

    def _at_once(self, what: str, request: Mapping[str, Any]) -> dict[str, Any]:
        loop = self._loop
        if what == "hello":
            return {"pid": os.getpid(), "version": __version__, "since": self._since, "revision": loop.revision}
        if what == "status":
            return {"revision": loop.revision, "statuses": _statuses(loop.statuses_now()), "looked": loop.looked()}
        if what == "plan":
            plan = loop.last.plan if loop.last is not None else None
            if plan is None or request.get("revision") != plan.revision:
                return {"plan": None}
            words = {"plan": redact_json(plan_json(plan)), "text": redact(render(plan))}
            return {**words, "looked": loop.looked(), **_codes(plan)}
        if what == "accept":
            loop.accept(str(request.get("revision")))
            return {}
        if what == "refresh":
            loop.reload()
            return {}
        raise UsageError(f"nobody knows what {what!r} asks for", remedy="is the running controller an older one?")

    async def _borrow(self, request: Mapping[str, Any], write: Write, borrowed: list[str]) -> None:
        hosts = _words(request, "hosts")
        await write({"progress": f"borrows {', '.join(hosts)} from reconciler run (pid {os.getpid()})"})
        lent = await self._loop.borrow(str(request.get("who", "a command")), hosts)
        borrowed += hosts
        holder = next((found.holder for found in lent.values()), "")
        fences = {name: found.fence for name, found in lent.items()}
        ttl = max((found.ttl for found in lent.values()), default=LEASE_TTL)
        await write({"holder": holder, "fences": fences, "ttl": ttl})

    async def _reconcile(self, request: Mapping[str, Any], write: Write) -> None:
        addresses = _words(request, "addresses")
        known = {status.address for status in self._loop.statuses}
        for address in addresses:
            if address not in known:
                raise UsageError(f"{address} is neither in the specs nor on a host", remedy="reconciler status")
        self._loop.reload()
        await self._loop.ask(addresses, restart=bool(request.get("restart")))
        end = time.monotonic() + _wait(request)
        words = self._waits_for(addresses)
        said = ""
        while words and time.monotonic() < end:
            if words != said:
                await write({"progress": redact(words)})
                said = words
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    await self._loop.thought()
                    await asyncio.sleep(0.2)
            words = self._waits_for(addresses)
        chosen = [s for s in self._loop.statuses if not addresses or s.address in addresses]
        await write({"settled": not words, "statuses": _statuses(chosen)})

    def _waits_for(self, addresses: list[str]) -> str:
        """What is not done yet and will be by itself; empty when all is as it stays."""
        for address in sorted(self._loop.under_way()):
            if not addresses or address in addresses:
                return f"{address}: it is under way"
        for status in self._loop.statuses:
            if addresses and status.address not in addresses:
                continue
            for condition in status.conditions:
                if condition.type in ("Reconciling", "Drifted") and condition.status == "True":
                    return f"{status.address}: {condition.message or condition.reason}"
        return ""


def _request(line: bytes) -> dict[str, Any]:
    """Raises UsageError for what is no request."""
    try:
        request = jsons.loads(line)
    except ValueError as error:
        raise UsageError(f"a request is a JSON object: {error}") from None
    if not isinstance(request, dict):
        raise UsageError("a request is a JSON object")
    return request


def _words(request: Mapping[str, Any], key: str) -> list[str]:
    found = request.get(key, [])
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise UsageError(f"`{key}` of a request is a list of texts")
    return found


def _wait(request: Mapping[str, Any]) -> float:
    """The seconds that a request waits."""
    found = request.get("wait") or 0
    if not isinstance(found, int | float) or not found >= 0:  # nor what is no number at all
        raise UsageError("`wait` of a request is a number of seconds")
    return float(min(found, _SETTLED))


def _statuses(found: Iterable[Status]) -> list[dict[str, Any]]:
    """Who asks does not know which words are secret."""
    return [redact_json(asdict(status)) for status in found]


def _codes(plan: Plan) -> dict[str, int]:
    return {"code": plan_exit_code(plan, detailed=False), "detailed": plan_exit_code(plan, detailed=True)}
