"""From-remote sync while the loop runs: after each turn, and every interval while an agent works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from reconciler.core.agent import Agent
from reconciler.core.observed import Reached
from reconciler.core.readiness import busy
from reconciler.core.spec import Desired
from reconciler.core.transcript import Followed, is_due
from reconciler.hosts import Hosts
from reconciler.reconcile import Pass, archive_all
from reconciler.transcripts.sync import PullResult

LOG = logging.getLogger(__name__)


class Copies:
    """Copies what is new of conversations into the archive, one host at a time each, in the background."""

    def __init__(self, hosts: Hosts, told: Callable[[list[PullResult]], None]) -> None:
        self._hosts = hosts
        self._told = told
        self._known: dict[str, Followed] = {}
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(8)

    def due(self, reached: Reached, desired: Desired, agents: Mapping[str, Agent], now: float) -> frozenset[str]:
        """The sessions of a host that are to be copied now."""
        found = set()
        for name, seen in reached.sessions.items():
            session, agent = desired.sessions.get(name), agents.get(seen.record.agent if seen.record else "")
            if session is None or agent is None or not session.sync.transcript or session.host != reached.name:
                continue
            size = sum(file.size for file in seen.facts.store or ())
            if is_due(self._known.get(name), size, busy=busy(agent, seen), interval=session.sync.interval, now=now):
                self._known[name] = Followed(size, now)
                found.add(name)
        return frozenset(found)

    def begin(self, done: Pass, host: str, names: frozenset[str]) -> None:
        """Copy these of a host. What was not copied since the last one still runs is due again later."""
        if host in self._at_work:
            for name in names:
                self._known.pop(name, None)
            return
        task = asyncio.create_task(self._copy(done, names))
        self._at_work[host] = task
        task.add_done_callback(lambda _: self._at_work.pop(host, None))

    async def _copy(self, done: Pass, names: frozenset[str]) -> None:
        async with self._gate:
            try:
                results = await archive_all(done, self._hosts, names)
            except Exception:  # a bug of ours stays with this copy
                LOG.exception("a copy into the archive failed")
                results = []
        for result in results:
            if result.outcome == "failed":
                self._known.pop(result.session, None)
        self._told([result for result in results if result.outcome != "unchanged"])

    def only(self, names: frozenset[str]) -> None:
        """Forget what left the fleet."""
        self._known = {name: known for name, known in self._known.items() if name in names}

    async def close(self) -> None:
        """Let what runs end, within a few seconds."""
        tasks = list(self._at_work.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=10)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
