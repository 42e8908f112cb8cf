"""`reconciler validate`: verdict, exit code, text for people, JSON for scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reconciler.cli.validate import command

app = typer.Typer()
app.command()(command)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir(tmp_path)


def spec(text: str) -> None:
    Path("specs/fleet.toml").write_text(text)


def test_valid_specs_are_counted() -> None:
    spec('[hosts.gpu]\n[sessions.a]\nagent = "codex"\nhost = "gpu"\n')
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "specs is valid: 2 hosts, 1 session.\n", "")


def test_invalid_specs_exit_65_with_the_findings_on_stderr() -> None:
    spec('[sessions.a]\nagnet = "codex"\n')
    result = CliRunner().invoke(app, ["specs"])
    assert (result.exit_code, result.stdout) == (65, "")
    assert result.stderr == (
        "error: `agent` is missing\n  --> specs/fleet.toml:1:2\n  |\n1 | [sessions.a]\n  |  ^^^^^^^^^^\n"
        "help: add `agent`: a built-in agent (`claude-code`, `codex`, `opencode`, `gemini`, `shell`) "
        "or a declared one.\n\n"
        "error: unknown key `agnet`; did you mean `agent`?\n  --> specs/fleet.toml:2:1\n  |\n"
        '2 | agnet = "codex"\n  | ^^^^^\n\n2 errors.\n'
    )


def test_json_of_invalid_specs_has_the_promised_shape() -> None:
    spec('[sessions.a]\nagent = "codx"\n')
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 65
    document = json.loads(result.stdout)
    assert document == {
        "format_version": "1.0",
        "valid": False,
        "error_count": 1,
        "diagnostics": [
            {
                "severity": "error",
                "summary": "unknown agent `codx`; did you mean `codex`?",
                "detail": "",
                "code": "unknown-agent",
                "address": "session.a",
                "range": {
                    "filename": "specs/fleet.toml",
                    "start": {"line": 2, "column": 9},
                    "end": {"line": 2, "column": 15},
                },
                "snippet": 'agent = "codx"',
            }
        ],
    }


def test_json_of_valid_specs_is_alone_on_stdout() -> None:
    spec("")
    result = CliRunner().invoke(app, ["--json"])
    assert json.loads(result.stdout) == {"format_version": "1.0", "valid": True, "error_count": 0, "diagnostics": []}
    assert result.exit_code == 0


def test_a_missing_directory_names_init() -> None:
    result = CliRunner().invoke(app, ["nowhere"])
    assert result.exit_code == 65
    assert "there is no spec directory `nowhere`" in result.stderr
    assert "reconciler init nowhere" in result.stderr


def test_validating_loads_nothing_that_only_other_commands_need() -> None:
    spec('[sessions.a]\nagent = "codex"\n')
    program = (
        "import sys, reconciler.cli.validate as v; v.command('specs'); "
        "print([m for m in ('asyncssh', 'networkx', 'tree_sitter', 'asyncio', 'tomlkit') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
