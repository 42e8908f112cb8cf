"""What hosts say when a newcomer asks them, as specs that can be read and cannot lie."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.discovered import Found, Running, parse_running, spec_text
from reconciler.core.ssh_aliases import Alias

COMMANDS = {"claude": "claude-code", "codex": "codex"}
ANSWER = b"""Welcome!
begin\tn
process     1     0 /sbin/init
process   100    50 /bin/bash
process   101   100 node /usr/bin/claude --resume x
process   102   101 claude
process   200     1 codex
process   300     1 vim claude.md
pane\t100\twork\t/home/me/code
"""


def test_agents_are_found_with_the_tmux_session_they_run_in() -> None:
    assert parse_running("n", ANSWER, COMMANDS) == (
        Running("claude-code", 101, "work", "/home/me/code"),
        Running("codex", 200, "", ""),
    )
    assert parse_running("other", ANSWER, COMMANDS) == ()


def test_what_answered_is_declared_and_what_did_not_is_a_comment() -> None:
    text = spec_text(
        [
            Found(Alias("Gpu.1"), "", ("codex",), (Running("codex", 7, "work", "/x"),)),
            Found(Alias("away"), "away (me@away:22) did not answer\n[hosts.evil]\n"),
        ],
        "default",
    )
    assert tomllib.loads(text) == {"fleet": {"name": "default"}, "hosts": {"gpu-1": {"address": "Gpu.1"}}}
    assert "# runs there already: codex (pid 7), in the tmux session work, /x" in text
    assert "# [hosts.away]" in text


@given(st.binary(max_size=300), st.text(max_size=80), st.text(max_size=40))
def test_whatever_a_host_says_only_hosts_are_declared(answer: bytes, error: str, session: str) -> None:
    running = parse_running("n", b"begin\tn\nprocess 5 1 codex\n" + answer, COMMANDS)
    text = spec_text(
        [
            Found(Alias("a"), "", ("codex",), (*running, Running("codex", 1, session, error))),
            Found(Alias("b"), error or "x"),
        ],
        "default",
    )
    assert tomllib.loads(text) == {"fleet": {"name": "default"}, "hosts": {"a": {}}}
