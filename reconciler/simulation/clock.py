"""Virtual time: an event loop whose clock jumps to the next timer, so that waits cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Where a real loop would sleep, the clock moves on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        self.loop.now += max(0.0, timeout)
        return []  # nothing real is waited for


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: no threads, no real time."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """At once and in this thread: a thread would live in real time."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end in virtual time; the process's monotonic clock is the loop's meanwhile."""
    loop = VirtualLoop()
    try:
        with _monotonic(loop.time):
            return loop.run_until_complete(work())
    finally:
        loop.run_until_complete(_end(loop))
        loop.close()


@contextlib.contextmanager
def _monotonic(now: Callable[[], float]) -> Iterator[None]:
    real = time.monotonic
    time.monotonic = now
    try:
        yield
    finally:
        time.monotonic = real


async def _end(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
