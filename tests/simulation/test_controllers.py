"""Stories of two controllers, and of what one of them cannot know: a conversation never has two live processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.reconcile import carry_out, execution, preview
from tests.simulation.scenario import Event, happen, settle
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.test_stories import FLEET, fleet, hosts_of, tell
from tests.simulation.world import World


def at(world: World) -> list[str]:
    return [machine.name for machine, _, _ in world.live("a")]


async def late_plan(world: World, specs: FleetSpec, between: Callable[[], Awaitable[object]]) -> list[tuple[str, str]]:
    """Status and code of each outcome of a plan that somebody thought about while something else happened."""
    async with hosts_of(world) as hosts:
        with world.journal("two") as journal:
            done = await preview(specs.desired(), hosts, journal)
            await between()
            report = await carry_out(execution(done, hosts, journal, lambda _: None), done, journal)
    return [(outcome.status, outcome.code) for outcome in report.outcomes]


@pytest.mark.parametrize("agent", ["mine", "claude-code"])
def test_a_plan_made_before_another_controller_moved_a_session_starts_nothing(tmp_path: Path, agent: str) -> None:
    async def story(world: World) -> None:
        await world.apply(fleet(agent=agent, prompt=None))
        happen(world, Event("crash", 1))
        ends = await late_plan(
            world, fleet(agent=agent, prompt=None), lambda: world.apply(fleet(agent=agent, prompt=None, host="h2"))
        )
        assert ends == [("skipped", "stale")]
        assert at(world) == ["h2"]

    tell(tmp_path, story)


def test_two_first_starts_on_different_hosts_are_one(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ends = await late_plan(world, FLEET, lambda: world.apply(fleet(host="h2")))
        assert ends == [("skipped", "stale")]
        assert at(world) == ["h2"]

    tell(tmp_path, story)


def test_what_another_controller_did_already_is_done(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert await late_plan(world, FLEET, lambda: world.apply(FLEET)) == [("done", "")]
        assert at(world) == ["h1"]

    tell(tmp_path, story)


@pytest.mark.parametrize("call", range(4, 12))
def test_a_controller_that_slept_in_the_middle_of_a_move_does_not_go_on_with_it(tmp_path: Path, call: int) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        asleep = asyncio.create_task(world.apply(fleet(host="h2"), freezes_at=call))
        await asyncio.sleep(90)  # its leases have expired
        await world.apply(FLEET, controller="two")
        await asleep
        assert len(at(world)) == 1
        await settle(world, FLEET)

    tell(tmp_path, story)


def test_who_never_saw_a_session_on_its_new_host_believes_the_old_one_that_it_went_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET, controller="two")
        await world.apply(fleet(host="h2"))
        world.machines["h2"].up = False
        applied = await world.apply(FLEET, controller="two")
        assert applied.plan is not None
        assert [action.reason for action in applied.plan.actions if action.address == "session.a"] == [
            "last-seen-elsewhere"
        ]
        assert at(world) == ["h2"]
        await settle(world, FLEET)
        assert at(world) == ["h1"]

    tell(tmp_path, story)


def test_a_move_whose_source_fell_silent_does_not_begin_at_the_target(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        await asyncio.sleep(4)
        await world.apply(fleet(host="h2"), {"h1": ["", "", *["before"] * 20]})  # type: ignore[list-item]
        world.machines["h1"].up = False
        await asyncio.sleep(100)
        await world.apply(fleet(host="h2"))
        assert at(world) == ["h1"]

    tell(tmp_path, story)


def test_a_conversation_that_another_controller_let_go_of_is_not_taken_up_from_the_archive(tmp_path: Path) -> None:
    left = replace(FLEET, sessions={"b": SessionSpec("local", state="stopped")}, removed=("a",))

    async def story(world: World) -> None:
        await world.apply(FLEET)
        await asyncio.sleep(4)
        await world.apply(FLEET)  # the archive has it
        await world.apply(left, controller="two")
        await settle(world, FLEET)
        assert len({program.conversation for program in world.machines["h1"].programs.values()}) == 2

    tell(tmp_path, story)


@pytest.mark.parametrize("seconds", [24.0, 24.5, 24.8, 25.0, 25.5, 30.0, 60.0])
def test_a_target_that_is_slow_to_start_never_comes_up_beside_the_source(tmp_path: Path, seconds: float) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        await asyncio.sleep(4)
        world.machines["h2"].late = seconds
        applied = await world.apply(fleet(host="h2"))
        assert applied.report is not None
        await asyncio.sleep(40)
        assert at(world) == (["h2"] if applied.report.outcomes[0].status == "done" else ["h1"])
        await settle(world, fleet(host="h2"))

    tell(tmp_path, story)
