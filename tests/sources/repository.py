"""A git repository with specs, made and changed by the real git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FLEET = '[fleet]\nname = "t"\n[sessions.api]\nagent = "shell"\nargs = ["sleep", "1000"]\n'


class Repository:
    """With a home of its own, so that nothing of whoever runs the tests counts."""

    def __init__(self, place: Path) -> None:
        self.path = place / "repository"
        self.home = place / "home"
        self.home.mkdir(parents=True)
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ann", "GIT_AUTHOR_EMAIL": "ann@example.com",
            "GIT_COMMITTER_NAME": "Ann", "GIT_COMMITTER_EMAIL": "ann@example.com",
        }  # fmt: skip
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.path)], env=self.env, check=True)
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    @property
    def url(self) -> str:
        """As a source is named."""
        return f"git+file://{self.path}"

    def git(self, *words: str) -> str:
        """What git prints; it must succeed."""
        done = subprocess.run(
            ["git", "-C", str(self.path), *words], env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None], *options: str) -> str:
        """Write these (None: remove), commit; the commit."""
        for name, text in files.items():
            path = self.path / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a change", *options)
        return self.git("rev-parse", "HEAD")

    def sign_with(self, name: str) -> Path:
        """Commits are signed with a new key from now on; the file of allowed signers that names it."""
        key = self.home / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.git("config", "gpg.format", "ssh")
        self.git("config", "user.signingKey", f"{key}.pub")
        public = (self.home / f"{name}.pub").read_text(encoding="ascii")
        signers = self.home / f"{name}.signers"
        signers.write_text(f"ann@example.com {public}", encoding="ascii")
        return signers
