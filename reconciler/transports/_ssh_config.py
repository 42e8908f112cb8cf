"""A large SSH config cut down to what concerns one host, so that not every connection parses all of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

_HEAD = re.compile(r"\s*(host|match)(?:\s|=)\s*=?\s*(.*)", re.IGNORECASE)
_Block = tuple[tuple[str, ...] | None, str]


@dataclass(frozen=True)
class _Cut:
    """One version of a config in blocks; which of them name a host plainly, and which have to be asked each time."""

    version: tuple[int, int]
    blocks: tuple[_Block, ...]
    named: dict[str, list[int]]
    asked: tuple[int, ...]


_cut: dict[str, _Cut] = {}


def concerning(path: str, host: str, *, numbered: bool) -> str | None:
    """The text of the config without `Host` blocks that cannot match; where `numbered`, lines keep their numbers.

    None where the file cannot be read (the parser says why).
    """
    try:
        stat = os.stat(path)
        version = (stat.st_mtime_ns, stat.st_size)
        if path not in _cut or _cut[path].version != version:
            with open(path, encoding="utf-8") as file:
                _cut[path] = _index(version, _blocks(file.read()))
    except (OSError, ValueError):
        return None
    cut = _cut[path]
    kept = {*cut.named.get(host.lower(), ()), *(at for at in cut.asked if _may_match(cut.blocks[at][0], host))}
    if numbered:
        return "".join(text if at in kept else "\n" * text.count("\n") for at, (_, text) in enumerate(cut.blocks))
    return "".join(cut.blocks[at][1] for at in sorted(kept))


def _index(version: tuple[int, int], blocks: tuple[_Block, ...]) -> _Cut:
    named: dict[str, list[int]] = {}
    asked: list[int] = []
    for at, (names, _) in enumerate(blocks):
        if names is None or any(character in name for name in names for character in "*?"):
            asked.append(at)
        else:
            for name in names:
                named.setdefault(name.lower(), []).append(at)
    return _Cut(version, blocks, named, tuple(asked))


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
