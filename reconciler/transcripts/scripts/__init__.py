"""The shell texts that copy conversations, read from the files beside this one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from reconciler.runtimes.scripts import text as shared


@cache
def text(name: str) -> str:
    """The script `name`.sh, without the comment lines, which need not travel."""
    own = files(__package__).joinpath(f"{name}.sh").read_text(encoding="utf-8")
    return _lean(own)


@cache
def common() -> str:
    """What all scripts share, as lean."""
    return _lean(shared("common"))


def _lean(script: str) -> str:
    return "".join(f"{line}\n" for line in script.splitlines() if line.strip() and not line.lstrip().startswith("#"))
