"""What every driver promises of headless turns: that they can be held to reading, and that their output is read."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import drivers
from reconciler.core.agent import Agent, LaunchRequest, Reply
from reconciler.core.parse import parse
from reconciler.errors import OperationError
from tests.agents.recorded import RECORDINGS
from tests.agents.test_contract import SESSION_DIR, every_agent, invoke, words

TURNS = ("turn", "resume_turn")
LOOSE = ("bypassPermissions", "danger", "yolo", "--auto", "acceptEdits", "full-access", "workspace-write")
PRINTED = [path.read_text() for path in sorted(RECORDINGS.glob("*/*")) if path.suffix in (".out", ".err")]
VOCABULARY = (
    "type", "item", "part", "text", "result", "is_error", "subtype", "errors", "session_id", "sessionID", "thread_id",
    "error", "message", "data", "name", "usage", "modelUsage", "input_tokens", "output_tokens", "inputTokens", "tokens",
    "total", "total_cost_usd", "cost", "stats", "models", "response", "status",
)  # fmt: skip
KINDS = (
    "result", "thread.started", "item.completed", "agent_message", "turn.completed", "turn.failed", "error", "text",
    "step_start", "step_finish", "success", "0f0e0d0c-0b0a-4908-8706-050403020100", "ses_e0473a790ffe7EgMcrzEzd46UO",
    "\x1b[1mloud\x1b[0m", "\x1b]0;title", "a\r\nb\x00\x9b", "\ud800", '{"error":{"message":"deep"}}', " ",
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(KINDS)
    | st.sampled_from([10**400, -1, 1e308, 5])
)  # fmt: skip
shapes = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(VOCABULARY), inner, max_size=5)
)


def cut(text: str, ends: tuple[float, float], noise: str) -> str:
    """The first and the last part of it."""
    first, last = sorted(int(len(text) * end) for end in ends)
    return text[:first] + noise + text[last:]


fractions = st.floats(0, 1)
noises = st.text(max_size=30) | st.sampled_from(
    ["\n[... 4096 bytes left out ...]\n", "\x1b[2J", "{\n", "}\n", "[" * 999, "\n".join(["No conversation found"] * 3)]
)
lines = st.lists(shapes, max_size=5).map(lambda values: "\n".join(json.dumps(value) for value in values))
pretty = shapes.map(lambda value: "log\n" + json.dumps(value, indent=2, ensure_ascii=False))
outputs = (
    st.text(max_size=60) | lines | pretty | noises
    | st.builds(cut, st.sampled_from(PRINTED), st.tuples(fractions, fractions), noises)
)  # fmt: skip
exits = st.sampled_from([0, 1, 42, 145, -9]) | st.integers()


def checked(reply: Reply, exit: int) -> Reply:
    for shown in (reply.text, reply.error):
        assert type(shown) is str
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
        assert shown == shown.strip()
    assert reply.text or reply.error, "an answer, or why there is none"
    assert reply.error or exit == 0
    assert reply.error.isprintable()
    assert len(reply.error) <= 300
    assert reply.conversation is None or re.fullmatch(r"[A-Za-z0-9_-]{10,80}", reply.conversation)
    assert reply.cost is None or (type(reply.cost) is float and 0 <= reply.cost < 1e12)
    assert reply.tokens is None or (type(reply.tokens) is int and reply.tokens >= 0)
    flags = (reply.unknown, reply.taken, reply.running)
    assert [type(flag) for flag in flags] == [bool] * 3
    assert not (reply.unknown and reply.taken)
    assert exit or not (reply.unknown or reply.taken)
    return reply


@every_agent
@given(exit=exits, out=outputs, err=outputs)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_turn_prints_is_read_without_an_error(agent: Agent, exit: int, out: str, err: str) -> None:
    checked(agent.reply(exit, out, err), exit)


@every_agent
@pytest.mark.parametrize(
    "text",
    ["{\n" * 500_000, '{"type":"error"}\n' * 60_000, "[" * 1_000_000, "\x1b[" * 500_000, '{"result":"' + "x" * 10**6],
    ids=["braces", "events", "deep", "escapes", "open"],
)
def test_a_megabyte_of_anything_is_read(agent: Agent, text: str) -> None:
    checked(agent.reply(1, text, ""), 1)
    checked(agent.reply(1, "", text), 1)


@every_agent
def test_silence_and_nonsense_are_told_as_what_they_are(agent: Agent) -> None:
    assert agent.reply(0, "", "noise").error.endswith(" printed nothing")
    assert agent.reply(7, "", "").error.endswith(" ended with exit code 7")
    assert agent.reply(1, "", "warning\n\x1b[31mout of luck\x1b[0m\n").error == "out of luck"
    reply = agent.reply(0, "garbage", "")
    assert (reply.text, reply.error) == ("garbage", "") or reply.error.endswith(" printed no answer that can be read")


@every_agent
@pytest.mark.parametrize("way", TURNS)
def test_a_read_only_turn_is_held_whatever_the_mode_or_is_refused(agent: Agent, way: str) -> None:
    wish: dict[str, Any] = {"read_only": True, "prompt": "-x", "model": "m"}
    if agent.name != "held":
        wish["permission_mode"] = "bypass"
    if not agent.can_be_read_only:
        with pytest.raises(OperationError) as refused:
            invoke(agent, way, **wish)
        assert refused.value.code == "read-only"
        assert refused.value.remedy
        return
    made = invoke(agent, way, **wish)
    assert not [word for word in LOOSE if word in words(made)]
    assert "-x" in (made.stdin, *(word.rpartition("=")[2] for word in made.argv[-1:]))
    free = invoke(agent, way, prompt="-x", model="m")
    assert words(made) != words(free)
    for name in made.files:
        assert f"{SESSION_DIR}/{name}" in words(made)


@every_agent
@pytest.mark.parametrize("way", ["start", "resume"])
def test_an_interactive_launch_knows_no_read_only(agent: Agent, way: str) -> None:
    assert invoke(agent, way, read_only=True) == invoke(agent, way)


MINE = r"""#!/bin/sh
cd "${0%/*}" || exit 1
verb=$1 id=$2
[ "$verb" = turn ] || [ -e "$id" ] || { echo "warning" >&2; echo "no conversation $id" >&2; exit 4; }
prompt=$(cat)
printf '%s\n' "$prompt" >>"$id"
case $3 in --look) ;; *) touch "wrote-$id" ;; esac
printf '\n\033[1m%s turns\033[0m, last: %s\n' "$(wc -l <"$id")" "$prompt"
"""


def test_an_agent_of_ones_own_takes_turns_by_its_templates(tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.write_text(MINE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    table = (
        f'[agents.mine]\ncommand = "{program}"\nstart = ["{{command}}"]\nprompt_via = "stdin"\n'
        'turn = ["{command}", "turn", "{session_id}"]\nresume_turn = ["{command}", "again", "{session_id}"]\n'
        'read_only = ["--look"]\n[sessions.a]\nagent = "mine"\n'
    )
    agent = drivers.agents(parse({"a.toml": table}, {}))["mine"]

    def taken(way: str, prompt: str, name: str, *, read_only: bool) -> Reply:
        request = LaunchRequest(agent.command, "/", "/nowhere", session_id=name, prompt=prompt, read_only=read_only)
        made = getattr(agent, way)(request)
        done = subprocess.run(made.argv, input=made.stdin, capture_output=True, text=True, check=False)
        return checked(agent.reply(done.returncode, done.stdout, done.stderr), done.returncode)

    assert agent.can_be_read_only
    assert taken("turn", "one", "c1", read_only=True) == Reply("1 turns, last: one")
    assert taken("resume_turn", "two", "c1", read_only=True) == Reply("2 turns, last: two")
    assert not (tmp_path / "wrote-c1").exists()
    assert taken("resume_turn", "three", "c1", read_only=False) == Reply("3 turns, last: three")
    assert (tmp_path / "wrote-c1").exists()
    assert taken("resume_turn", "x", "c2", read_only=True) == Reply(error="no conversation c2")
