"""Keys to log in with: files, each read and decrypted once per version, and what an agent holds."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import asyncssh

__all__ = ["TooOpenError", "load_key", "read_public", "ready", "with_certificate"]

T = TypeVar("T")
_Version = tuple[int, int, int]


class TooOpenError(Exception):
    """A key file that others may read; its mode."""


class _Once(Generic[T]):
    """What files were read as, or why they could not be, one answer per version of a file.

    Whoever asks while the answer is being found waits for it: a fleet that shares a key decrypts it once.
    """

    def __init__(self, read: Callable[[str, str | None], T]) -> None:
        self._read = read
        self._known: dict[tuple[str, int], tuple[_Version, T | Exception]] = {}
        self._locks: dict[tuple[str, int], threading.Lock] = {}

    def knows(self, path: str, passphrase: str | None = None) -> bool:
        """Whether `get` needs only to see that the file is as it was. Raises OSError."""
        known = self._known.get((path, hash(passphrase)))
        return known is not None and known[0] == _version(path)

    def get(self, path: str, passphrase: str | None = None) -> T:
        """What the file holds. Raises OSError, and what the reader raises."""
        question, version = (path, hash(passphrase)), _version(path)
        known = self._known.get(question)
        if known is None or known[0] != version:
            with self._locks.setdefault(question, threading.Lock()):
                known = self._known.get(question)
                if known is None or known[0] != version:
                    known = self._known[question] = (version, self._answer(path, passphrase))
        if isinstance(known[1], Exception):
            raise type(known[1])(*known[1].args)
        return known[1]

    def _answer(self, path: str, passphrase: str | None) -> T | Exception:
        try:
            return self._read(path, passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            return type(error)(*error.args)  # without the frames that it passed through, which know the passphrase


def _version(path: str) -> _Version:
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


_keys = _Once(asyncssh.read_private_key)
_publics = _Once(lambda path, _: asyncssh.read_public_key(path).public_data)
_certificates = _Once(lambda path, _: asyncssh.read_certificate(path))


def ready(path: str, passphrase: str | None) -> bool:
    """Whether `load_key` answers at once: the key is known, or there is none."""
    try:
        return _keys.knows(path, passphrase)
    except OSError:
        return True


def load_key(path: str, passphrase: str | None) -> asyncssh.SSHKey:
    """A private key. Raises OSError, TooOpenError, asyncssh.KeyImportError and asyncssh.KeyEncryptionError."""
    stat = os.stat(path)
    if stat.st_uid == os.getuid() and stat.st_mode & 0o077:  # as ssh: nothing is said of somebody else's file
        raise TooOpenError(f"{stat.st_mode & 0o777:04o}")
    return _keys.get(path, passphrase)


def with_certificate(path: str, key: asyncssh.SSHKey) -> object:
    """The key, with the certificate that lies beside it, where one does."""
    try:
        return key, _certificates.get(f"{path}-cert.pub")
    except (OSError, asyncssh.KeyImportError):
        return key


def read_public(path: str) -> bytes | None:
    """The public half that lies beside a key, by which the agent knows it."""
    for name in (f"{path}.pub", path):
        with contextlib.suppress(OSError, asyncssh.KeyImportError):
            return _publics.get(name)
    return None
