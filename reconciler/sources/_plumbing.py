"""One way to ask git something: argv only, no prompts, no pagers, errors in one sentence."""

from __future__ import annotations

import os
import subprocess

from reconciler.core.observed import clean
from reconciler.errors import ReconcilerError, UsageError
from reconciler.sources._git import FOREIGN

_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1", "GIT_PAGER": "cat",
    "LC_ALL": "C",
}  # fmt: skip


def git(directory: str, *arguments: str, given: bytes = b"") -> bytes:
    """What `git -C directory ARGUMENTS` prints. Raises ReconcilerError(git) with the reason that git gives."""
    argv = ["git", "-C", directory, "-c", "core.quotePath=false", "-c", "core.fsmonitor=false", *arguments]
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    try:
        done = subprocess.run(argv, input=given, capture_output=True, check=False, env={**env, **_ENVIRONMENT})
    except OSError as error:
        raise ReconcilerError(f"git cannot be run: {error.strerror}", code="git", remedy="install git") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise ReconcilerError(f"git {arguments[0]}: {clean(' '.join(lines), 600)}", code="git")
    return done.stdout


def word(directory: str, *arguments: str) -> str:
    """The same, as one line of text."""
    return os.fsdecode(git(directory, *arguments)).strip("\n")


def commit_of(directory: str, ref: str) -> str:
    """The full id of the commit that a branch, tag or id names. Raises UsageError."""
    if not ref or ref.startswith("-") or not ref.isprintable() or len(ref) > 1000:
        raise UsageError(f"{clean(ref, 80)!r} is no revision", remedy="name a branch, a tag or a commit")
    try:
        return word(directory, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except ReconcilerError:
        remedy = "is it fetched? `git fetch` brings branches of a remote; CI often fetches a single commit"
        raise UsageError(f"{ref} is no commit of the git repository of {directory}", remedy=remedy) from None
