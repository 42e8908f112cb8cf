"""Leases of hosts: who may act, told apart by machine, process and start time, so that death can be proven."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from reconciler.core.audit import Actor
from reconciler.errors import HostError, LeaseHeldError, OperationError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import Credentials, lease_operation, release_operation, renew_operation

TTL = 60  # seconds that a lease outlives its last operation
PATIENCE = 5.0  # seconds that a host may take on which nothing is to be done
LOST = frozenset({"fence-stale", "lease-held"})  # codes that say that somebody else has had the lease since


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    return ""


def _machine() -> str:
    known = _read("/etc/machine-id") or _sysctl("kern.uuid") or os.uname().nodename
    return f"{known}/{_boot()}"


def this_machine() -> str:
    """Which machine this is: `machine-id host-name`."""
    return f"{_machine().rpartition('/')[0]} {os.uname().nodename}"


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id") or _sysctl("kern.bootsessionuuid")


def _sysctl(name: str) -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
        return done.stdout.strip()
    return ""


def _start_of(pid: int) -> str:
    """Start time of a process as the kernel tells it; empty when there is no such process."""
    if Path("/proc/self/stat").exists():
        stat = _read(f"/proc/{pid}/stat")
        fields = stat.rpartition(") ")[2].split()
        return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip().replace(" ", "_")


def person() -> str:
    """On whose behalf we act, for people: `user@host`."""
    return f"{getpass.getuser()}@{os.uname().nodename}"


def holder() -> str:
    """Who we are, and since when: `user@host:machine/boot:pid:start:nonce:seconds`, one word."""
    since = str(int(time.time()))
    words = (person(), _machine(), str(os.getpid()), _start_of(os.getpid()), secrets.token_hex(4), since)
    return ":".join(re.sub(r"[\s:]", "_", word) for word in words)


def actor(command: str) -> Actor:
    """Who acts from this process, for the audit log. Made once, and passed on."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return Actor(user, os.uname().nodename, holder(), command)


def proven_dead(other: str) -> bool:
    """Whether a holder was a process of this machine and this boot that is gone, or of an earlier boot of it."""
    parts = other.split(":")
    if len(parts) not in (5, 6):
        return False
    machine, boot = parts[1].rpartition("/")[::2]
    here, now = _machine().rpartition("/")[::2]
    if machine != here or re.fullmatch("[0-9]{1,18}", parts[2]) is None or not boot or not now:
        return False
    return boot != now or re.sub(r"[\s:]", "_", _start_of(int(parts[2]))) != parts[3]


