"""Watching one host: what it says itself only brings a look forward, and not more often than it may."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise

from reconciler import watch
from reconciler.core.observed import Reached, Unreached
from reconciler.simulation import clock
from reconciler.watch import View, Watch, Watches

UNKNOWN = View(Unreached("a", "auth-denied", "no"))  # terminal: its timer waits long


class Looks:
    """When a host was looked at."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def look(self, name: str) -> View:
        self.at.append(time.monotonic())
        return UNKNOWN


async def _until(looks: Looks, number: int) -> None:
    async with asyncio.timeout(5):
        while len(looks.at) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_host_that_says_so_is_looked_at_at_once_and_a_chatty_one_twice_a_second() -> None:
    looks = Looks()
    one = Watch("a", looks.look, lambda _, __: None, lambda: 100.0, lambda: 0.5)
    task = asyncio.create_task(one.run())
    try:
        await _until(looks, 1)
        begun = time.monotonic()
        one.nudge()
        await _until(looks, 2)
        assert looks.at[1] - begun < 0.2
        while time.monotonic() - begun < 2.2 * watch.NUDGES:
            one.nudge()
            await asyncio.sleep(0.001)
        assert 3 <= len(looks.at) <= 4
        await _until(looks, len(looks.at) + 1)  # what it said last is not forgotten
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        one.stop()


async def test_what_is_asked_for_waits_for_no_chatty_host() -> None:
    looks = Looks()
    watches = Watches(looks.look, lambda _, __: None, lambda: 100.0, lambda: 0.5)
    await watches.only(["a"])
    try:
        await _until(looks, 1)
        for _ in range(3):
            watches.nudge("a")
            begun = time.monotonic()
            await watches.again(["a"])
            assert time.monotonic() - begun < 0.3
        watches.nudge("nobody")
    finally:
        await watches.only(())


def test_looks_come_no_later_than_the_interval_and_share_their_moments() -> None:
    at: dict[str, list[float]] = {}

    async def look(name: str) -> View:
        at.setdefault(name, []).append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        return View(Reached(name, name, "me", "/", "", "", "", "", 0, 0))

    async def story() -> None:
        watches = Watches(look, lambda _, __: None, lambda: 30.0, random.Random(1).random)
        await watches.only(f"h{number}" for number in range(100))
        await asyncio.sleep(600)
        await watches.only(())

    clock.run(story)
    pauses = [late - early for times in at.values() for early, late in pairwise(times[1:])]
    assert min(pauses) > 25
    assert max(pauses) <= 30.1, "so that no keepalive comes before it"
    moments = {moment for times in at.values() for moment in times[1:]}
    assert len(moments) < 0.25 * sum(map(len, at.values()))
    assert max(sum(abs(t - moment) < 0.1 for times in at.values() for t in times[3:]) for moment in moments) < 30
