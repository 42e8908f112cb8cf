"""The driver of chats: how their process is started, and what is read of what it says of itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from reconciler.agents.moderator import AGENT
from reconciler.core.agent import UNKNOWN, Facts, LaunchRequest, StoreFile
from reconciler.errors import OperationError

DIRECTORY = "/home/me/.local/state/reconciler/acme/sessions/design"
REQUEST = LaunchRequest(AGENT.command, "~", DIRECTORY, session_id="an-id", env={"A": "b"}, chat='{"version": 1}')
SAID = {
    "pid": 7, "state": "gathering", "round": 2, "max_rounds": 8, "since": 1_800_000_000.5, "cost": 0.1234,
    "owed": [{"who": "api"}, {"who": "db"}], "trouble": "",
}  # fmt: skip


def facts(pid: int | None = 7, **said: object) -> Facts:
    return saying({**SAID, **said}, pid)


def saying(said: dict[str, object], pid: int | None = 7) -> Facts:
    return Facts(texts={"chat": json.dumps(said)}, pid=pid, store=(StoreFile("/x/log.jsonl", 10, 1.0),))


def test_it_starts_by_the_very_interpreter_that_runs_the_program_and_reads_nothing_of_its_directory() -> None:
    started = AGENT.start(REQUEST)
    assert started.argv == (sys.executable, "-P", "-m", "reconciler.chat", DIRECTORY)
    assert started.files == {"chat.json": '{"version": 1}'}
    assert started.env == {"A": "b"}
    assert AGENT.resume(REQUEST) == started
    assert "SSH_AUTH_SOCK" in started.inherits


def test_it_takes_no_headless_turn() -> None:
    for way in (AGENT.turn, AGENT.resume_turn):
        with pytest.raises(OperationError):
            way(replace(REQUEST, prompt="hello"))


def test_what_it_does_is_what_it_says_round_and_debtors_included() -> None:
    activity = AGENT.activity(facts())
    assert (activity.state, activity.source, activity.since) == ("busy", "chat", 1_800_000_000.5)
    assert activity.detail == "round 2 of 8; waits for api, db; $0.12"
    idle = AGENT.activity(facts(state="idle", owed=[], cost=0))
    assert (idle.state, idle.detail) == ("idle", "")
    waiting = AGENT.activity(facts(state="waiting", owed=[{"who": "api"}], trouble="gpu: timed out", cost=0))
    assert (waiting.state, waiting.detail) == ("busy", "round 2 of 8; waits for api; gpu: timed out")


def test_what_another_process_said_or_nobody_could_have_said_counts_for_nothing() -> None:
    for strange in (facts(pid=8), facts(pid=None), Facts(texts={"chat": "{"}, pid=7), Facts(pid=7)):
        assert AGENT.activity(strange) == UNKNOWN
        assert not AGENT.ready(strange)
    strange_words: list[dict[str, object]] = [
        {"state": []}, {"state": "x"}, {"owed": 3}, {"owed": [1, {"who": None}]}, {"since": "x"}, {"cost": "x"},
    ]  # fmt: skip
    for hostile in strange_words:
        assert AGENT.activity(saying({**SAID, **hostile})).state in ("unknown", "busy")
    assert AGENT.ready(facts())


def test_its_log_is_its_conversation_and_lies_in_its_directory() -> None:
    (probe,) = [probe for probe in AGENT.probes("an-id") if probe.kind == "store"]
    assert probe.path == "{session_dir}/log.jsonl"
    assert AGENT.archive_name(f"{DIRECTORY}/log.jsonl", "an-id") == "log.jsonl"
    assert AGENT.archive_name(f"{DIRECTORY}/chat.json", "an-id") is None
    assert AGENT.restore_path("log.jsonl", "an-id", "/home/me") == "{session_dir}/log.jsonl"
    assert AGENT.restore_path("../x", "an-id", "/home/me") is None
    assert AGENT.exists(facts())
    assert AGENT.exists(Facts(store=())) is False
    assert AGENT.store_version('{"seq":1,"round":0') is None
    assert AGENT.store_version("x")