class Leases:
    """The leases of one apply, kept alive while it works."""

    def __init__(self, fleet: str, who: str, local: str = "", ttl: int = TTL, patience: float = PATIENCE) -> None:
        """`local` is `this_machine()` where the fleet has sessions on the host `local`, so that others learn it.

        `ttl` are the seconds that a lease outlives its last renewal, `patience` those that hosts have on which nothing
        is to be done.
        """
        self._patience = patience
        self._base = Credentials(fleet, who, ttl=ttl)
        self._local = local
        self._held: dict[str, tuple[Connection, Credentials]] = {}
        self._to_tell: set[str] = set()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._rounds = asyncio.Lock()
        self._slow: dict[str, float] = {}  # when hosts that were too slow were asked
        self._lost: dict[str, str] = {}  # what hosts said when they refused a renewal
        self.failed: dict[str, HostError | OperationError] = {}
        self._keeper: asyncio.Task[None] | None = None

    def credentials(self, host: str) -> Credentials:
        """What an operation on this host carries. Raises what acquiring the lease raised."""
        if host in self.failed:
            raise self.failed[host]
        if host not in self._held:
            why = f": {self._lost[host]}" if self._lost.get(host) else ""
            raise OperationError(f"the lease of {host} is not ours any more{why}", code="lease-held", retry=True)
        return self._held[host][1]

    def fence(self, host: str) -> int | None:
        """That of the lease that we have, None without one."""
        return self._held[host][1].fence if host in self._held else None

    def announce(self, local: str) -> None:
        """The fleet has sessions on `local` now, or has none any more: hosts learn it with their next lease."""
        if local != self._local:
            self._local = local
            self._to_tell = set(self._held)

    def passed(self, seen: Mapping[str, int]) -> frozenset[str]:
        """The hosts on which somebody else held the lease since a look saw these fences.

        A lease raises the fence by one, and its end by another one (an end that never came counts with the next
        lease): ours is the one that was seen where we had it then, and the next where nobody had.
        """
        held = {name: ours.fence for name, (_, ours) in self._held.items()}
        return frozenset(name for name, fence in seen.items() if name in held and held[name] - fence not in (0, 1))

    async def acquire(self, connections: Iterable[Connection], others: Iterable[Connection] = ()) -> None:
        """All of them, or none: LeaseHeldError when another controller holds one. A silent host is kept as failed,
        and `others` have to answer soon. What is held already is kept, and not asked for again."""
        asked: list[str] = []
        own = self._ask([c for c in connections if not self._has(c)], asked)
        results = await asyncio.gather(own, self._ask_others(others, asked), return_exceptions=True)
        errors = [error for error in results if error is not None]
        if any(isinstance(error, LeaseHeldError) for error in errors):
            await self.give_back(asked)
        if errors:
            raise errors[0]
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    def _has(self, connection: Connection) -> bool:
        return connection.name in self._held and connection.name not in self._to_tell

    async def _ask(self, found: list[Connection], asked: list[str]) -> None:
        asked += [connection.name for connection in found]
        for connection in found:
            self.failed.pop(connection.name, None)
        tasks = [self._request(connection) for connection in found]
        if tasks:
            await asyncio.wait(tasks)  # not `gather`: somebody else may wait for them too when this is cancelled
        for connection, task in zip(found, tasks, strict=True):
            error = task.exception()
            if isinstance(error, LeaseHeldError):
                raise error
            if isinstance(error, HostError | OperationError):
                self.failed[connection.name] = error
            elif error is not None:
                raise error

    async def _ask_others(self, others: Iterable[Connection], asked: list[str]) -> None:
        """Hosts on which nothing is to be done: one round of requests at a time, since the next finds what it brought.
        Who did not answer is not waited for again within a lease's time; it may still answer."""
        found = list(others)
        if all(map(self._has, found)):
            return
        async with self._rounds:
            now = asyncio.get_running_loop().time()
            missing = [c for c in found if not self._has(c) and self._slow.get(c.name, now - TTL) <= now - TTL]
            asked += [connection.name for connection in missing]
            tasks = {self._request(connection): connection.name for connection in missing}
            done, late = await asyncio.wait(tasks, timeout=self._patience) if tasks else (set(), set())
            self._slow |= {tasks[task]: now for task in late}
            for task in done:
                if isinstance(error := task.exception(), LeaseHeldError):
                    raise error

    def _request(self, connection: Connection) -> asyncio.Task[None]:
        """One request a host at a time, whoever waits for it; it outlives those who do not."""
        name = connection.name
        if name not in self._asking:
            self._to_tell.discard(name)
            self._asking[name] = asyncio.create_task(self._acquire(connection))
            self._asking[name].add_done_callback(lambda task: self._answered(name, task))
        return self._asking[name]

    def _answered(self, name: str, task: asyncio.Task[None]) -> None:
        del self._asking[name]
        if not task.cancelled() and task.exception() is None:
            self.failed.pop(name, None)

    async def _acquire(self, connection: Connection, dead: str = "") -> None:
        nonce = secrets.token_hex(8)
        try:
            answer = await connection.operate(lease_operation(self._base, nonce, dead, self._local), nonce)
        except OperationError as error:
            if error.code != "lease-held":
                raise
            other = error.message.partition(": ")[2].partition(" holds the lease")[0]
            if not dead and proven_dead(other):
                return await self._acquire(connection, other)
            raise refused(connection.name, error.message) from None
        self._held[connection.name] = (connection, replace(self._base, fence=int(answer["fence"])))
        return None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._base.ttl / 3)
            await asyncio.gather(*(self._renew(*held) for held in list(self._held.values())))

    async def _renew(self, connection: Connection, credentials: Credentials) -> None:
        nonce = secrets.token_hex(8)
        try:
            await connection.operate(renew_operation(credentials, nonce), nonce)
        except HostError:
            pass  # the next operation finds out
        except OperationError as error:
            if error.code in LOST and self._held.get(connection.name) == (connection, credentials):
                self.lose(connection.name, error.message.partition(": ")[2])

    async def confirm(self, host: str) -> None:
        """A host that had another fence than ours while we thought that we had its lease: either the host forgot ours,
        then it learns it again, or somebody else has had it since, then it is lost."""
        if host in self._held:
            await self._renew(*self._held[host])

    def lose(self, host: str, why: str = "") -> None:
        """It turned out that somebody else has it: the next `acquire` asks for it anew."""
        self._held.pop(host, None)
        self._lost[host] = why

    async def give_back(self, names: Iterable[str]) -> None:
        """Give some back, within a few seconds; those that cannot be reached expire by themselves."""

        async def one(connection: Connection, credentials: Credentials) -> None:
            nonce = secrets.token_hex(8)
            with contextlib.suppress(HostError, OperationError, TimeoutError):
                async with asyncio.timeout(3):
                    await connection.operate(release_operation(credentials, nonce), nonce)

        held = [self._held.pop(name) for name in list(names) if name in self._held]
        await asyncio.gather(*(one(*item) for item in held))

    async def release(self) -> None:
        """Give all back."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._asking:
            await asyncio.wait(list(self._asking.values()), timeout=self._patience)
        await self.give_back(list(self._held))


def refused(host: str, message: str) -> LeaseHeldError:
    """What a host says that refuses a lease, for people: who has it, until when, and what to do about it."""
    other = message.partition(": ")[2].partition(" holds the lease")[0]
    left = re.search(r"another ([0-9]{1,9}) s\Z", message)
    return LeaseHeldError(
        f"{host}: {held_by(other, int(left[1]) if left else 0)}; nothing was done",
        code="lease-held",
        remedy=f"wait for it to end; if it is gone for good, reconciler take-over {host}; then: reconciler apply",
    )


def held_by(other: str, seconds: int) -> str:
    """Who holds a lease, since when, and until when at least: a sentence for people. `other` is what a host says."""
    parts = other.split(":")
    who = f"{parts[0]} (pid {parts[2]})" if len(parts) in (5, 6) else other
    since = f"since {_clock(int(parts[5]))}, " if len(parts) == 6 and re.fullmatch(r"[0-9]{1,11}", parts[5]) else ""
    return f"{who} holds the lease {since}until {_clock(int(time.time()) + seconds)} unless it renews it"


def _clock(at: int) -> str:
    """A moment as this machine's clock has it; the day too, where it is another one."""
    moment, today = datetime.fromtimestamp(at).astimezone(), datetime.now().astimezone()
    return moment.strftime("%H:%M:%S" if moment.date() == today.date() else "%Y-%m-%d %H:%M:%S")
