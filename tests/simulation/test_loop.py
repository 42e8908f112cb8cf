"""`run` in virtual time: it does what the specs say, heals what breaks, and leaves alone what it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.simulation import clock
from tests.simulation.controller import Controller, running, until
from tests.simulation.scenario import Event, happen
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.world import World, forget_pending, raise_now, secret_environment

HOSTS = ("local", "h1", "h2")
FLEET = FleetSpec(HOSTS, {"a": SessionSpec("h1", agent="mine", prompt="p1")})


def tell(directory: Path, story: Callable[[World], Awaitable[None]], hosts: tuple[str, ...] = HOSTS) -> None:
    secret_environment()
    forget_pending()

    async def work() -> None:
        await story(World(directory, hosts))

    clock.run(work)
    raise_now()


def fleet(**changes: object) -> FleetSpec:
    return replace(FLEET, sessions={"a": replace(FLEET.sessions["a"], **changes)})  # type: ignore[arg-type]


def test_a_commit_starts_a_session_within_seconds_and_then_nothing_happens(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as controller:
            assert await until("a runs", lambda: world.live("a")) < 5
            await until("at rest", lambda: controller.phases().get("session.a") in ("idle", "running"))
            done, renewed = controller.operations(), controller.renewals()
            await asyncio.sleep(600)
            assert controller.operations() == done
            assert controller.renewals() - renewed <= len(HOSTS) * (600 / 60 + 1)
            assert len(world.live("a")) == 1

    tell(tmp_path, story)


def test_what_was_killed_is_resumed_with_its_conversation(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET):
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(60)
            ((machine, _, before),) = world.live("a")
            machine.power_cut()
            assert await until("a runs again", lambda: world.live("a")) < 40
            ((_, _, after),) = world.live("a")
            assert after.conversation == before.conversation

    tell(tmp_path, story)


def test_a_changed_host_moves_it_and_the_way_back_too(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as controller:
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(30)
            controller.commit(fleet(host="h2"))
            await until("a is on h2", lambda: [m.name for m, _, _ in world.live("a")] == ["h2"])
            await asyncio.sleep(30)
            controller.commit(FLEET)
            await until("a is on h1", lambda: [m.name for m, _, _ in world.live("a")] == ["h1"])

    tell(tmp_path, story)


def test_a_host_that_hangs_delays_no_other(tmp_path: Path) -> None:
    two = replace(FLEET, sessions={**FLEET.sessions, "b": SessionSpec("h2", agent="mine", prompt="p2")})

    async def story(world: World) -> None:
        async with running(world, two) as controller:
            await until("both run", lambda: world.live("a") and world.live("b"))
            await asyncio.sleep(60)
            controller.line.faults["h1"] = ["hang"] * 100
            await asyncio.sleep(40)
            world.machines["h2"].power_cut()
            assert await until("b runs again", lambda: world.live("b")) < 40
            # The look that hangs began within an interval, and has its time to answer.
            await until("a is unknown", lambda: controller.phases()["session.a"] == "unknown", 65)
            controller.line.faults.clear()
            await until("a is known again", lambda: controller.phases()["session.a"] != "unknown")
            assert len(world.live("a")) == 1

    tell(tmp_path, story)


def test_a_host_that_is_away_is_unknown_and_what_ran_there_comes_back_with_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as controller:
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(60)
            machine = world.machines["h1"]
            machine.power_cut()
            machine.up = False
            await asyncio.sleep(3600)
            assert controller.phases()["session.a"] == "unknown"
            machine.up = True
            assert await until("a runs again", lambda: world.live("a")) < 45

    tell(tmp_path, story)


def test_after_a_reboot_thirty_sessions_come_back_two_at_a_time(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(30)]
    many = FleetSpec(HOSTS, {name: SessionSpec("h1", agent="mine", prompt="p") for name in names})
    most = 0

    async def story(world: World) -> None:
        nonlocal most
        async with running(world, many):
            await until("all run", lambda: all(world.live(name) for name in names), 300)
            await asyncio.sleep(60)
            machine = world.machines["h1"]
            machine.power_cut()
            end = asyncio.get_running_loop().time() + 600
            while not all(world.live(name) for name in names):
                assert asyncio.get_running_loop().time() < end
                most = max(most, len(machine.locks))
                await asyncio.sleep(0.02)

    tell(tmp_path, story)
    assert 1 <= most <= 2


def test_a_whole_new_fleet_starts_with_one_lease_a_host_though_one_of_them_never_answers(tmp_path: Path) -> None:
    hosts = ("local", *(f"h{number}" for number in range(30)))
    sessions = {f"s{n}": SessionSpec(hosts[1 + n % 30], agent="mine", prompt="p") for n in range(60)}
    fleet = FleetSpec(hosts, sessions)

    async def story(world: World) -> None:
        world.machines["h29"].up = False
        wanted = [name for name, session in sessions.items() if session.host != "h29"]
        async with running(world, fleet) as controller:
            assert await until("all that can run", lambda: all(world.live(name) for name in wanted), 60) < 60
            leases = [name for name, operation in controller.line.log if operation["OP"] == "lease"]
            assert sorted(leases) == sorted(set(leases))
            world.machines["h29"].up = True
            await until("the rest", lambda: all(world.live(name) for name in sessions), 60)

    tell(tmp_path, story, hosts)


def test_a_session_that_fails_is_tried_less_and_less_and_a_new_revision_tries_at_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        machine = world.machines["h1"]
        machine.disk_full = True
        async with running(world, FLEET) as controller:
            await asyncio.sleep(3600)
            assert not world.live("a")
            assert 5 <= controller.operations() <= 40
            machine.disk_full = False
            controller.commit(fleet(prompt="p2"))
            assert await until("a runs", lambda: world.live("a")) < 10

    tell(tmp_path, story)


def test_what_would_stop_too_much_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(10)]
    many = FleetSpec(HOSTS, {name: SessionSpec("h1", agent="mine", prompt="p") for name in names})

    async def story(world: World) -> None:
        async with running(world, many) as controller:
            await until("all run", lambda: all(world.live(name) for name in names), 300)
            await asyncio.sleep(60)
            kept = {name: many.sessions[name] for name in names[:4]}
            controller.commit(replace(many, sessions=kept), max_stop="20%")
            await asyncio.sleep(60)
            assert all(world.live(name) for name in names)
            assert {controller.phases()[f"session.{name}"] for name in names[:4]} <= {"idle", "busy", "running"}
            assert any(t.type == "Stalled" and t.reason == "max-stop" for t in controller.told)
            world.machines["h1"].power_cut()
            await until("what is declared comes back", lambda: all(world.live(name) for name in kept), 300)

    tell(tmp_path, story)


def test_two_controllers_do_not_fight_the_second_says_who_has_the_lease(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as one:
            await until("a runs", lambda: world.live("a"))
            async with running(world, fleet(state="stopped"), "two") as two:
                await asyncio.sleep(900)
                assert len(world.live("a")) == 1
                assert any(t.reason == "lease-held" for t in two.told)
                assert not any(t.reason == "lease-held" for t in one.told)
        world.check_fences()

    tell(tmp_path, story)


def test_a_controller_that_was_killed_is_followed_by_the_next_which_settles_what_it_began(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        first = Controller(world)
        first.line.dies_at = 9
        first.commit(FLEET)
        first.start()
        await first.line.died.wait()
        await first.die()
        async with running(world, FLEET) as second:
            await until("a runs", lambda: world.live("a"), 400)
            await until("all is settled", lambda: not second.journal.open_intents(), 400)
            assert len(world.live("a")) == 1

    tell(tmp_path, story)


def test_a_stop_lets_a_launch_end_and_gives_the_leases_back(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        controller = Controller(world)
        controller.commit(FLEET)
        controller.start()
        await until("the launch has begun", lambda: any(op.name == "op_launch" for _, op in controller.line.log))
        await controller.stop()
        assert len(world.live("a")) == 1
        assert world.machines["h1"].lease[0] == 0

    tell(tmp_path, story)


def test_a_command_borrows_the_leases_and_nothing_happens_there_meanwhile(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as controller:
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(30)
            lent = await controller.loop.borrow("apply (pid 7)", ["h1"])
            assert lent["h1"].fence == world.machines["h1"].fence
            world.machines["h1"].power_cut()
            await asyncio.sleep(120)
            assert not world.live("a")
            controller.loop.give_back(["h1"])
            assert await until("a runs again", lambda: world.live("a")) < 10

    tell(tmp_path, story)


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_clock_jumps_of_hosts_change_nothing(tmp_path: Path, jump: float) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as controller:
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(60)
            done = controller.operations()
            world.machines["h1"].skew += jump
            await asyncio.sleep(600)
            later = [op["OP"] for _, op in controller.line.log][done:]
            assert set(later) <= {"renew", "lease"}
            assert len(world.live("a")) == 1

    tell(tmp_path, story)


def sleeps(controller: Controller, seconds: float) -> None:
    """As a laptop does: what it wants to send is sent when it wakes up."""
    controller.line.wakes = asyncio.get_running_loop().time() + seconds


def test_a_host_that_another_controller_had_meanwhile_is_kept_on_after_sleep(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async with running(world, FLEET) as one:
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(60)
            sleeps(one, 300)
            await asyncio.sleep(250)
            await world.apply(fleet(state="stopped"), controller="two")
            assert not world.live("a")
            assert await until("a runs again", lambda: world.live("a")) < 100
        world.check_fences()

    tell(tmp_path, story)


def test_a_machine_that_lost_its_disk_gets_its_session_back_whatever_its_fences_were(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for prompt in ("p2", "p3", "p4"):
            await world.apply(fleet(host="h2", prompt=prompt))
        async with running(world, fleet(host="h2", prompt="p4")) as controller:
            world.machines["h2"].power_cut()
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(5)  # its lease was taken a moment ago, and is not renewed soon
            happen(world, Event("lost", 2))
            done = controller.line.calls
            assert await until("a runs again", lambda: world.live("a")) < 40
            assert controller.line.calls - done < 40

    tell(tmp_path, story)


def test_a_machine_that_lost_its_disk_is_kept_on_though_another_controller_asked_it_first(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.crowded = True
        async with running(world, FLEET) as one:
            await until("a runs", lambda: world.live("a"))
            async with running(world, FLEET, "two"):
                await asyncio.sleep(60)
                one.line.faults["h1"] = ["hang"] * 3
                happen(world, Event("lost", 1))
                await until("the other one asked for its lease", lambda: world.machines["h1"].fence > 4)
                assert not world.live("a")
                assert await until("a runs again", lambda: world.live("a")) < 100
        world.check_fences()

    tell(tmp_path, story)


def test_a_session_that_is_renamed_goes_on_though_its_old_name_is_another_one_at_once(tmp_path: Path) -> None:
    other = SessionSpec("h1", agent="bare", policy="never")
    renamed = FleetSpec(HOSTS, {"b": FLEET.sessions["a"]}, moved=(("a", "b"),))

    async def story(world: World) -> None:
        async with running(world, FLEET) as controller:
            await until("a runs", lambda: world.live("a"))
            await asyncio.sleep(60)
            ((_, _, before),) = world.live("a")
            controller.commit(renamed)
            await asyncio.sleep(0.1)
            controller.commit(FleetSpec(HOSTS, {"b": FLEET.sessions["a"], "a": other}))
            await asyncio.sleep(300)
            ((_, _, after),) = world.live("b")
            assert after is before
            assert any(t.reason == "name-taken" for t in controller.told)
            world.machines["h1"].power_cut()
            await until("both run", lambda: world.live("a") and world.live("b"))

    tell(tmp_path, story)
