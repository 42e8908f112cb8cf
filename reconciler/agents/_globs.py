"""Names in the archive for files that a template's store globs find.

A name is what follows the last fixed directory of the glob; behind `store1/`, `store2/`... for the second glob and on,
so that no two globs give one name to two files.
"""

from __future__ import annotations

import re

from reconciler.core.transcript import safe_name

_SESSION_ID = re.compile(r"[A-Za-z0-9_.-]+")
_PLACES = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_NUMBERED = re.compile(r"store([1-9][0-9]{0,2})/(.+)")


def archive_name(globs: tuple[str, ...], path: str, session_id: str) -> str | None:
    """The name of a file, by the first glob that finds it."""
    if not _SESSION_ID.fullmatch(session_id):
        return None
    for number, glob in enumerate(globs):
        fixed, tail = (_pattern(part, session_id) for part in _split(glob))
        if found := re.fullmatch(f"{fixed}({tail})", path):
            name = f"store{number}/{found[1]}" if number else found[1]
            return name if safe_name(name) and _taken(name, len(globs)) == (number, found[1]) else None
    return None


def restore_path(globs: tuple[str, ...], name: str, session_id: str) -> str | None:
    """The fixed directory of the glob with the name behind it, if the glob finds that again."""
    if not _SESSION_ID.fullmatch(session_id) or not safe_name(name):
        return None
    number, rest = _taken(name, len(globs))
    if number >= len(globs):
        return None
    fixed, tail = _split(globs[number])
    if not re.fullmatch(_pattern(tail, session_id), rest):
        return None
    return fixed + rest


def _taken(name: str, globs: int) -> tuple[int, str]:
    """Which glob a name belongs to, and the rest of the name."""
    numbered = _NUMBERED.fullmatch(name)
    return (int(numbered[1]), numbered[2]) if numbered and globs > 1 else (0, name)


def _split(glob: str) -> tuple[str, str]:
    """A glob in two, behind the last fixed directory; a slash inside braces is no border."""
    flat = re.sub(_PLACES, lambda place: "_" * len(place[0]), glob)
    wild = re.search(r"[*?]", flat)
    border = flat.rfind("/", 0, wild.start() if wild else len(flat)) + 1
    return glob[:border], glob[border:]


def _pattern(glob: str, session_id: str) -> str:
    """A regular expression for paths that the glob finds; what only the host knows may be anything."""
    known = {"*": "[^/]*", "?": "[^/]", "{session_id}": re.escape(session_id)}
    parts = re.split(rf"({_PLACES}|[*?])", glob)
    return "".join(known.get(part, ".*") if at % 2 else re.escape(part) for at, part in enumerate(parts))
