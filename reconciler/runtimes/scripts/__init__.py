"""The shell texts that run on hosts, read from the files beside this one."""

from __future__ import annotations

from functools import cache
from pkgutil import get_data


@cache
def text(name: str) -> str:
    """The script `name`.sh of the package, without its comments and what lines begin with. Raises OSError."""
    return stripped((get_data(__name__, f"{name}.sh") or b"").decode("utf-8"))


def stripped(script: str) -> str:
    """The same shell text in fewer bytes: these go over the line before a host can say anything.

    Nothing within quotes is touched. A text with here-documents stays as it is.
    """
    if "<<" in script:
        return script
    out: list[str] = []
    quoted, at, end = "", 0, len(script)
    fresh = True  # at the beginning of a line that is none within quotes
    while at < end:
        char = script[at]
        if fresh and char in " \t\n":
            at += 1
            continue
        if not quoted and char == "#" and (fresh or script[at - 1] in " \t;"):
            stop = script.find("\n", at)
            at = end if stop < 0 else stop
            fresh = fresh or _trim(out)
            continue
        fresh = False
        if char == "\\" and quoted != "'":
            out.append(script[at : at + 2])
            at += 2
            continue
        if char in "'\"" and quoted in ("", char):
            quoted = "" if quoted else char
        out.append(char)
        at += 1
        fresh = char == "\n" and not quoted
    return "".join(out)


def _trim(out: list[str]) -> bool:
    """Take the blanks away that stood before a comment; False, since there is something else on that line."""
    while out and out[-1] in " \t":
        out.pop()
    return False
