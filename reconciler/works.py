"""What is under way: one execution for each group of actions that belong together, each by itself, all bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from reconciler.core.guards import contested
from reconciler.core.holds import Hold
from reconciler.core.plan import Action
from reconciler.core.report import Event, Outcome, Report
from reconciler.errors import LeaseHeldError, ReconcilerError
from reconciler.execute import Execution, Gates
from reconciler.hosts import Hosts
from reconciler.journal import Journal
from reconciler.leases import LOST, Leases
from reconciler.reconcile import Pass, arrived

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """One group of actions on its way."""

    actions: tuple[Action, ...]
    execution: Execution
    hosts: frozenset[str]
    fenced: frozenset[str]  # also those whose leases it needs


Ended = Callable[[Work, tuple[Outcome, ...], LeaseHeldError | None], Awaitable[None]]


class Works:
    """All of it. `ended` is awaited after each group with its outcomes, or with why another controller prevented it.

    An address stays held until `ended` returns, so that nothing is decided from what was seen before.
    """

    def __init__(
        self,
        hosts: Hosts,
        journal: Journal,
        leases: Leases,
        tell: Callable[[Event], None],
        ended: Ended,
        over: Callable[[], None],
    ) -> None:
        """`over` is called when the addresses of a group are free again."""
        self._hosts = hosts
        self._journal = journal
        self._leases = leases
        self._tell = tell
        self._ended = ended
        self._over_now = over
        self._gates = Gates(32)
        self._under_way: dict[asyncio.Task[None], Work] = {}
        self._idle = asyncio.Event()
        self._phases: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def hold(self) -> dict[str, Hold]:
        """The addresses that are being worked on, older names of what is renamed included."""
        return {
            address: Hold("in-progress", self._phases.get(action.address) or f"{action.verb} is under way")
            for work in self._under_way.values()
            for action in work.actions
            for address in (action.address, *(f"session.{step.session}" for step in action.steps))
        }

    def begin(self, done: Pass, actions: tuple[Action, ...]) -> None:
        """Carry out one group of a plan's actions, in the background."""
        plan = replace(done.plan, actions=actions)
        fences = contested(done.observed, actions)
        execution = Execution(
            plan, done.desired, self._hosts, done.agents, self._journal, self._say, done.archive, fences, self._gates
        )
        hosts = frozenset[str]().union(*(action.hosts for action in actions))
        work = Work(actions, execution, hosts, frozenset(fences))
        task = asyncio.create_task(self._carry(work))
        self._under_way[task] = work
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        work = self._under_way.pop(task)
        for action in work.actions:
            self._phases.pop(action.address, None)
        self._idle.set()
        self._over_now()
        if not task.cancelled() and (error := task.exception()):
            LOG.error("a bug: %s", error, exc_info=error)

    def _say(self, event: Event) -> None:
        if event.type == "apply_progress":
            self._phases[event.action.address] = f"{event.action.verb}: {event.message}"
        self._tell(event)

    async def _carry(self, work: Work) -> None:
        outcomes: tuple[Outcome, ...] = ()
        foreign: LeaseHeldError | None = None
        try:
            report: Report = await work.execution.run(self._leases)
            arrived(self._journal, report)
            outcomes = report.outcomes
        except LeaseHeldError as error:
            foreign = error
        except ReconcilerError as error:
            outcomes = tuple(
                Outcome(a.address, a.host, a.verb, "failed", 0.0, error.code, error.message, error.remedy)
                for a in work.actions
            )
        for outcome in outcomes:
            if outcome.code in LOST:
                self._leases.lose(outcome.host)
        await self._ended(work, outcomes, foreign)

    def withdraw(self, hosts: frozenset[str] | None = None) -> None:
        """What only waits has waited in vain: a newer revision has come, or a person (on `hosts`)."""
        for work in self._under_way.values():
            if hosts is None or work.hosts & hosts:
                work.execution.withdraw()

    async def free(self, hosts: Iterable[str]) -> None:
        """Wait until nothing is under way on these hosts."""
        wanted = frozenset(hosts)
        while any(work.hosts & wanted for work in self._under_way.values()):
            self._idle.clear()
            await self._idle.wait()

    async def finish(self, seconds: float) -> bool:
        """Begin nothing more and let what runs end; whether it did in this time. What is left is cut off."""
        self.withdraw()
        tasks = list(self._under_way)
        if not tasks:
            return True
        try:
            await asyncio.wait(tasks, timeout=seconds)
        finally:
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        return not late
