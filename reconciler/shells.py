"""A shell on a host that is kept for the next who needs one: to open a channel costs two round trips, and a program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from reconciler.errors import HostError
from reconciler.transports import Channel, Transport

KEPT = 60.0  # seconds that a shell is kept for nobody


@dataclass
class Lent:
    """A shell for one exchange. Whoever has had the whole answer sets `whole`; otherwise it ends with the exchange."""

    channel: Channel
    new: bool
    whole: bool = False


class KeptShell:
    """One idle `sh` of one connection. Whoever finds it in use gets another one, of which one is kept."""

    def __init__(self) -> None:
        self._idle: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._narrow = False  # the host has no room for what is only kept
        self._connection = 0  # counts connections: what an earlier one opened is not kept

    @contextlib.asynccontextmanager
    async def lent(self, transport: Transport, *, anew: bool = False) -> AsyncIterator[Lent]:
        """A shell, kept or (with `anew` in any case) new. Raises HostError."""
        connection, channel = self._connection, None if anew else self._take()
        lent = Lent(channel or await transport.open(("sh",)), channel is None)
        try:
            yield lent
        finally:
            if lent.whole and not self._narrow and self._idle is None and connection == self._connection:
                self._keep(lent.channel)
            else:
                await _end(lent.channel)

    def _take(self) -> Channel | None:
        channel, self._idle = self._idle, None
        if self._timer is not None:
            self._timer.cancel()
        return channel

    def _keep(self, channel: Channel) -> None:
        self._idle = channel
        self._timer = asyncio.get_running_loop().call_later(KEPT, self._expire)

    def _expire(self) -> None:
        channel = self._take()
        if channel is not None:
            task = asyncio.ensure_future(_end(channel))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def give_way(self) -> bool:
        """End it where nobody uses it, and keep none until there is another connection. Whether one ended."""
        self._narrow, channel = True, self._take()
        if channel is not None:
            await _end(channel)
        return channel is not None

    async def drop(self) -> None:
        """Its connection is gone, or about to be closed; safe to call twice."""
        self._narrow, self._connection = False, self._connection + 1
        channel = self._take()
        await asyncio.gather(*self._ending, *((_end(channel),) if channel is not None else ()))


async def _end(channel: Channel) -> None:
    with contextlib.suppress(HostError, OSError):
        await channel.close()
