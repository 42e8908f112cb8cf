"""Specs of a commit: read from git's objects, the same as from the directory, with nothing followed out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError, SpecError, UsageError
from reconciler.sources.at_ref import load_at
from reconciler.sources.directory import load

API = '[sessions.api]\nagent = "codex"\n'


class Repository:
    """A git repository with specs in `fleet/specs`."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.specs = top / "fleet" / "specs"
        self.specs.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.top, check=True, capture_output=True, text=True).stdout

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            (self.specs / f"{name}.toml").write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD").strip()

    def plan(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", "plan", "fleet/specs", *arguments], cwd=self.top, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ann")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ann@example.com")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "top").mkdir()
    return Repository(tmp_path / "top")


def test_a_commit_reads_as_the_directory_did(repository: Repository) -> None:
    (repository.specs / "deep").mkdir()
    (repository.specs / ".hidden").mkdir()
    (repository.specs / "out").mkdir()
    (repository.specs / "deep" / "p.md").write_text("Do it.\n")
    (repository.specs / "deep" / "b.toml").write_text('[sessions.b]\nagent = "codex"\nprompt_file = "p.md"\n')
    (repository.specs / ".hidden" / "c.toml").write_text("nonsense")
    (repository.specs / "out" / "d.toml").write_text("nonsense")
    (repository.specs / ".reconcilerignore").write_text("out/\n")
    repository.commit(fleet=API)
    now = load(str(repository.specs))
    repository.commit(fleet="[hosts.gpu]\n")
    (repository.specs / "deep" / "p.md").write_text("Something else.\n")
    then = load_at(str(repository.specs), "HEAD~1")
    assert (then.sessions, then.prompts) == (now.sessions, {"b": "Do it.\n"})
    assert set(load_at(str(repository.specs), "main").sessions) == {"b"}


def test_what_a_hook_of_git_is_told_of_another_place_does_not_count(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(fleet=API)
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert set(load_at(str(repository.specs), "main").sessions) == {"api"}


def test_before_there_were_specs_nothing_was_declared(repository: Repository) -> None:
    repository.commit()
    repository.commit(fleet=API)
    assert load_at(str(repository.specs), "HEAD~1").empty


@pytest.mark.parametrize("ref", ["nowhere", "", "--help", "-n", "HEAD:fleet", "main\nmain", "HEAD^{tree}", "a..b"])
def test_what_is_no_commit_is_a_usage_error(repository: Repository, ref: str) -> None:
    repository.commit(fleet=API)
    with pytest.raises(UsageError):
        load_at(str(repository.specs), ref)


def test_a_directory_without_a_repository_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ReconcilerError, match="not a git repository"):
        load_at(str(tmp_path), "main")


def test_links_are_not_followed_and_errors_name_the_commit(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text(API)
    (repository.specs / "link.toml").symlink_to(tmp_path / "secret.toml")
    repository.commit(bad="[sessions.x]\n")
    with pytest.raises(SpecError) as caught:
        load_at(str(repository.specs), "main")
    said = "\n".join(str(diagnostic) for diagnostic in caught.value.diagnostics)
    assert "main:fleet/specs/link.toml" in said
    assert "a symbolic link, which is not followed" in said
    assert "main:fleet/specs/bad.toml:1:2" in said


@pytest.mark.parametrize("name", ["../../../../out.md", "../../../.git/config", "no.md", "link.md"])
def test_a_prompt_is_not_read_from_outside_of_the_commit(repository: Repository, tmp_path: Path, name: str) -> None:
    (tmp_path / "out.md").write_text("x")
    (repository.specs / "link.md").symlink_to(tmp_path / "out.md")
    repository.commit(fleet=API + f'prompt_file = "{name}"\n')
    with pytest.raises(SpecError):
        load_at(str(repository.specs), "main")


def test_plan_against_a_ref_reaches_no_host_and_has_the_exit_codes_of_plan(repository: Repository) -> None:
    hosts = '[hosts.gpu]\naddress = "192.0.2.1"\n[defaults.session]\nhost = "gpu"\n'
    repository.commit(fleet=hosts + API)
    assert "No changes" in repository.plan("--against", "main", "--detailed-exitcode").stdout
    (repository.specs / "fleet.toml").write_text(hosts + API + 'model = "x"\n[sessions.new]\nagent = "codex"\n')
    done = repository.plan("--against", "main", "--detailed-exitcode", "--json", code=2)
    document = json.loads(done.stdout)
    assert [(item["address"], item["verb"]) for item in document["actions"]] == [
        ("session.api", "restart"), ("session.new", "start")
    ]  # fmt: skip
    assert document["actions"][0]["source"] == {"file": "fleet/specs/fleet.toml", "line": 7}
    text = repository.plan("--against", "main", "--markdown").stdout
    assert "**Plan: 1 to start, 1 to restart. 0 unchanged.**" in text
    assert "session.new" not in repository.plan("--against", "main", "--target", "api").stdout
    repository.plan("--against", "nowhere", code=64)
    repository.plan("--against", "main", "--json", "--markdown", code=64)
    (repository.specs / "fleet.toml").write_text("[sessions")
    repository.plan("--against", "main", code=65)
