"""Headless turns on one host: begun once, watched together by one waiting call, put away once they are written down."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from reconciler.chat.outcomes import Ended
from reconciler.core.observed import clean
from reconciler.errors import HostError, OperationError
from reconciler.hosts import Connection
from reconciler.runtimes.turns import Caller, Job, begin_turn, end_turn, look_at_turns, put_away

WAIT = 20  # seconds that a host waits for a turn to end before it answers
AT_ONCE = 4  # turns that are begun at once on a host: its sshd has ten channels for us at most
OUTPUT_LIMIT = 8_000_000  # bytes of one answer that are read; of a longer one its beginning and its end
_ID = re.compile(r"[0-9a-f]{8}\.[0-9]{6,}\.[a-z0-9_-]{1,63}\.[0-9]{1,4}")


Over = Callable[[Ended], Awaitable[None]]


class HostJobs:
    """The turns of one chat on one host. `over` is told of each that has ended, and has written it down on return."""

    def __init__(self, connection: Connection, caller: Caller, over: Over) -> None:
        self._connection = connection
        self._caller = caller
        self._over = over
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._answering = asyncio.Lock()
        self.host = connection.host
        self.state_dir = ""

    async def _ask(self, script: Callable[[Caller, str], str]) -> dict[str, Any]:
        nonce = secrets.token_hex(8)
        return await self._connection.operate(script(self._caller, nonce), nonce, alone=True)

    async def begin(self, job: Job) -> None:
        """Begin a turn unless it was begun. Raises HostError (it may have been), or OperationError (it was not)."""
        async with self._at_once:
            await self._ask(lambda caller, nonce: begin_turn(caller, nonce, job))

    async def end(self, owner: str, turn: str) -> None:
        """End a turn; one that has not come up does not any more."""
        await self._ask(lambda caller, nonce: end_turn(caller, nonce, owner, turn))

    async def look(self, seconds: int = 0) -> int:
        """Renew the lease; hand over what has ended, waiting so many seconds for something to. How many still run.

        Raises HostError, and OperationError(lease-held) where somebody else runs the chat.
        """
        answer = await self._ask(lambda caller, nonce: look_at_turns(caller, nonce, seconds))
        turns = [turn for turn in answer.get("turns", ()) if isinstance(turn, dict)]
        self.state_dir = self.state_dir or _path(answer.get("state"))
        async with self._answering:  # another call may have answered the same
            over = [turn for turn in turns if turn.get("state") in ("ended", "lost")]
            for turn in over:
                await self._over(await self._ended(turn))
            if over:
                named = [(_name(turn, "owner"), _name(turn, "id")) for turn in over]
                await self._ask(lambda caller, nonce: put_away(caller, nonce, named))
        return len(turns) - len(over)

    async def _ended(self, turn: Mapping[str, Any]) -> Ended:
        found = turn.get("exit")
        exit_line: Mapping[str, Any] = found if isinstance(found, dict) else {}
        owner, identity = _name(turn, "owner"), _name(turn, "id")
        size = turn.get("size")
        out, err = _text(turn.get("out")), _text(turn.get("err"))
        if isinstance(size, int) and size > 0 and not out:
            out, err = await self._output(owner, identity, size)
        code = exit_line.get("code")
        return Ended(
            turn=identity,
            owner=owner,
            exit=code if isinstance(code, int) and not isinstance(code, bool) else None,
            error=clean(exit_line.get("error", ""), 40),
            detail=clean(exit_line.get("detail", ""), 400),
            begun=turn.get("begun") is True,
            out=out,
            err=err,
        )

    async def _output(self, owner: str, turn: str, size: int) -> tuple[str, str]:
        """What a turn printed, fetched for itself."""
        place = f"{self.state_dir}/sessions/{owner}/turns/{turn}"
        transport = await self._connection.transport()
        half = OUTPUT_LIMIT // 2
        words = ("head", "-c", str(OUTPUT_LIMIT), f"{place}/out")
        out = (await transport.run(words, limit=OUTPUT_LIMIT + 1000, timeout=120)).out
        if size > OUTPUT_LIMIT:
            words = ("tail", "-c", str(half), f"{place}/out")
            out = out[:half] + b"\n[...]\n" + (await transport.run(words, limit=half + 1000, timeout=120)).out
        err = (await transport.run(("tail", "-c", "2000", f"{place}/err"))).out
        return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def _name(turn: Mapping[str, Any], key: str) -> str:
    """A name in the answer of a host, which becomes part of a path there: nothing else than ours may stand in it."""
    found = turn.get(key)
    fits = isinstance(found, str) and (_ID if key == "id" else re.compile(r"[a-z0-9_-]{1,63}")).fullmatch(found)
    if not fits:
        raise OperationError(f"a host sent {clean(found, 80)!r} for the {key} of a turn", code="look-failed")
    return str(found)


def _path(found: object) -> str:
    return found if isinstance(found, str) and found.startswith("/") and found.isprintable() else ""


def _text(found: object) -> str:
    if not isinstance(found, str):
        return ""
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(found, validate=True).decode("utf-8", "replace")
    return ""


__all__ = ["WAIT", "Caller", "Ended", "HostError", "HostJobs", "Job"]
