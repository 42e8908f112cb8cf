"""The user's own terminal: raw while a remote program has it, its size, and back as it was whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator


def size(fd: int = 1) -> tuple[int, int]:
    """Columns and rows of the terminal; 80 by 24 where there is none."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return found.columns, found.lines


@contextlib.contextmanager
def raw(fd: int = 0) -> Iterator[None]:
    """Keys reach the program one by one and unread by the line discipline, until the block ends."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def on_resize(resized: Callable[[], None]) -> Iterator[None]:
    """Call `resized` each time the window changes its size; needs the loop of the main thread."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGWINCH, resized)
    except (ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def keys(pressed: Callable[[bytes], None], fd: int = 0) -> Iterator[None]:
    """Hand over what arrives on `fd`; b"" once at its end."""
    loop = asyncio.get_running_loop()

    def ready() -> None:
        data = os.read(fd, 65536)
        if not data:
            loop.remove_reader(fd)
        pressed(data)

    try:
        loop.add_reader(fd, ready)
    except PermissionError:
        # A regular file is always ready, so the poller does not take it.
        pressed(sys.stdin.buffer.read() if fd == 0 else b"")
        pressed(b"")
    try:
        yield
    finally:
        loop.remove_reader(fd)


def show(data: bytes, fd: int = 1) -> None:
    """Write all of `data`, also to a terminal that was made non-blocking."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [], 1.0)


@contextlib.contextmanager
def interrupts_left_to_the_child() -> Iterator[None]:
    """Ctrl-C belongs to the program in the foreground, as with system(3)."""
    try:
        # A handler, not SIG_IGN: the child would inherit that.
        before = signal.signal(signal.SIGINT, lambda *_: None)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
