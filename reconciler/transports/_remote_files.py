"""Reading and writing a whole file with POSIX sh: one exec is one round trip less than SFTP needs for the same."""

from __future__ import annotations

import abc
import errno
import os
import secrets
from collections.abc import Sequence

from reconciler.transports import Completed
from reconciler.transports import _failures as failures

# A file moves at no less than this, in bytes a second, before reading or writing it counts as stuck.
_SLOWEST = 250_000

_EXPAND = """
LC_ALL=C; export LC_ALL
case $2 in "~/"*) f=$HOME/${2#"~/"} ;; /*) f=$2 ;; *) f=./$2 ;; esac
say() { printf '\\n%s:%s\\n' "$n" "$1"; }
n=$1
d=${f%/*}; case $f in */*) ;; *) d=. ;; esac; [ -n "$d" ] || d=/
if [ -e "$d" ] && [ ! -x "$d" ]; then say denied; exit 0; fi
"""
# $1 nonce, $2 path, $3 most bytes. The nonce marks where the file begins, whatever a login script printed before.
READ = (
    _EXPAND
    + """
if [ -d "$f" ]; then say directory
elif [ ! -e "$f" ]; then say missing
elif [ ! -r "$f" ]; then say denied
else say ok; exec head -c "$3" <"$f"
fi
"""
)
# $1 nonce, $2 path, $3 mode, $4 length. The length tells a whole file from one that a lost connection cut short.
WRITE = (
    _EXPAND
    + """
if [ -d "$f" ]; then say directory; exit 0; fi
if [ ! -d "$d" ]; then say missing; exit 0; fi
if [ ! -w "$d" ]; then say denied; exit 0; fi
t=$d/.reconciler.$$.$n
umask 077
trap 'rm -f "$t"' 0
trap 'exit 1' 1 2 15
cat >"$t" && [ $(wc -c <"$t") -eq "$4" ] && chmod "$3" "$t" && { sync "$t" 2>/dev/null || :; } && mv -f "$t" "$f" &&
    say ok
"""
)


def answer(nonce: str, out: bytes) -> tuple[str, bytes]:
    """The word said under `nonce`, and all bytes after it; ("", b"") when it was not said."""
    _, mark, rest = out.partition(b"\n" + nonce.encode() + b":")
    word, newline, data = rest.partition(b"\n")
    return (word.decode(errors="replace"), data) if mark and newline else ("", b"")


def failed_read(word: str, path: str) -> OSError | None:
    """The error `open` would raise for this word; None for "ok"."""
    numbers = {"directory": errno.EISDIR, "missing": errno.ENOENT, "denied": errno.EACCES, "ok": 0}
    return _os_error(numbers.get(word, errno.EIO), path)


def failed_write(word: str, err: bytes, path: str) -> OSError | None:
    """As `failed_read`; a full disk is told from other failures by what the tools said."""
    if word:
        return failed_read(word, path)
    full = b"No space left" in err or b"Disk quota" in err or b"write error" in err
    return _os_error(errno.ENOSPC if full else errno.EIO, path)


def _os_error(number: int, path: str) -> OSError | None:
    return OSError(number, os.strerror(number), path) if number else None


class RemoteFiles(abc.ABC):
    """`read` and `write` of a transport that can `run`."""

    name: str

    @abc.abstractmethod
    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """See `Transport`."""

    async def read(self, path: str, limit: int = 16_000_000) -> bytes:
        """A whole file (`~/` is the far home). FileNotFoundError, PermissionError as for `open`."""
        nonce = secrets.token_hex(8)
        argv = ("sh", "-c", READ, "read", nonce, path, str(limit + 1))
        done = await self.run(argv, timeout=30.0 + limit / _SLOWEST, limit=limit + 65536)
        word, data = answer(nonce, done.out)
        if error := failed_read(word, path):
            raise error
        if done.exit:
            raise OSError(5, failures.printable(done.err.decode(errors="replace")), path)
        if len(data) > limit:
            raise failures.overrun(self.name, ("read", path), limit)
        return data

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Replace a file by way of a temporary name beside it and a rename; errors as for `open`."""
        nonce = secrets.token_hex(8)
        argv = ("sh", "-c", WRITE, "write", nonce, path, f"{mode:o}", str(len(data)))
        done = await self.run(argv, stdin=data, timeout=30.0 + len(data) / _SLOWEST)
        if error := failed_write(answer(nonce, done.out)[0], done.err, path):
            raise error
