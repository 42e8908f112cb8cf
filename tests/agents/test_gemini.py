"""Gemini CLI: its title, its settings for one launch, its chats."""

from __future__ import annotations

import json
from dataclasses import replace

from reconciler.agents.gemini import AGENT
from reconciler.core.agent import Facts, LaunchRequest, StoreFile
from tests.agents import recorded

REQUEST = LaunchRequest("gemini", "/srv/app", "/state/s", session_id="0f0e0d0c-0b0a-4908-8706-050403020100")


def test_its_recorded_life_is_read_as_it_was() -> None:
    assert recorded.states(AGENT) == ["unknown", "idle", "busy", "idle", "waiting", "idle"]


def test_its_recorded_chat_can_be_resumed() -> None:
    found = [AGENT.exists(facts) for _, facts in recorded.frames(AGENT)]
    assert found[0] is False
    assert found[-1] is True
    assert AGENT.exists(Facts(store=(StoreFile("/x/session-a-0f0e0d0c.jsonl", 0, 0.0),))) is False


def test_ready_over_a_login_dialog_proves_nothing() -> None:
    assert AGENT.ready(Facts(title="◇  Ready (app)")) is None
    assert AGENT.ready(Facts(title="✦  Working… (app)")) is True
    assert AGENT.ready(Facts(title="host")) is False


def test_clean_up_of_sessions_is_off_by_a_file_of_this_launch() -> None:
    made = AGENT.start(REQUEST)
    assert made.env["GEMINI_CLI_SYSTEM_DEFAULTS_PATH"] == "/state/s/gemini-defaults.json"
    assert json.loads(made.files["gemini-defaults.json"]) == {"general": {"sessionRetention": {"enabled": False}}}


def test_prompts_are_bound_to_their_option() -> None:
    assert AGENT.start(replace(REQUEST, prompt="-p")).argv[-1] == "--prompt-interactive=-p"
    assert AGENT.turn(replace(REQUEST, prompt="-p")).argv[-1] == "--prompt=-p"


def test_its_version_is_read() -> None:
    assert AGENT.parse_version(recorded.text(AGENT, "version.txt")) == "0.61.0"
