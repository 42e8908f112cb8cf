"""The garbage collector, held off while thousands of objects are made that all stay: it would double the time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_OBJECTS = 20_000  # made and not gone since the last search of the youngest; two or three MB


def start() -> None:
    """None until `started`: a program that is being loaded makes no garbage worth a search."""
    gc.disable()


def started() -> None:
    """What is loaded by now stays, and is not looked through again; what comes is, less often than is usual."""
    gc.freeze()
    gc.set_threshold(_OBJECTS)
    gc.enable()


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """No collection meanwhile; afterwards as before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
