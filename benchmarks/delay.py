"""A TCP relay that holds every byte back for half a round trip each way, and counts them: for kernels without netem.

Less exact than a delay of packets: the handshake of TCP and the stalls of Nagle and delayed acknowledgements are
hidden by it, from both sides of a comparison alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Sequence
from types import TracebackType


class Relay:
    """`with Relay(address, port) as relay:` connect to 127.0.0.1, `relay.port`; `delay` is seconds each way."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self.delay = 0.0
        self.bytes = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            there = await asyncio.open_connection(*self._target)
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            self.bytes += len(data)
            if self.delay:
                loop.call_later(self.delay, writer.write, data)
            else:
                writer.write(data)
        await asyncio.sleep(self.delay + 0.01)
        with contextlib.suppress(OSError):
            writer.close()

    def __enter__(self) -> Relay:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Many(Relay):
    """A relay in front of each of many servers, in a process of its own: its CPU is nobody's figure."""

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__("", 0)
        self._targets = [target.rpartition(":")[::2] for target in targets]
        self.ports: list[int] = []

    async def _serve(self) -> None:
        for address, port in self._targets:

            async def begin(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str = address, port: str = port
            ) -> None:
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    there = await asyncio.open_connection(address, int(port))
                    both = (self._pump(reader, there[1]), self._pump(there[0], writer))
                    await asyncio.gather(*both, return_exceptions=True)

            server = await asyncio.start_server(begin, "127.0.0.1", 0)
            self.ports.append(server.sockets[0].getsockname()[1])


def main(targets: Sequence[str]) -> None:
    """Prints the ports; a line on standard input is the delay each way from then on."""
    with Many(targets) as relay:
        print(*relay.ports, flush=True)
        for line in sys.stdin:
            relay.delay = float(line)


if __name__ == "__main__":
    main(sys.argv[1:])
