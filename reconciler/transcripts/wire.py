"""What a host answers in frames: lines under a nonce, and exactly as many bytes as a line announces."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import IO

from reconciler.core.observed import clean
from reconciler.errors import HostError, OperationError, ReconcilerError
from reconciler.transcripts.pieces import FILE_LIMIT, too_large
from reconciler.transports import Channel

IDLE = 60.0  # seconds in which something has to come
GROWN_LIMIT = 1 << 24  # bytes of news of one file that are fetched before its beginning is proven to be ours
_LINE = 4096
_NOISE = 65536  # bytes that login scripts may print before we begin


@dataclass(frozen=True)
class Frame:
    """What the host says of one file, and where its new bytes lie in the spool."""

    word: str
    base: int
    size: int
    mtime: float
    digest: str
    at: int = 0


class Frames:
    """Reads one answer; whatever does not fit is HostError(sync-failed). Holds at most one chunk in memory."""

    def __init__(self, name: str, channel: Channel, nonce: str) -> None:
        self._name = name
        self._channel = channel
        self._nonce = nonce
        self._buffer = bytearray()

    async def begin(self) -> None:
        """Skip what came before the first line of ours."""
        mark = f"{self._nonce}\tbegin\n".encode()
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _NOISE:
                raise self.broken("it does not begin as it has to")
            await self._more()
        del self._buffer[: at + len(mark)]

    async def line(self) -> list[str]:
        """The fields of the next line, without the nonce."""
        while (at := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LINE:
                raise self.broken("a line has no end")
            await self._more()
        if at > _LINE:
            raise self.broken("a line has no end")
        text = self._buffer[:at].decode("utf-8", "replace")
        del self._buffer[: at + 1]
        nonce, *fields = text.split("\t")
        if nonce != self._nonce or not fields:
            raise self.broken("a file changed while it was read, or the answer was cut")
        return fields

    @property
    def spent(self) -> bool:
        """Whether nothing more has come than was read."""
        return not self._buffer

    async def copy(self, length: int, to: IO[bytes]) -> None:
        """Exactly so many bytes."""
        while length:
            if not self._buffer:
                await self._more()
            data = self._buffer[:length]
            del self._buffer[:length]
            length -= len(data)
            to.write(data)

    async def _more(self) -> None:
        try:
            async with asyncio.timeout(IDLE):
                data = await self._channel.read()
        except TimeoutError:
            raise HostError(
                f"{self._name}: nothing more came within {IDLE:g} s", code="timed-out", remedy="reconciler sync"
            ) from None
        if not data:
            raise self.broken("it was cut short")
        self._buffer += data

    def broken(self, why: str) -> HostError:
        """The answer cannot be used."""
        return HostError(f"{self._name}: the answer to a sync: {why}", code="sync-failed", remedy="reconciler sync")


def number(text: str) -> int | None:
    """A plain decimal number of at most 18 digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


async def _header(frames: Frames, index: int) -> tuple[str, int, int, float, str]:
    """The line that is before the bytes of a file: word, base, size, time, digest."""
    fields = await frames.line()
    numbers = [number(field) for field in fields[2:4]] if len(fields) == 6 else [None]
    if None in numbers or fields[0] != str(index):
        raise frames.broken("a line in it is none of ours")
    # `-`: too young to vouch for anything.
    mtime = float(found if (found := number(fields[4])) is not None else -1)
    return fields[1], int(fields[2]), int(fields[3]), mtime, fields[5]


async def read_frame(frames: Frames, index: int, path: str, spool: IO[bytes]) -> Frame:
    """One file. Raises OperationError for what is wrong with it alone, HostError for what breaks the answer."""
    word, base, size, mtime, digest = await _header(frames, index)
    if word in ("ahead", "other"):
        if not 0 <= size - base <= FILE_LIMIT:
            raise frames.broken("it announces more than was asked for")
        at = spool.seek(0, 2)
        await frames.copy(size - base, spool)
        if (last := await frames.line()) != [str(index), "same"]:
            if last == [str(index), "changed"]:
                raise OperationError(f"{path} was replaced while it was read", code="sync-failed", retry=True)
            raise frames.broken("a file in it has another length than it says")
        if _digest(spool, at, size - base) != digest:
            raise OperationError(f"{path} came damaged", code="sync-failed", remedy="reconciler sync", retry=True)
        return Frame(word, base, size, mtime, digest, at)
    if word in ("short", "missing"):
        return Frame(word, 0, size, mtime, digest)
    raise _trouble(word, path, clean(digest, 300))


async def read_grown(frames: Frames, count: int, spool: IO[bytes]) -> list[Frame]:
    """What `grown` tells of so many files, in order. Raises HostError.

    The digests are of whole files, and have been compared with nothing; "" where the host does not tell all of them.
    """
    found: list[Frame] = []
    for index in range(count):
        word, base, size, mtime, _ = await _header(frames, index)
        if word not in ("grown", "again") or not 0 <= size - base <= GROWN_LIMIT:
            raise frames.broken("a line in it is none of ours")
        at = spool.seek(0, 2)
        await frames.copy(size - base, spool)
        found.append(Frame(word, base, size, mtime, "", at))
    sums: list[str] = []
    while (fields := await frames.line()) != ["sums"]:
        if len(fields) != 2 or fields[0] != "sum" or len(sums) == count:
            raise frames.broken("a line in it is none of ours")
        sums.append(fields[1])
    if len(sums) != count:
        return found
    return [replace(frame, digest=digest) for frame, digest in zip(found, sums, strict=True)]


def _digest(spool: IO[bytes], at: int, length: int) -> str:
    """The SHA-256 of so many bytes of the spool."""
    found = hashlib.sha256()
    spool.seek(at)
    while length > 0 and (data := spool.read(min(length, 1 << 20))):
        found.update(data)
        length -= len(data)
    return found.hexdigest()


def _trouble(word: str, path: str, words: str) -> ReconcilerError:
    """What the host says is wrong with one file."""
    if word == "large":
        return too_large(path)
    if word == "odd":
        return OperationError(
            f"{path} is a link or no plain file: it was not read", code="unsafe-name",
            remedy="look who put it in the store of the agent",
        )  # fmt: skip
    if word == "denied":
        return OperationError(f"{path} may not be read", code="sync-failed", remedy=f"chmod u+r {path}")
    known = {
        "agent-missing": "its agent was not found",
        "workdir-missing": "its working directory does not exist",
        "timed-out": "its agent's export did not end in time",
        "disk-full": "there is no room for its export on the host",
    }
    code = word if word in known else "sync-failed"
    return OperationError(
        f"{known.get(word, 'its agent did not export it')}: {words}", code=code, remedy="reconciler sync"
    )
