"""What is adopted is meant, fits, and is recorded as if the specs had launched it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.adopting import adopted, chosen, refuse_second, refuse_unfit, refuse_untold
from reconciler.core.launching import Context
from reconciler.core.observed import Facts, Process, Reached, SessionSeen
from reconciler.core.steps import LaunchStep, StopStep
from reconciler.core.strays import Pane, Stray
from reconciler.errors import GuardError, UsageError
from tests.core.situations import (
    AGENT,
    BOOT,
    CONVERSATION,
    OTHER,
    action,
    agents_of,
    applied,
    gone,
    host,
    observed,
    plan_of,
    running,
    specs,
    status_file,
)

WORK = Pane("/tmp/tmux-0/default", "%1", "work", "/home/me", "1.0")
HAND = Stray(
    ("claude-code",), 100, 90, WORK, directory="/home/me", conversation=CONVERSATION, start="7", boot=BOOT, group=100
)
HERE = host("local", directories={"~": "/home/me"})


def context(text: str) -> Context:
    desired = specs(text)
    return Context(desired, agents_of(desired), "adopt", "me")


def as_seen(text: str, stray: Stray = HAND, before: SessionSeen | None = None) -> SessionSeen:
    """The session as the next look sees it."""
    record = adopted(context(text), "api", HERE, before, stray)
    facts = Facts(texts={"status": status_file(session=stray.conversation or "")}, pid=stray.pid, started=stray.start)
    process = Process(stray.pid, stray.start, record.incarnation, 0, True, BOOT)
    return SessionSeen("api", "running", record, record.incarnation, process=process, facts=facts)


KEYS = st.fixed_dictionaries({
    "model": st.sampled_from(['model = "opus"', ""]), "prompt": st.sampled_from(['prompt = "b"', ""]),
    "labels": st.sampled_from(['labels = { a = "b" }', ""]), "env": st.sampled_from(['env = { A = "b" }', ""]),
    "protect": st.sampled_from(["protect = true", ""]), "strategy": st.sampled_from(['strategy = "process"', ""]),
    "on": st.sampled_from(['on_prompt_change = "restart"', ""]), "suspend": st.sampled_from(["suspend = true", ""]),
})  # fmt: skip


@given(KEYS, st.sampled_from([WORK, None]))
def test_whatever_the_specs_say_the_next_plan_has_nothing_to_do(keys: dict[str, str], pane: Pane | None) -> None:
    text = AGENT + "\n".join(keys.values()) + "\n"
    plan = plan_of(specs(text), host("local", as_seen(text, replace(HAND, pane=pane))))
    assert plan.actions == ()
    assert plan.unchanged == 1


def test_its_terminal_is_where_it_was_and_the_next_launch_has_one_of_its_own() -> None:
    seen = as_seen(AGENT)
    assert seen.record is not None
    assert (seen.record.strategy, seen.record.terminal) == ("tmux", ("/tmp/tmux-0/default", "%1"))
    changed = AGENT + 'model = "opus"\n'
    steps = action(plan_of(specs(changed), host("local", seen))).steps
    stop = next(step for step in steps if isinstance(step, StopStep))
    launch = next(step for step in steps if isinstance(step, LaunchStep))
    assert (stop.strategy, stop.expect) == ("tmux", 1)
    assert (launch.strategy, launch.record.terminal, launch.record.incarnation) == ("tmux", (), 2)
    assert launch.record.conversation == CONVERSATION


def test_without_a_terminal_it_is_ended_by_signal_and_launched_as_the_specs_say() -> None:
    seen = as_seen(AGENT, replace(HAND, pane=None))
    assert seen.record is not None
    assert (seen.record.strategy, seen.record.terminal) == ("process", ())
    steps = action(plan_of(specs(AGENT + 'model = "opus"\n'), host("local", seen))).steps
    assert [step.strategy for step in steps if isinstance(step, StopStep | LaunchStep)] == ["process", "tmux"]


def test_what_was_stopped_and_resumed_by_hand_keeps_its_count() -> None:
    before = gone(applied(specs(AGENT), intent="stopped", moves=3, restarts=(1, 2)), "stopped", incarnation=4)
    record = as_seen(AGENT, HAND, before).record
    assert record is not None
    assert (record.incarnation, record.moves, record.restarts, record.intent) == (5, 3, (), "running")


def choose(*strays: Stray, pid: int | None = None, target: str | None = None) -> Stray:
    return chosen(specs(AGENT).sessions["api"], "local", strays, pid, target)


SECOND = replace(HAND, pid=200, pane=None)
CODEX = Stray(("codex",), 300, pane=Pane("/s", "%9", "work", "/", "1.1"))


def test_the_one_that_is_meant_is_found_by_pid_by_terminal_or_because_it_is_the_only_one() -> None:
    assert choose(HAND, SECOND, CODEX, pid=200) is SECOND
    for target in ("%1", "work:1.0"):
        assert choose(HAND, SECOND, CODEX, target=target) is HAND
    assert choose(HAND, CODEX) is HAND


@pytest.mark.parametrize(
    ("strays", "words", "why"),
    [
        ((HAND, SECOND), {}, "may be any of 2 agents: pid 100, 200"),
        ((HAND, CODEX), {"target": "work"}, "may be any of 2"),
        ((HAND, CODEX), {"pid": 300}, "pid 300 on local is codex, and the specs say claude-code"),
        ((HAND,), {"pid": 1}, "is no agent that runs and belongs to nobody"),
        ((HAND,), {"pid": 100, "target": "elsewhere"}, "is no agent"),
        ((), {}, "a claude-code on local is no agent"),
    ],
)
def test_what_is_not_certain_is_refused(strays: tuple[Stray, ...], words: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        choose(*strays, **words)


@pytest.mark.parametrize(
    "text",
    ["", AGENT + 'state = "stopped"\n', AGENT + 'lifecycle = "task"\nprompt = "x"\n',
     AGENT + '[group_chats.talk]\nmoderator = { agent = "claude-code" }\nparticipants = ["api"]\nprompt = "x"\n'],
)  # fmt: skip
def test_specs_that_no_running_process_can_be_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        refuse_unfit(specs(text or "[hosts.gpu]\n"), "talk" if "talk" in text else "api", None)


def test_a_host_that_the_specs_do_not_say_is_refused() -> None:
    assert refuse_unfit(specs(AGENT), "api", "local").agent == "claude-code"
    with pytest.raises(UsageError, match="its host is local, not gpu"):
        refuse_unfit(specs(AGENT), "api", "gpu")


@pytest.mark.parametrize(
    ("stray", "here", "code"),
    [
        (replace(HAND, conversation=None), HERE, "no-conversation"),
        (replace(HAND, directory="/elsewhere"), HERE, "other-workdir"),
        (HAND, host("local", directories={"~": ""}), "other-workdir"),
    ],
)
def test_what_could_not_be_resumed_is_refused(stray: Stray, here: Reached, code: str) -> None:
    with pytest.raises(GuardError) as found:
        refuse_untold(context(AGENT), "api", here, stray)
    assert found.value.code == code


def test_a_command_needs_no_conversation() -> None:
    refuse_untold(
        context('[sessions.api]\nagent = "shell"\nargs = ["serve"]\n'), "api", HERE, replace(HAND, conversation=None)
    )


RECORD = applied(specs(AGENT))


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (running(RECORD), "already-running"),
        (gone(replace(RECORD, conversation=OTHER), "stopped"), "other-conversation"),
        (running(replace(RECORD, name="web")), "twice"),
    ],
)
@pytest.mark.parametrize("where", ["local", "gpu"])
def test_no_session_gets_two_conversations_and_no_conversation_two_sessions(
    seen: SessionSeen, code: str, where: str
) -> None:
    hosts = observed(*(host(name, *([seen] if name == where else [])) for name in ("local", "gpu")))
    with pytest.raises(GuardError) as found:
        refuse_second(hosts, "api", CONVERSATION)
    assert found.value.code == code


def test_what_was_stopped_and_is_the_same_conversation_may_be_it() -> None:
    refuse_second(observed(host("local", gone(RECORD, "stopped"))), "api", CONVERSATION)
