"""When `run` thinks: at once after a quiet time, and a fifth of the time at most where things change all the time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.transcript import Archived

SHARE = 0.2  # of the time, in the long run
AT_ONCE = 1.0  # seconds of thinking that a quiet time saves up
BETWEEN = 0.05  # seconds between two thoughts at the least
TOGETHER = 0.05  # seconds of quiet after which what happens together has happened


@dataclass(frozen=True)
class Rest:
    """What was known beside the hosts when a thought came to nothing that is to be done: in the journal and archive."""

    at: float
    stamp: int
    heads: Mapping[str, Archived]

    def holds(self, now: Rest, seconds: float) -> bool:
        """Whether a thought of now would come to the same, which is believed for so long."""
        return now.at - self.at < seconds and now.stamp == self.stamp and now.heads == self.heads


class Pace:
    """A leaky bucket of seconds of thinking."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0
        self._took = 0.0

    def spent(self, seconds: float, now: float) -> float:
        """A thought took so long; the seconds until the next may begin."""
        self._took = seconds
        self._level = max(0.0, self._level - SHARE * (now - self._at)) + seconds
        self._at = now
        return max(BETWEEN, (self._level - AT_ONCE) / SHARE)

    async def together(self, news: asyncio.Event) -> None:
        """Return when nothing is heard for a moment: what happens together is thought about together. Neither waits
        longer than a thought takes, so that what is thought about quickly waits for nothing."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._took
        with contextlib.suppress(TimeoutError):
            while (left := end - loop.time()) > 0:
                news.clear()
                async with asyncio.timeout(min(left, TOGETHER, self._took / 4)):
                    await news.wait()
