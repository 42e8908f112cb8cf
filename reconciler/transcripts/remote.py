"""An archive anywhere that fsspec can open."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from reconciler.errors import ReconcilerError
from reconciler.transcripts.storage import CHUNK, translated


class Remote:
    """Anything that fsspec opens by its URL. One controller at a time writes there: it has no locks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._guards: dict[str, threading.Lock] = {}
        with self._translated():
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)

    def __str__(self) -> str:
        return self.url

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Libraries of clouds have errors of their own, and their packages may be missing."""
        try:
            with translated(self.url):
                yield
        except (ReconcilerError, GeneratorExit):
            raise
        except ImportError as error:
            raise ReconcilerError(
                f"the archive {self.url} needs a package: {error}", code="archive", remedy="pip install it"
            ) from error
        except Exception as error:
            raise ReconcilerError(f"the archive {self.url} cannot be used: {error}", code="archive") from error

    def _path(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def names(self, folder: str) -> list[str]:
        """What lies in a folder; nothing where there is no such folder."""
        with self._translated():
            try:
                self._files.invalidate_cache()
                found: list[Any] = self._files.ls(self._path(folder).rstrip("/"), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
            return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        with self._translated():
            try:
                found = self._files.info(self._path(path))
            except (FileNotFoundError, NotADirectoryError):
                return None
            return int(found["size"]) if found["type"] == "file" and not found.get("islink") else None

    def chunks(self, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Its bytes from an offset on."""
        with self._translated(), self._files.open(self._path(path), "rb") as file:
            file.seek(offset)
            while (room := CHUNK if length is None else min(CHUNK, length)) and (data := file.read(room)):
                length = None if length is None else length - len(data)
                yield bytes(data)

    def stamp(self, path: str) -> None:
        """Nobody can tell."""

    def append(self, path: str, size: int, chunks: Iterable[bytes]) -> tuple[bool, None]:
        """Objects are written whole."""
        return False, None

    def replace(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a whole file under another name, then move it."""
        where = self._path(path)
        beside = f"{where.rpartition('/')[0]}/.new-{secrets.token_hex(6)}"
        with self._translated():
            self._files.makedirs(where.rpartition("/")[0], exist_ok=True)
            try:
                with self._files.open(beside, "wb") as file:
                    for data in chunks:
                        file.write(data)
                self._files.mv(beside, where)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._files.rm(beside)
                raise

    def rename(self, path: str, to: str) -> None:
        """Give a file another name."""
        with self._translated():
            self._files.makedirs(self._path(to).rpartition("/")[0], exist_ok=True)
            self._files.mv(self._path(path), self._path(to))

    def remove(self, path: str) -> None:
        """Delete a file or a folder with all that is in it."""
        with self._translated():
            self._files.rm(self._path(path), recursive=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """One writer at a time in this process."""
        with self._guards.setdefault(name, threading.Lock()):
            yield
