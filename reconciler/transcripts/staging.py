"""To-remote: what a host lacks of a conversation goes into our own state directory there, verified, for the launch."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.observed import StoreFile
from reconciler.core.transcript import FILES_LIMIT, Archived
from reconciler.errors import HostError, OperationError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.pieces import FILE_LIMIT, too_large, too_many
from reconciler.transcripts.scripts import common, text
from reconciler.transcripts.wire import Frames, number
from reconciler.transports import Channel
from reconciler.transports.quoting import quote

_SLOWEST = 100_000  # bytes a second; slower counts as stuck
_PIECE = 1 << 16


@dataclass(frozen=True)
class Outgoing:
    """A file to stage. `read` gives its bytes from an offset on; `beginning` is what the host seems to have of it."""

    name: str
    size: int
    sha256: str
    read: Callable[[int], Iterable[bytes]]
    host_path: str = ""
    beginning: int = 0
    beginning_sha256: str = ""


@dataclass(frozen=True)
class Staged:
    """A file that lies, whole and verified, at `incoming/<number>` in the session's directory on the host."""

    number: int
    sha256: str
    size: int
    name: str


def outgoing(
    archive: Archive, archived: Archived, here: Mapping[str, StoreFile], names: Iterable[str]
) -> list[Outgoing]:
    """Files of the archive to be staged. `here` are the host's copies by archive name. Blocks: reads digests."""
    found = []
    for name in names:
        file = archived.files[name]
        there = here.get(name)
        size = there.size if there is not None and 0 < there.size <= file.size else 0
        found.append(
            Outgoing(
                name, file.size, file.sha256, _reader(archive, archived, name), there.path if there and size else "",
                size, archive.prefix_digest(archived.session, archived.conversation, name, size) if size else "",
            )
        )  # fmt: skip
    return found


def _reader(archive: Archive, archived: Archived, name: str) -> Callable[[int], Iterator[bytes]]:
    return lambda offset: archive.read(archived.session, archived.conversation, name, offset)


async def stage(connection: Connection, state_dir: str, session: str, files: Sequence[Outgoing]) -> list[Staged]:
    """Bring files to the host, in one exec; only what comes after a verified beginning travels.

    Raises OperationError: diverged (the host's copy is no beginning of ours), disk-full, sync-failed.
    """
    if len(files) > FILES_LIMIT:
        raise too_many(session)
    for file in files:
        if file.size > FILE_LIMIT:
            raise too_large(file.name)
    nonce = secrets.token_hex(8)
    calls, offset = [], 0
    for index, file in enumerate(files):
        new = file.size - file.beginning
        numbers = [str(file.beginning), file.beginning_sha256 or "-", str(offset), str(new), file.sha256]
        calls.append(quote(["put_in", str(index), file.host_path or "-", *numbers]) + "\n")
        offset += new
    listed = "".join(calls).encode("utf-8", "surrogateescape")
    total = len(listed) + offset
    script = common() + text("stage")
    incoming = f"{state_dir}/sessions/{session}/incoming"
    try:
        async with asyncio.timeout(60.0 + total / _SLOWEST):
            transport = await connection.transport()
            channel = await transport.open(("sh", "-c", script, "stage", nonce, incoming, str(len(listed)), str(total)))
            try:
                words = await _converse(Frames(connection.name, channel, nonce), channel, listed, files)
            finally:
                with contextlib.suppress(HostError, OSError):
                    await channel.close()
    except TimeoutError:
        raise HostError(f"{connection.name}: it takes files too slowly", code="timed-out") from None
    return [_staged(connection.name, n, file, words.get(n, "")) for n, file in enumerate(files)]


async def _converse(frames: Frames, channel: Channel, listed: bytes, files: Sequence[Outgoing]) -> dict[int, str]:
    """Send while listening: a host whose disk is full says so before it has taken all."""
    listener = asyncio.create_task(_listen(frames, len(files)))
    sender = asyncio.create_task(_send(channel, listed, files))
    try:
        done, _ = await asyncio.wait({listener, sender}, return_when=asyncio.FIRST_COMPLETED)
        # A line that broke while we were sending: what the host said before that counts.
        if listener not in done and (error := sender.exception()) and not isinstance(error, HostError):
            raise error
        return await listener
    finally:
        listener.cancel()
        sender.cancel()
        await asyncio.gather(listener, sender, return_exceptions=True)


async def _listen(frames: Frames, count: int) -> dict[int, str]:
    await frames.begin()
    words: dict[int, str] = {}
    while (fields := await frames.line()) != ["end"]:
        if fields == ["full"]:
            return dict.fromkeys(range(count), "full")
        index = number(fields[0])
        if len(fields) != 2 or index is None or index >= count:
            raise frames.broken("a line in it is none of ours")
        words[index] = fields[1]
    return words


async def _send(channel: Channel, listed: bytes, files: Sequence[Outgoing]) -> None:
    await channel.write(listed)
    for file in files:
        left = file.size - file.beginning
        pieces = iter(file.read(file.beginning))
        while left:
            data = await asyncio.to_thread(next, pieces, b"")
            if not data:
                raise ReconcilerError(f"the archive's copy of {file.name} is too short", code="archive-damaged")
            data, left = data[:left], left - len(data[:left])
            for at in range(0, len(data), _PIECE):
                await channel.write(data[at : at + _PIECE])


def _staged(host: str, number: int, file: Outgoing, word: str) -> Staged:
    match word:
        case "ok":
            return Staged(number, file.sha256, file.size, file.name)
        case "changed":
            raise OperationError(
                f"{host}: {file.host_path} is not the beginning of what the archive has", code="diverged",
                remedy="reconciler sync SESSION shows both; --take archive|host decides",
            )  # fmt: skip
        case "full":
            raise OperationError(
                f"{host}: cannot write {file.name} below our state directory: is the disk full, or not writable?",
                code="disk-full", remedy=f"free some space on {host}, then apply again",
            )  # fmt: skip
        case _:
            raise OperationError(
                f"{host}: {file.name} did not arrive as it was sent", code="sync-failed", remedy="reconciler apply",
                retry=True,
            )  # fmt: skip
