"""A client that keeps connections, as the program does: a cycle looks at every host once. And its floor, TCP echoes."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from benchmarks.farm import SESSIONS, STATE, Farm
from benchmarks.figure import Sample
from benchmarks.line import ECHO_PORT
from reconciler import drivers
from reconciler.core.launching import checks_of
from reconciler.core.observed import Reached
from reconciler.hosts import Hosts
from reconciler.observe import CONNECTS_AT_ONCE, look

_LOOKS, _BETWEEN = 4, 2.5  # looks, seconds


class Warm:
    """`async with Warm(farm, 200) as warm: await warm.cycle()`."""

    def __init__(self, farm: Farm, hosts: int) -> None:
        self.farm, self.count = farm, hosts
        self.desired = farm.desired(hosts)
        self.agents = drivers.agents(self.desired)
        self.names = [name for name in self.desired.hosts if name != "local"]
        self._checks = checks_of(self.desired, self.agents)
        self.hosts = Hosts()
        self.hosts.noticed = lambda name: None  # so that tmux is listened to, as `run` does

    async def _look(self, name: str) -> Reached:
        connection = self.hosts.connection(name, self.desired.hosts[name])
        seen = await look(connection, "bench", self._checks[name])
        if not isinstance(seen, Reached):
            raise RuntimeError(f"{name} did not answer: {seen.message}")
        if len(seen.sessions) != SESSIONS:
            raise RuntimeError(f"{name}: {len(seen.sessions)} sessions instead of {SESSIONS}")
        return seen

    async def cycle(self) -> Sample:
        """A look at every host, all at once, as it is while the program runs."""
        hosts, cpu, begun = self.farm.line.cpu(), time.process_time(), time.perf_counter()
        await asyncio.gather(*map(self._look, self.names))
        taken, used = time.perf_counter() - begun, time.process_time() - cpu
        there = self.farm.line.cpu()
        return Sample(taken, used, there - hosts if there is not None and hosts is not None else None)

    async def settle(self) -> None:
        """Until what a host was like is old enough for it to say that nothing has changed."""
        for _ in range(_LOOKS):
            await asyncio.sleep(_BETWEEN)
            await self.cycle()

    async def changed_cycle(self) -> Sample:
        """The same after a file of every session was written anew, so that everything has to be told again."""
        await asyncio.to_thread(self.touch)
        return await self.cycle()

    def touch(self) -> None:
        """A record and a count of each session, by rename, as the program writes them."""
        for number in range(self.count):
            for place in (self.farm.home(number) / STATE / "sessions").iterdir():
                for name in ("record.json", "incarnation"):
                    new = place / f".{name}.new"
                    new.write_bytes((place / name).read_bytes())
                    new.rename(place / name)

    async def __aenter__(self) -> Warm:
        gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def one(name: str) -> None:
            async with gate:
                await self._look(name)

        await asyncio.gather(*map(one, self.names))
        await self.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.hosts.close()


class Echoes:
    """As many TCP connections, and a line there and back on each."""

    def __init__(self, farm: Farm, hosts: int) -> None:
        self._farm, self._count = farm, hosts
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def cycle(self) -> Sample:
        """All at once."""
        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.gather(*(self._exchange(*pair) for pair in self._open))
        return Sample(time.perf_counter() - begun, time.process_time() - cpu)

    @staticmethod
    async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 63 + b"\n")
        await reader.readline()

    async def __aenter__(self) -> Echoes:
        several = len(self._farm.line.echoes)
        for number in range(self._count):
            address = self._farm.line.outer(number % several, ECHO_PORT)
            self._open.append(await asyncio.open_connection(*address))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for _, writer in self._open:
            writer.close()
