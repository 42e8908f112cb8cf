"""What hosts say when a newcomer asks them, as specs that can be read and cannot lie."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.discovered import Found, spec_text
from reconciler.core.parse import parse
from reconciler.core.ssh_aliases import Alias
from reconciler.core.strays import Pane, Stray
from tests.core.situations import CONVERSATION

WORK = Pane("/tmp/tmux-0/default", "%1", "work", "/x")
KNOWN = Stray(("codex",), 7, 90, WORK, directory="/x", conversation=CONVERSATION)


def test_what_answered_is_declared_and_what_did_not_is_a_comment() -> None:
    text = spec_text(
        [
            Found(Alias("Gpu.1"), "", ("codex",), (Stray(("codex",), 7, 90, WORK, directory="/x"),)),
            Found(Alias("away"), "away (me@away:22) did not answer\n[hosts.evil]\n"),
        ],
        "default",
    )
    assert tomllib.loads(text) == {"fleet": {"name": "default"}, "hosts": {"gpu-1": {"address": "Gpu.1"}}}
    assert "# runs there already: codex (pid 7), in the tmux session work, /x" in text
    assert "so it cannot be adopted" in text
    assert "# [hosts.away]" in text


def test_what_can_be_adopted_is_declared_with_the_command_and_suspended_until_then() -> None:
    text = spec_text([Found(Alias("Gpu.1"), "", ("codex",), (KNOWN, KNOWN)), Found(Alias("b"), running=(KNOWN,))], "f")
    desired = parse({"fleet.toml": text}, {})
    assert [(name, s.host, s.agent, s.workdir, s.suspend) for name, s in desired.sessions.items()] == [
        ("work", "gpu-1", "codex", "/x", True), ("work-2", "gpu-1", "codex", "/x", True),
        ("work-3", "b", "codex", "/x", True),
    ]  # fmt: skip
    assert "#   reconciler adopt work --host gpu-1 --pid 7\n" in text


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=40))
def test_whatever_a_host_says_only_hosts_and_suspended_sessions_are_declared(
    directory: str, error: str, session: str
) -> None:
    pane = Pane("/tmp/t", "%1", session, directory)
    stray = Stray(("codex",), 1, None, pane, directory="/" + directory, conversation=CONVERSATION)
    found = [Found(Alias("a"), "", ("codex",), (stray, stray)), Found(Alias("b"), error or "x")]
    data = tomllib.loads(spec_text(found, "default"))
    assert (data["fleet"], data["hosts"]) == ({"name": "default"}, {"a": {}})
    assert len(data["sessions"]) == 2
    for made in data["sessions"].values():
        assert {*made} == {"host", "agent", "workdir", "suspend"}
        assert (made["host"], made["agent"], made["suspend"]) == ("a", "codex", True)
