"""What an archive holds, read with tolerance: what is foreign or half-written is told, never deleted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.core.transcript import Archived, ArchivedFile
from reconciler.core.values import is_name
from reconciler.errors import ReconcilerError
from reconciler.transcripts.manifest import LIMIT, Manifest, parse_manifest
from reconciler.transcripts.pieces import CONVERSATION, damaged, digest, folder_of, path_of
from reconciler.transcripts.stamps import Remembered
from reconciler.transcripts.storage import Folder, open_storage

LOG = logging.getLogger(__name__)
REMEMBERED = 16384  # bytes that a manifest may have to be remembered


@dataclass(frozen=True)
class Scan:
    """The present conversation of each session, and what in the archive could not be read: told, never deleted."""

    heads: Mapping[str, Archived] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Reader:
    """The part of `Archive` that writes nothing."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        """`where` is a path, or any URL that fsspec opens."""
        self.storage = open_storage(where)
        self._manifests: Remembered[Manifest] = Remembered(self.storage)
        self._sums: Remembered[tuple[int, hashlib._Hash]] = Remembered(self.storage)  # of so many first bytes

    def __str__(self) -> str:
        return str(self.storage)

    def heads(self) -> dict[str, Archived]:
        """The present conversation of each session: one manifest is read for each."""
        scan = self.scan()
        for problem in scan.problems:
            LOG.warning("archive %s: %s", self, problem)
        return dict(scan.heads)

    def scan(self) -> Scan:
        """As `heads`, with what is wrong as values."""
        found: dict[str, Archived] = {}
        problems: list[str] = []
        for name in self.storage.names(""):
            if name.startswith("."):
                continue
            if not is_name(name):
                problems.append(f"{name!r} is none of ours")
                continue
            try:
                if (archived := self._present(name)) is not None:
                    found[name] = archived
            except ReconcilerError as error:
                problems.append(error.message)
        return Scan(found, tuple(problems))

    def _present(self, session: str) -> Archived | None:
        head = self.small(f"{session}/.head", 1000)
        if head is not None:
            named = head.decode("utf-8", "replace").strip()
            if not named:
                return None
            if CONVERSATION.fullmatch(named):
                return self.get(session, named)
        names = [n for n in self.storage.names(session) if CONVERSATION.fullmatch(n)]
        known = [found for name in names if (found := self.get(session, name)) is not None]
        return max(known, key=lambda archived: archived.at, default=None)

    def get(self, session: str, conversation: str) -> Archived | None:
        """What is archived of one conversation; None where nothing is. Raises ReconcilerError(archive-damaged)."""
        manifest = self.manifest(session, conversation)
        return None if manifest is None else manifest.archived

    def manifest(self, session: str, conversation: str) -> Manifest | None:
        """The same, with the other ends of a conversation that has diverged."""
        folder = folder_of(session, conversation)
        path = f"{folder}/manifest.json"
        if (known := self._manifests.get(path)) is not None:
            return known
        stamp = self._manifests.stamp(path)
        text = self.small(path, LIMIT)
        if text is None:
            return None
        try:
            found = parse_manifest(text, session, conversation)
        except ValueError as error:
            raise damaged(f"{self}/{path}", str(error)) from None
        self._manifests.put(path, stamp if len(text) < REMEMBERED else None, found)
        return found

    def small(self, path: str, limit: int) -> bytes | None:
        """A small file whole; None where there is none."""
        size = self.storage.size(path)
        if size is None:
            return None
        if size > limit:
            raise damaged(f"{self}/{path}", "it is too large")
        return b"".join(self.storage.chunks(path))

    def read(self, session: str, conversation: str, name: str, offset: int = 0) -> Iterator[bytes]:
        """What counts of a file, from an offset on."""
        file = self._file(session, conversation, name)
        return self.storage.chunks(path_of(session, conversation, name), offset, max(0, file.size - offset))

    def prefix_digest(self, session: str, conversation: str, name: str, length: int) -> str:
        """SHA-256 of the first `length` bytes of an archived file."""
        file = self._file(session, conversation, name)
        if length == file.size:
            return file.sha256
        if not 0 <= length < file.size:
            raise ValueError(f"{name} has {file.size} bytes, not {length}")
        return digest(self.storage.chunks(path_of(session, conversation, name), 0, length))

    @property
    def at_hand(self) -> bool:
        """Whether what is archived can be read again for nothing, more or less."""
        return isinstance(self.storage, Folder)

    def beginning(self, path: str, file: ArchivedFile) -> hashlib._Hash:
        """The SHA-256 of what counts of a file, to go on with. Raises ReconcilerError(archive-damaged).

        What was hashed before is not read again while the file lies there as it was then.
        """
        known = self._sums.get(path)
        if known is not None and (known[0], known[1].hexdigest()) == (file.size, file.sha256):
            return known[1].copy()
        stamp, sums = self._sums.stamp(path), hashlib.sha256()
        for data in self.storage.chunks(path, 0, file.size) if file.size else ():
            sums.update(data)
        if sums.hexdigest() != file.sha256:
            raise damaged(f"{self}/{path}", "it is not what its manifest says")
        self._sums.put(path, stamp, (file.size, sums.copy()))
        return sums

    def _file(self, session: str, conversation: str, name: str) -> ArchivedFile:
        archived = self.get(session, conversation)
        if archived is None or name not in archived.files:
            raise ReconcilerError(
                f"the archive has no {name!r} of session.{session}", code="not-archived", remedy="reconciler sync"
            )
        return archived.files[name]

    def purged(self, session: str, conversation: str) -> bool:
        """Whether a conversation was purged."""
        path = f".tombstones/{folder_of(session, conversation)}.json"
        if isinstance(self.storage, Folder) and self.storage.lacks(path):
            return False
        return self.storage.size(path) is not None

    def anything_purged(self) -> bool:
        """Whether any conversation may have been."""
        return not (isinstance(self.storage, Folder) and self.storage.lacks(".tombstones"))

    def purged_at(self, session: str, conversation: str) -> float:
        """When a conversation was purged; 0 where nobody knows."""
        try:
            found = json.loads(self.small(f".tombstones/{folder_of(session, conversation)}.json", 10_000) or b"")
            return float(found["date"])
        except (ValueError, TypeError, KeyError):
            return 0.0
