"""Where a key or value stands in the text of a TOML file, by its path. Pure, and only built when asked.

tomli gives values without positions; here tree-sitter gives positions without values. The two agree on
what a path is: `("hosts", "gpu", "auth", "path")`, with numbers for entries of arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import tomli

if TYPE_CHECKING:
    from tree_sitter import Node

Path = tuple[str | int, ...]
# A table of a resource as most people write it. In a file without strings over several lines it is always a header.
_HEADER = re.compile(r"^[ \t]*\[([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\][ \t]*(?:#.*)?\r?$", re.MULTILINE)
_LIST_HEADER = re.compile(r"""^[ \t]*\[\[[ \t]*["']?([A-Za-z0-9_-]+)""", re.MULTILINE)
_MAX_DEPTH = 64  # deeper than any key of ours; bounds the recursion into nested arrays


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a file: lines and columns from 1 in characters; the end column is the one after the last."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class _Entry:
    key: Node
    value: Node
    explicit: bool  # False: a table that only exists because something is declared below it


class Positions:
    """Where things are in one file. What is asked for most, a plain header, is found without a parser."""

    def __init__(self, text: str) -> None:
        self._text = text

    def find(self, path: Path, part: Literal["key", "value"] = "value") -> Span | None:
        """The place of `path`, or of the nearest table around it; None in a file that holds nothing of it."""
        if part == "key" and len(path) == 2 and (found := self._headers.get(path)):
            line, column, end = found
            return Span(line, column, line, end)
        return self._index.find(path, part)

    def header(self, path: Path) -> tuple[int, int] | None:
        """Line and column of a table's plain header; None where it is written in any other way."""
        found = self._headers.get(path)
        return found[:2] if found else None

    def repeated_at(self, line: int) -> tuple[Span, Span] | None:
        """The first and second declaration of the key or table that is declared again on `line`."""
        return self._index.repeated_at(line)

    @cached_property
    def _index(self) -> Index:
        return Index(self._text)

    @cached_property
    def _headers(self) -> dict[Path, tuple[int, int, int]]:
        if '"""' in self._text or "'''" in self._text:
            return {}
        found: dict[Path, tuple[int, int, int]] = {}
        lists = set(
            _LIST_HEADER.findall(self._text) if "[[" in self._text else ()
        )  # below them a header means the last entry's table
        line, before = 1, 0
        for header in _HEADER.finditer(self._text):
            line += self._text.count("\n", before, header.start())
            before = header.start()
            column, end = header.start(1) - before + 1, header.end(2) - before + 1
            if header[1] not in lists:
                found[header.groups()] = line, column, end
        return found


class Index:
    """All of one file: built from its headers at once, and from a table's keys when one is asked for."""

    def __init__(self, text: str) -> None:
        from tree_sitter import Language, Parser  # slow to load, and needed for positions only
        from tree_sitter_toml import language

        self._source = text.encode()
        self._lines = self._source.split(b"\n")
        self._counted: dict[int, tuple[int, int]] = {}  # by row: the last byte of which the column is known, and that
        self._entries: dict[Path, _Entry] = {}
        self._unread: dict[Path, list[Node]] = {}
        self._array_sizes: dict[Path, int] = {}
        self._repeated: list[tuple[_Entry, _Entry]] = []
        self._tree = Parser(Language(language())).parse(self._source)
        self._read_headers(self._tree.root_node)

    def find(self, path: Path, part: Literal["key", "value"] = "value") -> Span | None:
        """The place of `path`, or of the nearest table around it; None in a file that holds nothing of it."""
        for size in range(len(path) + 1):
            self._read_table(path[:size])
        for size in range(len(path), 0, -1):
            entry = self._entries.get(path[:size])
            if entry is not None:
                exact = size == len(path) and part == "value"
                return self._span(entry.value if exact else entry.key)
        return None

    def repeated_at(self, line: int) -> tuple[Span, Span] | None:
        """The first and second declaration of the key or table that is declared again on `line`."""
        for path in list(self._unread):
            self._read_table(path)
        for first, second in self._repeated:
            if second.key.start_point[0] < line <= second.value.end_point[0] + 1:
                return self._span(first.key), self._span(second.key)
        return None

    def _read_headers(self, root: Node) -> None:
        self._unread[()] = [root]
        for node in root.named_children:
            if node.type not in ("table", "table_array_element") or not node.named_children:
                continue
            header = node.named_children[0]
            path = self._header_path(tuple(key_parts(header)))
            if node.type == "table_array_element":
                index = self._array_sizes.get(path, 0)
                self._array_sizes[path] = index + 1
                self._add(path, header, header, explicit=False)
                path = (*path, index)
            self._add(path, header, header, explicit=True)
            self._unread.setdefault(path, []).append(node)

    def _header_path(self, parts: tuple[str, ...]) -> Path:
        """`[a.b]` below `[[a]]` belongs to the last `a`."""
        path: Path = ()
        for part in parts:
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
            path = (*path, part)
        return path

    def _read_table(self, path: Path) -> None:
        for node in self._unread.pop(path, ()):
            self._read_pairs(path, node, 0)

    def _read_pairs(self, prefix: Path, table: Node, depth: int) -> None:
        for pair in table.named_children:
            if pair.type != "pair" or len(pair.named_children) < 2:
                continue
            key, value = pair.named_children[:2]
            path = (*prefix, *key_parts(key))
            self._add(path, key, value, explicit=True)
            self._read_value(path, value, depth + 1)

    def _read_value(self, path: Path, value: Node, depth: int) -> None:
        if depth > _MAX_DEPTH:
            return
        if value.type == "inline_table":
            self._read_pairs(path, value, depth)
        elif value.type == "array":
            items = [node for node in value.named_children if node.type != "comment"]
            for index, item in enumerate(items):
                self._add((*path, index), item, item, explicit=True)
                self._read_value((*path, index), item, depth + 1)

    def _add(self, path: Path, key: Node, value: Node, *, explicit: bool) -> None:
        entry = _Entry(key, value, explicit)
        for size in range(1, len(path)):
            self._entries.setdefault(path[:size], _Entry(key, key, False))
        known = self._entries.get(path)
        if known is None or (explicit and not known.explicit):
            self._entries[path] = entry
        elif explicit:
            self._repeated.append((known, entry))

    def _span(self, node: Node) -> Span:
        (line, column), (end_line, end_column) = node.start_point, node.end_point
        return Span(line + 1, self._column(line, column), end_line + 1, self._column(end_line, end_column))

    def _column(self, row: int, byte: int) -> int:
        line = self._lines[row] if row < len(self._lines) else b""
        at, column = self._counted.get(row, (0, 1))
        if at > byte:
            at, column = 0, 1
        # From there on: a line of thousands of findings is counted once, not once for each.
        column += len(line[at:byte].decode(errors="replace"))
        self._counted[row] = byte, column
        return column


def key_parts(key: Node) -> Iterator[str]:
    """The parts of a key, without quotes and escapes."""
    pending = [key]  # the node of a dotted key holds that of all but its last part, and so on: deeper than any stack
    while pending:
        node = pending.pop()
        if node.type == "dotted_key":
            pending += reversed(node.named_children)
        elif node.text is not None:
            text = node.text.decode()
            yield _unquote(text) if node.type == "quoted_key" else text


def _unquote(text: str) -> str:
    try:
        return next(iter(tomli.loads(f"{text} = 0")))
    except (tomli.TOMLDecodeError, StopIteration):
        return text
