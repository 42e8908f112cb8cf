"""`reconciler init`: a starter that works, and nothing overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reconciler.cli.init import command
from reconciler.errors import UsageError
from reconciler.sources.directory import load

app = typer.Typer()
app.command()(command)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_starter_is_a_valid_spec() -> None:
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout) == (0, "Wrote specs/fleet.toml. Edit it, then run `reconciler plan`.\n")
    found = load("specs")
    assert list(found.sessions) == ["hello"]
    assert found.sessions["hello"].agent == "claude-code"


def test_the_commented_examples_of_the_starter_are_valid_too() -> None:
    CliRunner().invoke(app, ["fleet"])
    path = Path("fleet/fleet.toml")
    lines = path.read_text().splitlines()
    example = [i for i, line in enumerate(lines) if line.startswith("# [")]
    for start in example:
        for index in range(start, len(lines)):
            if not lines[index].startswith("# "):
                break
            lines[index] = lines[index][2:]
    path.write_text("\n".join(lines) + "\n")
    (path.parent / "prompts").mkdir()
    (path.parent / "prompts/tests.md").write_text("Run the tests.\n")
    assert set(load("fleet").sessions) == {"hello", "tests"}


def test_an_existing_spec_is_never_overwritten() -> None:
    Path("specs").mkdir()
    Path("specs/other.toml").write_text("# mine\n")
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert "specs/other.toml exists; nothing was written" in result.stderr
    assert [p.name for p in Path("specs").iterdir()] == ["other.toml"]
    assert CliRunner().invoke(app, ["new"]).exit_code == 0
    assert CliRunner().invoke(app, ["new"]).exit_code == 1


def test_a_file_in_the_way_is_an_error() -> None:
    Path("specs").write_text("x")
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert Path("specs").read_text() == "x"


def test_discover_without_an_ssh_config_says_so_and_writes_nothing() -> None:
    result = CliRunner().invoke(app, ["--discover", "--config", "none"])
    assert isinstance(result.exception, UsageError)
    assert result.exception.message == "none: No such file or directory"
    assert not Path("specs").exists()
