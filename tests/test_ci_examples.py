"""The files for CI are valid YAML, and the commands in them work as they stand, in a repository like a user's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CI = ROOT / "examples" / "ci"
# What the services put in the place of expressions, and pip and gh, which are not asked here.
EXPRESSIONS = {
    "inputs.directory": "specs", "inputs.against": "origin/main", "inputs.package": "agent-reconciler",
    "github.token": "x", "github.event.pull_request.number": "7",
}  # fmt: skip
STUB = '#!/bin/sh\necho "${0##*/} $*" >> "$RECORD"\n'


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone whose working directory has changed specs, on a branch of its own."""
    env = {"GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, env=env)

    (tmp_path / "up" / "specs").mkdir(parents=True)
    (tmp_path / "up" / "specs" / "fleet.toml").write_text('[sessions.api]\nagent = "codex"\n')
    git("-C", "up", "init", "-q")
    git("-C", "up", "add", "-A")
    git("-C", "up", "commit", "-qm", "x")
    git("clone", "-q", "up", "clone")
    (tmp_path / "clone" / "specs" / "fleet.toml").write_text('[sessions.api]\nagent = "codex"\nmodel = "x"\n')
    return tmp_path / "clone"


def execute(repository: Path, script: str, **env: str) -> Path:
    """Run a script of such a file as the service would; what it wrote is in the directory that is returned."""
    there = repository.parent / "ran"
    (there / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("pip", "gh"):
        (there / "bin" / name).write_text(STUB)
        (there / "bin" / name).chmod(0o755)
    (there / "bin" / "reconciler").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reconciler "$@"\n')
    (there / "bin" / "reconciler").chmod(0o755)
    given = {
        "PATH": f"{there / 'bin'}:{os.environ['PATH']}", "HOME": str(repository.parent), "RUNNER_TEMP": str(there),
        "GITHUB_STEP_SUMMARY": str(there / "summary"), "GITHUB_OUTPUT": str(there / "output"),
        "RECORD": str(there / "record"), "PYTHONPATH": str(ROOT), "GIT_CONFIG_GLOBAL": os.devnull, **env,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=repository,
        env=given,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, script + done.stdout + done.stderr
    return there


def substituted(text: str) -> str:
    return re.sub(r"\$\{\{ *(.+?) *\}\}", lambda match: EXPRESSIONS[match[1]], text)


@pytest.mark.parametrize(
    ("file", "keys"), [("workflow.yml", ("jobs", "plan")), ("action.yml", ("runs",))], ids=["workflow", "action"]
)
def test_the_steps_for_github_plan_and_tell(repository: Path, file: str, keys: tuple[str, ...]) -> None:
    place = read(CI / "github" / file)
    for key in keys:
        place = place[key]
    steps = [step for step in place["steps"] if "run" in step]
    for step in steps:
        assert "${{" not in step["run"], "what others wrote must not become part of a script"
        env = {name: substituted(str(value)) for name, value in step.get("env", {}).items()}
        there = execute(repository, step["run"], **env)
    summary = (there / "summary").read_text()
    assert "**Plan: 1 to restart. 0 unchanged.**" in summary
    assert (there / "plan.md").read_text() == summary
    record = (there / "record").read_text()
    if file == "workflow.yml":
        assert record.startswith("pip install agent-reconciler\ngh pr comment 7 --body-file ")
    else:
        assert (there / "output").read_text() == f"plan={there}/plan.md\n"
        assert all(step["shell"] == "bash" for step in steps)


def test_the_workflow_never_runs_with_the_secrets_of_the_repository() -> None:
    workflow = read(CI / "github" / "workflow.yml")
    assert workflow[True] == "pull_request"  # YAML 1.1 reads the key `on` so
    assert "secrets." not in (CI / "github" / "workflow.yml").read_text()


def test_the_job_for_gitlab_plans(repository: Path) -> None:
    job = read(CI / "gitlab" / ".gitlab-ci.yml")["plan"]
    script = "\n".join([*job["before_script"], *job["script"]])
    execute(repository, script, CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main")
    assert "**Plan: 1 to restart. 0 unchanged.**" in (repository / job["artifacts"]["paths"][0]).read_text()


def test_the_hook_of_pre_commit_validates(repository: Path) -> None:
    (hook,) = read(ROOT / ".pre-commit-hooks.yaml")
    assert hook["pass_filenames"] is False
    execute(repository, hook["entry"])
    (repository / "specs" / "fleet.toml").write_text("[sessions")
    with pytest.raises(AssertionError, match=r"specs/fleet\.toml:1"):
        execute(repository, hook["entry"])
