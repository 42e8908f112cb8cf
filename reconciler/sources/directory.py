"""Specs from a directory: every `*.toml` below it, read once. Never writes, resolves no secret."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler import garbage
from reconciler.core.collect import read
from reconciler.core.diagnostics import Diagnostic, locate
from reconciler.core.parse import build, invalid
from reconciler.core.positions import Span
from reconciler.core.spec import Desired
from reconciler.errors import SpecError
from reconciler.sources.ignore import compile_ignore

MAX_BYTES = 64 * 1024 * 1024
_SETTLED = 2.0  # seconds: longer than a tick of any file system's clock
IGNORE_FILE = ".reconcilerignore"


def load(directory: str) -> Desired:
    """What the files below `directory` declare.

    Files are named in diagnostics as `directory` was given. Raises SpecError with every diagnostic; a missing
    directory is one too, never an empty fleet.
    """
    return load_counted(directory)[0]


@dataclass(frozen=True)
class _Last:
    """All that went into what was read last, and what came of it."""

    root: str
    texts: Mapping[str, str]
    attachments: Mapping[tuple[str, str], str | Exception]
    desired: Desired


@dataclass
class Known:
    """What was read of a directory before: of files that did not change, neither bytes nor documents are read again."""

    files: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)  # by path: the file's state, its text
    documents: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    last: _Last | None = None

    def text(self, path: str) -> str:
        """As `read_text`. A file that was changed a moment ago could change again within the same tick: read again."""
        status = os.stat(path)
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if path in self.files and self.files[path][0] == state:
            return self.files[path][1]
        text = read_text(path)
        if abs(time.time() - max(status.st_mtime, status.st_ctime)) > _SETTLED:
            self.files[path] = state, text
        return text


def load_counted(directory: str, *, within: str | None = None, known: Known | None = None) -> tuple[Desired, int]:
    """What `load` gives, and how many spec files there are.

    `within`: a checked-out tree around the directory. Prompt files must not leave it then, and files are named in
    diagnostics as in that tree. `known`: what the last time left there, for the next.
    """
    known = known or Known()
    shown = _shown_below(within) if within is not None else str
    paths = {shown(path): path for path in spec_files(directory)}
    texts: dict[str, str] = {}
    failed: list[Diagnostic] = []
    for file, path in paths.items():
        try:
            texts[file] = known.text(path)
        except (OSError, UnicodeDecodeError) as error:
            failed.append(unreadable(file, error))
    root = os.path.join(shown(os.path.normpath(directory)), "").removeprefix("./")
    with garbage.held_off():
        known.files = {path: known.files[path] for path in paths.values() if path in known.files}
        last = known.last
        if last is not None and not failed and (last.root, last.texts) == (root, texts):
            again = {key: _read_attachment(paths[key[0]], key[1], within) for key in last.attachments}
            if again == last.attachments:
                return last.desired, len(texts)
        raw = read(texts, root, tuple(failed), known.documents)
        known.documents = {file: (texts[file], document) for file, document in raw.documents.items()}
        attachments = {key: _read_attachment(paths[key[0]], key[1], within) for key in set(raw.prompt_files())}
        desired = build(raw, attachments)
    known.last = _Last(root, texts, attachments, desired)
    return desired, len(texts)


def _shown_below(tree: str) -> Callable[[str], str]:
    return lambda path: os.path.relpath(path, tree)


def spec_files(directory: str) -> list[str]:
    """The paths of all spec files below `directory`, sorted; hidden and ignored ones left out.

    Raises SpecError when the directory, or one below it, cannot be listed.
    """
    top = os.path.normpath(directory)
    if not os.path.isdir(top):
        raise _no_directory(directory, os.path.lexists(top))
    files: list[str] = []
    failed: list[Diagnostic] = []
    ignored = compile_ignore(_ignore_text(top))
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            directories, found = _list(top, below, seen)
        except OSError as error:
            failed.append(unreadable(os.path.join(top, below), error))
            continue
        files += [path for path in found if not ignored(path, False)]
        pending += [path for path in directories if not ignored(path, True)]
    if failed:
        raise invalid(tuple(failed))
    return sorted(os.path.normpath(os.path.join(top, path)) for path in files)


def read_text(path: str) -> str:
    """The text of a regular file of at most 64 MiB. Raises OSError or UnicodeDecodeError."""
    # A named pipe would block on open: look before opening, and once more at what was opened.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "not a regular file")
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(0, f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    return data.decode("utf-8-sig")


def unreadable(file: str, error: OSError | UnicodeDecodeError) -> Diagnostic:
    """The finding for a file that could not be read."""
    if isinstance(error, OSError):
        return Diagnostic("error", f"cannot be read: {error.strerror or error}", file=file, code="unreadable")
    data: bytes = error.object
    before = data[: error.start]
    line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
    finding = Diagnostic(
        "error", f"not valid UTF-8: byte 0x{data[error.start]:02x}", "save it as UTF-8", code="encoding"
    )
    text = data.decode("utf-8", "backslashreplace").split("\n")[line - 1]
    return locate(finding, file, text, Span(line, column, line, column + 4))


def _list(top: str, below: str, seen: set[tuple[int, int]]) -> tuple[list[str], list[str]]:
    """Directories and spec files right below; nothing for a directory that was seen under another name."""
    path = os.path.join(top, below)
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return [], []
    seen.add(identity)
    directories: list[tuple[bool, str]] = []
    files: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                directories.append((not entry.is_symlink(), name))
            elif entry.name.endswith(".toml"):
                files.append(name)
    # The last is visited first: real directories before links to them, so that the real name is the one shown.
    return [name for _, name in sorted(directories, key=lambda item: (item[0], item[1]))], files


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is no directory
            return False
        raise  # what cannot be looked at is not absent


def _ignore_text(top: str) -> str:
    path = os.path.join(top, IGNORE_FILE)
    try:
        return read_text(path)
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        # Reading on would take in what was meant to be ignored.
        raise invalid((unreadable(path, error),)) from None


def _read_attachment(file: str, name: str, within: str | None) -> str | Exception:
    path = os.path.join(os.path.dirname(file), os.path.expanduser(name))
    try:
        if within is not None and not _is_below(path, within):
            return OSError(0, "it is outside of the repository")
        return read_text(path)
    except UnicodeDecodeError:
        return OSError(0, "not valid UTF-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return error


def _is_below(path: str, tree: str) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(tree)
    return os.path.commonpath([real, top]) == top


def _no_directory(directory: str, exists: bool) -> SpecError:
    summary = f"`{directory}` is not a directory" if exists else f"there is no spec directory `{directory}`"
    remedy = f"run `reconciler init {directory}` to make one, or name another directory"
    error = SpecError(summary, (Diagnostic("error", summary, remedy, file=directory, code="no-directory"),))
    error.remedy = remedy
    return error
