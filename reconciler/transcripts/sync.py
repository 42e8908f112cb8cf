"""From-remote: what is new in the conversations of one host, in one flight, into the archive. Never by clocks."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
from collections.abc import Sequence

from reconciler.core.agent import Agent
from reconciler.core.observed import SessionSeen
from reconciler.errors import HostError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.exporting import export_all
from reconciler.transcripts.results import Fork, Item, Outcome, PullResult
from reconciler.transcripts.scripts import common, text
from reconciler.transcripts.staging import Outgoing, Staged, outgoing, stage
from reconciler.transcripts.wire import GROWN_LIMIT, Frames, read_frame, read_grown
from reconciler.transcripts.work import Work
from reconciler.transports.quoting import quote

__all__ = [
    "Fork", "Item", "Outcome", "Outgoing", "PullResult", "Staged", "outgoing", "pull", "pull_many", "stage",
]  # fmt: skip

ALL_OF_IT = 900.0  # seconds that one answer may take, whatever comes
_MEMORY = 1 << 20  # bytes of news of one conversation that are held in memory
_ARGUMENTS = 65536  # bytes of paths that one program is given
_HASHED = 1 << 28  # bytes of files that are hashed before anything comes, by hosts that are slow
# In few pieces: sshd sends a small packet, and keeps back the next small one until the first was acknowledged (Nagle).
_AT_ONCE = "} </dev/null | dd ibs=65536 obs=65536 2>/dev/null"


async def pull(connection: Connection, agent: Agent, session: str, seen: SessionSeen, archive: Archive) -> PullResult:
    """One session. Raises what `pull_many` gives as a value."""
    [result] = await pull_many(connection, [Item(session, agent, seen)], archive)
    if result.error is not None:
        raise result.error
    return result


async def pull_many(connection: Connection, items: Sequence[Item], archive: Archive) -> list[PullResult]:
    """Any number of sessions of one host in one flight; none where nothing changed. Errors are values.

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
    purged = bool(works) and works[0].archive.anything_purged()
    for work in works:
        try:
            work.prepare(purged=purged)
        except ReconcilerError as error:
            work.fail(error)


async def _exchange(connection: Connection, works: Sequence[Work]) -> None:
    """One flight on a kept shell: the requests of all go up; frames come down and are archived session by session."""
    quick, slow = _sorted(works)
    try:
        async with asyncio.timeout(ALL_OF_IT):
            transport = await connection.transport()
            for anew in (False, True):
                nonce = secrets.token_hex(8)
                async with connection.kept.lent(transport, anew=anew) as shell:
                    frames = Frames(connection.name, shell.channel, nonce)
                    try:
                        await shell.channel.write(
                            request(nonce, quick, slow, define=shell.new).encode("utf-8", "surrogateescape")
                        )
                        await frames.begin()
                    except HostError as error:
                        if shell.new or error.code == "timed-out":
                            raise
                        continue  # it ended while nobody used it
                    await _receive(frames, quick, slow)
                    shell.whole = frames.spent
                    break
    except TimeoutError:
        _failed(works, HostError(f"{connection.name}: a sync took more than {ALL_OF_IT:g} s", code="timed-out"))
    except HostError as error:
        _failed(works, error)


def _sorted(works: Sequence[Work]) -> tuple[list[Work], list[Work]]:
    """Those that are asked for all at once, as many as fit into the arguments of a program; and the others."""
    quick: list[Work] = []
    slow: list[Work] = []
    room, hashed = _ARGUMENTS, _HASHED
    for work in works:
        files = [work.files[name] for name in work.names]
        if fits := work.quick:
            room -= sum(len(file.path) + 10 for file in files)
            hashed -= sum(file.size for file in files)
            fits = room > 0 and hashed > 0
        (quick if fits else slow).append(work)
    return quick, slow


def request(nonce: str, quick: Sequence[Work], slow: Sequence[Work], *, define: bool) -> str:
    """What the shell is told. All of it or nothing: it is one command, read to its end before it begins."""
    grown = [(work.base(name), work.files[name].path) for work in quick for name in work.names]
    rest = [work.request(name) for work in slow for name in work.names]
    lines = [f"NONCE={nonce}", *((common(), text("pull")) if define else ()), "{", "printf '%s\\tbegin\\n' $NONCE"]
    if grown:
        bases = " ".join(str(base) for base, _ in grown)
        lines.append(quote(["grown", "0", bases, str(GROWN_LIMIT), *(path for _, path in grown)]))
    if rest:
        lines.append("now=$(date +%s)")
    lines += [quote(["one", str(number), *words]) for number, words in enumerate(rest, len(grown))]
    return "\n".join([*lines, "printf '%s\\tend\\n' $NONCE", "} </dev/null" if rest else _AT_ONCE, ""])


def _failed(works: Sequence[Work], error: HostError) -> None:
    """What broke an answer fails; what stood behind it is asked again, unless it was the line or all of it.

    Where it broke among what was asked for all at once, nobody knows by whom: each is asked for by itself.
    """
    begun = [work for work in works if work.spool is not None]
    for work in begun if begun and error.code == "sync-failed" else works:
        if work in begun and error.code == "sync-failed" and not work.careful and work.quick:
            work.careful = True
        elif work.open:
            work.fail(error)
        work.spool = None


async def _receive(frames: Frames, quick: Sequence[Work], slow: Sequence[Work]) -> None:
    if quick:
        await _receive_grown(frames, quick)
    index = sum(len(work.names) for work in quick)
    for work in slow:
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


async def _receive_grown(frames: Frames, works: Sequence[Work]) -> None:
    spooling = threading.Lock()
    with tempfile.SpooledTemporaryFile(max_size=_MEMORY) as spool:
        for work in works:
            work.spool, work.spooling = spool, spooling
        asked = [(work, name) for work in works for name in work.names]
        for (work, name), frame in zip(asked, await read_grown(frames, len(asked), spool), strict=True):
            if frame.word == "grown" and frame.base != work.base(name):
                raise frames.broken("it tells what nobody asked for")
            work.take(name, frame)
        # At once: each waits for the disk, and disks write for several as soon as for one.
        await asyncio.gather(*(work.guarded(work.evaluate) for work in works))
        for work in works:
            work.spool = None
