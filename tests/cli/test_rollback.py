"""`rollback`: an ordinary commit that brings the specs back, and nothing else of the repository; and pins."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

API = '[sessions.api]\nagent = "codex"\n'
NEW = '[sessions.new]\nagent = "codex"\n'


class Repository:
    """Specs in `specs`, something else beside them, and an `origin` to push to."""

    def __init__(self, directory: Path) -> None:
        self.top = directory / "top"
        self.specs = self.top / "specs"
        self.env = {
            "HOME": str(directory), "PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "USER": "ann",
            "LOGNAME": "ann", "TZ": "UTC",
            **{f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in
               (("NAME", "Ann"), ("EMAIL", "ann@example.com"))},
        }  # fmt: skip
        self.specs.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", str(directory / "origin"))
        self.git("init", "-q", "-b", "main")
        self.git("remote", "add", "origin", str(directory / "origin"))

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.top, env=self.env, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, text: str, name: str = "specs/fleet.toml", message: str = "x") -> str:
        (self.top / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str, code: int = 0, auto: bool = True) -> str:
        argv = [sys.executable, "-m", "reconciler", "rollback", *arguments, *(["--auto-approve"] if auto else [])]
        done = subprocess.run(
            argv, cwd=self.top, env=self.env, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def text(self) -> str:
        return (self.specs / "fleet.toml").read_text()

    def state(self) -> tuple[str, str]:
        return self.git("rev-parse", "HEAD"), self.git("status", "--porcelain")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository(tmp_path)
    found.commit(API, message="first")
    found.commit(API + NEW, message="second")
    found.commit("other", "README.md", message="elsewhere")
    return found


def test_it_commits_what_was_before_the_last_change_of_the_specs_and_shows_what_that_does(
    repository: Repository,
) -> None:
    (repository.specs / "more.toml").write_text('[sessions.more]\nagent = "codex"\n')
    repository.commit(API, message="third")
    short = repository.git("rev-parse", "--short", "HEAD~1")
    said = repository.run("--reason", "the demo\nbroke")
    assert repository.text() == API + NEW
    assert not (repository.specs / "more.toml").exists()
    assert repository.git("log", "-1", "--format=%B") == f"Revert specs to {short}: the demo broke"
    assert repository.git("rev-list", "--count", "HEAD") == "5"
    assert repository.git("status", "--porcelain") == ""
    assert "Plan: 1 to start, 1 to stop. 1 unchanged." in said
    repository.run()  # and back again
    assert repository.text() == API


def test_it_goes_to_any_revision_and_leaves_the_rest_of_the_repository_alone(repository: Repository) -> None:
    (repository.top / "README.md").write_text("half done")
    (repository.top / "staged.md").write_text("staged")
    repository.git("add", "staged.md")
    repository.run("--to", "HEAD~2")
    assert repository.text() == API
    assert repository.git("show", "--name-only", "--format=", "HEAD") == "specs/fleet.toml"
    assert (repository.top / "README.md").read_text() == "half done"
    assert repository.git("diff", "--cached", "--name-only") == "staged.md"


def test_what_is_so_already_is_no_commit(repository: Repository) -> None:
    before = repository.state()
    assert "nothing to roll back" in repository.run("--to", "HEAD~1")
    assert repository.state() == before


@pytest.mark.parametrize("name", ["fleet.toml", "new.toml", "notes.md"])
def test_changes_that_are_not_committed_are_refused(repository: Repository, name: str) -> None:
    (repository.specs / name).write_text("# mine\n")
    before = repository.state()
    assert "not committed" in repository.run(code=7)
    assert repository.state() == before
    assert (repository.specs / name).read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--to", "nowhere"), 64), (("--to", "--hard"), 64), (("--pin", "HEAD", "--unpin"), 64),
     (("--pin", "HEAD", "--push"), 64), (("elsewhere",), 1)],
)  # fmt: skip
def test_what_cannot_be_meant_changes_nothing(repository: Repository, arguments: tuple[str, ...], code: int) -> None:
    before = repository.state()
    repository.run(*arguments, code=code)
    assert repository.state() == before


def test_the_first_commit_has_none_before_it(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.commit(API)
    assert "there is no commit before" in repository.run(code=64)


def test_a_revision_that_had_no_specs_or_bad_ones_is_refused(repository: Repository) -> None:
    repository.git("rm", "-rq", "specs")
    repository.git("commit", "-qm", "gone")
    repository.specs.mkdir()
    repository.commit("[sessions", message="bad")
    repository.commit(API, message="good")
    before = repository.state()
    repository.run(code=65)
    assert "there was no specs" in repository.run("--to", "HEAD~2", code=7)
    assert repository.state() == before


def test_where_a_hook_refuses_the_commit_all_is_as_it_was(repository: Repository) -> None:
    hook = repository.top / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    before = repository.state()
    assert "not on a Friday" in repository.run(code=1)
    assert repository.state() == before
    assert repository.text() == API + NEW


def test_it_pushes_when_asked_to_and_never_by_force(repository: Repository) -> None:
    repository.git("push", "-q", "-u", "origin", "main")
    repository.run("--push")
    assert repository.git("ls-remote", "origin", "main").split()[0] == repository.git("rev-parse", "HEAD")
    repository.git("push", "-q", "--force", "origin", "HEAD~2:main")
    other = repository.top.parent / "other"
    repository.git("clone", "-q", str(repository.top.parent / "origin"), str(other))
    repository.git("-C", str(other), "commit", "-q", "--allow-empty", "-m", "theirs")
    repository.git("-C", str(other), "push", "-q")
    theirs = repository.git("ls-remote", "origin", "main")
    assert "the commit is made, but not pushed" in repository.run("--push", code=1)
    assert repository.git("ls-remote", "origin", "main") == theirs


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("y", 8), ("", 8)])
def test_only_yes_is_taken_as_yes(repository: Repository, answer: str, code: int) -> None:
    before = repository.state()
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        argv = [sys.executable, "-m", "reconciler", "rollback"]
        done = subprocess.run(
            argv, cwd=repository.top, env=repository.env, stdin=theirs, capture_output=True, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == code
    assert (repository.state() == before) == (code != 0)


def test_without_a_terminal_it_does_not_ask(repository: Repository) -> None:
    before = repository.state()
    repository.run(auto=False, code=64)
    assert repository.state() == before


def test_a_pin_is_kept_as_the_id_of_a_commit_and_taken_away(repository: Repository) -> None:
    from reconciler.journal import Journal

    path = repository.top.parent / ".local/state/reconciler/default/controller/journal.sqlite"
    before, commit = repository.state(), repository.git("rev-parse", "HEAD~1")
    assert f"pinned to {commit} by ann at " in repository.run("--pin", "HEAD~1", "--reason", "calm", auto=False)
    with Journal(path) as journal:
        assert journal.recall("pin") == commit
        assert (journal.recall("pin.why") or "").endswith(": calm")
    repository.run("--pin", "0" * 40, auto=False)  # of another repository, which only `run` has
    repository.run("--pin", "nowhere", code=64, auto=False)
    with Journal(path) as journal:
        assert journal.recall("pin") == "0" * 40
    repository.run("--unpin", auto=False)
    with Journal(path) as journal:
        assert journal.recall("pin") is None
        assert journal.recall("pin.why") is None
    assert repository.state() == before


def test_specs_that_are_broken_now_can_be_rolled_back_and_pinned(repository: Repository) -> None:
    repository.commit("[sessions", message="bad")
    repository.run("--pin", "HEAD~1", auto=False)
    assert "cannot be shown" in repository.run()
    assert repository.text() == API + NEW
