"""Real git repositories for tests: commits, tags, signatures by keys made for the occasion."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ENV = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


def session(name: str, rest: str = "") -> str:
    """A spec with one session."""
    return f'[sessions.{name}]\nagent = "codex"\n{rest}'


class Repository:
    """A repository with a working tree; what is committed is what `url` serves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "gpg.format", "ssh")

    @property
    def url(self) -> str:
        """As reconciler takes it."""
        return f"git+file://{self.directory}"

    def git(self, *args: str) -> str:
        """Run git there."""
        done = subprocess.run(["git", *args], cwd=self.directory, env=ENV, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | None], *, key: Path | None = None) -> str:
        """Write (None: remove) files and commit them; gives the commit's id."""
        for name, text in files.items():
            path = self.directory / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self.git("add", "--all")
        signed = ["-c", f"user.signingkey={key}", "commit", "-S"] if key else ["commit"]
        self.git(*signed, "--quiet", "--allow-empty", "--message=x")
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, *, key: Path | None = None) -> None:
        """An annotated tag of HEAD, signed where there is a key."""
        signed = ["-c", f"user.signingkey={key}", "tag", "-s"] if key else ["tag", "-a"]
        self.git(*signed, "--message=x", name)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server does not answer meanwhile."""
        hidden = self.directory.with_name(self.directory.name + ".away")
        self.directory.rename(hidden)
        try:
            yield
        finally:
            hidden.rename(self.directory)


def make_key(directory: Path, name: str) -> Path:
    """An SSH key without a passphrase; the path of its private half."""
    path = directory / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


def allow(file: Path, *keys: Path) -> Path:
    """An allowed signers file with these keys."""
    lines = [f'{key.name}@example.com namespaces="git" {key.with_suffix(".pub").read_text()}' for key in keys]
    file.write_text("".join(lines))
    return file
