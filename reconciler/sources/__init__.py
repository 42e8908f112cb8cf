"""Where specs come from. A source gives a revision or raises; it never writes to what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.core.spec import Desired


@dataclass(frozen=True)
class Revision:
    """One state of the specs. `id` is what records and people see: `main@sha1:…` from git, else a digest.

    `commit` is empty for a directory; `files` counts the spec files.
    """

    id: str
    commit: str
    desired: Desired
    files: int


class Source(Protocol):
    """A directory, or a git repository."""

    name: str  # as shown to people, without credentials
    polls: bool  # whether it has to be asked again and again

    async def read(self) -> Revision:
        """What is there now. Raises SpecError with all diagnostics, or SourceError."""

    async def recall(self, commit: str) -> Revision | None:
        """An older revision, without the network where this machine still has it; None where there is none."""

    async def changed(self) -> None:
        """Return when there may be something new."""

    def poke(self) -> None:
        """Let `changed` return: somebody says that there is something new."""

    async def close(self) -> None:
        """Give back what it holds."""


def open_source(text: str, *, verify: str | None = None, allowed_signers: str | None = None, state: Path) -> Source:
    """The source that a person names: a directory, or the URL of a git repository.

    `state` is where a mirror may be kept. Raises SourceError(bad-url).
    """
    from reconciler.sources.git import GitSource, is_git
    from reconciler.sources.watching import DirectorySource

    if is_git(text):
        return GitSource(text, verify=verify, allowed_signers=allowed_signers, state=state)
    if verify is not None or allowed_signers is not None:
        from reconciler.errors import SourceError

        raise SourceError(f"{text}: signatures are for git; this is a directory", code="bad-url",
                          remedy=f"git+file://{Path(text).absolute()}?ref=branch:main")  # fmt: skip
    return DirectorySource(text)
