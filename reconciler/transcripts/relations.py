"""How the host's copies of conversations stand to the archive's, asked only where a resume depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.core.agent import Agent
from reconciler.core.observed import Observed, Reached, SessionSeen
from reconciler.core.spec import Desired
from reconciler.core.transcript import Archived, ArchivedFile, HostFile, Relation, file_relation, overall, unchanged
from reconciler.errors import HostError
from reconciler.hosts import Hosts
from reconciler.transcripts.wire import number

PrefixDigest = Callable[[str, str, str, int], str]  # session, conversation, name, length -> SHA-256 of the archive's


@dataclass(frozen=True)
class _Pair:
    """One session that may be resumed, with both copies of its conversation."""

    host: str
    seen: SessionSeen
    archived: Archived
    files: Mapping[str, HostFile]


async def relations(
    hosts: Hosts,
    desired: Desired,
    agents: Mapping[str, Agent],
    observed: Observed,
    archive: Mapping[str, Archived],
    prefix_digest: PrefixDigest,
) -> dict[str, Relation]:
    """For each session that is not live and has both copies: how they stand. At most one more look per host.

    A host that does not answer the second time leaves its sessions "unknown".
    """
    pairs = list(_pairs(desired, agents, observed, archive))
    asked: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        for name, length in _lengths(pair):
            asked.setdefault(pair.host, []).append(("digest", f"{length} {pair.files[name].path}"))
            if name.endswith(".jsonl"):
                asked[pair.host].append(("digest", f"lines {pair.files[name].path}"))
    found = dict(await asyncio.gather(*(_digests(hosts, desired, host, checks) for host, checks in asked.items())))
    return {pair.seen.name: _relation(pair, found.get(pair.host, {}), prefix_digest) for pair in pairs}


def _pairs(
    desired: Desired, agents: Mapping[str, Agent], observed: Observed, archive: Mapping[str, Archived]
) -> Iterator[_Pair]:
    for host in observed.hosts.values():
        for name, seen in host.sessions.items() if isinstance(host, Reached) else ():
            archived, record = archive.get(name), seen.record
            if archived is None or record is None or seen.live or name not in desired.sessions:
                continue
            if record.conversation != archived.conversation or record.agent not in agents:
                continue
            if desired.sessions[name].host != host.name:
                continue  # a move copies before it decides anything
            agent = agents[record.agent]
            if agent.export_args(archived.conversation) is None:
                files = host_files(agent, seen, archived.conversation)
                if archived.host != host.name:
                    # What the archive knows of times is another host's.
                    files = {name: replace(file, mtime=-2.0) for name, file in files.items()}
                yield _Pair(host.name, seen, archived, files)


def host_files(agent: Agent, seen: SessionSeen, conversation: str) -> dict[str, HostFile]:
    """The files of a conversation on a host by their names in the archive."""
    found: dict[str, HostFile] = {}
    for file in seen.facts.store or ():
        name = agent.archive_name(file.path, conversation)
        if name is not None and (name not in found or file.size > found[name].size):
            found[name] = HostFile(name, file.path, file.size, file.mtime)
    return found


def _lengths(pair: _Pair) -> Iterator[tuple[str, int]]:
    """Of which files which first bytes have to be compared: the shorter copy's length, where anything changed."""
    for name, there in pair.archived.files.items():
        here = pair.files.get(name)
        if here is not None and here.size and there.size and not _plain(here, there):
            yield name, min(here.size, there.size)


def _plain(here: HostFile, there: ArchivedFile) -> bool:
    return unchanged(here, there) and here.size >= there.size


async def _digests(
    hosts: Hosts, desired: Desired, host: str, checks: list[tuple[str, str]]
) -> tuple[str, Mapping[str, str]]:
    try:
        reached = await hosts.connection(host, desired.hosts[host]).look(desired.fleet.name, checks)
    except HostError:
        return host, {}
    return host, reached.digests


def _relation(pair: _Pair, digests: Mapping[str, str], prefix_digest: PrefixDigest) -> Relation:
    found: dict[str, Relation] = {}
    for name in {*pair.archived.files, *pair.files}:
        here, there = pair.files.get(name), pair.archived.files.get(name)
        prefix = None
        if here is not None and there is not None and here.size and there.size:
            length = min(here.size, there.size)
            known = {length: digest} if (digest := digests.get(f"{length} {here.path}")) else {}
            here = HostFile(name, here.path, here.size, here.mtime, known)
            if here.size < there.size:
                prefix = prefix_digest(pair.seen.name, pair.archived.conversation, name, here.size)
        found[name] = file_relation(here, there, prefix)
        if here is not None and found[name] == "diverged" and _torn(pair, here, digests, prefix_digest):
            found[name] = "archive-ahead"
    # A file that is gone beside others that moved on was cleaned up by its agent: that is no divergence.
    there_still = [relation for name, relation in found.items() if name in pair.files]
    return overall(there_still if {"host-ahead", "diverged"} & set(there_still) else found.values())


def _torn(pair: _Pair, here: HostFile, digests: Mapping[str, str], prefix_digest: PrefixDigest) -> bool:
    """Whether it is a beginning of the archive's copy but for a last line that was torn when its writer died."""
    said, _, digest = digests.get(f"lines {here.path}", "").partition(" ")
    size = number(said)
    if size is None or size >= here.size or size > pair.archived.files[here.name].size:
        return False
    return digest == prefix_digest(pair.seen.name, pair.archived.conversation, here.name, size)
