"""One host under observation: a look at every interval with some jitter, at once when asked, and less on failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.core.memory import CAP, TERMINAL, back_off
from reconciler.core.observed import HostSeen, Reached, Unreached
from reconciler.core.transcript import Archived, Relation

LOG = logging.getLogger(__name__)
JITTER = 0.1
NUDGES = 0.5  # seconds between two looks for which a host asks itself


@dataclass(frozen=True)
class View:
    """What one look at a host gave. `good` is the wall-clock time of the last look that it answered.

    `relations` are those to what the archive had then, which is `heads`; `checks` what it was asked besides.
    """

    seen: HostSeen
    relations: Mapping[str, Relation] = field(default_factory=dict)
    heads: Mapping[str, Archived] = field(default_factory=dict)
    good: float | None = None
    took: float = 0.0
    at: float = 0.0  # when it ended, by the loop's clock
    checks: tuple[tuple[str, str], ...] = ()
    heard: float | None = None  # when the host said, before this look, that something had changed

    def same(self, other: View) -> bool:
        """Whether decisions rest on the same: all but when it was."""
        one, two = self.seen, other.seen
        if isinstance(one, Reached) and isinstance(two, Reached):
            one = replace(one, now=two.now)
        return one == two and self.relations == other.relations

    def aged(self, heads: Mapping[str, Archived]) -> list[str]:
        """The sessions that are not live and of which the archive has something else since the look."""
        seen = self.seen.sessions if isinstance(self.seen, Reached) else {}
        return [name for name, found in seen.items() if not found.live and heads.get(name) != self.heads.get(name)]


class Watch:
    """Looks at one host for ever. Hosts do not wait for each other: each has a watch of its own."""

    def __init__(
        self,
        name: str,
        look: Callable[[str], Awaitable[View]],
        changed: Callable[[str, View], None],
        interval: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self.name = name
        self._look = look
        self._changed = changed
        self._interval = interval
        self._dice = dice
        self._wake = asyncio.Event()
        self._begun = 0
        self._heard = 0.0  # when it last looked because the host said so
        self._news: float | None = None  # when the host said first what no look has answered yet
        self._nudged: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def poke(self) -> None:
        """Look now, whatever the timer says."""
        self._wake.set()

    def nudge(self) -> None:
        """The host says that something may have changed: look now, but not more often than it may say so."""
        loop = asyncio.get_running_loop()
        if self._news is None:
            self._news = loop.time()
        if self._nudged is not None and not self._nudged.cancelled() and self._nudged.when() > loop.time():
            return  # that look is to come
        at = max(loop.time(), self._heard + NUDGES)
        self._heard = at
        self._nudged = loop.call_at(at, self._wake.set)

    async def again(self) -> None:
        """Return when a look that began after this call has ended, well or not."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((self._begun + 1, future))
        self.poke()
        await future

    async def run(self) -> None:
        """Look, tell, wait; until cancelled."""
        failures = 0
        while True:
            self._wake.clear()
            self._begun += 1
            heard, self._news = self._news, None
            view = await self._look(self.name)
            self._changed(self.name, view if heard is None else replace(view, heard=heard))
            self._answer()
            failures = failures + 1 if isinstance(view.seen, Unreached) else 0
            try:
                async with asyncio.timeout_at(self._next(view.seen, failures)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _answer(self) -> None:
        for number, future in self._waiting:
            if number <= self._begun and not future.done():
                future.set_result(None)
        self._waiting = [(n, future) for n, future in self._waiting if n > self._begun]

    def _next(self, seen: HostSeen, failures: int) -> float:
        """When to look again, by the loop's clock."""
        now, interval = asyncio.get_running_loop().time(), self._interval()
        if not isinstance(seen, Unreached):
            # Hosts that were first looked at together part here. Never later than the interval: a look that comes
            # before the keepalive spares it. Several hosts at one moment spare waking up for each.
            pause = self._dice() if self._begun == 1 else 1 - JITTER * self._dice()
            together = interval * JITTER / 2
            return max(now, (now + interval * pause) // together * together)
        if seen.code in TERMINAL:
            return now + CAP  # a person has to do something; then they ask, or commit
        # A host that comes back is seen within an interval; a hiccup sooner.
        return now + min(0.5 + back_off(failures, self._dice()), interval)

    def stop(self) -> None:
        """Nobody waits for this host any more."""
        if self._nudged is not None:
            self._nudged.cancel()
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


class Watches:
    """All hosts under observation, and the latest view of each."""

    def __init__(
        self,
        look: Callable[[str], Awaitable[View]],
        changed: Callable[[str, View], None],
        interval: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        """`changed` is called after each look, before its view is one of `views`."""
        self._arguments = (look, self._seen, interval, dice)
        self._changed = changed
        self._watches: dict[str, tuple[Watch, asyncio.Task[None]]] = {}
        self.views: dict[str, View] = {}

    def _seen(self, name: str, view: View) -> None:
        self._changed(name, view)
        self.views[name] = view

    async def only(self, names: Iterable[str]) -> None:
        """Watch these, at once, and no others."""
        wanted = set(names)
        for name in set(self._watches) - wanted:
            watch, task = self._watches.pop(name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            watch.stop()
            self.views.pop(name, None)
        for name in sorted(wanted):
            if name in self._watches:
                self._watches[name][0].poke()
            else:
                watch = Watch(name, *self._arguments)
                self._watches[name] = (watch, asyncio.create_task(for_ever(watch.run)))

    def poke(self, names: Iterable[str] | None = None) -> None:
        """Look now; at all hosts where none are named."""
        for name in self._watches if names is None else sorted(names):  # in an order that does not change
            if name in self._watches:
                self._watches[name][0].poke()

    def nudge(self, name: str) -> None:
        """This host says that something may have changed."""
        if name in self._watches:
            self._watches[name][0].nudge()

    async def again(self, names: Iterable[str] | None = None) -> None:
        """Return when all of these (of all) were looked at once more."""
        wanted = self._watches if names is None else [name for name in sorted(names) if name in self._watches]
        await asyncio.gather(*(self._watches[name][0].again() for name in wanted))


async def for_ever(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A part of a program that outlives its bugs."""
    while True:
        try:
            await part()
        except Exception:
            LOG.exception("a bug; goes on in 5 s")
        await asyncio.sleep(5.0)
