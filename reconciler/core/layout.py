"""Lays out the text of a spec file: order of tables and keys, spacing. Keeps every comment and every value. Pure.

Tables come by kind (fleet, defaults, hosts, …), resources in the order they were written, subtables after theirs.
Keys come in the order of the reference, within a paragraph: empty lines that somebody put between keys stay, and a
paragraph with comment lines of its own is left in its order, since a comment may speak of the keys around it.
Values are copied as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tomli
from pydantic import BaseModel

from reconciler.core.host_spec import Fleet
from reconciler.core.merge import DEFAULTS, KINDS
from reconciler.core.parse import MODELS
from reconciler.core.positions import key_parts
from reconciler.core.spec import Moved, Removed, Window
from reconciler.core.wording import keys_of, models_of

if TYPE_CHECKING:
    from tree_sitter import Node

_KINDS = ("fleet", "windows", "defaults", *KINDS, "moved", "removed")


@dataclass
class _Line:
    """A comment line, or a key with its value; `comment` trails behind it."""

    text: str
    key: str = ""  # the first part of the key; empty for a comment line
    comment: str = ""


@dataclass
class _Block:
    """A table: the paragraphs of comments above its header, the header, the paragraphs below it."""

    header: str = ""
    path: tuple[str, ...] = ()
    comment: str = ""
    above: list[list[_Line]] = field(default_factory=list)
    adjacent: bool = True  # the last paragraph above touches the header
    touching: bool = False  # the first paragraph below touches the header
    paragraphs: list[list[_Line]] = field(default_factory=list)


def format_text(text: str) -> str:
    """The text in canonical layout, with the same values and comments; the text itself where that cannot be had.

    Raises tomli.TOMLDecodeError when `text` is not TOML.
    """
    text = text.replace("\r\n", "\n")
    before = _values(text)
    root = _tree(text)
    if root is None:
        return text
    blocks = _blocks(root)
    comments = _comments(root)
    for candidate in (_emit(_in_order(blocks)), _emit(blocks)):
        if _same(candidate, before, comments):
            return candidate
    return text


def _same(candidate: str, values: Any, comments: Sequence[str]) -> bool:
    """The proof that nothing was lost: any other layout is thrown away."""
    try:
        tree = _tree(candidate)
        return tree is not None and _values(candidate) == values and _comments(tree) == comments
    except tomli.TOMLDecodeError:
        return False


def _values(text: str) -> dict[str, Any]:
    return tomli.loads(text, parse_float=str)  # as text, since nan is not equal to itself


def _tree(text: str) -> Node | None:
    from tree_sitter import Language, Parser
    from tree_sitter_toml import language

    root = Parser(Language(language())).parse(text.encode()).root_node
    return None if root.has_error else root


def _comments(root: Node) -> list[str]:
    found, pending = [], [root]
    while pending:
        node = pending.pop()
        if node.type == "comment":
            found.append(_text(node).strip())
        pending += node.named_children
    return sorted(found)


def _text(node: Node) -> str:
    return node.text.decode() if node.text is not None else ""


def _blocks(root: Node) -> list[_Block]:
    reader = _Reader()
    for node in root.named_children:
        if node.type in ("table", "table_array_element"):
            reader.header(node)
            for child in node.named_children[1:]:
                reader.line(child)
        else:
            reader.line(node)
    return reader.blocks


class _Reader:
    """Turns nodes into blocks; remembers the row where the last thing ended, to see empty lines."""

    def __init__(self) -> None:
        self.blocks = [_Block()]
        self._row = -1  # of the last thing's end

    def header(self, node: Node) -> None:
        key = node.named_children[0]
        row = node.start_point[0]
        brackets = ("[[", "]]") if node.type == "table_array_element" else ("[", "]")
        block = _Block(f"{brackets[0]}{_text(key)}{brackets[1]}", tuple(key_parts(key)))
        block.adjacent = row == self._row + 1
        block.above = self._comments_above(block.adjacent)
        self.blocks.append(block)
        self._row = key.end_point[0]

    def line(self, node: Node) -> None:
        if node.type == "comment":
            self._comment(node)
            return
        key, value, *comments = node.named_children
        text = f"{_text(key)} = {_text(value)}"
        self._append(_Line(text, next(iter(key_parts(key)), "")), key.start_point[0])
        self._row = value.end_point[0]
        for comment in comments:
            self._comment(comment)

    def _comment(self, node: Node) -> None:
        text, row = _text(node).strip(), node.start_point[0]
        block = self.blocks[-1]
        if row != self._row:
            self._append(_Line(text), row)
        elif block.paragraphs:
            block.paragraphs[-1][-1].comment = text
        else:
            block.comment = text
        self._row = row

    def _append(self, line: _Line, row: int) -> None:
        block = self.blocks[-1]
        paragraphs = block.paragraphs
        if not paragraphs:
            block.touching = bool(block.header) and row == self._row + 1
        if not paragraphs or row > self._row + 1:
            paragraphs.append([])
        paragraphs[-1].append(line)

    def _comments_above(self, adjacent: bool) -> list[list[_Line]]:
        """Takes the comments at the end of the last block that speak of the next one."""
        last = self.blocks[-1]
        preamble = not last.header and not any(line.key for p in last.paragraphs for line in p)
        taken: list[list[_Line]] = []
        if adjacent and last.paragraphs:
            paragraph = last.paragraphs[-1]
            keys = [index for index, line in enumerate(paragraph) if line.key]
            cut = keys[-1] + 1 if keys else 0
            taken = [paragraph[cut:]] if paragraph[cut:] else []
            del paragraph[cut:]
            if not paragraph:
                last.paragraphs.pop()
            if cut:
                return taken
        # The first comments of a file speak of the file, and those right below a header of that table.
        keep = len(last.paragraphs) if preamble else int(last.touching)
        while len(last.paragraphs) > keep and not any(line.key for line in last.paragraphs[-1]):
            taken.insert(0, last.paragraphs.pop())
        return taken


def _in_order(blocks: list[_Block]) -> list[_Block]:
    seen: dict[tuple[str, ...], int] = {}
    for block in blocks:
        seen.setdefault(block.path[:2], len(seen))

    def rank(block: _Block) -> tuple[int, int]:
        kind = block.path[0] if block.path else ""
        place = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
        return (-1 if not block.path else place), (-1 if len(block.path) == 1 else seen[block.path[:2]])

    ordered = []
    for block in sorted(blocks, key=rank):
        paragraphs = [_sort_keys(p, block.path) for p in block.paragraphs]
        ordered.append(replace(block, paragraphs=paragraphs))
    return ordered


def _sort_keys(paragraph: list[_Line], path: tuple[str, ...]) -> list[_Line]:
    model = _model(path)
    if model is None or not all(line.key for line in paragraph):
        return paragraph
    keys = keys_of(model)
    return sorted(paragraph, key=lambda line: keys.index(line.key) if line.key in keys else len(keys))


def _model(path: tuple[str, ...]) -> type[BaseModel] | None:
    """The model of the table at `path`, where there is one and only one."""
    models: dict[tuple[str, ...], type[BaseModel]] = {
        ("fleet",): Fleet, ("windows",): Window, ("moved",): Moved, ("removed",): Removed,
    }  # fmt: skip
    if len(path) == 1:
        return models.get(path)
    models.update({("defaults", singular): MODELS[kind] for kind, singular in DEFAULTS.items()})
    model = models.get(path[:2]) or (MODELS.get(path[0]) if path else None)
    for key in path[2:]:
        below = models_of(model, key) if model is not None else []
        model = below[0] if len(below) == 1 and below[0].__name__ != "HostAgent" else None
    return model


def _emit(blocks: list[_Block]) -> str:
    parts = []
    for block in blocks:
        part = _emit_block(block)
        if part:
            parts.append(part)
    return "\n\n".join(parts) + "\n" if parts else ""


def _emit_block(block: _Block) -> str:
    above = "\n\n".join(_emit_lines(p) for p in block.above)
    if above:
        above += "\n" if block.adjacent else "\n\n"
    header = f"{block.header}{'  ' + block.comment if block.comment else ''}"
    body = "\n\n".join(_emit_lines(p) for p in block.paragraphs)
    return above + header + ("\n" if header and body else "") + body


def _emit_lines(lines: Sequence[_Line]) -> str:
    return "\n".join(f"{line.text}  {line.comment}" if line.comment else line.text for line in lines)
