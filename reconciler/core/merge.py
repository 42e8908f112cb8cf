"""Merges the files of a directory: defaults under resources, and where each key of the result was written. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reconciler.core.diagnostics import Diagnostic, locate
from reconciler.core.positions import Path, Positions, Span

KINDS = {
    "hosts": "host",
    "agents": "agent",
    "sessions": "session",
    "group_chats": "group_chat",
    "playbooks": "playbook",
    "notifiers": "notifier",
}
DEFAULTS = {"hosts": "host", "sessions": "session", "group_chats": "group_chat"}
# One value said in several ways: a resource that says it one way takes no part of the defaults' other way.
_ALTERNATIVES = (frozenset({"prompt", "prompt_file"}), frozenset({"pattern", "command", "port"}))

Table = dict[str, Any]


@dataclass(frozen=True)
class Defaults:
    """A `[defaults.KIND]` table, and the file it is in."""

    kind: str
    table: Table
    file: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource as written: `table` is its own, `merged` with the defaults under it."""

    kind: str
    name: str
    file: str
    table: Table
    merged: Table
    defaults: Defaults | None

    @property
    def address(self) -> str:
        """`kind.name`, the kind in the singular."""
        return f"{KINDS[self.kind]}.{self.name}"

    def place(self, path: Path) -> tuple[str, Path]:
        """The file and the whole path of a key: its own, else the defaults', else the nearest of its own."""
        if self.defaults is not None and not holds(self.table, path) and holds(self.defaults.table, path):
            return self.defaults.file, ("defaults", self.defaults.kind, *path)
        return self.file, (self.kind, self.name, *path)

    def is_default(self, path: Path) -> bool:
        """Whether the value at `path` comes from the defaults table."""
        return self.place(path)[1][0] == "defaults"


class Findings:
    """Collects diagnostics, and finds their places in the texts only when there is something to say."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._texts = texts
        self._seen: set[tuple[str, int, int, str]] = set()
        self._positions: dict[str, Positions] = {}
        self._lines: dict[str, list[str]] = {}

    def span(self, file: str, path: Path, part: Literal["key", "value"] = "value") -> Span | None:
        """Where `path` is in `file`, or the nearest table around it."""
        return self.positions(file).find(path, part)

    def positions(self, file: str) -> Positions:
        """The index of a file, built at the first use."""
        if file not in self._positions:
            self._positions[file] = Positions(self._texts[file])
        return self._positions[file]

    def error(
        self,
        at: tuple[str, Path],
        summary: str,
        detail: str = "",
        *,
        address: str = "",
        part: Literal["key", "value"] = "value",
        code: str = "invalid-spec",
    ) -> None:
        """Adds an error about the key or value at (file, path)."""
        file, path = at
        self.add(Diagnostic("error", summary, detail, address, file, code=code), self.span(file, path, part))

    def about(self, entry: Entry, path: Path, summary: str, detail: str = "", **options: Any) -> None:
        """Adds an error about a key of a resource, wherever that was written."""
        self.error(entry.place(path), summary, detail, address=entry.address, **options)

    def add(self, diagnostic: Diagnostic, span: Span | None = None) -> None:
        """Adds a finding at a place in its file, once."""
        if span is not None:
            diagnostic = locate(diagnostic, diagnostic.file, self._line(diagnostic.file, span.line), span)
        key = (diagnostic.file, diagnostic.line, diagnostic.column, diagnostic.summary)
        if key not in self._seen:
            self._seen.add(key)
            self.diagnostics.append(diagnostic)

    def _line(self, file: str, number: int) -> str:
        if file not in self._lines:  # split once: there may be thousands of findings
            self._lines[file] = self._texts[file].split("\n")
        lines = self._lines[file]
        return lines[number - 1].removesuffix("\r") if number <= len(lines) else ""

    def show(self, file: str, path: Path) -> str:
        """`file:line:column` of a key, for sentences that name a second place."""
        span = self.span(file, path, "key")
        return f"{file}:{span.line}:{span.column}" if span else file

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All findings by place."""
        return tuple(sorted(self.diagnostics, key=lambda d: (d.file, d.line, d.column, d.summary)))


@dataclass
class Raw:
    """The documents of a directory, before any model has seen them."""

    texts: Mapping[str, str]
    documents: dict[str, Table]
    findings: Findings
    root: str = ""
    unread: bool = False  # a file could not even be read: `texts` is not all there is
    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    defaults: dict[str, Defaults] = field(default_factory=dict)
    fleet: tuple[str, Table] | None = None

    @property
    def complete(self) -> bool:
        """Whether every file could be read: only then is a name that nobody declares an unknown one."""
        return not self.unread and len(self.documents) == len(self.texts)

    def prompt_files(self) -> Iterator[tuple[str, str]]:
        """(file that names it, prompt file as written) of every resource, defaults included."""
        for kind in ("sessions", "group_chats"):
            for entry in self.entries[kind].values():
                name = entry.merged.get("prompt_file")
                if isinstance(name, str) and name:
                    yield entry.place(("prompt_file",))[0], name


def holds(table: Any, path: Path) -> bool:
    """Whether nested tables and lists have a value at `path`."""
    for part in path:
        if isinstance(part, int):
            if not isinstance(table, list) or part >= len(table):
                return False
        elif not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def merge(defaults: Table, own: Table) -> Table:
    """`own` over `defaults`; tables merge key by key, everything else is replaced."""
    merged = {**defaults, **own}
    for alternatives in _ALTERNATIVES:
        if not alternatives.isdisjoint(own):
            for key in alternatives - own.keys():
                merged.pop(key, None)
    for key, value in own.items():
        base = defaults.get(key)
        if isinstance(value, dict) and isinstance(base, dict):
            # Tables with a `type` are variants: of another one nothing can be taken.
            merged[key] = value if base.get("type") != value.get("type", base.get("type")) else merge(base, value)
    return merged


def revision_of(texts: Mapping[str, str], attachments: Mapping[tuple[str, str], object], root: str) -> str:
    """SHA-256 (hex) over names and texts of all files; names without the directory itself."""
    digest = hashlib.sha256()
    pieces = [(file.removeprefix(root), "", text) for file, text in texts.items()]
    pieces += [(file.removeprefix(root), name, str(text)) for (file, name), text in attachments.items()]
    for piece in sorted(pieces):
        for text in piece:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()
