"""From-remote for agents whose store is no files: their own export, run in their own environment, archived whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import tempfile
from typing import IO, Any

from reconciler.errors import HostError, OperationError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import exports as export_lines
from reconciler.transcripts.archive import EXPORT, Part
from reconciler.transcripts.pieces import EMPTY, FILE_LIMIT, digest
from reconciler.transcripts.scripts import common, text
from reconciler.transcripts.wire import Frames, read_frame
from reconciler.transcripts.work import Work
from reconciler.transports.quoting import quote

_AT_ONCE = 4  # an export may start a whole agent
_TIME = 240.0


async def export_all(connection: Connection, works: list[Work]) -> None:
    """Fetch and archive exports, a few at a time; an error is the session's own."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Work) -> None:
        async with gate:
            await _export(connection, work)

    await asyncio.gather(*(one(work) for work in works))


async def _export(connection: Connection, work: Work) -> None:
    try:
        async with asyncio.timeout(_TIME):
            with tempfile.SpooledTemporaryFile(max_size=1 << 20) as spool:
                await _fetch(connection, work, spool)
                await work.guarded(_archive, work, spool)
    except TimeoutError:
        work.fail(HostError(f"{connection.name}: an export took more than {_TIME:g} s", code="timed-out"))
    except ReconcilerError as error:
        work.fail(error)


def _script(work: Work, nonce: str) -> str:
    record, item = work.item.seen.record, work.item
    assert record is not None
    arguments = item.agent.export_args(work.conversation) or ()
    body = [
        "out=$RECONCILER_OUT; unset RECONCILER_OUT RECONCILER_BODY",
        f"workdir={quote([record.workdir])}; command={quote([item.command or item.agent.command])}",
        'case $workdir in "~") workdir=$HOME ;; "~/"*) workdir=$HOME/${workdir#"~/"} ;; esac',
        'case $command in "~/"*) command=$HOME/${command#"~/"} ;; esac',
        'cd -- "$workdir" || exit 91',
        "workdir=$(pwd -P)",
        export_lines(item.environment),
        'command -v "$command" >/dev/null 2>&1 || { echo "$command is not on $PATH"; exit 127; }',
        f'exec "$command" {quote(arguments)} >"$out"',
    ]
    settings = {
        "NONCE": nonce, "LIMIT": str(FILE_LIMIT), "shell": item.shell, "fleet": record.fleet, "name": record.name,
        "BODY": "\n".join(body),
    }  # fmt: skip
    head = "".join(f"{name}={quote([value])}\n" for name, value in settings.items())
    place = "dir=${XDG_STATE_HOME:-$HOME/.local/state}/reconciler/$fleet/sessions/$name\n"
    library = head + place + common() + text("pull")
    return f"{library}{{\nprintf '%s\\tbegin\\n' $NONCE\n{text('export')}printf '%s\\tend\\n' $NONCE\nexit 0\n}}\n"


async def _fetch(connection: Connection, work: Work, spool: IO[bytes]) -> None:
    nonce = secrets.token_hex(8)
    script = _script(work, nonce)
    transport = await connection.transport()
    channel = await transport.open(("sh",))
    try:
        frames = Frames(connection.name, channel, nonce)
        await channel.write(script.encode("utf-8", "surrogateescape"))
        await frames.begin()
        await read_frame(frames, 0, f"the export of session.{work.item.session}", spool)
    finally:
        with contextlib.suppress(HostError, OSError):
            await channel.close()


def _archive(work: Work, spool: IO[bytes]) -> None:
    """An export that is no JSON, or has less in it than the last one, takes nobody's place."""
    session, conversation = work.item.session, work.conversation
    _check(spool, work.host)
    size = spool.seek(0, 2)
    spool.seek(0)
    sha256 = digest(iter(lambda: spool.read(1 << 20), b""))
    old = work.manifest.archived.files.get(EXPORT) if work.manifest else None
    if old is not None and size < old.size:
        other = work.manifest.others.get(EXPORT) if work.manifest else None
        if other is None or other.head.sha256 != sha256:
            part = Part(EXPORT, 0, EMPTY, spool)
            why = f"the export from {work.host} has less in it than the archive's"
            work.manifest = work.archive.keep_diverged(
                session, conversation, [part], agent=work.item.agent.name, host=work.host, why=why
            )
        return work.finish("diverged")
    known = old is not None and old.sha256 == sha256
    archived = work.archive.replace_whole(
        session,
        conversation,
        spool,
        agent=work.item.agent.name,
        host=work.host,
    )
    return work.finish("unchanged" if known else "synced", 0 if known else size, archived)


def _check(spool: IO[bytes], host: str) -> None:
    spool.seek(0)
    if spool.read(1) not in (b"{", b"["):
        return
    spool.seek(0)
    try:
        _: Any = json.load(spool)
    except (ValueError, RecursionError):
        raise OperationError(
            f"{host}: an export is no whole JSON; the last one stays in the archive", code="sync-failed", retry=True
        ) from None
