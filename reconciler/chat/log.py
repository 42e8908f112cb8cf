"""The log of a chat on disk: one writer, appended and synced entry by entry; and the folder it lies in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.chat.entries import LINE_LIMIT, Entry, parse_entry
from reconciler.errors import LeaseHeldError, OperationError

LOG, CONFIG, STATE, INBOX, CLOSE = "log.jsonl", "chat.json", "chat-state.json", "inbox", "close"
MESSAGE_LIMIT = 200_000  # bytes of one message of a user


class Log:
    """The log, opened for writing by one process; a second one is refused for as long as the first lives."""

    def __init__(self, folder: Path) -> None:
        """Raises LeaseHeldError where another process has it, OperationError where it cannot be read."""
        self.path = folder / LOG
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise LeaseHeldError(f"another process runs this chat: it has {self.path} open") from None
        self.entries = self._whole()

    def _whole(self) -> list[Entry]:
        """All entries. A last line that has no end was torn by a crash, before anything followed from it: it goes."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.ftruncate(self._file, end)
        return list(parse(content[:end], self.path))

    def append(self, entry: Entry, now: float) -> Entry:
        """Write an entry down for good; it is in the log when this returns. Raises OperationError(disk-full)."""
        numbered = entry.numbered(len(self.entries) + 1, round(now, 3))
        line = (numbered.to_json() + "\n").encode("utf-8", "replace")
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, end)
            raise OperationError(f"{self.path}: {error.strerror}", code="disk-full", retry=True) from None
        self.entries.append(numbered)
        return numbered

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._file)


def parse(content: bytes, path: Path) -> Iterator[Entry]:
    """The entries of whole lines. Raises OperationError(log-broken) naming the line."""
    for number, line in enumerate(content.splitlines(), 1):
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
    """Put a message into the chat's inbox, in the order of sending; its id."""
    inbox = folder / INBOX
    inbox.mkdir(mode=0o700, exist_ok=True)
    identity = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    replace_file(inbox / f"{identity}.json", json.dumps({"text": text, "from": sender}))
    return identity


def received(folder: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    """What lies in the inbox, oldest first: id, file, message. What is no message is passed over."""
    found = []
    inbox = folder / INBOX
    for path in sorted(inbox.glob("[0-9]*.json")) if inbox.is_dir() else ():
        try:
            if path.stat().st_size > 4 * MESSAGE_LIMIT:
                continue
            message = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(message, dict) and isinstance(message.get("text"), str):
            found.append((path.stem, path, message))
    return found


def state(folder: Path) -> dict[str, Any]:
    """What the chat's process says of itself; empty where there is none."""
    try:
        found = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
