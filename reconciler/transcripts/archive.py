"""The archive on the controller: a copy of every managed conversation, that only ever grows.

SESSION/.head                              the conversation that the session has at present
SESSION/CONVERSATION/manifest.json         what of its files counts; replaced after the data
SESSION/CONVERSATION/files/NAME
SESSION/CONVERSATION/diverged/COPY/NAME    copies that are no continuation of ours; nobody guesses
.tombstones/SESSION/CONVERSATION.json      what was purged, by digest and date
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.core.spec import Desired
from reconciler.core.transcript import FILES_LIMIT, Archived, ArchivedFile
from reconciler.errors import ReconcilerError
from reconciler.transcripts.manifest import LIMIT, Head, Manifest, Other
from reconciler.transcripts.pieces import (
    EMPTY,
    FILE_LIMIT,
    Readable,
    bounded,
    check_names,
    damaged,
    digest,
    folder_of,
    last_time,
    new_manifest,
    path_of,
    session_name,
    too_large,
    too_many,
    updating,
    whole_lines,
)
from reconciler.transcripts.reading import REMEMBERED, Reader, Scan

__all__ = ["EMPTY", "EXPORT", "FILE_LIMIT", "Archive", "Part", "Scan", "default_place"]

KEPT_EXPORTS = 5
KEPT_COPIES = 50  # diverged copies of one conversation
EXPORT = "export"


def default_place(fleet: str) -> Path:
    """Where the archive of a fleet lies unless the specs say otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "reconciler" / fleet / "archive"


def open_archive(desired: Desired) -> Archive:
    """The archive of a fleet: where its specs say, or below the user's data directory. Creates nothing."""
    return Archive(desired.fleet.archive or default_place(desired.fleet.name))


@dataclass(frozen=True)
class Part:
    """New bytes of one file: what they follow, and what the host's copy was when they were read."""

    name: str
    base_size: int
    base_sha256: str
    tail: bytes | Readable
    host_path: str = ""
    host_size: int = -1
    host_mtime: float = -1.0


