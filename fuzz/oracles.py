"""What must hold whatever was read. A fault is an AssertionError, or any exception that a target does not expect."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

Check = Callable[[bytes], None]

SECONDS, PER_BYTE = 2.0, 15e-6  # of processor time for one input, and more for what it is long


class Hang(BaseException):
    """One input took longer than any may: no handler of the program may swallow it."""


SCRATCH = "FUZZ_SCRATCH"  # where the folders of a run go, and are taken away whatever becomes of it


def split(data: bytes, cases: Mapping[str, Check]) -> None:
    """Give the bytes behind the first line to the case that it names; of another line, its first byte chooses."""
    head, newline, body = data.partition(b"\n")
    name = head.decode("ascii", "replace")
    if not newline or name not in cases:
        names = sorted(cases)
        name, body = names[data[0] % len(names)] if data else names[0], data[1:]
    cases[name](body)


def text_of(data: bytes) -> str:
    """Bytes as text, half characters among it as JSON can bring them."""
    return data.decode("utf-8", "replace").replace("\ufffe", "\ud800")


def harmless(text: str, also: str = "\n") -> None:
    """Nothing in it that a terminal would obey."""
    if not text.replace("\n", "").isprintable():
        wrong = next((c for c in text if not c.isprintable() and c not in also), None)
        assert wrong is None, f"{wrong!r} would be shown, in {text[:300]!r}"


@contextlib.contextmanager
def bounded(size: int = 0) -> Iterator[None]:
    """Raises Hang in what takes more processor time; only in the main thread, where signals come."""
    seconds = SECONDS + PER_BYTE * size

    def over(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    started = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    # A single long call into C hears no signal before its end.
    if (took := time.process_time() - started) > seconds:
        raise Hang(f"{took:.1f} s of processor time")


def scratch() -> Path:
    """A new folder: in memory where the system has such a place, since a target may write thousands of files."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = tempfile.mkdtemp(prefix="fuzz-", dir=os.environ.get(SCRATCH, memory))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


def tree(folder: Path) -> dict[str, str]:
    """All below a folder: what is there by relative name, links by where they lead."""
    found = {}
    for directory, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(directory, name)
            if path.is_symlink():
                kind = f"link {path.readlink()}"
            else:
                kind = "folder" if path.is_dir() else f"file {path.stat().st_size}"
            found[str(path.relative_to(folder))] = kind
    return found
