"""The safety contract of `run` as properties: commits, faults, deaths and second controllers, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from reconciler.simulation import clock
from reconciler.simulation.machine import Fault
from reconciler.simulation.scratch import scratch
from reconciler.simulation.transport import FAULTS
from tests.simulation.controller import Controller
from tests.simulation.scenario import MOMENTS, Event, check_rest, events, happen
from tests.simulation.specs import FleetSpec, edits, fleets
from tests.simulation.test_properties import PROPERTY
from tests.simulation.world import Broken, World, forget_pending, raise_now, secret_environment

PEACE = 1800.0  # seconds: leases of the dead end, back-offs of ten minutes pass
QUIET = 150.0


@dataclass(frozen=True)
class Moment:
    """After `wait` seconds: an edit, an event, faults on a host's line, a death, or a second controller."""

    wait: float
    what: FleetSpec | Event | tuple[str, tuple[Fault, ...]] | str


@dataclass(frozen=True)
class Story:
    """What happens to a fleet that is kept, and what its specs say in the end."""

    hosts: tuple[str, ...]
    first: FleetSpec
    moments: tuple[Moment, ...]
    last: FleetSpec


@st.composite
def stories(draw: st.DrawFn) -> Story:
    first = fleet = draw(fleets())
    script = st.lists(st.sampled_from(FAULTS), min_size=1, max_size=8).map(tuple)
    moments = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(MOMENTS))
        what: FleetSpec | Event | tuple[str, tuple[Fault, ...]] | str = kind
        if kind == "edit":
            what = fleet = draw(edits(fleet, number + 2))
        elif kind == "event":
            what = draw(events)
        elif kind == "faults":
            what = draw(st.sampled_from(fleet.hosts)), draw(script)
        moments.append(Moment(draw(st.sampled_from((0.0, 0.1, 0.7, 3.0, 20.0, 100.0))), what))
    return Story(fleet.hosts, first, tuple(moments), fleet)


class Kept:
    """The fleet of a story, with one controller or two, of which some die."""

    def __init__(self, world: World, story: Story) -> None:
        self.world = world
        self.story = story
        self.fleet = story.first
        self.one = self._begin("one")
        self.two: Controller | None = None

    def _begin(self, name: str) -> Controller:
        controller = Controller(self.world, name)
        controller.commit(self.fleet)
        controller.start()
        return controller

    async def moment(self, moment: Moment) -> None:
        await asyncio.sleep(moment.wait)
        match moment.what:
            case FleetSpec():
                self.fleet = moment.what
                self.one.commit(self.fleet)
                if self.two is not None:
                    self.two.commit(self.fleet)
            case Event():
                happen(self.world, moment.what)
            case "die":
                await self.one.die()
                self.one = self._begin("one")
            case "second" if self.two is None:
                self.world.crowded = True
                self.two = self._begin("two")
            case (str(host), script) if isinstance(script, tuple):
                self.one.line.faults[host] = list(script)

    async def peace(self) -> None:
        """I1, I2: after faults stop, the fleet reaches its specs in bounded time, and then nothing happens."""
        self.world.heal()
        self.one.line.faults.clear()
        await asyncio.sleep(PEACE)
        raise_now()
        done = len(self.one.line.log)
        await asyncio.sleep(QUIET)
        later = [op["OP"] for _, op in self.one.line.log[done:]]
        if any(op not in ("renew", "lease") for op in later):
            raise Broken(f"I2: it still does things: {later}")
        await self.one.stop()
        if self.two is not None:
            await self.two.stop()
        check_rest(self.world, self.story.last, await self.world.apply(self.story.last))
        raise_now()


def keep(story: Story) -> None:
    """Tell a story to its end. Raises Broken."""
    secret_environment()
    forget_pending()

    async def work() -> None:
        kept = Kept(World(directory, story.hosts), story)
        for moment in story.moments:
            await kept.moment(moment)
            raise_now()
        await kept.peace()

    with scratch() as directory:
        clock.run(work)
    raise_now()


@PROPERTY
@given(stories())
def test_whatever_happens_to_a_kept_fleet_every_promise_is_kept_and_it_reaches_its_specs(story: Story) -> None:
    keep(story)
