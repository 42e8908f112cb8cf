"""Where an archive lies: a plain folder, by directory handles that follow no link, or anything fsspec can open."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from reconciler.errors import ReconcilerError
from reconciler.transcripts.stamps import Stamp, mark, stamp_of

CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


class Storage(Protocol):
    """Files by relative names with `/`. Errors are ReconcilerErrors; a failed write leaves what was there."""

    def names(self, folder: str) -> list[str]:
        """What lies in a folder; nothing where there is no such folder."""

    def size(self, path: str) -> int | None:
        """Bytes of a plain file; None where there is none."""

    def chunks(self, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Its bytes from an offset on."""

    def replace(self, path: str, chunks: Iterable[bytes]) -> Stamp | None:
        """Write a whole file beside, sync it, and give it its name. Returns its stamp, where it can vouch for it."""

    def append(self, path: str, size: int, chunks: Iterable[bytes]) -> tuple[bool, Stamp | None]:
        """Write behind its first `size` bytes, which nobody touches, in place of what is there, and sync it.

        Whether that was done, and as `replace`; not where it has to be replaced: then nothing was taken of `chunks`.
        """

    def stamp(self, path: str) -> Stamp | None:
        """Which file lies there, as it is now; None where there is none, or nobody can tell so exactly."""

    def rename(self, path: str, to: str) -> None:
        """Give a file another name."""

    def remove(self, path: str) -> None:
        """Delete a file or a folder with all that is in it."""

    def locked(self, name: str) -> AbstractContextManager[None]:
        """One writer at a time for what lies below a folder."""


def open_storage(where: str | os.PathLike[str]) -> Storage:
    """The storage that a path or URL names."""
    text = os.fspath(where)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)))
    if "://" in text:
        from reconciler.transcripts.remote import Remote

        return Remote(text)
    return Folder(Path(text).expanduser())


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Errors of the operating system, as one that a user can act on."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in _FULL:
            raise ReconcilerError(
                f"the archive {where} is full: {why}", code="disk-full", remedy="free some space where it lies"
            ) from error
        if error.errno in _FORBIDDEN:
            raise ReconcilerError(
                f"the archive {where} cannot be written: {why}",
                code="read-only",
                remedy="give reconciler the right to write there, or set another archive",
            ) from error
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ReconcilerError(
                f"the archive {where} holds a link or a file where a folder belongs",
                code="unsafe-name",
                remedy="look at it and take it away; nothing outside the archive is ever followed",
            ) from error
        raise ReconcilerError(f"the archive {where} cannot be used: {why}", code="archive") from error


class Folder:
    """A plain folder: atomic renames, modes 0700 and 0600, no link is followed below its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._guards: dict[str, threading.Lock] = {}

    def __str__(self) -> str:
        return str(self.root)

    @contextmanager
    def _folder(self, parts: list[str], *, make: bool) -> Iterator[int]:
        """A handle of a folder below the root, reached one step at a time."""
        if make:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        handle = os.open(self.root, flags)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=handle)
                below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _at(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        *folders, name = path.split("/")
        with translated(f"{self.root}/{path}"), self._folder(folders, make=make) as handle:
            yield handle, name

    def names(self, folder: str) -> list[str]:
        """What lies in a folder; nothing where there is no such folder."""
        with translated(f"{self.root}/{folder}"):
            try:
                with self._folder([p for p in folder.split("/") if p], make=False) as handle:
                    return sorted(os.listdir(handle))
            except FileNotFoundError:
                return []

    def size(self, path: str) -> int | None:
        """Bytes of a plain file; None where there is none."""
        with self._at_or_none(path) as found:
            return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    @contextmanager
    def _at_or_none(self, path: str) -> Iterator[os.stat_result | None]:
        found = None
        with translated(f"{self.root}/{path}"), contextlib.suppress(FileNotFoundError):
            *folders, name = path.split("/")
            with self._folder(folders, make=False) as handle:
                found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        yield found

    def chunks(self, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Its bytes from an offset on. Raises ReconcilerError for what is no plain file."""
        with self._at(path) as (folder, name):
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(errno.ENOTDIR, "no plain file")
                file.seek(offset)
                while (room := CHUNK if length is None else min(CHUNK, length)) and (data := file.read(room)):
                    length = None if length is None else length - len(data)
                    yield data

    def stamp(self, path: str) -> Stamp | None:
        """Which file lies there, by whatever way: a stamp that is known is of a file to which no link led."""
        try:
            return stamp_of(os.stat(f"{self.root}/{path}", follow_symlinks=False))
        except (OSError, ValueError):
            return None

    def lacks(self, path: str) -> bool:
        """Whether nothing lies there, by whatever way; quicker than `size`, which says what does."""
        try:
            os.lstat(f"{self.root}/{path}")
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            pass
        return False

    def append(self, path: str, size: int, chunks: Iterable[bytes]) -> tuple[bool, Stamp | None]:
        """Write in place, which leaves what counts as it is, whenever it is cut off; not to a file with two names."""
        with self._at(path) as (folder, name):
            handle = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                found = os.fstat(handle)
                if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size < size:
                    return False, None
                own = _extend(handle, size, chunks)
                return True, stamp_of(os.fstat(handle)) if own else None
            finally:
                os.close(handle)

    def replace(self, path: str, chunks: Iterable[bytes]) -> Stamp | None:
        """Write a whole file beside, sync it and its folder, and give it its name."""
        with self._at(path, make=True) as (folder, name):
            beside = f".new-{secrets.token_hex(6)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            handle = os.open(beside, flags, 0o600, dir_fd=folder)
            try:
                with open(handle, "wb") as file:
                    for data in chunks:
                        file.write(data)
                    file.flush()
                    own = mark(handle)
                    os.fsync(handle)
                    os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
                    found = stamp_of(os.fstat(handle))
                os.fsync(folder)
                return found if own else None
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(beside, dir_fd=folder)
                raise

    def rename(self, path: str, to: str) -> None:
        """Give a file another name."""
        with self._at(path) as (here, old), self._at(to, make=True) as (there, new):
            os.replace(old, new, src_dir_fd=here, dst_dir_fd=there)

    def remove(self, path: str) -> None:
        """Delete a file or a folder with all that is in it; links go, what they point to stays."""
        with self._at(path) as (folder, name):
            _remove(folder, name)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """One writer at a time, also among processes."""
        import fcntl

        with self._guards.setdefault(name, threading.Lock()), self._at(f"{name}/.lock", make=True) as (folder, lock):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)


def _extend(handle: int, size: int, chunks: Iterable[bytes]) -> bool:
    end = os.lseek(handle, size, os.SEEK_SET)
    try:
        for data in chunks:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            end += len(data)
        os.ftruncate(handle, end)
        own = mark(handle)
        os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise
    return own


def _remove(folder: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        for below in os.listdir(handle):
            _remove(handle, below)
    finally:
        os.close(handle)
    os.rmdir(name, dir_fd=folder)
