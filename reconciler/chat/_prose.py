"""A reply taken apart by its lines: fenced blocks, and the prose around them without any code. Pure; linear in size.

Markdown as far as it matters to who is addressed. No pattern here can look for its end more than once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_MARKER = re.compile(r"[ \t]*(?:[-*+]|[0-9]{1,9}[.)])[ \t]+")
_TICKS = re.compile("`+")
_CODE_INDENT = 4


@dataclass(frozen=True)
class Block:
    """Some lines of a reply: a fenced block with the first word behind its fence, or what stands between two."""

    lines: tuple[str, ...]
    fenced: bool = False
    tag: str = ""
    body: str = ""  # what is between the fences


def blocks(text: str) -> Iterator[Block]:
    """The whole text in blocks. A fence that nothing closes reaches to the end."""
    found: list[str] = []
    opened: re.Match[str] | None = None
    for line in text.replace("\r\n", "\n").split("\n"):
        match = _FENCE.fullmatch(line) if "```" in line or "~~~" in line else None
        if opened is None:
            if match is not None and not (match["fence"][0] == "`" and "`" in match["info"]):
                yield Block(tuple(found))
                found, opened = [], match
        elif match is not None and _closes(match, opened):
            yield _fenced(opened, [*found, line], found[1:])
            found, opened = [], None
            continue
        found.append(line)
    yield Block(tuple(found)) if opened is None else _fenced(opened, found, found[1:])


def _closes(match: re.Match[str], opened: re.Match[str]) -> bool:
    fence = match["fence"]
    shallow = _width(match["indent"]) < _width(opened["indent"]) + _CODE_INDENT
    same = fence[0] == opened["fence"][0] and len(fence) >= len(opened["fence"])
    return shallow and same and not match["info"].strip()


def _fenced(opened: re.Match[str], lines: list[str], body: list[str]) -> Block:
    words = opened["info"].split(maxsplit=1)
    return Block(tuple(lines), True, words[0].lower() if words else "", "\n".join(body))


def _width(indent: str) -> int:
    return len(indent.expandtabs(_CODE_INDENT))


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and its end where it has more characters than that: whole lines, if they are short."""
    if len(text) <= limit:
        return text
    half = limit // 2
    start, end = half, len(text) - half
    start = text.rfind("\n", 0, start) if "\n" in text[start - half // 5 : start] else start
    end = text.find("\n", end) + 1 if "\n" in text[end : end + half // 5] else end
    return f"{text[:start].rstrip()}\n[... {end - start} characters left out ...]\n{text[end:]}"


def without_code(text: str) -> str:
    """What is neither in a fenced block, nor indented as code, nor between backticks."""
    parts = (line for block in blocks(text) if not block.fenced for line in (*_unindented(block.lines), ""))
    return "\n\n".join(_without_spans(paragraph) for paragraph in _paragraphs(parts))


def _unindented(lines: Iterable[str]) -> Iterator[str]:
    """Without the lines that are code by their indentation. What belongs to an item of a list is indented as well."""
    item = 0  # the column at which the present item's text begins
    for line in lines:
        if not line.strip():
            yield ""
            continue
        indent = _width(line[: len(line) - len(line.lstrip(" \t"))])
        if not indent:
            item = 0
        if indent >= item + _CODE_INDENT:
            yield ""
            continue
        marker = _MARKER.match(line)
        if marker is not None:
            item = _width(marker[0])
        yield line


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    found: list[str] = []
    for line in lines:
        if line.strip():
            found.append(line)
        elif found:
            yield "\n".join(found)
            found = []
    if found:
        yield "\n".join(found)


def _without_spans(paragraph: str) -> str:
    """Without what stands between two runs of equally many backticks; a run that has no other one is itself."""
    if "`" not in paragraph:
        return paragraph
    runs = list(_TICKS.finditer(paragraph))
    following: dict[int, int] = {}  # by length: the next run of it, seen from the end
    ends: list[int | None] = [None] * len(runs)
    for index in range(len(runs) - 1, -1, -1):
        length = len(runs[index][0])
        ends[index] = following.get(length)
        following[length] = index
    kept: list[str] = []
    at = index = 0
    while index < len(runs):
        end = ends[index]
        if end is None:
            index += 1
            continue
        kept.append(paragraph[at : runs[index].start()])
        at = runs[end].end()
        index = end + 1
    return " ".join([*kept, paragraph[at:]])
