"""A `run` on simulated machines: a source that is what the test says, a controller that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from reconciler.core.observed import Unreached
from reconciler.core.spec import Desired
from reconciler.core.status import Status
from reconciler.core.transitions import Transition
from reconciler.loop import Loop
from reconciler.surroundings import Told, Tuning
from tests.simulation.machine import EPOCH
from tests.simulation.specs import FleetSpec
from tests.simulation.transport import Line
from tests.simulation.world import Broken, World, raise_later


@dataclass(frozen=True)
class Revision:
    id: str
    desired: Desired
    commit: str = ""


@dataclass
class Given:
    """A source that is what the test says."""

    polls: bool = False
    good: Revision | None = None
    trouble: None = None
    next: Revision | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def refresh(self) -> bool:
        self.news.clear()
        changed, self.good = self.good is not self.next, self.next
        return changed

    async def changed(self) -> None:
        await self.news.wait()

    def poke(self) -> None:
        self.news.set()

    def accept(self, revision: str) -> None:
        raise AssertionError(f"nothing is refused, and nobody accepts {revision}")


class Controller:
    """One `run` on the simulated fleet."""

    def __init__(self, world: World, name: str = "one") -> None:
        self.world = world
        self.name = name
        self.specs = Given()
        self.told: list[Transition] = []
        self.line = Line(lambda _argv, _stdin: None)
        self.journal = world.journal(name)
        self.hosts = world.connect(self.line)
        rolls = [0.5]
        tuning = Tuning(
            clock=lambda: EPOCH + asyncio.get_running_loop().time(),
            dice=lambda: rolls.append((rolls[-1] * 7.3 + 0.1) % 1.0) or rolls.pop(0),  # type: ignore[func-returns-value]
            slept=lambda: 0.0,
        )
        told = Told(transition=self.told.append, published=self._published)
        self.loop = Loop(self.specs, self.hosts, self.journal, told, tuning)
        self.task: asyncio.Task[None] | None = None

    def commit(self, fleet: FleetSpec, **settings: object) -> None:
        """The specs are others now. `settings` are keys of `[fleet]`."""
        desired = fleet.desired()
        settings["archive"] = str(self.world.archive(self.name))
        desired = replace(desired, fleet=desired.fleet.model_copy(update=settings))
        self.specs.next = Revision(desired.revision, desired)
        self.specs.poke()

    def start(self) -> None:
        self.task = asyncio.create_task(self.loop.run())

    def _published(self, _: tuple[Status, ...]) -> None:
        """I4: nothing is done on a host that is unknown."""
        done = self.loop.last
        assert done is not None
        silent = {name for name, seen in done.observed.hosts.items() if isinstance(seen, Unreached)}
        acted = frozenset[str]().union(*(action.hosts for action in done.plan.effective))
        if silent & acted:
            raise_later(Broken(f"I4: actions on hosts that are unknown: {silent & acted}"))

    async def die(self) -> None:
        """kill -9: nothing more is written or sent, and nothing is tidied up."""
        self.line.dead = True
        self.journal.close()
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def stop(self) -> None:
        self.loop.stop()
        assert self.task is not None
        await self.task
        await self.hosts.close()
        self.journal.close()

    def phases(self) -> dict[str, str]:
        return {status.address: status.phase for status in self.loop.statuses}

    def operations(self) -> int:
        """All but the renewals of its leases."""
        return len(self.line.log) - self.renewals()

    def renewals(self) -> int:
        return sum(operation["OP"] == "renew" for _, operation in self.line.log)


@contextlib.asynccontextmanager
async def running(world: World, fleet: FleetSpec, name: str = "one") -> AsyncIterator[Controller]:
    controller = Controller(world, name)
    controller.commit(fleet)
    controller.start()
    try:
        yield controller
    finally:
        await controller.stop()


async def until(what: str, look: Callable[[], object], patience: float = 120.0) -> float:
    """Seconds until it is so."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not look():
        assert loop.time() - begun < patience, f"{what}: not within {patience:g} s"
        await asyncio.sleep(0.1)
    return loop.time() - begun
