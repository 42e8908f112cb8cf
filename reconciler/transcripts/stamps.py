"""What was made of files the last time: believed only while the very same file lies there, untouched since."""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import Generic, Protocol, TypeVar

_SETTLED = 3_000_000_000  # ns; more than the coarsest clock of files
_MOST = 4096  # files of which something is remembered

Stamp = tuple[int, int, int, int, int]  # device, inode, size, and when content and entry changed (ns)
T = TypeVar("T")


class Stamped(Protocol):
    """The part of a storage that is used here."""

    def stamp(self, path: str) -> Stamp | None:
        """Which file lies there, as it is now; None where nobody can tell so exactly."""


def stamp_of(found: os.stat_result) -> Stamp | None:
    """That of a plain file."""
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def mark(handle: int) -> bool:
    """Give a file that was just written a time of its own, finer than the clock by which a later change gets its time.

    Whether that worked: then whoever changes the file from now on changes its stamp, however soon.
    """
    now = time.time_ns()
    try:
        os.utime(handle, ns=(now, now))
    except OSError:  # a file system that has no such times
        return False
    return os.fstat(handle).st_mtime_ns == now and now % 1_000_000 != 0


class Remembered(Generic[T]):
    """By path; for several threads."""

    def __init__(self, storage: Stamped) -> None:
        self._storage = storage
        self._found: dict[str, tuple[Stamp, T]] = {}
        self._lock = threading.Lock()

    def get(self, path: str) -> T | None:
        """What was made of the file that lies there now; None where nothing was, or it may have changed."""
        known = self._found.get(path)
        return known[1] if known is not None and known[0] == self._storage.stamp(path) else None

    def stamp(self, path: str) -> Stamp | None:
        """To be asked for before a file is read; None where what is read is not to be remembered.

        A file that changed a moment ago may change once more and have the same times.
        """
        found = self._storage.stamp(path)
        return found if found is not None and max(found[3:]) < time.time_ns() - _SETTLED else None

    def put(self, path: str, stamp: Stamp | None, value: T) -> None:
        """Remember what was made of the file that has this stamp; forget what was there before."""
        with self._lock:
            self._found.pop(path, None)
            if stamp is not None:
                self._found[path] = stamp, value
            if len(self._found) > _MOST:
                del self._found[next(iter(self._found))]
