"""What a launch and a stop need of the archive: files brought to a host before, a conversation copied after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.core.agent import Agent
from reconciler.core.observed import Reached, StoreFile
from reconciler.core.spec import Desired
from reconciler.core.steps import LaunchStep, PullStep
from reconciler.core.transcript import Archived
from reconciler.errors import OperationError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import Claim, Place
from reconciler.secret_values import resolve_all
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.archive import open_archive as open_archive
from reconciler.transcripts.relations import host_files
from reconciler.transcripts.staging import Staged, outgoing, stage
from reconciler.transcripts.sync import Item, PullResult, pull_many


@dataclass(frozen=True)
class Brought:
    """What was staged on the host, and where the launch puts it."""

    places: tuple[Place, ...] = ()
    imports: tuple[tuple[str, ...], ...] = ()
    import_env: Mapping[str, str] = field(default_factory=dict)
    claim: Claim | None = None


async def bring(connection: Connection, reached: Reached, archive: Archive, agent: Agent, step: LaunchStep) -> Brought:
    """Stage the archive's copy of the conversation. Raises OperationError(sync-failed) where it cannot be resumed."""
    conversation = step.bring
    assert conversation is not None
    archived = await asyncio.to_thread(archive.get, step.session, conversation)
    if archived is None or archived.empty:
        raise OperationError(f"the archive has nothing of conversation {conversation}", code="sync-failed")
    seen = reached.sessions.get(step.session)
    here = host_files(agent, seen, conversation) if seen is not None else {}
    store = {file.path: file for file in (seen.facts.store or ())} if seen is not None else {}
    beside = {name: store[file.path] for name, file in here.items()}
    exported = agent.export_args(conversation) is not None
    names = [name for name in archived.files if exported or agent.restore_path(name, conversation, step.real_workdir)]
    if exported:
        names = [name for name in names if name == "export"]
    if not names:
        raise OperationError(f"{agent.name} does not say where its conversation belongs", code="sync-failed")
    staged = await _staged(connection, reached, archive, archived, beside, names)
    if exported:
        below = f"{reached.state_dir}/sessions/{step.session}/incoming"
        return Brought(
            imports=tuple(agent.import_args(f"{below}/{s.number}") or () for s in staged),
            import_env=agent.transfer_env(f"{reached.state_dir}/sessions/{step.session}"),
        )
    places = tuple(
        Place(s.number, s.size, s.sha256, agent.restore_path(s.name, conversation, step.real_workdir) or "")
        for s in staged
    )
    found = agent.claim(step.real_workdir)
    claim = Claim(found.directory, found.store, found.script, found.args) if found is not None else None
    return Brought(places, claim=claim)


async def _staged(
    connection: Connection,
    reached: Reached,
    archive: Archive,
    archived: Archived,
    beside: Mapping[str, StoreFile],
    names: list[str],
) -> list[Staged]:
    """What is new to the host travels; all of it where what lies there is no beginning, and the launch decides."""
    try:
        files = await asyncio.to_thread(outgoing, archive, archived, beside, names)
        return await stage(connection, reached.state_dir, archived.session, files)
    except OperationError as error:
        if error.code != "diverged":
            raise
    files = await asyncio.to_thread(outgoing, archive, archived, {}, names)
    return await stage(connection, reached.state_dir, archived.session, files)


async def pull_step(
    connection: Connection, reached: Reached, archive: Archive, agent: Agent, step: PullStep, launch: Item
) -> PullResult:
    """From-remote for one step. Raises where the step requires the archive to have all of it afterwards."""
    [result] = await pull_many(connection, [launch], archive)
    if not step.required:
        return result
    if result.error is not None:
        raise result.error
    if result.outcome not in ("synced", "unchanged", "archive-ahead"):
        raise OperationError(
            f"its conversation could not be copied from {connection.name}: {result.message}",
            code="diverged" if result.outcome == "diverged" else "sync-failed",
            remedy=f"reconciler sync {step.session}",
        )
    return result


async def item_of(desired: Desired, reached: Reached, agent: Agent, session: str, command: str) -> Item:
    """What a sync has to know of a session: for agents that export, also how they are run."""
    seen = reached.sessions[session]
    conversation = seen.record.conversation if seen.record else None
    environment: dict[str, str] = {}
    if conversation is not None and agent.export_args(conversation) is not None:
        declared = desired.sessions.get(session)
        try:
            environment = await asyncio.to_thread(resolve_all, dict(declared.env) if declared else {})
        except ReconcilerError:
            environment = {}  # an export needs no credentials
        environment |= agent.transfer_env(f"{reached.state_dir}/sessions/{session}")
    host = desired.hosts.get(reached.name)
    return Item(session, agent, seen, command, environment, (host.shell or "") if host else "")
