"""The one place where an argv becomes a shell string."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def quote(argv: Sequence[str]) -> str:
    """A POSIX shell command line that runs exactly `argv`.

    Raises ValueError for a NUL, which no argument of a process can hold.
    """
    if any("\0" in arg for arg in argv):
        raise ValueError("an argument holds a NUL byte")
    return " ".join(shlex.quote(arg) for arg in argv)
