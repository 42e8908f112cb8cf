"""The log of a chat on disk: one writer, appended and synced entry by entry; and the folder it lies in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.chat.entries import LINE_LIMIT, Entry, parse_entry
from reconciler.core import jsons
from reconciler.errors import LeaseHeldError, OperationError

LOG, CONFIG, STATE, INBOX, CLOSE = "log.jsonl", "chat.json", "chat-state.json", "inbox", "close"
MESSAGE_LIMIT = 200_000  # bytes of one message of a user
FILE_LIMIT = 7 * MESSAGE_LIMIT  # bytes of a file with one: a character may take six in JSON
_STAMP = re.compile("[0-9]{20}")


class Log:
    """The log, opened for writing by one process; a second one is refused for as long as the first lives."""

    def __init__(self, folder: Path) -> None:
        """Raises LeaseHeldError where another process has it, OperationError where it cannot be read."""
        self.path = folder / LOG
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OperationError(f"{self.path}: {error.strerror}", code="log-broken") from None
        try:
            self._lock()
            self.entries = self._whole()
        except BaseException:
            os.close(self._file)  # whoever puts it right must not find it locked
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LeaseHeldError(f"another process runs this chat: it has {self.path} open") from None

    def _whole(self) -> list[Entry]:
        """All entries. A last line that has no end was torn by a crash, before anything followed from it: it goes."""
        content = self.path.read_bytes()
        self._end = content.rfind(b"\n") + 1
        found = list(parse(content[: self._end], self.path))
        if self._end < len(content):
            os.ftruncate(self._file, self._end)
        return found

    def append(self, entry: Entry, now: float) -> Entry:
        """Write an entry down for good; what stands in the log when this returns, as it will be read again.

        Raises OperationError: disk-full, or too-long for what no log can take; nothing is written then.
        """
        line = entry.numbered(len(self.entries) + 1, round(now, 3)).to_json().encode("utf-8", "replace")
        if len(line) > LINE_LIMIT:
            raise OperationError(f"{self.path}: an entry of {len(line)} bytes is too long", code="too-long")
        numbered = parse_entry(line.decode("utf-8"))
        try:
            # What an attempt that failed has left goes first, where it could not be taken back then.
            os.ftruncate(self._file, self._end)
            self._write(line + b"\n")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise OperationError(f"{self.path}: {error.strerror}", code="disk-full", retry=True) from None
        self._end += len(line) + 1
        self.entries.append(numbered)
        return numbered

    def _write(self, line: bytes) -> None:
        written = 0
        while written < len(line):
            written += os.pwrite(self._file, line[written:], self._end + written)
        os.fsync(self._file)

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._file)


def parse(content: bytes, path: Path, first: int = 1) -> Iterator[Entry]:
    """The entries of whole lines from the `first` on. Raises OperationError(log-broken) naming the line."""
    for number, line in enumerate(content.split(b"\n")[:-1], first):
        try:
            if len(line) > LINE_LIMIT:
                raise ValueError("it is too long")
            entry = parse_entry(line.decode("utf-8"))
            if entry.seq != number:
                raise ValueError(f"its number is {entry.seq}")
        except ValueError as error:
            why = f"{path}:{number}: {error}"
            raise OperationError(why, code="log-broken", remedy="put the line right, or move the file away") from None
        yield entry


def read(folder: Path) -> list[Entry]:
    """The entries of a chat's log so far, by whoever reads along. Raises OperationError(log-broken)."""
    path = folder / LOG
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(parse(content[: content.rfind(b"\n") + 1], path))


def replace_file(path: Path, text: str) -> None:
    """A whole file or none. Raises OperationError(disk-full)."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise OperationError(f"{path}: {error.strerror}", code="disk-full", retry=True) from None


def send(folder: Path, text: str, sender: str) -> str:
    """Put a message into the chat's inbox, behind those that wait there; its id. Raises OperationError(disk-full)."""
    inbox = folder / INBOX
    try:
        inbox.mkdir(mode=0o700, exist_ok=True)
        waiting = [path.name.partition("-")[0] for path in inbox.iterdir()]
    except OSError as error:
        raise OperationError(f"{inbox}: {error.strerror}", code="disk-full", retry=True) from None
    # By the clock, but never before what waits already, though the clock was set back.
    last = max((int(stamp) for stamp in waiting if _STAMP.fullmatch(stamp)), default=0)
    identity = f"{max(time.time_ns(), last + 1):020d}-{uuid.uuid4().hex[:8]}"
    replace_file(inbox / f"{identity}.json", json.dumps({"text": text, "from": sender}))
    return identity


def received(folder: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    """What lies in the inbox, oldest first: id, file, message. What is no message is passed over."""
    found = []
    inbox = folder / INBOX
    for path in sorted(inbox.glob("[0-9]*.json")) if inbox.is_dir() else ():
        message = _object(path)
        if isinstance(message.get("text"), str) and isinstance(message.get("from", ""), str):
            found.append((path.stem, path, message))
    return found


def state(folder: Path) -> dict[str, Any]:
    """What the chat's process says of itself; empty where there is none."""
    return _object(folder / STATE)


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; empty where there is none. What is no file could block for ever: not read."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_LIMIT:
            return {}
        value = jsons.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
