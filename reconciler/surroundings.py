"""What surrounds the loop: where revisions come from, to whom it speaks, what may be set."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.core.report import Event
from reconciler.core.spec import Desired
from reconciler.core.status import Status
from reconciler.core.transitions import Transition

SLEPT = 20.0  # seconds by which a machine must have slept for its connections to count as broken
MINDS = 5.0  # seconds


def slept() -> float:
    """Seconds that this machine has slept since it booted, as far as its clocks tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_UPTIME_RAW"):  # macOS
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


async def mind_sleep(asleep: Callable[[], float], woken: Callable[[float], Awaitable[None]]) -> None:
    """For ever: `woken` is told for how long this machine slept; `asleep` says for how long it has in all."""
    before = asleep()
    while True:
        await asyncio.sleep(MINDS)
        now = asleep()
        if now - before > SLEPT:
            await woken(now - before)
        before = now


class Specs(Protocol):
    """Where revisions come from: `sources.following.Following`, or something simple in a test."""

    polls: bool

    @property
    def good(self) -> Any:
        """The revision in force, with `id`, `commit` and `desired`; None as long as there was none."""

    @property
    def trouble(self) -> Any:
        """Why a newer one is not in force, with `code` and `message`; None when all is well."""

    async def refresh(self) -> bool:
        """Ask for what is new; whether another revision is in force now."""

    async def changed(self) -> None:
        """Return when there may be something new."""

    def poke(self) -> None:
        """Let `changed` return."""

    def accept(self, revision: str) -> None:
        """The refused revision of this id may have lost most of its files. Raises UsageError where none is refused."""


@dataclass(frozen=True)
class Told:
    """To whom the loop speaks; every one of them returns at once."""

    event: Callable[[Event], None] = lambda _: None
    transition: Callable[[Transition], None] = lambda _: None
    published: Callable[[tuple[Status, ...]], None] = lambda _: None
    revised: Callable[[Desired], None] = lambda _: None
    looked: Callable[[bool, float], None] = lambda _, __: None  # whether the host answered, seconds
    decided: Callable[[float], None] = lambda _: None  # seconds


@dataclass(frozen=True)
class Tuning:
    """What a user or a test may set. `dice` gives random numbers in [0, 1), `clock` the time of day."""

    interval: float | None = None
    clock: Callable[[], float] = time.time
    dice: Callable[[], float] = random.random
    slept: Callable[[], float] = slept
