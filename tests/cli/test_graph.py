"""`reconciler graph`: hosts, sessions and what waits for what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reconciler.cli.graph import command

app = typer.Typer()
app.command()(command)

SPEC = """\
[hosts.gpu]
address = "gpu-server"
enabled = false
[hosts.idle]
[sessions.db]
host = "gpu"
agent = "claude-code"
[sessions.api]
agent = "codex"
depends_on = ["db", { session = "build", until = "completed" }]
[sessions.build]
agent = "shell"
args = ["make"]
lifecycle = "task"
state = "stopped"
"""


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/fleet.toml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)


def test_the_tree_shows_sessions_below_their_hosts() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert result.stdout == (
        "host.gpu (gpu-server) disabled\n"
        "  session.db  claude-code\n"
        "host.idle\n"
        "host.local\n"
        "  session.api    codex  after db (ready), build (completed)\n"
        "  session.build  shell  task  stopped\n"
    )


def test_json_has_nodes_and_edges() -> None:
    document = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert document["format_version"] == "1.0"
    assert [node["address"] for node in document["nodes"]] == [
        "host.gpu",
        "session.db",
        "host.idle",
        "host.local",
        "session.api",
        "session.build",
    ]
    assert document["edges"] == [
        {"from": "session.api", "to": "session.db", "until": "ready"},
        {"from": "session.api", "to": "session.build", "until": "completed"},
    ]


def test_dot_draws_a_box_per_host_and_an_arrow_per_dependency() -> None:
    lines = CliRunner().invoke(app, ["--dot"]).stdout.splitlines()
    assert lines[0] == "digraph fleet {"
    assert '    label = "gpu";' in lines
    assert '    "session.db" [label = "db\\nclaude-code"];' in lines
    assert '  "session.api" -> "session.db" [label = "ready"];' in lines
    assert sum(line.count("{") - line.count("}") for line in lines) == 0


def test_two_forms_at_once_are_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["--dot", "--json"]).exit_code == 64


def test_invalid_specs_exit_65() -> None:
    Path("specs/fleet.toml").write_text("x = 1\n")
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout) == (65, "")
    assert "unknown table `x`" in result.stderr
