"""The shell that carries operations to one host: each in one flight, with only that in it which the host has not yet.

Every operation runs in an `sh` of its own and under the guard, exactly as when that `sh` has a channel to itself: this
shell puts its text together and hands it on. What all operations have in common it is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from reconciler.errors import HostError
from reconciler.runtimes.scripts import text
from reconciler.transports import Channel, Limited, Spare, Transport
from reconciler.transports.quoting import quote

ANSWER_LIMIT = 1_000_000  # bytes between two answers
TEXT_LIMIT = 48_000  # bytes of an operation's own text; some shells read byte by byte, and others would wait meanwhile


@cache
def fixed_texts() -> tuple[str, ...]:
    """What operations are made of that says nothing of any of them: the libraries, as they are, and within quotes."""
    plain = ("guard", "tmux", "process", "common")
    quoted = (text("common") + text("launch"), text("run"), "'")
    return (*map(text, plain), *(quote([known])[1:-1] for known in quoted))


def factored(script: str, known: Sequence[str]) -> list[str | int]:
    """`script` cut into pieces: a number stands for one of `known`."""
    parts: list[str | int] = [script]
    for number, piece in enumerate(known):
        cut: list[str | int] = []
        for part in parts:
            if isinstance(part, int) or piece not in part:
                cut.append(part)
                continue
            for rest in part.split(piece):
                cut += [rest, number] if rest else [number]
            cut.pop()
        parts = cut
    return parts


class OperationShell:
    """One long-lived shell, for any number of operations at once. What it cannot carry goes another way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._told: set[int] = set()  # which of the fixed texts it has
        self._waiting: dict[str, asyncio.Future[bytes | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._never = False  # the host has no room for it, or it cannot start what would go on without it

    async def run(
        self,
        transport: Transport,
        script: str,
        nonce: str,
        seconds: float,
        awaited: Callable[[], None] | None = None,
    ) -> bytes | None:
        """The line that an operation answers. `awaited` is called just before it is sent, for whoever sends a look
        behind it that waits for its end.

        None where it has to go another way: then nothing was begun. Raises HostError: then nobody knows.
        """
        if (
            self._never
            or nonce in self._waiting
            or not (isinstance(transport, Spare) and isinstance(transport, Limited))
        ):
            return None
        pieces = factored(script, fixed_texts())
        if sum(len(piece) for piece in pieces if isinstance(piece, str)) > TEXT_LIMIT:
            return None
        try:
            async with asyncio.timeout(seconds):
                channel = await self._open(transport)
                if channel is None:
                    return None
                return await self._carry(channel, pieces, nonce, awaited)
        except TimeoutError:
            raise HostError(
                f"{self.name}: an operation did not end within {seconds:g} s", code="timed-out",
                remedy=f"see whether {self.name} hangs",
            ) from None  # fmt: skip

    async def _open(self, transport: Spare) -> Channel | None:
        async with self._opening:
            if self._channel is None and not self._never:
                self._channel = await transport.spare(("sh",))
                self._never = self._channel is None
                self._told.clear()
            return self._channel

    async def _carry(
        self, channel: Channel, pieces: Sequence[str | int], nonce: str, awaited: Callable[[], None] | None
    ) -> bytes | None:
        needed = {piece for piece in pieces if isinstance(piece, int)}
        before = self._tell(needed) if self._told else text("common") + text("operate") + self._tell(needed)
        words = [quote([piece]) if isinstance(piece, str) else f'"$operate_{piece}"' for piece in pieces]
        if awaited is not None:
            words.insert(0, "AWAITED=y'\n'")
            awaited()
        # What the next one will need comes behind this one, which does not wait for it.
        call = (
            before + f"reconciler_operate {quote([nonce])} {''.join(words)}\n" + self._tell(range(len(fixed_texts())))
        )
        answer = self._waiting[nonce] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(channel))
        try:
            try:
                await channel.write(call.encode())
            except HostError:  # it had ended: what was not sent has not begun
                self._never = True
                return None
            found: bytes | None = await answer
        finally:
            self._waiting.pop(nonce, None)
        self._never = self._never or found is None
        return found

    def _tell(self, numbers: Iterable[int]) -> str:
        """Lines that tell the shell those of the fixed texts which it has not."""
        missing = [number for number in numbers if number not in self._told]
        self._told.update(missing)
        return "".join(f"operate_{number}={quote([fixed_texts()[number]])}\n" for number in missing)

    async def _read(self, channel: Channel) -> None:
        """Hand out answers as long as somebody waits for one. What answers nobody's question is passed over."""
        data, since = bytearray(), 0
        try:
            while self._waiting:
                more = await channel.read()
                if not more:
                    raise HostError(f"{self.name}: the shell that carries operations ended", code="dropped")
                data += more
                since += len(more)
                *lines, rest = data.split(b"\n")
                data = bytearray(rest)
                for line in lines:
                    if self._take(bytes(line)):
                        since = len(data)
                if since > ANSWER_LIMIT:
                    raise HostError(
                        f"{self.name}: the answer to an operation is too long", code="protocol", retry=False
                    )
        except HostError as error:
            self._never = True
            self._fail(error)

    def _take(self, line: bytes) -> bool:
        kind, _, rest = line.partition(b"\t")
        answer = self._waiting.get(rest.partition(b"\t")[0].decode("ascii", "replace"))
        if answer is None or answer.done() or kind not in (b"answer", b"unfit"):
            return False
        answer.set_result(line + b"\n" if kind == b"answer" else None)
        return True

    def _fail(self, error: HostError) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(HostError(error.message, code=error.code, retry=error.retry, remedy=error.remedy))

    async def give_way(self) -> bool:
        """End it, for good, where nothing is under way: the host has no room for it."""
        if self._waiting or self._opening.locked():
            return False
        self._never = True
        found = self._channel is not None
        await self._end()
        return found

    async def drop(self) -> None:
        """Its connection is gone, and with it what was under way."""
        self._fail(HostError(f"{self.name}: the connection was lost", code="dropped"))
        self._never = False
        await self._end()

    async def _end(self) -> None:
        channel, self._channel = self._channel, None
        reader, self._reader = self._reader, None
        self._told.clear()
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if channel is not None:
            with contextlib.suppress(HostError, OSError):
                await channel.close()
