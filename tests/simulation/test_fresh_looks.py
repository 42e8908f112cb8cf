"""What is done after a commit rests on looks that asked what the new revision needs to know."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.simulation.controller import running, until
from tests.simulation.specs import FleetSpec, SessionSpec
from tests.simulation.test_stories import tell
from tests.simulation.world import World

HOSTS = ("local", "h1", "h2")


def fleet(workdir: str | None) -> FleetSpec:
    return FleetSpec(HOSTS, {"a": SessionSpec("h1", prompt="p", when="now", workdir=workdir)})


@pytest.mark.parametrize("seconds", [2.0, 3.1, 3.7, 4.0, 6.0])
def test_a_conversation_follows_to_a_working_directory_that_no_look_has_asked_for_yet(
    tmp_path: Path, seconds: float
) -> None:
    async def story(world: World) -> None:
        async with running(world, fleet(None)) as controller:
            await until("it runs", lambda: world.live("a"))
            await asyncio.sleep(seconds)
            ((_, _, before),) = world.live("a")
            controller.commit(fleet("~/w"))
            await until("it runs there", lambda: any(p is not before and p.begun for _, _, p in world.live("a")))
            await asyncio.sleep(5)
            ((machine, files, after),) = world.live("a")
            assert after.conversation == before.conversation
            assert files.incarnation == 2
            assert not [path for path in machine.store.files if "//" in path]
            assert machine.store.get(after.paths[0]).startswith(machine.store.get(before.paths[0])[:60])

    tell(tmp_path, story)
