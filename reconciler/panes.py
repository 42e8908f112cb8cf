"""A `tmux -C` client on one host: tells what its panes are, and when to look again. It may die, lag or lie.

It lives in a hidden session of the fleet's own server, `_ctl`, which goes with it: an attached client of a session that
somebody works in would count there, and options such as `destroy-unattached` would end that session with the client.
What it says is text of the host: bounded, and never more than a reason to look, or what a look would have shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable

from reconciler.errors import HostError
from reconciler.runtimes.operations import pane_question
from reconciler.transports import Channel

LOG = logging.getLogger(__name__)
LINE = 16_384  # bytes of one line; titles are shorter
NEWS = 256_000  # bytes of news in a second: more than thousands of events
ANSWER = 1_000_000  # bytes of one answer: more than 500 sessions have to say
_MARK = re.compile(rb"%(begin|end|error) ([0-9]{1,12} [0-9]{1,12}) ([0-9])")
_QUESTION = pane_question().encode()
_NEWS = (b"%sessions-changed", b"%window-", b"%unlinked-window-", b"%session-")


class Panes:
    """One open client. `noticed` is called when something may have changed; it returns at once."""

    def __init__(self, name: str, channel: Channel, noticed: Callable[[], None]) -> None:
        self.name = name
        self.alive = True
        self._channel = channel
        # Whoever asks here asks the shell next: both may leave together.
        self._write: Callable[[bytes], Awaitable[None]] = getattr(channel, "write_soon", channel.write)
        self._noticed = noticed
        self._asked: deque[asyncio.Future[bytes | None]] = deque()
        self._task = asyncio.create_task(self._listen())

    async def ask(self) -> asyncio.Future[bytes | None]:
        """Ask for all panes; the future becomes the answer, or None when there will be none."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        if not self.alive:
            future.set_result(None)
            return future
        self._asked.append(future)
        try:
            await self._write(_QUESTION)
        except (HostError, OSError):
            self._end()
        return future

    async def close(self) -> None:
        """End the client, and its session with it; safe to call twice."""
        self._end()
        if self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(HostError, OSError):
            await self._channel.close()

    def _end(self) -> None:
        self.alive = False
        while self._asked:
            if not (future := self._asked.popleft()).done():
                future.set_result(None)

    async def _listen(self) -> None:
        try:
            await self._lines()
        except (HostError, OSError) as error:
            LOG.info("%s: the control client of tmux ended: %s", self.name, error)
        finally:
            self._end()

    async def _lines(self) -> None:
        """Until it ends, or says what no tmux says."""
        pending = b""
        block: _Block | None = None
        loop = asyncio.get_running_loop()
        second, said = 0.0, 0
        while data := await self._channel.read():
            if loop.time() - second > 1.0:
                second, said = loop.time(), 0
            *lines, pending = (pending + data).split(b"\n")
            news = False
            for line in lines:
                mark = _MARK.fullmatch(line)
                if block is not None:
                    if mark is None or mark[1] == b"begin" or mark[2] != block.number:
                        block.add(line)
                    else:
                        self._answered(block, mark[1] == b"end")
                        block = None
                elif mark is not None and mark[1] == b"begin":
                    block = _Block(mark[2], ours=mark[3] == b"1")
                elif line.startswith(b"%exit"):
                    return
                else:
                    said += len(line)
                    news = news or line.startswith(_NEWS)
            if news:
                self._noticed()
            if len(pending) > LINE or said > NEWS or (block is not None and block.size > ANSWER):
                LOG.info("%s: the control client of tmux says what no tmux says", self.name)
                return

    def _answered(self, block: _Block, well: bool) -> None:
        # What was asked on the command line of the client has no flag.
        if block.ours and self._asked and not (future := self._asked.popleft()).done():
            future.set_result(b"\n".join(block.lines) if well else None)


class _Block:
    """The lines between `%begin` and `%end`."""

    def __init__(self, number: bytes, *, ours: bool) -> None:
        self.number, self.ours = number, ours
        self.lines: list[bytes] = []
        self.size = 0

    def add(self, line: bytes) -> None:
        self.size += len(line)
        if self.size <= ANSWER:
            self.lines.append(line)
