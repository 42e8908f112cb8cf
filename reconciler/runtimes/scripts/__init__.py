"""The shell texts that run on hosts, read from the files beside this one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def text(name: str) -> str:
    """The script `name`.sh as it is in the package."""
    return files(__package__).joinpath(f"{name}.sh").read_text(encoding="utf-8")
