"""The shell texts that copy conversations, read from the files beside this one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def text(name: str) -> str:
    """The script `name`.sh, without the comment lines, which need not travel."""
    lines = files(__package__).joinpath(f"{name}.sh").read_text(encoding="utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if line.strip() and not line.lstrip().startswith("#"))
