"""Where specs come from. A source gives a `Desired` or raises; it never writes to where it reads from.

directory      files on this machine; tells by itself when they change
git            a ref of a repository; has to be asked, or told to look
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from reconciler.core.spec import Desired

__all__ = ["Revision", "Source", "open_source"]


@dataclass(frozen=True)
class Revision:
    """One state of the specs that could be read and is valid.

    `id` is what is shown and recorded: `main@sha1:0123…` for git, a SHA-256 over names and texts for a directory; the
    same stands in `desired.revision`. `commit` is "" for a directory. `files` counts the spec files.
    `author` is who made the commit as it says itself, "" where that is not known.
    """

    id: str
    commit: str
    desired: Desired
    files: int
    author: str = ""


class Source(Protocol):
    """Where specs come from. `name` is for people and holds no credentials; `polls`: ask again every interval."""

    name: str
    polls: bool

    async def read(self) -> Revision:
        """One attempt at the newest revision. Raises SpecError (with every diagnostic) or SourceError."""
        ...

    async def recall(self, commit: str, *, fetch: bool = False) -> Revision | None:
        """An older revision from what is kept on this machine, and only with `fetch` from elsewhere.

        None where it is not to be had so, always for a directory. With `fetch`, raises as `read` does.
        """
        ...

    def hold(self, commits: frozenset[str]) -> None:
        """These commits stay on this machine, whatever else is cleared away."""
        ...

    async def changed(self) -> None:
        """Returns when it may have changed since the last `read` began."""
        ...

    def poke(self) -> None:
        """Somebody says that it changed: `changed` returns."""
        ...

    async def close(self) -> None:
        """Stop watching; safe to call twice."""
        ...


def open_source(text: str, *, verify: str | None = None, allowed_signers: str | None = None, state: Path) -> Source:
    """The source that `text` names: a directory, or the URL of a git repository (see docs/sources.md).

    `verify` and `allowed_signers` win over those of the URL; `state` is where mirrors are kept. Nothing is read yet.
    Raises SourceError(bad-url) for a URL that is not well-formed, UsageError for options that do not fit together.
    """
    from reconciler.core.location import looks_like_git
    from reconciler.errors import UsageError

    if looks_like_git(text) and not os.path.isdir(text):
        from reconciler.sources.git import open_git

        return open_git(text, verify=verify, allowed_signers=allowed_signers, state=state)
    if verify is not None or allowed_signers is not None:
        raise UsageError(
            "a directory has no signatures to verify", code="verify-directory", remedy="name a git URL, or leave it out"
        )
    from reconciler.sources.watching import DirectorySource

    return DirectorySource(text)
