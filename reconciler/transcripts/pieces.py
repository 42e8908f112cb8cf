"""The small parts of an archive: bytes in pieces, whole lines, names that are safe, and what is refused."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Protocol

from reconciler.core import jsons
from reconciler.core.transcript import FILES_LIMIT, Archived, safe_name
from reconciler.core.values import is_name
from reconciler.errors import ReconcilerError
from reconciler.transcripts.manifest import Manifest
from reconciler.transcripts.storage import CHUNK

FILE_LIMIT = 1 << 30  # bytes of one file
EMPTY = hashlib.sha256().hexdigest()
CONVERSATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class Readable(Protocol):
    """The part of a binary file that is used here."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place; says which."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""


class Slice:
    """A part of the spool as a file of its own, for reading; for one thread, `lock` is for those with other parts."""

    def __init__(self, spool: Readable, at: int, length: int, lock: AbstractContextManager[object]) -> None:
        self._spool, self._at, self._length, self._position = spool, at, length, 0
        self._lock = lock

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        self._position = (self._length if whence == 2 else 0) + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        left = max(0, self._length - self._position)
        with self._lock:
            self._spool.seek(self._at + self._position)
            data = self._spool.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data


def digest(chunks: Iterable[bytes]) -> str:
    """SHA-256, in hex, of what comes in pieces."""
    sums = hashlib.sha256()
    for data in chunks:
        sums.update(data)
    return sums.hexdigest()


def updating(sums: hashlib._Hash, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces, each added to a digest as it passes."""
    for data in chunks:
        sums.update(data)
        yield data


def bounded(file: Readable, length: int) -> Iterator[bytes]:
    """The first `length` bytes of a file, in pieces."""
    file.seek(0)
    while length and (data := file.read(min(CHUNK, length))):
        length -= len(data)
        yield data


def whole_lines(file: Readable) -> int:
    """How many of its bytes are whole lines."""
    end = file.seek(0, io.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        cut = file.read(end - start).rfind(b"\n") + 1
        if cut:
            return start + cut
        end = start
    return 0


_TIMES = ("timestamp", "time", "ts", "at", "lastUpdated")


def last_time(file: Readable) -> str:
    """The time that the last whole line of a JSONL file tells, as it stands there; "" where it tells none."""
    end = whole_lines(file)
    file.seek(max(0, end - 65536))
    for line in reversed(file.read(min(end, 65536)).splitlines()):
        try:
            entry = jsons.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found = next((entry[key] for key in _TIMES if isinstance(entry.get(key), str | int | float)), None)
            if found is not None:
                return "".join(c for c in str(found)[:40] if c.isprintable())
    return ""


def too_many(session: str) -> ReconcilerError:
    """More files than a conversation has."""
    return ReconcilerError(
        f"the conversation of session.{session} has more than {FILES_LIMIT} files: nothing of it was copied",
        code="too-large", remedy="look what fills its store on the host",
    )  # fmt: skip


def too_large(path: str) -> ReconcilerError:
    """A file beyond what is archived."""
    return ReconcilerError(
        f"{path} has more than {FILE_LIMIT >> 20} MiB: it was not copied", code="too-large",
        remedy="end this conversation, and start another",
    )  # fmt: skip


def check_names(names: Iterable[str]) -> None:
    """Raises ReconcilerError(unsafe-name)."""
    for name in names:
        if not safe_name(name):
            raise ReconcilerError(
                f"{name[:80]!r} cannot name a file of the archive", code="unsafe-name",
                remedy="look what lies in the store on the host",
            )  # fmt: skip


def session_name(name: str) -> str:
    """The name of a session, checked."""
    if not is_name(name):
        raise ReconcilerError(f"{name[:80]!r} cannot name a session", code="unsafe-name")
    return name


@lru_cache(maxsize=8192)
def folder_of(session: str, conversation: str) -> str:
    """The folder of a conversation, both names checked."""
    if not CONVERSATION.fullmatch(conversation):
        raise ReconcilerError(f"{conversation[:80]!r} cannot name a conversation", code="unsafe-name")
    return f"{session_name(session)}/{conversation}"


def path_of(session: str, conversation: str, name: str) -> str:
    """The path of an archived file, all names checked."""
    check_names([name])
    return f"{folder_of(session, conversation)}/files/{name}"


def new_manifest(session: str, conversation: str) -> Manifest:
    """Of a conversation of which nothing is archived yet."""
    return Manifest(Archived(session, conversation, "", "", time.time()))


def damaged(path: str, why: str) -> ReconcilerError:
    """What lies there is not what it should be. It is never deleted."""
    return ReconcilerError(
        f"{path}: {why}", code="archive-damaged", remedy="it was left as it is; move it away to begin a new copy"
    )
