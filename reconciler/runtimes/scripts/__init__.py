"""The shell texts that run on hosts, read from the files beside this one."""

from __future__ import annotations

from functools import cache
from pkgutil import get_data


@cache
def text(name: str) -> str:
    """The script `name`.sh as it is in the package. Raises OSError."""
    return (get_data(__name__, f"{name}.sh") or b"").decode("utf-8")
