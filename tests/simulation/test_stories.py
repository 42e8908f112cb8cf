"""Single stories on simulated machines: what a property found once, or cannot find, told in full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.printed import render
from reconciler.hosts import Hosts
from reconciler.reconcile import carry_out, execution, preview
from reconciler.simulation import clock
from reconciler.simulation.machine import Files, Noted
from reconciler.simulation.transport import Line
from tests.simulation.scenario import Event, happen, settle
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.world import World, forget_pending, raise_now, secret_environment

HOSTS = ("local", "h1", "h2")
FLEET = FleetSpec(HOSTS, {"a": SessionSpec("h1", agent="mine", prompt="p1")})


def fleet(**changes: object) -> FleetSpec:
    return replace(FLEET, sessions={"a": replace(FLEET.sessions["a"], **changes)})  # type: ignore[arg-type]


def tell(directory: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """One story in a world of its own."""
    secret_environment()
    forget_pending()

    async def work() -> None:
        await story(World(directory, HOSTS))

    clock.run(work)
    raise_now()


def hosts_of(world: World) -> Hosts:
    return world.connect(Line(lambda _argv, _stdin: None))


def test_a_session_that_is_to_run_elsewhere_moves_with_its_conversation(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        await asyncio.sleep(4)
        (before,) = world.live("a")
        await world.apply(fleet(host="h2"))
        (after,) = world.live("a")
        assert after[0].name == "h2"
        assert after[2].conversation == before[2].conversation
        path = after[2].paths[0]
        said = before[0].store.get(path)
        assert said
        assert after[0].store.get(path).startswith(said)

    tell(tmp_path, story)


def test_a_session_that_is_to_run_elsewhere_is_not_started_there_while_its_host_is_silent(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        world.machines["h1"].up = False
        await world.apply(fleet(host="h2"))
        assert [machine.name for machine, _, _ in world.live("a")] == ["h1"]

    tell(tmp_path, story)


def test_a_session_that_was_forgotten_and_is_declared_again_begins_a_conversation_of_its_own(tmp_path: Path) -> None:
    other = {"b": SessionSpec("local", state="stopped")}

    async def story(world: World) -> None:
        await world.apply(FLEET)
        await world.apply(replace(FLEET, sessions=other, removed=("a",)))
        assert not world.live("a")
        await settle(world, FLEET)
        assert len({program.conversation for program in world.machines["h1"].programs.values()}) == 2

    tell(tmp_path, story)


def test_a_session_whose_launch_was_not_seen_to_the_end_is_not_started_elsewhere(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET, dies_at=8)
        await asyncio.sleep(5)
        assert world.live("a"), "the launch went through after its controller had died"
        world.machines["h1"].up = False
        await asyncio.sleep(100)
        await world.apply(fleet(host="h2"))
        assert [machine.name for machine, _, _ in world.live("a")] == ["h1"]

    tell(tmp_path, story)


def test_a_plan_that_was_made_before_another_controller_acted_sends_no_message_again(tmp_path: Path) -> None:
    changed = fleet(prompt="p2")

    async def story(world: World) -> None:
        await world.apply(FLEET)
        async with hosts_of(world) as hosts:
            with world.journal("two") as journal:
                late = await preview(changed.desired(), hosts, journal)
                await world.apply(changed)
                await carry_out(execution(late, hosts, journal, lambda _: None), late, journal)
        world.check_messages()

    tell(tmp_path, story)


def test_a_clock_that_was_set_back_does_not_lock_the_fleet_for_that_long(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.machines["h1"].skew = 86400.0
        await world.apply(FLEET, dies_at=5)
        world.machines["h1"].skew = 0.0
        await settle(world, FLEET)

    tell(tmp_path, story)


def test_an_orphan_of_one_name_on_two_hosts_is_stopped_on_both(tmp_path: Path) -> None:
    left = FleetSpec(HOSTS, {"b": SessionSpec("local", state="stopped")})

    async def story(world: World) -> None:
        await world.apply(FLEET)
        one, two = world.machines["h1"], world.machines["h2"]
        program = next(iter(one.programs.values()))
        two.programs[program.pid] = replace(program, conversation="another")
        noted = Noted(program.pid, program.start, "boot-1", program.pid - 1)
        two.sessions["a"] = Files(1, one.sessions["a"].record, processes={1: noted})
        applied = await world.apply(left)
        assert applied.report is not None
        assert [outcome.status for outcome in applied.report.outcomes] == ["done", "done"]
        assert not world.live("a")

    tell(tmp_path, story)


@pytest.mark.parametrize("agent", ["template", "no-such-agent", "_shared", "a.b"])
def test_a_record_that_names_a_strange_agent_is_trouble_of_its_session_alone(tmp_path: Path, agent: str) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        files = world.machines["h1"].sessions["a"]
        files.record = json.dumps({**json.loads(files.record or ""), "agent": agent})
        other = replace(FLEET, sessions={"b": SessionSpec("h2", agent="mine")})
        applied = await world.apply(other)
        assert applied.plan is not None
        assert "session.b" in render(applied.plan)
        assert world.live("b")

    tell(tmp_path, story)


def test_a_rename_restarts_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        (before,) = world.live("a")
        renamed = replace(FLEET, sessions={"b": FLEET.sessions["a"]}, moved=(("a", "b"),))
        applied = await world.apply(renamed)
        assert applied.plan is not None
        assert not {"start", "stop"} & {action.verb for action in applied.plan.effective}, render(applied.plan)
        assert before[2] in world.machines["h1"].programs.values()

    tell(tmp_path, story)


def test_a_session_at_rest_survives_everything_that_can_happen_to_a_controller(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        pid = next(iter(world.machines["h1"].programs))
        for dies_at in range(1, 9):
            await world.apply(FLEET, dies_at=dies_at)
        await world.apply(FLEET, {"h1": ["garbage", "cut", "hang"]})
        await settle(world, FLEET)
        assert list(world.machines["h1"].programs) == [pid]

    tell(tmp_path, story)


def test_a_launch_whose_disk_fills_before_it_can_note_its_process_is_tried_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        machine = world.machines["h1"]
        machine.late = 15.0
        applying = asyncio.get_running_loop().create_task(world.apply(FLEET))
        await asyncio.sleep(10)
        assert not machine.late
        machine.disk_full = True
        await applying
        assert machine.panes
        assert not machine.programs
        machine.disk_full = False
        await settle(world, FLEET)
        assert len(world.live("a")) == 1

    tell(tmp_path, story)


def test_a_full_disk_stops_nothing_that_runs_and_is_said(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.apply(FLEET)
        happen(world, Event("disk", 1))
        applied = await world.apply(fleet(model="m2"))
        assert applied.report is not None
        (outcome,) = applied.report.outcomes
        assert (outcome.status, outcome.code) == ("failed", "disk-full")
        assert world.live("a")
        await settle(world, fleet(model="m2"))

    tell(tmp_path, story)


def test_an_older_controller_that_wakes_up_is_refused(tmp_path: Path) -> None:
    """I8: the lease of a controller that slept expired, another took over, then the first one acts."""
    changed = fleet(model="m2")

    async def story(world: World) -> None:
        await world.apply(FLEET)
        sleeper = asyncio.create_task(world.apply(changed, {"h1": ["", "", "hang"]}))
        await asyncio.sleep(2)
        world.machines["h1"].skew += 300  # its lease expires, though it is renewed
        await world.apply(fleet(model="m3"), controller="two")
        late = await sleeper
        assert late.report is not None
        assert {outcome.code for outcome in late.report.outcomes} <= {"fence-stale", "lease-held", "stale"}
        assert world.live("a")[0][2].argv[world.live("a")[0][2].argv.index("--model") + 1] == "m3"
        world.check_fences()

    tell(tmp_path, story)


@pytest.mark.parametrize("back", ["h1", "local"])
def test_a_conversation_that_was_let_go_of_after_a_move_is_not_resumed_from_its_old_record(
    tmp_path: Path, back: str
) -> None:
    left = FleetSpec(HOSTS, {"b": SessionSpec("local", state="stopped")}, removed=("a",))

    async def story(world: World) -> None:
        for specs in (FLEET, fleet(host="h2"), left):
            await world.apply(specs)
            await asyncio.sleep(4)
        ((_, old),) = world.machines["h2"].programs.items()
        await settle(world, fleet(host=back))
        ((machine, _, new),) = world.live("a")
        assert machine.name == back
        assert new.conversation != old.conversation
        assert old in world.machines["h2"].programs.values()

    tell(tmp_path, story)


@pytest.mark.parametrize("kind", ["reboot", "disk"])
def test_a_rename_in_which_something_happens_to_the_machine_is_ended_later(tmp_path: Path, kind: str) -> None:
    renamed = replace(FLEET, sessions={"b": FLEET.sessions["a"]}, moved=(("a", "b"),))

    async def story(world: World) -> None:
        await world.apply(FLEET)
        await asyncio.sleep(10)
        asyncio.get_running_loop().call_later(hundredths / 100, happen, world, Event(kind, 1))
        await world.apply(renamed)
        await settle(world, renamed)
        ((_, _, program),) = world.live("b")
        assert program.conversation == world.machines["h1"].sessions["b"].conversation

    for hundredths in range(4, 14):
        (tmp_path / str(hundredths)).mkdir()
        tell(tmp_path / str(hundredths), story)
