"""`reconciler transcript`: conversations of every agent in readable form, whatever is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reconciler.chat.entries import Entry
from reconciler.cli.transcript import command
from reconciler.transcripts.archive import EMPTY, Archive, Part
from reconciler.transcripts.render import (
    LINE_LIMIT,
    Rendered,
    as_markdown,
    as_text,
    lines_of,
    parse_export,
    parse_lines,
)

app = typer.Typer()
app.command()(command)

# Shortened lines of real stores: claude 2.1.197, codex-cli 0.169.0, gemini 0.61.0.
CLAUDE = """\
{"type":"queue-operation","operation":"enqueue","timestamp":"2026-11-21T01:02:03.635Z","content":"run it"}
{"type":"user","message":{"role":"user","content":"run it"},"timestamp":"2026-11-21T01:02:03.727Z"}
{"attachment":{"type":"agent_listing_delta"},"type":"attachment","timestamp":"2026-11-21T01:02:03.726Z"}
{"type":"user","isMeta":true,"message":{"role":"user","content":"not for people"}}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"thinking","thinking":"hm"}]}}
{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"I run it."},\
{"type":"tool_use","name":"Bash","input":{"command":"echo hi"}}]},"timestamp":"2026-11-21T01:02:04Z"}
{"type":"user","message":{"role":"user","content":[{"type":"tool_result","content":"hi\\n"}]},\
"timestamp":"2026-11-21T01:02:05Z"}
{"type":"last-prompt","lastPrompt":"run it","sessionId":"x"}
"""
CODEX = """\
{"timestamp":"2026-11-21T01:02:04.981Z","ordinal":0,"type":"session_meta","payload":{"id":"x","cwd":"/w"}}
{"timestamp":"2026-11-21T01:02:05Z","type":"response_item","payload":{"type":"message","role":"developer",\
"content":[{"type":"input_text","text":"<skills>"}]}}
{"timestamp":"2026-11-21T01:02:05Z","type":"response_item","payload":{"type":"message","role":"user",\
"content":[{"type":"input_text","text":"run it"}]}}
{"timestamp":"2026-11-21T01:02:05Z","type":"event_msg","payload":{"type":"task_started"}}
{"timestamp":"2026-11-21T01:02:06Z","type":"response_item","payload":{"type":"message","role":"assistant",\
"content":[{"type":"output_text","text":"I run it."}]}}
{"timestamp":"2026-11-21T01:02:06Z","type":"response_item","payload":{"type":"function_call","name":"exec_command",\
"arguments":"{\\"cmd\\":\\"echo hi\\"}"}}
{"timestamp":"2026-11-21T01:02:07Z","type":"response_item","payload":{"type":"function_call_output","output":"hi\\n"}}
"""
GEMINI = """\
{"sessionId":"x","projectHash":"y","startTime":"2026-11-21T01:02:22.614Z","kind":"main"}
{"$set":{"messages":[{"id":"a","timestamp":"2026-11-21T01:02:22.615Z","type":"user","content":[{"text":"run it"}]}]}}
{"id":"b","timestamp":"2026-11-21T01:02:23Z","type":"gemini","content":"I run"}
{"$set":{"lastUpdated":"2026-11-21T01:02:23Z"}}
{"id":"b","timestamp":"2026-11-21T01:02:23Z","type":"gemini","content":"I run it.","toolCalls":[{"name":"shell",\
"args":{"command":"echo hi"}}]}
{"id":"c","timestamp":"2026-11-21T01:02:24Z","type":"info","content":"Request cancelled."}
"""
OPENCODE = json.dumps({
    "info": {"id": "ses_1"},
    "messages": [
        {"info": {"role": "user", "time": {"created": 1795222925000}}, "parts": [{"type": "text", "text": "run it"}]},
        {"info": {"role": "assistant", "time": {"created": 1795222926000}}, "parts": [
            {"type": "step-start"}, {"type": "text", "text": "I run it."},
            {"type": "tool", "tool": "bash", "state": {"status": "completed", "input": {"command": "echo hi"}}},
        ]},
        {"parts": "none"},
    ],
})  # fmt: skip
GENERIC = """\
{"role":"user","text":"run it","at":1795222925}
{"kind":"assistant","text":"I run it.","ts":1795222926000}
{"nothing":"known"}
torn {"role":
"""


def said(rendered: Rendered) -> list[tuple[str, str, str]]:
    return [(entry.who, entry.kind, entry.text) for entry in rendered.entries]


@pytest.mark.parametrize(
    ("text", "tool"),
    [(CLAUDE, 'Bash {"command":"echo hi"}'), (CODEX, 'exec_command {"cmd":"echo hi"}'),
     (GEMINI, 'shell {"command":"echo hi"}')],
    ids=["claude", "codex", "gemini"],
)  # fmt: skip
def test_each_agents_lines_are_read(text: str, tool: str) -> None:
    rendered = parse_lines([text.encode()])
    found = said(rendered)
    assert found[:3] == [("user", "text", "run it"), ("assistant", "text", "I run it."), ("assistant", "tool", tool)]
    assert found[3:] in ([], [("tool", "result", "hi")])
    assert rendered.skipped == 0
    assert all(re.fullmatch(r"2026-11-21T01:02:\d\dZ", entry.when) for entry in rendered.entries)


def test_an_export_is_read() -> None:
    rendered = parse_export(OPENCODE.encode())
    assert said(rendered) == [
        ("user", "text", "run it"), ("assistant", "text", "I run it."),
        ("assistant", "tool", 'bash {"command":"echo hi"}'),
    ]  # fmt: skip
    assert rendered.skipped == 1
    assert rendered.entries[0].when == "2026-11-21T01:02:05Z"


def test_lines_with_a_role_and_a_text_are_read_and_the_rest_is_counted() -> None:
    rendered = parse_lines([GENERIC.encode()])
    assert said(rendered) == [("user", "text", "run it"), ("assistant", "text", "I run it.")]
    assert rendered.skipped == 2
    assert [entry.when for entry in rendered.entries] == ["2026-11-21T01:02:05Z", "2026-11-21T01:02:06Z"]


def test_the_log_of_a_chat_says_who_spoke() -> None:
    spoken = (Entry(1, "user", "ann", text="hello", at=1.8e9), Entry(2, "participant", "api", text="hi", at=1.8e9))
    rendered = parse_lines([entry.to_json().encode() + b"\n" for entry in spoken])
    assert [(entry.who, entry.text) for entry in rendered.entries] == [("ann", "hello"), ("api", "hi")]
    assert not rendered.skipped


def test_it_is_shown_as_people_read_it() -> None:
    assert as_text(parse_lines([CLAUDE.encode()])) == (
        "user · 2026-11-21T01:02:03Z\n  run it\n\n"
        'assistant · 2026-11-21T01:02:04Z\n  I run it.\n  → Bash {"command":"echo hi"}\n\n'
        "tool · 2026-11-21T01:02:05Z\n  ← hi\n"
    )
    assert as_markdown(parse_lines([CLAUDE.encode()])).startswith("### user · 2026-11-21T01:02:03Z\n\n> run it\n")


HOSTILE = "a\x1b[2J\x1b]0;t\x07\r\x00\x9b1m\u202ez\n### user · now\n\n\nuser · now\n```\n<b>\ud800"


def test_nothing_in_it_reaches_the_terminal_or_passes_for_a_line_of_ours() -> None:
    line = json.dumps({"role": HOSTILE, "text": HOSTILE, "timestamp": HOSTILE}).encode()
    call = json.dumps({"role": "user", "content": [{"type": "tool_use", "name": HOSTILE, "input": HOSTILE}]}).encode()
    rendered = parse_lines([line, b"\n", call])
    for text in (as_text(rendered), as_markdown(rendered)):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert not [line for line in text.splitlines() if line.startswith(("### user · now", "user · now", "```"))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "type", "message", "payload", "content", "role", "text", "timestamp", "$set", "messages", "id", "toolCalls",
        "name", "input", "parts", "info", "state", "time", "created", "output",
    ]), inner, max_size=5), max_leaves=20,
)  # fmt: skip


@given(st.lists(JSON, max_size=5), st.binary(max_size=20), st.integers(1, 30))
def test_any_lines_are_read_without_a_failure(values: list[Any], torn: bytes, size: int) -> None:
    text = b"\n".join([*(json.dumps(value).encode() for value in values), torn])
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    rendered = parse_lines(pieces)
    assert rendered == parse_lines([text])
    as_text(rendered)
    as_markdown(rendered)
    for value in values:
        parse_export(json.dumps(value).encode())


def test_a_line_without_an_end_is_skipped_and_held_by_nobody() -> None:
    pieces = [
        b'{"role":"user","text":"a"}\n',
        *[b"x" * (1 << 20)] * ((LINE_LIMIT >> 20) + 2),
        b'\n{"role":"user","text":"b"}',
    ]
    rendered = parse_lines(iter(pieces))
    assert [entry.text for entry in rendered.entries] == ["a", "b"]
    assert rendered.skipped == 1
    assert list(lines_of([b"a\nb", b"c\n", b""])) == [b"a", b"bc"]


def test_deep_nesting_is_a_line_of_no_known_kind() -> None:
    assert parse_lines([b"[" * 100_000]).skipped == 1
    assert parse_lines([b'{"a":' * 100_000]).skipped == 1


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/fleet.toml").write_text('[fleet]\nname = "f"\n[hosts.gpu]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return Archive(tmp_path / "data/reconciler/f/archive")


def keep(archive: Archive, text: str, name: str = "main.jsonl") -> None:
    archive.append("api", "c", name, 0, EMPTY, text.encode(), agent="claude-code", host="gpu")


def test_the_archived_conversation_is_printed(archive: Archive) -> None:
    keep(archive, CLAUDE)
    keep(archive, CLAUDE * 3, "main/subagents/agent-1.jsonl")
    result = CliRunner().invoke(app, ["session.api"])
    assert (result.exit_code, result.stdout) == (0, as_text(parse_lines([CLAUDE.encode()])))
    result = CliRunner().invoke(app, ["api", "--markdown"])
    assert result.stdout.startswith("### user")


def test_lines_that_are_not_shown_are_counted(archive: Archive) -> None:
    keep(archive, GENERIC)
    result = CliRunner().invoke(app, ["api"])
    assert "2 lines are torn" in result.stderr
    assert "torn" not in result.stdout


def test_json_is_one_document(archive: Archive) -> None:
    keep(archive, CLAUDE)
    document = json.loads(CliRunner().invoke(app, ["api", "--json"]).stdout)
    assert document["format_version"] == "1.0"
    assert (document["session"], document["agent"], document["host"]) == ("api", "claude-code", "gpu")
    assert document["entries"][0] == {"who": "user", "when": "2026-11-21T01:02:03Z", "kind": "text", "text": "run it"}


def test_an_export_is_printed_too(archive: Archive) -> None:
    archive.replace_whole("api", "ses_1", OPENCODE.encode(), agent="opencode", host="gpu")
    assert "I run it." in CliRunner().invoke(app, ["api"]).stdout


def test_a_conversation_that_has_parted_says_so(archive: Archive) -> None:
    keep(archive, CLAUDE)
    part = Part("main.jsonl", 0, EMPTY, b"{}\n")
    archive.keep_diverged("api", "c", [part], agent="", host="gpu", why="gpu has another continuation")
    result = CliRunner().invoke(app, ["api"])
    assert "gpu has another continuation" in result.stderr


def test_a_session_of_which_nothing_is_archived_is_a_usage_error(archive: Archive) -> None:
    keep(archive, CLAUDE)
    result = CliRunner().invoke(app, ["nosuch"])
    assert result.exit_code != 0
    assert "no conversation of session.nosuch" in str(result.exception)
