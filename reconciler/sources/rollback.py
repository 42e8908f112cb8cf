"""Specs put back to what an earlier commit had, as a commit of its own. Never rewrites history, never forces."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.errors import GuardError, ReconcilerError, UsageError
from reconciler.sources._plumbing import commit_of, git, word


@dataclass(frozen=True)
class Target:
    """What to go back to: the id of a commit, and as people write it."""

    commit: str
    short: str


def find_target(directory: str, to: str | None) -> Target:
    """The commit that is meant: `to`, or the one before the last that touched the spec directory.

    Raises UsageError where there is none, GuardError where the spec directory is not clean, or was not there then.
    """
    if git(directory, "status", "--porcelain", "-z", "--untracked-files=all", "--", "."):
        raise GuardError(
            f"{directory} has changes that are not committed: nothing was rolled back", code="dirty",
            remedy=f"commit them, or git stash -u -- {directory}",
        )  # fmt: skip
    commit = commit_of(directory, to) if to is not None else _before_last(directory)
    short = word(directory, "rev-parse", "--short", commit)
    prefix = word(directory, "rev-parse", "--show-prefix")
    if not git(directory, "ls-tree", "--full-tree", commit, *([prefix] if prefix else [])):
        raise GuardError(f"there was no {directory} at {short}: nothing was rolled back", code="no-directory")
    return Target(commit, short)


def _before_last(directory: str) -> str:
    last = word(directory, "log", "-1", "--format=%H", "--", ".")
    if not last:
        raise UsageError(f"no commit has touched {directory} yet")
    try:
        return commit_of(directory, f"{last}^")
    except UsageError:
        raise UsageError(f"there is no commit before {last[:12]}, which brought {directory}") from None


def differs(directory: str, target: Target) -> bool:
    """Whether there is anything to roll back."""
    return bool(git(directory, "diff", "--name-only", "-z", target.commit, "HEAD", "--", "."))


def revert(directory: str, target: Target, reason: str) -> str:
    """Commit the spec directory as it was at the target; the new commit's short id. Other staged changes stay staged.

    Raises ReconcilerError(git) where git or a hook refuses; the directory is then as it was before.
    """
    message = f"Revert specs to {target.short}" + (f": {reason}" if reason else "")
    try:
        git(directory, "restore", f"--source={target.commit}", "--staged", "--worktree", "--", ".")
        git(directory, "commit", "--quiet", "--only", f"--message={message}", "--", ".")
    except (ReconcilerError, KeyboardInterrupt):
        git(directory, "restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
        raise
    return word(directory, "rev-parse", "--short", "HEAD")


def push(directory: str) -> None:
    """`git push` as configured, never with force. Raises ReconcilerError(git); the commit is kept."""
    try:
        git(directory, "push", "--quiet")
    except ReconcilerError as error:
        raise ReconcilerError(
            f"the commit is made, but not pushed: {error.message}", code="git", remedy=f"git -C {directory} push"
        ) from None
