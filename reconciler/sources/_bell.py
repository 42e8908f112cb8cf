"""The kernel's word that something below a directory was touched (Linux), so that nobody has to ask all the time.

It only says when to ask. Who cannot have it asks all the time, and who has it still asks now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys

MOST = 5000  # directories; of more it does not tell
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_NAMES = 0x40 | 0x80 | 0x100 | 0x200  # moved from, moved to, created, deleted
_ANYTHING = (
    _NAMES | 0x2 | 0x4 | 0x8 | 0x400 | 0x800
)  # written, attributes, closed after writing, it itself gone or moved


class Bell:
    """Rings when a file below one directory changes, or when a name beside that directory does."""

    def __init__(self, top: str) -> None:
        """Raises OSError where the kernel does not tell, or not of so much."""
        if not sys.platform.startswith("linux"):
            raise OSError(0, "this system has no inotify")
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(libc.inotify_init1(_NONBLOCK_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        try:
            watched = [(os.path.dirname(top), _NAMES), *((path, _ANYTHING) for path in _directories(top))]
            for path, what in watched:
                if libc.inotify_add_watch(self._fd, os.fsencode(path), what) < 0:
                    raise OSError(ctypes.get_errno(), "inotify_add_watch", path)
        except BaseException:
            self.close()
            raise

    async def rung(self, seconds: float) -> bool:
        """Whether it rings within this time; what it has rung for until now is forgotten then."""
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_reader(self._fd, heard.set)
        try:
            async with asyncio.timeout(seconds):
                await heard.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                pass
        return True

    def close(self) -> None:
        """Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _directories(top: str) -> list[str]:
    """A directory and all below it; links to others are entered once. Raises OSError for too many."""
    found: list[str] = []
    known: set[tuple[int, int]] = set()
    for path, below, _ in os.walk(top, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in known:
            below.clear()
            continue
        known.add((status.st_dev, status.st_ino))
        found.append(path)
        if len(found) > MOST:
            raise OSError(0, "too many directories")
    return found
