"""Tells notifiers what happens: collects for some seconds, tries again what was not taken, never delays the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from reconciler.core.notices import Notice, Told, noticed, resumed
from reconciler.core.report import Event
from reconciler.core.spec import Desired
from reconciler.core.status import Status
from reconciler.core.verdicts import Verdict
from reconciler.errors import ReconcilerError
from reconciler.journal import Journal
from reconciler.notifiers import Notifier, open_notifiers

LOG = logging.getLogger(__name__)
COLLECT = 5.0  # seconds within which what happens becomes one message
RETRIES = (5.0, 60.0, 600.0)  # seconds between attempts; then it is given up, and said
_MOST = 1000  # notices that wait for one notifier; what comes then is dropped
_COMMITS = 20  # whose last verdict is remembered
_KEY = "notices"


class Teller:
    """All notifiers of one fleet."""

    def __init__(
        self,
        journal: Journal,
        say: Callable[[str], None],
        collect: float = COLLECT,
        retries: tuple[float, ...] = RETRIES,
    ) -> None:
        """`say` hears of what could not be told; `collect` and `retries` are seconds."""
        self._journal = journal
        self._say = say
        self._pauses = (collect, *retries)
        self._told = Told.from_json(journal.recall(_KEY))
        self._posts: dict[str, _Post] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._desired: Desired | None = None
        self.counts: dict[tuple[str, str], int] = {}  # (notifier, "sent" | "failed") -> how often

    def revised(self, desired: Desired) -> None:
        """Other specs are in force: perhaps others are to be told."""
        self._desired = desired
        notifiers = open_notifiers(desired)
        for name in set(self._posts) - set(notifiers):
            self._posts.pop(name).close()
        for name, notifier in notifiers.items():
            if name in self._posts:
                self._posts[name].notifier = notifier
            else:
                self._posts[name] = _Post(name, desired.fleet.name, notifier, self._pauses, self._result)

    def published(self, statuses: Sequence[Status], failures: dict[str, int], now: float) -> None:
        """Everything was thought about: what of it is news?"""
        if self._desired is None:
            return
        told, notices = noticed(self._told, statuses, failures, now, self._desired.fleet.notify_after)
        self._tell(told, notices)

    def event(self, event: Event) -> None:
        """Something was done."""
        action = event.action
        if event.type == "apply_complete" and action.verb == "resume" and action.reason not in _MEANT:
            told, notice = resumed(self._told, action.address, action.host, action.message)
            self._tell(told, [notice])

    def verdict(self, verdict: Verdict) -> None:
        """What became of a commit; the same again is no news."""
        if self._verdicts.get(verdict.commit) != verdict:
            # The newest last; the one in force and one that is refused are told of in turn.
            self._verdicts.pop(verdict.commit, None)
            self._verdicts = dict([*self._verdicts.items()][-_COMMITS:]) | {verdict.commit: verdict}
            for post in self._posts.values():
                post.put(verdict)

    def _tell(self, told: Told, notices: Sequence[Notice]) -> None:
        if told != self._told:
            self._told = told
            self._journal.keep(_KEY, told.to_json())
        for post in self._posts.values():
            for notice in notices:
                post.put(notice)

    def _result(self, name: str, error: ReconcilerError | None) -> None:
        result = "failed" if error else "sent"
        self.counts[name, result] = self.counts.get((name, result), 0) + 1
        if error is not None:
            self._say(f"{error.message}" + (f"; {error.remedy}" if error.remedy else ""))

    async def close(self) -> None:
        """Send what waits, for a few seconds; then end."""
        await asyncio.gather(*(post.finish() for post in self._posts.values()))
        self._posts.clear()


_MEANT = frozenset({"changed", "returns", "asked"})  # a resume that a person asked for is no healing


class _Post:
    """One notifier and what waits for it."""

    def __init__(
        self,
        name: str,
        fleet: str,
        notifier: Notifier,
        pauses: tuple[float, ...],
        result: Callable[[str, ReconcilerError | None], None],
    ) -> None:
        self.notifier = notifier
        self._name = name
        self._fleet = fleet
        self._collect, *self._retries = pauses
        self._result = result
        self._waiting: list[Notice | Verdict] = []
        self._due = asyncio.Event()
        self._hurry = asyncio.Event()
        self._empty = asyncio.Event()
        self._task = asyncio.create_task(self._send_for_ever())

    def put(self, news: Notice | Verdict) -> None:
        """Say it soon."""
        if len(self._waiting) < _MOST:
            self._waiting.append(news)
            self._due.set()

    def close(self) -> None:
        """End; what waits is lost."""
        self._task.cancel()

    async def finish(self, seconds: float = 5.0) -> None:
        """Send what waits, and end."""
        self._hurry.set()
        if self._waiting:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _send_for_ever(self) -> None:
        while True:
            await self._due.wait()
            await self._pause(self._collect)
            self._due.clear()
            batch = tuple(self._waiting)
            await self._send(batch)
            del self._waiting[: len(batch)]
            if not self._waiting:
                self._empty.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _send(self, batch: tuple[Notice | Verdict, ...]) -> None:
        notices = [news for news in batch if isinstance(news, Notice)]
        last = {news.commit: news for news in batch if isinstance(news, Verdict)}
        if notices:
            await self._try(partial(self.notifier.notices, self._fleet, notices))
        for found in last.values():
            await self._try(partial(self.notifier.verdict, self._fleet, found))

    async def _try(self, part: Callable[[], None]) -> None:
        for pause in (*self._retries, None):
            try:
                await asyncio.to_thread(part)
            except ReconcilerError as error:
                LOG.info("%s", error.message)
                if pause is None or not error.retry or self._hurry.is_set():
                    self._result(self._name, error)
                    return
                await self._pause(pause)
            except Exception as error:  # of a library: it stays with this notifier, and its text may hold a secret
                why = f"notifier {self._name}: a bug: {type(error).__name__}"
                self._result(self._name, ReconcilerError(why, code="bug"))
                return
            else:
                self._result(self._name, None)
                return
