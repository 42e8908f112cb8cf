"""What was seen is told at once, by itself; and where nothing happens, nothing is thought."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from reconciler.core.holds import Suspension
from reconciler.core.status import Status
from reconciler.core.transitions import Transition
from reconciler.simulation.machine import EPOCH
from tests.simulation.controller import Controller, until
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.test_loop import FLEET, HOSTS, tell
from tests.simulation.world import World

TWO = FleetSpec(HOSTS, {**FLEET.sessions, "b": SessionSpec("h2", agent="mine", prompt="p2")})


class Attentive(Controller):
    """A controller that notes what it had thought of a session when it told that it is another one."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.thoughts = 0
        self.then: list[tuple[Transition, float, str, int]] = []

    def transition(self, changed: Transition) -> None:
        super().transition(changed)
        diff = self.loop.last.diff.entries if self.loop.last is not None else ()
        kinds = {entry.address: entry.kind for entry in diff}
        now = asyncio.get_running_loop().time()
        self.then.append((changed, now, kinds.get(changed.address, ""), self.thoughts))

    def _published(self, *arguments: object) -> None:
        super()._published(*arguments)  # type: ignore[arg-type]
        self.thoughts += 1


async def later(controller: Attentive) -> tuple[Status, ...]:
    await asyncio.sleep(30)
    return controller.loop.statuses_now()


async def at_rest(world: World, fleet: FleetSpec = FLEET) -> Attentive:
    controller = Attentive(world)
    controller.commit(fleet)
    controller.start()
    await until("they run", lambda: all(world.live(name) for name in fleet.sessions))
    await asyncio.sleep(120)
    return controller


def test_the_end_of_an_agent_is_told_as_it_is_seen_before_anything_is_decided(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        controller = await at_rest(world, TWO)
        before, controller.then = controller.thoughts, []
        machine = world.machines["h1"]
        machine.end(next(iter(machine.programs)), 3)
        heard = asyncio.get_running_loop().time()
        assert controller.hosts.noticed is not None
        controller.hosts.noticed("h1")
        await until("it is told", lambda: controller.then)
        changed, told, kind, thoughts = controller.then[0]
        assert (changed.address, changed.type, changed.after) == ("session.a", "Phase", "exited")
        assert changed.reason == "crashed"
        assert (kind, thoughts) == ("in-sync", before), "what was thought was still that all is well"
        assert changed.heard == EPOCH + heard
        assert told - heard < 1
        assert controller.phases()["session.b"] in ("idle", "running")
        await until("it runs again", lambda: world.live("a"), 20)
        await until("that is known", lambda: controller.phases()["session.a"] in ("idle", "running"))
        said = [t.after for t, _, _, _ in controller.then if t.address == "session.a" and t.type == "Phase"]
        assert said.count("exited") == 1, "once"
        await controller.stop()

    tell(tmp_path, story)


def test_what_a_host_says_and_no_look_confirms_is_not_told(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        controller = await at_rest(world)
        before, controller.then = controller.thoughts, []
        for _ in range(20):
            assert controller.hosts.noticed is not None
            controller.hosts.noticed("h1")
            await asyncio.sleep(1)
        assert not controller.then
        assert controller.thoughts - before <= 1
        await controller.stop()

    tell(tmp_path, story)


def test_a_fleet_at_rest_is_looked_at_and_hardly_thought_of(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        controller = await at_rest(world, TWO)
        before, looked = controller.thoughts, dict(controller.loop.looked())
        beat = controller.loop.beat
        await asyncio.sleep(600)
        assert 1 <= controller.thoughts - before <= 3, "ten intervals apart"
        assert controller.loop.beat > beat + 560, "and yet it lives"
        ages = [
            {status.address: status.seen["age"] for status in found if status.address == "session.a"}["session.a"]
            for found in (controller.loop.statuses_now(), await later(controller))
        ]
        assert ages[1] - ages[0] in (30, 31), "nobody has to think for that"
        assert all((now or 0) > (looked[name] or 0) + 560 for name, now in controller.loop.looked().items())
        await controller.stop()

    tell(tmp_path, story)


def test_what_another_process_writes_into_the_journal_counts_within_an_interval(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        controller = await at_rest(world)
        other = world.journal("one")
        now = datetime.fromtimestamp(EPOCH + asyncio.get_running_loop().time(), UTC)
        other.suspend(Suspension("session.a", None, "a pause", "somebody", now))
        other.close()
        await until("it is suspended", lambda: controller.phases()["session.a"] == "suspended", 40)
        await controller.stop()

    tell(tmp_path, story)
