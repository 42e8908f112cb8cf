"""A large SSH config cut down to what concerns one host, so that not every connection parses all of it."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

# A smaller file is parsed as quickly as it is cut.
_LARGE = 4096
_HEAD = re.compile(r"\s*(host|match)(?:\s|=)\s*=?\s*(.*)", re.IGNORECASE)
_Block = tuple[tuple[str, ...] | None, str]
_cut: dict[str, tuple[tuple[int, int], tuple[_Block, ...]]] = {}


def concerning(path: str, host: str) -> str | None:
    """The text of the config with `Host` blocks that cannot match emptied; lines keep their numbers.

    None where the file should be read as it is: it is small, or cannot be read (the parser says why).
    """
    try:
        stat = os.stat(path)
        version = (stat.st_mtime_ns, stat.st_size)
        if stat.st_size < _LARGE:
            return None
        if _cut.get(path, (None,))[0] != version:
            with open(path, encoding="utf-8") as file:
                _cut[path] = (version, _blocks(file.read()))
    except (OSError, ValueError):
        return None
    return "".join(text if _may_match(names, host) else "\n" * text.count("\n") for names, text in _cut[path][1])


def _blocks(text: str) -> tuple[_Block, ...]:
    found: list[_Block] = []
    names: tuple[str, ...] | None = None
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if head := _HEAD.match(line):
            found.append((names, "".join(lines)))
            lines = []
            names = _names(head[2]) if head[1].lower() == "host" else None
        lines.append(line)
    return (*found, (names, "".join(lines)))


def _names(patterns: str) -> tuple[str, ...] | None:
    """The patterns of a `Host` line; None (keep the block) where they are quoted, negated or commented."""
    plain = not any(character in patterns for character in "\"'\\!#[")
    return tuple(patterns.replace(",", " ").split()) if plain else None


def _may_match(names: tuple[str, ...] | None, host: str) -> bool:
    return names is None or any(fnmatchcase(host.lower(), name.lower()) for name in names)
