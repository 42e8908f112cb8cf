"""When the loop thinks: at once after a quiet time, and never more than its share in the long run."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from reconciler.pacing import AT_ONCE, BETWEEN, SHARE, Pace
from reconciler.simulation import clock


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 10)), min_size=1, max_size=50))
def test_thinking_takes_no_more_than_its_share_and_what_a_quiet_time_saved(thoughts: list[tuple[float, float]]) -> None:
    pace, now, thought, longest = Pace(), 0.0, 0.0, 0.0
    for took, quiet in thoughts:
        now += took
        thought, longest = thought + took, max(longest, took)
        assert thought <= AT_ONCE + SHARE * now + longest + 1e-6
        now += pace.spent(took, now) + quiet


@given(st.floats(0, AT_ONCE), st.floats(10, 1000))
def test_after_a_quiet_time_the_next_thought_waits_for_nothing(took: float, quiet: float) -> None:
    pace = Pace()
    for number in range(1, 20):
        assert pace.spent(took, number * quiet) == BETWEEN


def test_what_is_thought_about_quickly_waits_for_no_company_and_else_for_a_moment_of_quiet() -> None:
    async def waits(took: float, every: float, times: int) -> float:
        pace, news, loop = Pace(), asyncio.Event(), asyncio.get_running_loop()
        pace.spent(took, loop.time())
        begun = loop.time()
        waiting = asyncio.create_task(pace.together(news))
        for _ in range(times):
            await asyncio.sleep(every)
            news.set()
        await waiting
        return loop.time() - begun

    async def story() -> None:
        assert await waits(0.0, 0.01, 0) == 0
        assert await waits(0.004, 0.01, 0) < 0.0011
        assert await waits(0.4, 0.01, 0) < 0.051
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await waits(0.4, 0.02, 5)
        assert 0.1 < loop.time() - begun < 0.16
        pace, news = Pace(), asyncio.Event()
        pace.spent(0.4, loop.time())
        ringing = asyncio.create_task(_ring(news))
        begun = loop.time()
        await pace.together(news)
        assert loop.time() - begun <= 0.401, "no longer than a thought takes"
        ringing.cancel()

    clock.run(story)


async def _ring(news: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(0.01)
        news.set()
