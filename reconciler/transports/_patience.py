"""Hosts that take no more at once: connections (MaxStartups) and programs on one connection (MaxSessions)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reconciler.errors import HostError
from reconciler.transports._failures import Attempt

__all__ = ["Room", "admitted"]

_SILENT_TRIES = 4  # of a host that hangs up without a word: busy, or no SSH server at all
_ALONE_TRIES = 3  # where nothing of ours runs that could end
_REAPING = 5.0  # seconds that a busy host may need to see that a program of ours has ended
_FIRST, _LONGEST = 0.1, 2.0  # seconds between two tries
T = TypeVar("T")


def _pause(tries: int) -> float:
    """Longer each time, and not the same for all who were turned away together."""
    return min(_LONGEST, _FIRST * 3.0**tries) * random.uniform(0.5, 1.5)


async def admitted(at: Attempt, connect: Callable[[], Awaitable[T]]) -> T:
    """`connect`, tried again while the host is too busy to let anybody in.

    Raises its HostError. The caller bounds the time; `failures.timed_out` then tells of the busy host.
    """
    tries = 0
    while True:
        at.connected, at.heard, at.greeted, at.said = False, False, False, ""
        try:
            found = await connect()
        except HostError as error:
            silent = at.connected and not at.greeted and not at.said
            if error.code == "too-many-connections" or (silent and at.busy is None):
                at.busy = error
            if not silent and error.code != "too-many-connections":
                raise
            if at.busy is not None and at.busy.code != "too-many-connections" and tries + 1 >= _SILENT_TRIES:
                raise at.busy from None
        else:
            at.busy = None
            return found
        await asyncio.sleep(_pause(tries))
        tries += 1


class Room:
    """The programs on one connection. Whoever finds it full waits in line until one of ours ends.

    `give_way` is asked to end what runs only to be quick another time; it says whether there was something.
    """

    def __init__(self) -> None:
        self.give_way: Callable[[], Awaitable[bool]] | None = None
        self.open = 0
        self._starting = 0
        self._ended: asyncio.Event | None = None  # of whoever waits; few ever do
        self._last_end = -math.inf
        self._line = asyncio.Lock()  # first come, first served

    def entered(self, done: asyncio.Future[None]) -> None:
        """A program runs until `done`."""
        self.open += 1
        done.add_done_callback(self._left)

    def _left(self, _: object) -> None:
        self.open -= 1
        self._last_end = time.monotonic()
        if self._ended is not None:
            self._ended.set()

    async def enter(self, start: Callable[[], Awaitable[T]], patience: float) -> T:
        """`start`, again while it raises HostError(too-many-sessions), until nothing of ours has ended for `patience`.

        Raises its HostError. The caller bounds the whole.
        """
        begun = time.monotonic()
        if not self._line.locked():
            try:
                return await self._try(start)
            except HostError as error:
                if error.code != "too-many-sessions":
                    raise
        async with self._line:
            return await self._at_the_head(start, begun, patience)

    async def _try(self, start: Callable[[], Awaitable[T]]) -> T:
        self._starting += 1
        try:
            return await start()
        finally:
            self._starting -= 1

    async def _at_the_head(self, start: Callable[[], Awaitable[T]], begun: float, patience: float) -> T:
        tries = alone = 0
        while True:
            ended = self._ended = asyncio.Event()
            try:
                return await self._try(start)
            except HostError as error:
                if error.code != "too-many-sessions":
                    raise
                now, pause = time.monotonic(), _pause(tries)
                hopeless = not self.open and not self._starting and now > self._last_end + _REAPING
                alone = alone + 1 if hopeless else 0
                if alone > _ALONE_TRIES or now + pause > max(begun, self._last_end) + patience:
                    raise
            if self.give_way is not None and await self.give_way():
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await ended.wait()
            tries = 0 if ended.is_set() else tries + 1
