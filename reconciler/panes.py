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
from collections.abc import Awaitable, Callable

from reconciler.errors import HostError
from reconciler.runtimes.operations import NEWS_OF_END, pane_question
from reconciler.transports import Channel

LOG = logging.getLogger(__name__)
LINE = 16_384  # bytes of one line; titles are shorter
NEWS = 256_000  # bytes of news in a second: more than thousands of events
ANSWER = 1_000_000  # bytes of one answer: more than 500 sessions have to say
_MARK = re.compile(rb"%(begin|end|error) ([0-9]{1,12} [0-9]{1,12}) ([0-9])")
# A hook says so, or our wrapper, or tmux, which names the windows of the dead by itself.
_ENDED = re.compile(
    rb"%window-renamed @[0-9]{1,9} " + NEWS_OF_END.encode() + rb"|%(unlinked-)?window-renamed .*\[dead\]"
)
_QUESTION = pane_question().encode()
_NEWS = (b"%sessions-changed", b"%window-", b"%unlinked-window-", b"%session-")


class Panes:
    """One open client. `noticed` is called when something may have changed; it returns at once."""

    def __init__(self, name: str, channel: Channel, noticed: Callable[[], None]) -> None:
        self.name = name
        self.alive = True
        self.ended = False  # that some agent has ended was told; whoever looks because of it takes this back
        self._channel = channel
        # Whoever asks here asks the shell next: both may leave together.
        self._write: Callable[[bytes], Awaitable[None]] = getattr(channel, "write_soon", channel.write)
        self._noticed = noticed
        self._asked: list[asyncio.Future[bytes | None]] = []  # mostly one
        self._pending = b""
        self._block: _Block | None = None
        self._second, self._said = 0.0, 0
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
            if not (future := self._asked.pop(0)).done():
                future.set_result(None)

    async def _listen(self) -> None:
        try:
            await self._lines()
        except (HostError, OSError) as error:
            LOG.info("%s: the control client of tmux ended: %s", self.name, error)
        finally:
            self._end()

    async def _lines(self) -> None:
        """Until it ends, or says what no tmux says. Between two answers nothing of the last one is kept."""
        while self._take(await self._channel.read()):
            pass

    def _take(self, data: bytes) -> bool:
        """What came next; False when nothing comes after it, or nothing that is worth reading."""
        now = asyncio.get_running_loop().time()
        if now - self._second > 1.0:
            self._second, self._said = now, 0
        text = self._pending + data
        end = text.rfind(b"\n") + 1
        self._pending = text[end:]
        at, news = 0, False
        while at < end:
            if self._block is not None:
                at = self._answer(self._block, text, at, end)
                continue
            line = text[at : text.index(b"\n", at)]
            at += len(line) + 1
            mark = _MARK.fullmatch(line)
            if mark is not None and mark[1] == b"begin":
                self._block = _Block(mark[2], ours=mark[3] == b"1")
            elif line.startswith(b"%exit"):
                return False
            else:
                self._said += len(line)
                news = news or line.startswith(_NEWS)
                self.ended = self.ended or _ENDED.fullmatch(line) is not None
        if news:
            self._noticed()
        size = 0 if self._block is None else self._block.size
        if len(self._pending) > LINE or self._said > NEWS or size > ANSWER:
            LOG.info("%s: the control client of tmux says what no tmux says", self.name)
            return False
        return bool(data)

    def _answer(self, block: _Block, text: bytes, at: int, end: int) -> int:
        """The lines of an answer up to the next one that may be its last, all at once; where the next line begins."""
        if not text.startswith(b"%", at):
            found = text.find(b"\n%", at, end)
            following = end if found < 0 else found + 1
            block.add(text[at : following - 1])
            return following
        line = text[at : text.index(b"\n", at)]
        mark = _MARK.fullmatch(line)
        if mark is None or mark[1] == b"begin" or mark[2] != block.number:
            block.add(line)
        else:
            self._block = None
            # What was asked on the command line of the client has no flag.
            if block.ours and self._asked and not (future := self._asked.pop(0)).done():
                future.set_result(b"\n".join(block.lines) if mark[1] == b"end" else None)
        return at + len(line) + 1


class _Block:
    """The lines between `%begin` and `%end`, several in one."""

    __slots__ = ("lines", "number", "ours", "size")

    def __init__(self, number: bytes, *, ours: bool) -> None:
        self.number, self.ours = number, ours
        self.lines: list[bytes] = []
        self.size = 0

    def add(self, line: bytes) -> None:
        self.size += len(line)
        if self.size <= ANSWER:
            self.lines.append(line)
