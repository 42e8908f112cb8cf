"""What the loop shows to the world outside: notifiers, the status of commits, metrics, health, the webhook."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler.core.report import Event
from reconciler.core.spec import Desired
from reconciler.core.status import Status
from reconciler.core.transitions import Transition
from reconciler.core.verdicts import refused, verdict
from reconciler.journal import Journal
from reconciler.loop import Loop
from reconciler.serving import Answers, Server, address_of, is_loopback
from reconciler.sources.following import Following
from reconciler.telling import Teller

if TYPE_CHECKING:
    from reconciler.metrics import Metrics

_STUCK = 120.0  # seconds without a thought after which the loop counts as stuck; it thinks every interval
_COMMIT = re.compile(r"@sha1:([0-9a-f]{40,64})$")


class Outside:
    """All of it for one controller."""

    def __init__(self, journal: Journal, following: Following, say: Callable[[str], None]) -> None:
        self._following = following
        self._say = say
        self._teller = Teller(journal, say)
        self._metrics = _metrics(self)
        self._server: Server | None = None
        self._loop: Loop | None = None

    def listen(self, loop: Loop, address: str, secret: bytes) -> None:
        """Serve HTTP. Raises UsageError, or ReconcilerError(listen)."""
        host, port = address_of(address)
        main = asyncio.get_running_loop()

        def poke() -> None:
            main.call_soon_threadsafe(loop.reload)

        answers = Answers(
            health=self._health,
            ready=lambda: "" if loop.last is not None else "nothing was decided yet",
            metrics=self._metrics.text if self._metrics is not None else None,
            poke=poke,
            secret=secret,
        )
        self._loop = loop
        self._server = Server(host, port, answers)
        if not is_loopback(host):
            self._say(f"warning: everybody who reaches {host} can read the metrics: a proxy before it may be better")
        self._say(f"listens on {host}:{self._server.port}")

    def _health(self) -> str:
        assert self._loop is not None
        silent = time.monotonic() - self._loop.beat
        limit = max(_STUCK, 3 * self._loop.interval)
        return f"nothing was thought for {silent:.0f} s" if self._loop.beat and silent > limit else ""

    # -- what the loop tells ---------------------------------------------------------------------------------------

    def revised(self, desired: Desired) -> None:
        """Another revision is in force."""
        self._teller.revised(desired)

    def event(self, event: Event) -> None:
        """A step of an action."""
        self._teller.event(event)
        if self._metrics is not None:
            self._metrics.event(event)

    def transition(self, transition: Transition) -> None:
        """A resource is another than it was."""
        if self._metrics is not None:
            self._metrics.changed(transition.type)

    def looked(self, reached: bool, seconds: float) -> None:
        """A look at a host."""
        if self._metrics is not None:
            self._metrics.looked(reached, seconds)

    def decided(self, seconds: float) -> None:
        """Everything was compared."""
        if self._metrics is not None:
            self._metrics.decided(seconds)

    def published(self, statuses: tuple[Status, ...], failures: dict[str, int]) -> None:
        """What is, after everything was compared."""
        self._teller.published(statuses, failures, time.time())
        good, trouble = self._following.good, self._following.trouble
        if good is not None and good.commit:
            self._teller.verdict(verdict(good.commit, statuses))
        if trouble is not None and (match := _COMMIT.search(trouble.attempted)):
            self._teller.verdict(refused(match[1], trouble.message))

    async def close(self) -> None:
        """Say what waits to be said, and end."""
        if self._server is not None:
            await asyncio.to_thread(self._server.close)
        await self._teller.close()

    # -- what is asked ---------------------------------------------------------------------------------------------

    def state(self) -> tuple[tuple[Status, ...], str | None, dict[str, float | None], dict[tuple[str, str], int]]:
        """For the metrics: statuses, revision, when hosts answered last, notices sent."""
        loop = self._loop
        if loop is None:
            return (), None, {}, {}
        return loop.statuses, loop.revision, loop.looked(), dict(self._teller.counts)


def _metrics(outside: Outside) -> Metrics | None:
    """None where the extra is not installed."""
    try:
        from reconciler.metrics import Metrics, Now
    except ImportError:
        return None
    return Metrics(lambda: Now(*outside.state()))
