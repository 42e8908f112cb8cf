"""From-remote: what is new in the conversations of one host, in one exec, into the archive. Never by clocks."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import Sequence

from reconciler.core.agent import Agent
from reconciler.core.observed import SessionSeen
from reconciler.errors import HostError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.exporting import export_all
from reconciler.transcripts.scripts import common, text
from reconciler.transcripts.staging import Outgoing, Staged, outgoing, stage
from reconciler.transcripts.wire import Frames, read_frame
from reconciler.transcripts.work import Fork, Item, Outcome, PullResult, Work
from reconciler.transports.quoting import quote

__all__ = [
    "Fork", "Item", "Outcome", "Outgoing", "PullResult", "Staged", "outgoing", "pull", "pull_many", "stage",
]  # fmt: skip

ALL_OF_IT = 900.0  # seconds that one answer may take, whatever comes
_MEMORY = 1 << 20  # bytes of news of one conversation that are held in memory


async def pull(connection: Connection, agent: Agent, session: str, seen: SessionSeen, archive: Archive) -> PullResult:
    """One session. Raises what `pull_many` gives as a value."""
    [result] = await pull_many(connection, [Item(session, agent, seen)], archive)
    if result.error is not None:
        raise result.error
    return result


async def pull_many(connection: Connection, items: Sequence[Item], archive: Archive) -> list[PullResult]:
    """Any number of sessions of one host in one exec; none where nothing changed. Errors are values.

    A session whose answer breaks off fails alone; those behind it are asked for once more.
    """
    works = [Work(connection.name, item, archive) for item in items]
    await asyncio.to_thread(_prepare, works)
    await export_all(connection, [work for work in works if work.open and work.exports])
    for _ in range(8):  # twice for a divergence, and again for what stood behind an answer that broke
        asked = [work for work in works if work.open]
        if not asked:
            break
        await _exchange(connection, asked)
    for work in works:
        if work.open:
            work.fail(HostError(f"{connection.name}: the answers to a sync break off", code="sync-failed"))
    return [work.result for work in works if work.result is not None]


def _prepare(works: Sequence[Work]) -> None:
    for work in works:
        try:
            work.prepare()
        except ReconcilerError as error:
            work.fail(error)


async def _exchange(connection: Connection, works: Sequence[Work]) -> None:
    """One exec: the requests of all go up; frames come down and are archived session by session."""
    nonce = secrets.token_hex(8)
    order = [(work, name) for work in works for name in work.names]
    calls = [quote(["one", str(i), *work.request(name)]) for i, (work, name) in enumerate(order)]
    lines = [f"NONCE={nonce}", common(), text("pull"), "{", "printf '%s\\tbegin\\n' $NONCE", *calls]
    script = "\n".join([*lines, "printf '%s\\tend\\n' $NONCE", "exit 0", "}", ""])
    try:
        async with asyncio.timeout(ALL_OF_IT):
            transport = await connection.transport()
            channel = await transport.open(("sh",))
            try:
                frames = Frames(connection.name, channel, nonce)
                await channel.write(script.encode("utf-8", "surrogateescape"))
                await frames.begin()
                await _receive(frames, works)
            finally:
                with contextlib.suppress(HostError, OSError):
                    await channel.close()
    except TimeoutError:
        _failed(works, HostError(f"{connection.name}: a sync took more than {ALL_OF_IT:g} s", code="timed-out"))
    except HostError as error:
        _failed(works, error)


def _failed(works: Sequence[Work], error: HostError) -> None:
    """What broke an answer fails; what stood behind it is asked again, unless it was the line or all of it."""
    begun = [work for work in works if work.spool is not None]
    for work in begun if begun and error.code == "sync-failed" else works:
        if work.open:
            work.fail(error)
        work.spool = None


async def _receive(frames: Frames, works: Sequence[Work]) -> None:
    index = 0
    for work in works:
        # No name, nothing of it survives; not on the heap, since it may be large.
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY) as spool:
            work.spool = spool
            trouble: ReconcilerError | None = None
            for name in work.names:
                try:
                    work.take(name, await read_frame(frames, index, work.files[name].path, spool))
                except ReconcilerError as error:
                    if isinstance(error, HostError):
                        raise
                    trouble = trouble or error
                index += 1
            if trouble is not None:
                work.fail(trouble)
            else:
                await work.guarded(work.evaluate)
            work.spool = None
    if await frames.line() != ["end"]:
        raise frames.broken("its end is missing")
