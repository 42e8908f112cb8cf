"""A `run` on simulated machines: a source that is what its caller says, a controller that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from reconciler.core.observed import Unreached
from reconciler.core.report import Event
from reconciler.core.spec import Desired
from reconciler.core.status import Status
from reconciler.core.transitions import Transition
from reconciler.loop import Loop
from reconciler.simulation.machine import EPOCH
from reconciler.simulation.transport import Line
from reconciler.simulation.world import UNPLANNED, Broken, World, planned
from reconciler.surroundings import Told, Tuning


@dataclass(frozen=True)
class Revision:
    """What a source gives."""

    id: str
    desired: Desired
    commit: str = ""


@dataclass
class Given:
    """A source that is what its caller says."""

    polls: bool = False
    good: Revision | None = None
    trouble: None = None
    next: Revision | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def refresh(self) -> bool:
        """Take what was committed."""
        self.news.clear()
        changed, self.good = self.good is not self.next, self.next
        return changed

    async def changed(self) -> None:
        """Wait for a commit."""
        await self.news.wait()

    def poke(self) -> None:
        """There was one."""
        self.news.set()

    def accept(self, revision: str) -> None:
        """Never asked."""
        raise AssertionError(f"nothing is refused, and nobody accepts {revision}")


class Controller:
    """One `run` on the simulated fleet."""

    def __init__(self, world: World, name: str = "one", event: Callable[[Event], None] = lambda _: None) -> None:
        self.world = world
        self.name = name
        self.specs = Given()
        self.told: list[Transition] = []
        self.allowed: set[tuple[str, str, str, str]] = set()  # what its plans had in them
        self.line = Line(world.sent)
        self.journal = world.journal(name)
        self.hosts = world.connect(self.line)
        self._roll = 0.5
        tuning = Tuning(
            clock=lambda: EPOCH + asyncio.get_running_loop().time(), dice=self._dice, slept=lambda: 0.0
        )  # fmt: skip
        told = Told(event=event, transition=self.transition, published=self._published)
        self.loop = Loop(self.specs, self.hosts, self.journal, told, tuning)
        self.task: asyncio.Task[None] | None = None

    def _dice(self) -> float:
        self._roll, roll = (self._roll * 7.3 + 0.1) % 1.0, self._roll
        return roll

    def transition(self, changed: Transition) -> None:
        """Something has become another."""
        self.told.append(changed)

    def commit(self, desired: Desired, **settings: object) -> None:
        """The specs are others now. `settings` are keys of `[fleet]`."""
        settings["archive"] = str(self.world.archive(self.name))
        desired = replace(desired, fleet=desired.fleet.model_copy(update=settings))
        self.specs.next = Revision(desired.revision, desired)
        self.specs.poke()

    def start(self) -> None:
        """Let it run."""
        self.task = asyncio.create_task(self.loop.run())

    def _published(self, _: tuple[Status, ...]) -> None:
        """I4: nothing is done on a host that is unknown. I5: what is sent later stands in a plan."""
        done = self.loop.last
        assert done is not None
        if done.plan.effective:
            self.allowed |= planned(done.plan)
        silent = {name for name, seen in done.observed.hosts.items() if isinstance(seen, Unreached)}
        acted = frozenset[str]().union(*(action.hosts for action in done.plan.effective))
        if silent & acted:
            self.world.broken(Broken(f"I4: actions on hosts that are unknown: {silent & acted}"))

    async def die(self) -> None:
        """kill -9: nothing more is written or sent, and nothing is tidied up."""
        self.line.dead = True
        self.journal.close()
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    def check_sent(self) -> None:
        """I5: all that was sent to hosts is a step of a plan. I7: and had an intent that was durable before."""
        intents = {intent.op for intent in self.journal.history(limit=100_000)}
        for host, op in self.line.log:
            what = (host, op.name, op["NAME"], op["EXPECT"]) if op["OP"] not in UNPLANNED else None
            if what is not None and what not in self.allowed:
                self.world.broken(Broken(f"I5: {op.name} of {op['NAME']} on {host} is in no plan"))
            if what is not None and op["OP"].partition("-")[0] not in intents:
                self.world.broken(Broken(f"I7: {op.name} of {op['NAME']} on {host} without an intent"))

    async def stop(self) -> None:
        """As after SIGTERM."""
        self.loop.stop()
        assert self.task is not None
        await self.task
        await self.hosts.close()
        self.journal.close()

    def phases(self) -> dict[str, str]:
        """What `status` says, by address."""
        return {status.address: status.phase for status in self.loop.statuses}

    def operations(self) -> int:
        """All but the renewals of its leases."""
        return len(self.line.log) - self.renewals()

    def renewals(self) -> int:
        """How often it has kept its leases."""
        return sum(operation["OP"] == "renew" for _, operation in self.line.log)
