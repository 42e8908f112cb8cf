"""A directory as a source: read at once when something in it changes, whatever way an editor writes files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re

from watchfiles import Change, DefaultFilter, awatch

from reconciler.sources import Revision
from reconciler.sources.directory import load_counted

_MOST = 100_000  # files that are looked at
_DEBOUNCE = 150  # milliseconds: an editor that writes a file in several steps is done by then
_LOOK = 2.0  # seconds between two looks at the files' times: some file systems tell nobody of changes
# What editors keep beside a file while it is being edited.
_SCRATCH = re.compile(r"(.*~|.*\.(swp|swo|swx|tmp|bak|orig|part)|4913|\.#.*|#.*#|.*___jb_(tmp|old)___|\..*\.kate-swp)")


class _Specs(DefaultFilter):
    """All changes but those of scratch files."""

    def __call__(self, change: Change, path: str) -> bool:
        return not _SCRATCH.fullmatch(os.path.basename(path)) and "/.git/" not in path


class DirectorySource:
    """Specs in a directory of this machine."""

    polls = False

    def __init__(self, directory: str) -> None:
        self.name = directory
        self._poked = asyncio.Event()
        self._read_as: object = None

    async def read(self) -> Revision:
        """What the files say now. Raises SpecError."""
        # Before, not after: what changes while it is read is read again.
        self._read_as = await asyncio.to_thread(_signature, self.name)
        desired, files = await asyncio.to_thread(load_counted, self.name)
        return Revision(desired.revision, "", desired, files)

    async def recall(self, commit: str) -> Revision | None:
        """A directory remembers nothing."""
        return None

    async def changed(self) -> None:
        """Return when a file below it was written, made or removed since the last `read`, or when it is poked."""
        poked = asyncio.create_task(self._poked.wait())
        watched = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([poked, watched], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._poked.clear()
            for task in (poked, watched):
                task.cancel()
            await asyncio.gather(poked, watched, return_exceptions=True)

    async def _watch(self) -> None:
        stop = asyncio.Event()
        try:
            while True:
                with contextlib.suppress(FileNotFoundError):
                    async for changes in awatch(
                        self.name, watch_filter=_Specs(), debounce=_DEBOUNCE, rust_timeout=int(_LOOK * 1000),
                        yield_on_timeout=True, stop_event=stop,
                    ):  # fmt: skip
                        if changes or await self._differs():
                            return
                if await self._differs():
                    return
                await asyncio.sleep(_LOOK)
        finally:
            stop.set()

    async def _differs(self) -> bool:
        return await asyncio.to_thread(_signature, self.name) != self._read_as

    def poke(self) -> None:
        """Read it now."""
        self._poked.set()

    async def close(self) -> None:
        """Nothing is held between two calls."""


def _signature(directory: str) -> object:
    """What is different whenever a file below it is: names, sizes, times. None where there is no such directory."""
    try:
        top = os.stat(directory)
    except OSError:
        return None
    found: list[tuple[str, int, int, int]] = [("", top.st_ino, top.st_dev, 0)]
    for place, directories, files in os.walk(directory, followlinks=True):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in files:
            if not _SCRATCH.fullmatch(name):
                with contextlib.suppress(OSError):
                    status = os.stat(os.path.join(place, name))
                    found.append((os.path.join(place, name), status.st_ino, status.st_mtime_ns, status.st_size))
        if len(found) > _MOST:
            break
    return sorted(found)