class Archive(Reader):
    """All methods block: call them in a thread. They raise ReconcilerError and leave the old state valid."""

    def append(
        self, session: str, conversation: str, name: str, base_size: int, base_sha256: str, tail: bytes | Readable,
        *, agent: str = "", host: str = "", host_path: str = "", host_size: int = -1, host_mtime: float = -1.0,
    ) -> Archived:  # fmt: skip
        """Fast-forward one file: what is archived has to be exactly `base`."""
        part = Part(name, base_size, base_sha256, tail, host_path, host_size, host_mtime)
        return self.extend(session, conversation, [part], agent=agent, host=host)

    def extend(self, session: str, conversation: str, parts: Sequence[Part], *, agent: str, host: str) -> Archived:
        """Fast-forward some files of a conversation, which becomes the session's present one.

        Of JSONL only whole lines are taken. Clears a divergence: whoever calls this found that there is none.
        """
        with self.storage.locked(session_name(session)):
            manifest = self._settled(session, conversation) or new_manifest(session, conversation)
            check_names(part.name for part in parts)
            files: dict[str, ArchivedFile] = {}
            for part in parts:
                files[part.name] = self._grown(manifest, part)
            archived = manifest.archived
            if len({*archived.files, *files}) > FILES_LIMIT:
                raise too_many(session)
            changed = manifest.with_files(
                files, agent=agent or archived.agent, host=host or archived.host, at=time.time(), diverged=""
            )
            return self._write(replace(changed, others={}))

    def _grown(self, manifest: Manifest, part: Part) -> ArchivedFile:
        archived = manifest.archived
        have = archived.files.get(part.name) or ArchivedFile(part.name, 0, EMPTY)
        path = path_of(archived.session, archived.conversation, part.name)
        if (have.size, have.sha256) != (part.base_size, part.base_sha256):
            raise ReconcilerError(
                f"{path} has grown in the archive meanwhile; nothing was written", code="sync-failed", retry=True
            )
        tail = io.BytesIO(part.tail) if isinstance(part.tail, bytes) else part.tail
        length = whole_lines(tail) if part.name.endswith(".jsonl") else tail.seek(0, io.SEEK_END)
        if have.size + length > FILE_LIMIT:
            raise too_large(path)
        size, sha256 = have.size, have.sha256
        if length or self.storage.size(path) is None:
            sha256 = self._join(path, have, tail, length)
            size += length
        return ArchivedFile(part.name, size, sha256, part.host_path, part.host_size, part.host_mtime)

    def _join(self, path: str, have: ArchivedFile, tail: Readable, length: int) -> str:
        """Put so many bytes behind what counts, which has to be what its manifest says; the digest of all."""
        if have.size and self.at_hand:
            sums = self.beginning(path, have)
            done, stamp = self.storage.append(path, have.size, updating(sums, bounded(tail, length)))
            if done:
                self._sums.put(path, stamp, (have.size + length, sums))
                return sums.hexdigest()
        sums = hashlib.sha256()

        def joined() -> Iterator[bytes]:
            if have.size:
                yield from updating(sums, self.storage.chunks(path, 0, have.size))
                if sums.hexdigest() != have.sha256:
                    raise damaged(f"{self}/{path}", "it is not what its manifest says")
            yield from updating(sums, bounded(tail, length))

        stamp = self.storage.replace(path, joined())
        self._sums.put(path, stamp, (have.size + length, sums))
        return sums.hexdigest()

    def _write(self, manifest: Manifest, *, present: bool = True) -> Archived:
        archived = manifest.archived
        folder = folder_of(archived.session, archived.conversation)
        self._remember(f"{folder}/manifest.json", manifest)
        head = f"{archived.session}/.head"
        if present and self.small(head, 1000) != archived.conversation.encode() + b"\n":
            self.storage.replace(head, [archived.conversation.encode() + b"\n"])
        return archived

    def _remember(self, path: str, manifest: Manifest) -> None:
        text = manifest.to_json()
        stamp = self.storage.replace(path, [text])
        self._manifests.put(path, stamp if len(text) < REMEMBERED else None, manifest)

    def _settled(self, session: str, conversation: str) -> Manifest | None:
        """The manifest, after what a replacement that was cut off has come to."""
        manifest = self.manifest(session, conversation)
        if manifest is None or not manifest.pending:
            return manifest
        files = {}
        for name, head in manifest.pending.items():
            path, old = path_of(session, conversation, name), manifest.archived.files.get(name)
            if self.storage.size(path) == head.size and digest(self.storage.chunks(path)) == head.sha256:
                files[name] = replace(old or ArchivedFile(name, 0, EMPTY), size=head.size, sha256=head.sha256)
        return replace(manifest.with_files(files), pending={})

    def replace_whole(
        self, session: str, conversation: str, data: bytes | Readable, *, agent: str = "", host: str = "",
        name: str = EXPORT,
    ) -> Archived:  # fmt: skip
        """A newer export takes the place of the last one; the last few are kept as `export.1` (newest) and on."""
        check_names([name])
        with self.storage.locked(session_name(session)):
            manifest = self._settled(session, conversation) or new_manifest(session, conversation)
            source = io.BytesIO(data) if isinstance(data, bytes) else data
            size = source.seek(0, io.SEEK_END)
            if size > FILE_LIMIT:
                raise too_large(path_of(session, conversation, name))
            new = Head(size, digest(bounded(source, size)))
            files: dict[str, ArchivedFile] = {}
            old = manifest.archived.files.get(name)
            if old is None or (old.size, old.sha256) != (new.size, new.sha256):
                files = self._rotate(manifest, name)
                self._replace(manifest.with_files(files), {name: (new, bounded(source, size))})
                files[name] = ArchivedFile(name, new.size, new.sha256)
            archived = manifest.archived
            changed = manifest.with_files(
                files, agent=agent or archived.agent, host=host or archived.host, at=time.time(), diverged=""
            )
            return self._write(replace(changed, others={}, pending={}))

    def _rotate(self, manifest: Manifest, name: str) -> dict[str, ArchivedFile]:
        """Copies of the last exports, each under the next number."""
        files = {}
        for number in range(KEPT_EXPORTS - 1, -1, -1):
            older = manifest.archived.files.get(f"{name}.{number}" if number else name)
            if older is not None:
                to = f"{name}.{number + 1}"
                session, conversation = manifest.archived.session, manifest.archived.conversation
                data = self.storage.chunks(path_of(session, conversation, older.name), 0, older.size)
                self.storage.replace(path_of(session, conversation, to), data)
                files[to] = replace(older, name=to)
        return files

    def _replace(self, manifest: Manifest, contents: Mapping[str, tuple[Head, Iterable[bytes]]]) -> None:
        """Replace files by others, so that a cut at any moment leaves a manifest that can be settled."""
        self._write(replace(manifest, pending={name: head for name, (head, _) in contents.items()}), present=False)
        for name, (_, data) in contents.items():
            self.storage.replace(path_of(manifest.archived.session, manifest.archived.conversation, name), data)

    def keep_diverged(
        self, session: str, conversation: str, parts: Sequence[Part], *, agent: str, host: str, why: str
    ) -> Manifest:
        """Keep a host's copies that are no continuation of ours beside them, and say so; ours stay as they are.

        A part whose base is the copy that was kept last continues that one.
        """
        with self.storage.locked(session_name(session)):
            manifest = self._settled(session, conversation) or new_manifest(session, conversation)
            check_names(part.name for part in parts)
            others = dict(manifest.others)
            for part in parts:
                others[part.name] = self._kept(manifest, part, host)
            archived = replace(
                manifest.archived, agent=agent or manifest.archived.agent, at=time.time(), diverged=why or "diverged"
            )
            changed = replace(manifest, archived=archived, others=others)
            self._write(changed)
            return changed

    def _kept(self, manifest: Manifest, part: Part, host: str) -> Other:
        archived = manifest.archived
        before = manifest.others.get(part.name)
        goes_on = before is not None and (before.host, before.head.size, before.head.sha256) == (
            host, part.base_size, part.base_sha256,
        )  # fmt: skip
        below = f"{folder_of(archived.session, archived.conversation)}/diverged"
        kept = before.kept if before is not None and goes_on else self._free(below, host)
        have = ArchivedFile(part.name, part.base_size, part.base_sha256) if goes_on else ArchivedFile("", 0, EMPTY)
        tail = io.BytesIO(part.tail) if isinstance(part.tail, bytes) else part.tail
        length = tail.seek(0, io.SEEK_END)
        if have.size + length > FILE_LIMIT:
            raise too_large(f"{below}/{kept}/{part.name}")
        sha256 = self._join(f"{below}/{kept}/{part.name}", have, tail, length)
        head = Head(have.size + length, sha256, last_time(tail))
        return Other(host, kept, head, part.host_path, part.host_size, part.host_mtime)

    def _free(self, below: str, label: str) -> str:
        there = set(self.storage.names(below))
        for number in range(KEPT_COPIES):
            if (name := f"{label}.{number}") not in there:
                return name
        raise ReconcilerError(
            f"{self}/{below} holds {KEPT_COPIES} copies of {label} already", code="too-large",
            remedy="decide which one counts: reconciler sync SESSION --take archive|host",
        )  # fmt: skip

    def adopt(self, session: str, conversation: str) -> Archived:
        """The host's copies become ours; what we had is kept beside them."""
        with self.storage.locked(session_name(session)):
            manifest = self._settled(session, conversation)
            if manifest is None or not manifest.others:
                raise ReconcilerError(f"session.{session} has one copy only: there is nothing to take", code="stale")
            folder = folder_of(session, conversation)
            kept = self._free(f"{folder}/diverged", "archive")
            files, contents = {}, {}
            for name, other in manifest.others.items():
                if (old := manifest.archived.files.get(name)) is not None:
                    ours = self.storage.chunks(f"{folder}/files/{name}", 0, old.size)
                    self.storage.replace(f"{folder}/diverged/{kept}/{name}", ours)
                head, theirs = self._taken(f"{folder}/diverged/{other.kept}/{name}", name, other)
                contents[name] = (head, theirs)
                files[name] = ArchivedFile(
                    name, head.size, head.sha256, other.host_path, other.host_size, other.host_mtime
                )
            self._replace(manifest, contents)
            host = next(iter(manifest.others.values())).host
            changed = manifest.with_files(files, host=host, at=time.time(), diverged="")
            return self._write(replace(changed, others={}, pending={}))

    def _taken(self, path: str, name: str, other: Other) -> tuple[Head, Iterable[bytes]]:
        """What counts of a kept copy: whole lines, of what its digest vouches for."""
        if digest(self.storage.chunks(path, 0, other.head.size)) != other.head.sha256:
            raise damaged(f"{self}/{path}", "it is not what its manifest says")
        size = other.head.size
        if name.endswith(".jsonl"):
            ends = seen = 0
            for data in self.storage.chunks(path, 0, size):
                ends = seen + cut if (cut := data.rfind(b"\n") + 1) else ends
                seen += len(data)
            size = ends
        head = Head(size, digest(self.storage.chunks(path, 0, size)))
        return head, self.storage.chunks(path, 0, size)

    def settle(self, session: str, conversation: str) -> None:
        """Ours was chosen, and is on the host: the divergence is over. The host's copies stay where they are kept."""
        with self.storage.locked(session_name(session)):
            manifest = self._settled(session, conversation)
            if manifest is not None and manifest.archived.diverged:
                self._write(replace(manifest, archived=replace(manifest.archived, diverged=""), others={}))

    def tombstone(self, session: str, conversation: str, digest: str, date: float) -> None:
        """Write down that a conversation was purged, so that no copy of it comes back by itself."""
        data = {"session": session, "conversation": conversation, "sha256": digest, "date": date}
        path = f".tombstones/{folder_of(session, conversation)}.json"
        self.storage.replace(path, [json.dumps(data, sort_keys=True).encode() + b"\n"])

    def forget(self, session: str) -> None:
        """The session has no present conversation any more; what is archived stays."""
        with self.storage.locked(session_name(session)):
            self.storage.replace(f"{session}/.head", [b"\n"])

    def purge(self, session: str, conversation: str) -> None:
        """Delete a conversation with all its copies; a tombstone stays."""
        with self.storage.locked(session_name(session)):
            folder = folder_of(session, conversation)
            text = self.small(f"{folder}/manifest.json", LIMIT) or b""
            self.tombstone(session, conversation, hashlib.sha256(text).hexdigest(), time.time())
            if conversation in self.storage.names(session):
                self.storage.remove(folder)
            if (self.small(f"{session}/.head", 1000) or b"").strip() == conversation.encode():
                self.storage.replace(f"{session}/.head", [b"\n"])
