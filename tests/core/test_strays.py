"""Agents that run on a host and are nobody's: found, told apart from what belongs to a session, and named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import drivers
from reconciler.core.observed import Facts, Process
from reconciler.core.strays import Pane, Stray, known, name_for, parse_strays_found
from reconciler.core.values import is_name
from reconciler.errors import HostError

COMMANDS = {"claude": ["claude-code"], "codex": ["codex"], "script": ["a", "b"]}
ANSWER = b"""Welcome!
begin\tn
owned\t400\tdefault/sessions/api
owned\t500\tdefault/forgotten/old-17
process     1     0 10-00:00:00 /sbin/init
process   100    50    01:00:00 /bin/bash
process   101   100       05:10 node /usr/bin/claude --resume x
process   102   101       05:09 claude
process   103   101       00:01 codex exec x
process   200     1  2-03:04:05 codex
process   300     1       00:01 vim claude.md
process   400     1       00:09 claude
process   401   400       00:08 codex exec x
process   500     1       00:09 claude
process   600     1       00:09 python3 /home/me/bin/script start x
pane\t100\t/tmp/tmux-1/default\t%3\t0.0\twork\t/home/me/code
end\tn
"""


def test_agents_are_found_with_their_terminal_and_without_what_belongs_to_another() -> None:
    pane = Pane("/tmp/tmux-1/default", "%3", "work", "/home/me/code")
    assert parse_strays_found("gpu", "n", ANSWER, COMMANDS) == (
        Stray(("claude-code",), 101, 310, pane),
        Stray(("codex",), 200, 2 * 86400 + 3 * 3600 + 245),
        Stray(("claude-code",), 500, 9, was="default/forgotten/old-17"),
        Stray(("a", "b"), 600, 9),
    )


def test_an_answer_that_is_cut_anywhere_is_no_absence() -> None:
    for length in range(len(ANSWER) - 1):
        with pytest.raises(HostError):
            parse_strays_found("gpu", "n", ANSWER[:length], COMMANDS)
    with pytest.raises(HostError):
        parse_strays_found("gpu", "other", ANSWER, COMMANDS)


@given(st.binary(max_size=300))
def test_whatever_a_host_says_is_a_stray_or_none(answer: bytes) -> None:
    whole = b"begin\tn\nprocess 5 1 00:01 codex\n" + answer + b"\nend\tn\n"
    for stray in parse_strays_found("gpu", "n", whole, COMMANDS):
        assert stray.pid > 0
        assert is_name(name_for(stray, frozenset()))


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_name_is_always_one_and_never_taken(session: str, directory: str) -> None:
    stray = Stray(("codex",), 1, pane=Pane("/t", "%0", session, directory))
    first = name_for(stray, frozenset())
    second = name_for(stray, frozenset({first}))
    assert is_name(first)
    assert is_name(second)
    assert first != second


def argv(*words: str, **names: tuple[str, ...]) -> Facts:
    return Facts(texts={"argv": "".join(f"{word}\0" for word in words), "cwd": "/x\x1b"}, names=names, pid=7)


UUID = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
NAMED = [
    ("codex", argv("codex", locks=(f"{UUID}.lock", f"{OTHER}.lock"), open=(f"{UUID}.lock",)), UUID),
    ("codex", argv("codex", "resume", UUID, locks=(f"{UUID}.lock",), open=()), None),
    ("codex", argv("codex", locks=(f"{UUID}.lock", f"{OTHER}.lock"), open=(f"{UUID}.lock", f"{OTHER}.lock")), None),
    ("claude-code", argv("claude", "--resume", UUID), None),
    ("gemini", argv("node", "/usr/bin/gemini", "--resume", UUID), UUID),
    ("gemini", argv("gemini", f"--session-id={UUID}"), UUID),
    ("gemini", argv("gemini", "--resume", "latest"), None),
    ("gemini", argv("gemini", "--resume"), None),
    ("opencode", argv("opencode", "-s", "ses_abcdefgh"), "ses_abcdefgh"),
    ("opencode", argv("opencode", "--session=ses_abcdefgh", "-s", "ses_other123"), None),
    ("opencode", argv("opencode"), None),
    ("shell", argv("sh"), None),
]


@pytest.mark.parametrize(("agent", "facts", "conversation"), NAMED)
def test_the_conversation_of_a_process_is_known_for_certain_or_not_at_all(
    agent: str, facts: Facts, conversation: str | None
) -> None:
    stray = known(
        Stray((agent,), 7), Process(7, "1", 0, 7, True, "b"), facts, {agent: drivers.built_in_agent(agent)}
    )  # fmt: skip
    assert (stray.conversation, stray.directory, stray.start) == (conversation, "/x", "1")
