"""Leases of many hosts at once: each is asked once, and one that is slow holds up only what is done on it."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.core.spec import Host
from reconciler.errors import OperationError
from reconciler.hosts import Connection
from reconciler.leases import Leases
from reconciler.transports import Completed


class Slow:
    """A machine that gives its lease after a while, and counts how often it is asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked = 0

    async def run(self, argv: object, *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 0) -> Completed:
        self.asked += 1
        nonce = stdin.decode().partition("\nNONCE=")[2].partition("\n")[0].strip("'")
        await asyncio.sleep(self.seconds)
        return Completed(0, f'answer\t{nonce}\t{{"ok":true,"fence":1}}\n'.encode(), b"")

    async def close(self) -> None:
        pass


def connection(machine: Slow, name: str) -> Connection:
    async def connect(_: str, __: Host) -> Slow:
        return machine

    return Connection(name, Host(), connect)  # type: ignore[arg-type]


async def test_a_host_that_is_slow_to_give_its_lease_to_one_gives_it_to_another_who_needs_it() -> None:
    fast, slow = Slow(0), Slow(0.4)
    a, b = connection(fast, "a"), connection(slow, "b")
    leases = Leases("acme", "me", patience=0.1)
    await asyncio.gather(leases.acquire([a], [b]), leases.acquire([b], [a]))
    assert (fast.asked, slow.asked) == (1, 1)
    assert leases.credentials("a").fence == leases.credentials("b").fence == 1
    await leases.release()


async def test_a_lease_that_comes_late_counts_from_then_on() -> None:
    slow = Slow(0.3)
    a, b = connection(Slow(0), "a"), connection(slow, "b")
    leases = Leases("acme", "me", patience=0.1)
    await leases.acquire([a], [b])
    with pytest.raises(OperationError):
        leases.credentials("b")
    await asyncio.sleep(0.4)
    assert leases.credentials("b").fence == 1
    assert slow.asked == 1
    await leases.release()
