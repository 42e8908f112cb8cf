"""Specs from a directory that is watched, also when it is replaced, vanishes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from reconciler.errors import SourceError, SpecError
from reconciler.sources import Revision
from reconciler.sources._bell import Bell
from reconciler.sources.directory import Known, load_counted

_QUIET_MS = 150  # so long nothing more may happen before a change counts as finished
_BURST_MS = 1500  # but no longer than this
_LOOK_MS = 500  # how often to look whether the directory is still the same one
_UNRUNG = 2.0  # seconds without a ring after which to look whether the directory is still the same one
_SILENT = 15  # so often; then the watcher is asked though nothing rang
_SETTLE = 0.1
_SETTLE_TRIES = 20
_UNWATCHED = 5.0

# What editors write beside the file that is edited; hidden names are left out anyway.
_EDITORS = re.compile(r"#.*#|.*~|4913|.*\.(?:tmp|sw[a-px-z]|bak)|.*___jb_(?:tmp|old|bak)___", re.DOTALL)

_Identity = tuple[str, int, int] | None


def matters(path: str, top: str) -> bool:
    """Whether a change of `path` below `top` can change the specs: not hidden, not of an editor.

    The ignore file matters; so does `..data` and its like, which Kubernetes switches to bring in new files.
    """
    below = os.path.relpath(path, top)
    if below in (".", ".reconcilerignore"):
        return True
    parts = below.split(os.sep)
    if any(part.startswith(".") and not part.startswith("..") for part in parts):
        return False
    return _EDITORS.fullmatch(parts[-1]) is None


class DirectorySource:
    """The specs below a directory of this machine."""

    polls = False

    def __init__(self, directory: str) -> None:
        self.name = os.path.abspath(directory)
        self._directory = directory
        self._told = asyncio.Event()
        self._stop = threading.Event()
        self._watch: asyncio.Task[None] | None = None
        self._armed = asyncio.Event()
        self._last = ""
        self._known = Known()
        self._silent = 0

    async def read(self) -> Revision:
        """The specs as they are. What is new is read again until two reads agree, so that no half-written file counts.

        Raises SpecError with every diagnostic; SourceError(fetch-failed) where they keep on changing.
        """
        self._told.clear()
        await self._begin_to_watch()
        found = await asyncio.to_thread(self._load)
        for _ in range(_SETTLE_TRIES):
            if isinstance(found, Revision) and found.id == self._last:
                return found
            await asyncio.sleep(_SETTLE)
            again = await asyncio.to_thread(self._load)
            if _same(found, again):
                break
            found = again
        else:
            raise SourceError(f"{self.name} keeps on changing while it is read", code="fetch-failed")
        if isinstance(found, SpecError):
            raise found
        self._last = found.id
        return found

    def _load(self) -> Revision | SpecError:
        try:
            desired, files = load_counted(self._directory, known=self._known)
        except SpecError as error:
            return error
        return Revision(desired.revision, "", desired, files)

    async def recall(self, commit: str, *, fetch: bool = False) -> Revision | None:
        """None: a directory remembers nothing."""
        return None

    def hold(self, commits: frozenset[str]) -> None:
        """There are none."""

    async def changed(self) -> None:
        """Returns when something below the directory may have changed since the last `read` began."""
        await self._begin_to_watch()
        await self._told.wait()

    def poke(self) -> None:
        """Somebody says that it changed."""
        self._told.set()

    async def close(self) -> None:
        """Stop watching; safe to call twice."""
        self._stop.set()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def _begin_to_watch(self) -> None:
        """Before anything is read: a change after the read has begun is never missed."""
        if self._watch is None and not self._stop.is_set():
            self._watch = asyncio.create_task(self._keep_watching())
        if self._watch is not None:
            await self._armed.wait()

    async def _keep_watching(self) -> None:
        """Watch; begin anew whenever the path leads to another directory than before."""
        try:
            while not self._stop.is_set():
                before = self._identity()
                if before is None:
                    self._armed.set()
                    await asyncio.sleep(_LOOK_MS / 1000)
                    now = self._identity()
                else:
                    now = await self._watch_one(before)
                if now != before:
                    self._told.set()
        finally:
            self._armed.set()

    async def _watch_one(self, identity: _Identity) -> _Identity:
        """Watch this directory until the path leads elsewhere; gives where it leads then."""
        try:
            watcher = await asyncio.to_thread(RustNotify, [self.name], False, False, 300, True, True)
        except (OSError, WatchfilesRustInternalError):
            return await self._cannot_watch()
        bell = self._hang_bell()
        with watcher, contextlib.closing(bell) if bell is not None else contextlib.nullcontext():
            now = self._identity()
            if now == identity:
                self._rearmed()
            due = True  # at first: what changed before the bell hung rang for nobody
            while now == identity and not self._stop.is_set():
                changed = await self._wait_for_changes(watcher) if due else []
                paths = [path for path in changed if matters(path, self.name)]
                now = self._identity()
                if paths:
                    self._told.set()
                if any(os.path.islink(path) or os.path.isdir(path) for path in paths):  # noqa: ASYNC240 - a few stats
                    break  # watch what is there now
                due = bell is None or self._is_due(await bell.rung(_UNRUNG))
        return now

    def _hang_bell(self) -> Bell | None:
        """Asking the watcher wakes a thread several times a second: where the kernel tells when, it is asked then."""
        try:
            return Bell(self.name)
        except OSError:
            return None

    def _is_due(self, rung: bool) -> bool:
        """Whether to ask the watcher: it rang, or has not for so long that it is asked all the same."""
        self._silent = 0 if rung or self._silent >= _SILENT else self._silent + 1
        return self._silent == 0

    async def _wait_for_changes(self, watcher: RustNotify) -> list[str]:
        waiting = asyncio.ensure_future(asyncio.to_thread(watcher.watch, _BURST_MS, _QUIET_MS, _LOOK_MS, self._stop))
        try:
            found = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._stop.set()  # a thread cannot be cancelled, and the watcher must outlive it
            await waiting
            raise
        return [path for _, path in found] if isinstance(found, set) else []

    def _rearmed(self) -> None:
        """What changed while nothing watched is not lost: after the first time, look once more."""
        if self._armed.is_set():
            self._told.set()
        self._armed.set()

    async def _cannot_watch(self) -> _Identity:
        """The directory went away, or the kernel refuses (its limit of watches): look every few seconds instead."""
        self._armed.set()
        await asyncio.sleep(_LOOK_MS / 1000 if self._identity() is None else _UNWATCHED)
        self._told.set()
        return self._identity()

    def _identity(self) -> _Identity:
        try:
            status = os.stat(self.name)
        except OSError:
            return None
        return os.path.realpath(self.name), status.st_dev, status.st_ino


def _same(one: Revision | SpecError, other: Revision | SpecError) -> bool:
    if isinstance(one, Revision) and isinstance(other, Revision):
        return one.id == other.id
    if isinstance(one, SpecError) and isinstance(other, SpecError):
        return (one.message, one.diagnostics) == (other.message, other.diagnostics)
    return False
