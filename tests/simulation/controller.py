"""A `run` on simulated machines, with the specs of a test; and patience in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from reconciler.simulation import controller as simulated
from tests.simulation.specs import FleetSpec
from tests.simulation.world import World


class Controller(simulated.Controller):
    """One `run` on the simulated fleet."""

    def commit(self, fleet: FleetSpec, **settings: object) -> None:  # type: ignore[override]
        """The specs are others now. `settings` are keys of `[fleet]`."""
        super().commit(fleet.desired(), **settings)


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
