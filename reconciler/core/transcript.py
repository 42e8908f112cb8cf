"""How two copies of a conversation stand to each other. Pure: sizes and digests in, a relation out.

Transcripts are append-only logs, so a copy is equal to another, a beginning of it, or neither. Clocks decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Relation = Literal["equal", "host-ahead", "archive-ahead", "diverged", "unknown"]
FILES_LIMIT = 2000  # files of one conversation; more is not a conversation
NAME_LIMIT = 400  # characters of an archived name


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file in the archive: its name there, bytes, SHA-256 (hex), and what the host's copy was at the last sync."""

    name: str
    size: int
    sha256: str
    host_path: str = ""
    host_size: int = -1
    host_mtime: float = -1.0


@dataclass(frozen=True, slots=True)
class Archived:
    """What the archive holds of one session's conversation. `host` is where it was last copied from."""

    session: str
    conversation: str
    agent: str
    host: str
    at: float
    files: Mapping[str, ArchivedFile] = field(default_factory=dict)
    diverged: str = ""  # why it is blocked, until somebody decides

    @property
    def empty(self) -> bool:
        """Whether there is nothing to resume from."""
        return not any(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class HostFile:
    """One file of a conversation on a host. `digests` maps a length to the SHA-256 of that many first bytes."""

    name: str
    path: str
    size: int
    mtime: float
    digests: Mapping[int, str] = field(default_factory=dict)


_SAFE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_. @+=:,-]*(/[A-Za-z0-9_.][A-Za-z0-9_. @+=:,-]*){0,8}")


def safe_name(name: str) -> bool:
    """Whether a name from a host may become a file of the archive: relative, no `..`, no control characters."""
    return (
        len(name) <= NAME_LIMIT
        and _SAFE.fullmatch(name) is not None
        and not any(part in ("", ".", "..") for part in name.split("/"))
    )


def unchanged(here: HostFile, there: ArchivedFile) -> bool:
    """Whether the host's copy is as it was at the last sync, so that nothing has to be read."""
    return (here.path, here.size, here.mtime) == (there.host_path, there.host_size, there.host_mtime)


def file_relation(here: HostFile | None, there: ArchivedFile | None, prefix: str | None = None) -> Relation:
    """How a host's copy stands to the archive's.

    `prefix` is the SHA-256 of the archive's first `here.size` bytes, needed where the host's copy is the shorter one.
    """
    if there is None or there.size == 0:
        return "equal" if here is None or here.size == 0 else "host-ahead"
    if here is None or here.size == 0:
        return "archive-ahead"
    if unchanged(here, there) and here.size >= there.size:
        # What the archive left out was the torn last line.
        return "equal"
    if here.size >= there.size:
        digest = here.digests.get(there.size)
        if digest is None:
            return "unknown"
        if digest != there.sha256:
            return "diverged"
        return "equal" if here.size == there.size else "host-ahead"
    digest = here.digests.get(here.size)
    if digest is None or prefix is None:
        return "unknown"
    return "archive-ahead" if digest == prefix else "diverged"


def overall(relations: Iterable[Relation]) -> Relation:
    """The relation of whole conversations: one diverged file, or two files ahead on different sides, is divergence."""
    found = set(relations)
    for word in ("diverged", "unknown"):
        if word in found:
            return word
    if {"host-ahead", "archive-ahead"} <= found:
        return "diverged"
    found.discard("equal")
    return found.pop() if found else "equal"


@dataclass(frozen=True, slots=True)
class Followed:
    """What was known of a session's conversation when it was last copied: bytes on the host, and when (seconds)."""

    size: int
    at: float


def is_due(last: Followed | None, size: int, *, busy: bool, interval: float, now: float) -> bool:
    """Whether a followed conversation is to be copied now: after each turn, and every `interval` while it works."""
    if last is None:
        return True
    return size != last.size and (not busy or now - last.at >= interval)
