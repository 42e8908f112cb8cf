"""What only a person decides: which of two copies counts, and that a conversation is to be gone for good."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

from reconciler import drivers
from reconciler.core.agent import Agent
from reconciler.core.observed import Reached, SessionSeen
from reconciler.core.spec import address_of
from reconciler.errors import OperationError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import Credentials
from reconciler.runtimes.scripts import text as shared_text
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.results import PullResult
from reconciler.transcripts.scripts import text
from reconciler.transcripts.staging import outgoing, stage
from reconciler.transports.quoting import quote


def _address(seen: SessionSeen) -> str:
    return address_of(seen.name, seen.record.agent if seen.record else "")


async def take_archive(
    connection: Connection, reached: Reached, credentials: Credentials, archive: Archive, result: PullResult
) -> str:
    """The archive's copies take the place of the host's. Returns where on the host those are kept.

    Raises OperationError: already-running, stale (the host's copy is not the one that was shown), disk-full.
    """
    seen, archived = reached.sessions[result.session], result.archived
    assert archived is not None
    if seen.live:
        raise OperationError(
            f"{_address(seen)} is {seen.state}: its conversation cannot be replaced under it",
            code="already-running",
            remedy="take it out of the specs, then: reconciler apply; "
            f"then: reconciler sync {seen.name} --take archive",
        )  # fmt: skip
    manifest = await asyncio.to_thread(archive.manifest, result.session, result.conversation)
    forks = {fork.name: fork for fork in result.forks if fork.name in archived.files}
    files = await asyncio.to_thread(outgoing, archive, archived, {}, forks)
    staged = await stage(connection, reached.state_dir, result.session, files)
    calls = []
    for file in staged:
        there = manifest.others[file.name].host_path if manifest else ""
        calls.append(["put_over", str(file.number), file.sha256, there, forks[file.name].host.sha256])
    body = "\n".join(["at_rest", *map(quote, calls), "placed"])
    answer = await _operate(connection, credentials, seen, body)
    await asyncio.to_thread(archive.settle, result.session, result.conversation)
    return str(answer.get("kept", ""))


async def purge_host(
    connection: Connection, credentials: Credentials, agent: Agent, seen: SessionSeen
) -> tuple[str, ...]:
    """Delete the conversation's files and our record of the session on a host. Returns the files.

    Raises OperationError: already-running, unknown, unsafe-name.
    """
    record = seen.record
    if seen.live or record is None:
        raise OperationError(
            f"{_address(seen)} is {seen.state}: nothing was deleted", code="already-running",
            remedy=f"take it out of the specs, then: reconciler apply; then: reconciler purge {seen.name}",
        )  # fmt: skip
    named = record.conversation or ""
    store = seen.facts.store or ()
    paths = tuple(file.path for file in store if named and agent.archive_name(file.path, named) is not None)
    runtime = drivers.runtime(record.strategy)
    body = "\n".join(["at_rest", "login_path", "runtime_end", *(quote(["wipe", p]) for p in paths), "wiped"])
    await _operate(connection, credentials, seen, body, runtime.script)
    return paths


async def _operate(
    connection: Connection, credentials: Credentials, seen: SessionSeen, body: str, more: str = ""
) -> Mapping[str, object]:
    """Under the guard: fence, lease, and the session's lock."""
    nonce = secrets.token_hex(8)
    settings = {
        "FLEET": credentials.fleet, "HOLDER": credentials.holder, "FENCE": credentials.fence, "TTL": credentials.ttl,
        "OP": secrets.token_hex(16), "NONCE": nonce, "NAME": seen.name, "EXPECT": seen.incarnation,
    }  # fmt: skip
    head = "".join(f"{name}={quote([str(value)])}\n" for name, value in settings.items())
    library = shared_text("common") + shared_text("guard") + more + text("decide")
    script = f"{head}{library}{{\nguard {quote([f'session-{seen.name}'])}\n{body}\nexit 0\n}}\n"
    return await connection.operate(script, nonce)
