"""The SSH library looks for two libraries as it is imported, and Python finds them on Linux by running `ldconfig`, a
compiler and a linker: thirteen processes, and a third of the CPU of that import. Here the loader is asked.

They are liboqs (the key exchange sntrup761) and Nettle (UMAC); it does without where they are missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import sys
from collections.abc import Iterator

__all__ = ["quickly"]

_VERSIONS = (*(f".{number}" for number in range(15, 3, -1)), "")  # of their interfaces: 5 to 9, and 6 to 8, by 2026
_SOUGHT = {"oqs": True, "liboqs": False, "nettle": True, "libnettle": False, "libnettle-6": False}


def _loaded(name: str) -> str | None:
    for version in _VERSIONS:
        with contextlib.suppress(OSError):
            ctypes.CDLL(file := f"lib{name}.so{version}")
            return file
    return None


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Inside, `ctypes.util.find_library` finds those two so, and every other as ever."""
    usual = ctypes.util.find_library

    def find(name: str) -> str | None:
        if name not in _SOUGHT:
            return usual(name)
        return _loaded(name) if _SOUGHT[name] else None  # no file is called libliboqs.so

    if sys.platform == "linux":
        ctypes.util.find_library = find
    try:
        yield
    finally:
        ctypes.util.find_library = usual
