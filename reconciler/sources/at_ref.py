"""Specs as they are at a commit of the repository that holds the spec directory. Reads objects, never a checkout."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass

from reconciler.core.collect import read
from reconciler.core.diagnostics import Diagnostic
from reconciler.core.parse import build
from reconciler.core.spec import Desired
from reconciler.sources._plumbing import commit_of, git, word
from reconciler.sources.directory import IGNORE_FILE, MAX_BYTES, read_text, unreadable
from reconciler.sources.ignore import compile_ignore

_FILE, _LINK = ("100644", "100755"), "120000"


@dataclass(frozen=True)
class _Blob:
    """A file of the commit; `path` from the top of the repository."""

    path: str
    mode: str
    id: str
    size: int


def load_at(directory: str, ref: str) -> Desired:
    """What the files below `directory` declared at `ref`; nothing where there was no such directory then.

    Files are named `REF:path` in diagnostics. Symbolic links are not followed. Raises UsageError for a ref that is no
    commit, ReconcilerError(git) outside of a repository, SpecError with every diagnostic.
    """
    prefix = word(directory, "rev-parse", "--show-prefix")
    commit = commit_of(directory, ref)
    tree = _Tree(directory, commit, ref)
    below = tree.list(prefix)
    ignored = compile_ignore(tree.text(below[IGNORE_FILE]) if IGNORE_FILE in below else "")
    texts: dict[str, str] = {}
    failed: list[Diagnostic] = []
    for path, blob in sorted(below.items()):
        if not path.endswith(".toml") or _left_out(path, ignored):
            continue
        name = f"{ref}:{prefix}{path}"
        try:
            texts[name] = tree.text(blob)
        except (OSError, UnicodeDecodeError) as error:
            failed.append(unreadable(name, error))
    raw = read(texts, f"{ref}:{prefix}", tuple(failed))
    return build(raw, {key: tree.attachment(*key) for key in set(raw.prompt_files())})


def _left_out(path: str, ignored: object) -> bool:
    """Whether a file, or a directory above it, is hidden or ignored."""
    parts = path.split("/")
    above = ("/".join(parts[: end + 1]) for end in range(len(parts) - 1))
    assert callable(ignored)
    return any(part.startswith(".") for part in parts) or any(ignored(p, True) for p in above) or ignored(path, False)


class _Tree:
    """The files of one commit."""

    def __init__(self, directory: str, commit: str, ref: str) -> None:
        self._directory = directory
        self._commit = commit
        self._ref = ref

    def list(self, prefix: str) -> dict[str, _Blob]:
        """All files and links below a directory of the repository (`specs/`, or empty for all), by path from there."""
        given = git(
            self._directory, "ls-tree", "-r", "-z", "-l", "--full-tree", self._commit, *([prefix] if prefix else [])
        )
        found = {}
        for line in os.fsdecode(given).split("\0"):
            head, _, path = line.partition("\t")
            if path.startswith(prefix) and head.split()[1] == "blob":
                mode, _, blob, size = head.split()
                found[path.removeprefix(prefix)] = _Blob(path, mode, blob, int(size))
        return found

    def text(self, blob: _Blob) -> str:
        """The text of a file. Raises OSError or UnicodeDecodeError."""
        if blob.mode == _LINK:
            raise OSError(0, "a symbolic link, which is not followed in a commit")
        if blob.mode not in _FILE or blob.size > MAX_BYTES:
            raise OSError(0, "not a regular file of at most 64 MiB")
        return git(self._directory, "cat-file", "blob", blob.id).decode("utf-8-sig")

    def attachment(self, file: str, name: str) -> str | Exception:
        """A prompt file, relative to the file that names it; one outside of the repository has no history: as it is."""
        try:
            if name.startswith(("~", "/")):
                return read_text(os.path.expanduser(name))
            path = posixpath.normpath(posixpath.join(posixpath.dirname(file.removeprefix(f"{self._ref}:")), name))
            if path.startswith("../"):
                return OSError(0, "outside of the repository")
            blob = self.list(path).get("")
            return self.text(blob) if blob else OSError(0, f"it does not exist at {self._ref}")
        except UnicodeDecodeError:
            return OSError(0, "not valid UTF-8")
        except (OSError, ValueError) as error:
            return error
