"""OpenCode: what its plugin reports, and what reaches it by which way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reconciler.agents.opencode import AGENT
from reconciler.core.agent import WORKDIR, Facts, LaunchRequest, Reply
from reconciler.errors import OperationError
from tests.agents import recorded

REQUEST = LaunchRequest("opencode", "/srv/app", "/state/my s", session_id="ses_e0473a790ffe7EgMcrzEzd46UO")


def config(request: LaunchRequest) -> dict[str, object]:
    made: dict[str, object] = json.loads(AGENT.start(request).env["OPENCODE_CONFIG_CONTENT"])
    return made


def test_its_recorded_life_is_read_as_it_was() -> None:
    lines = recorded.text(AGENT, "events").splitlines()
    states = [AGENT.activity(Facts(event=line)).state for line in lines]
    changes = [state for at, state in enumerate(states) if states[at - 1 : at] != [state]]
    assert changes == ["idle", "busy", "idle", "busy", "waiting", "busy", "idle"]
    assert recorded.states(AGENT)[-1] == "idle"


def test_every_recorded_event_of_a_session_names_it() -> None:
    lines = recorded.text(AGENT, "events").splitlines()
    ids = {AGENT.conversation(Facts(event=line)) for line in lines}
    assert len(ids - {None}) == 1
    assert [AGENT.conversation(Facts(event=line)) for line in lines].count(None) == 1, "only the plugin's own event"


def test_a_question_says_since_when_it_waits() -> None:
    line = next(line for line in recorded.text(AGENT, "events").splitlines() if "waiting" in line)
    activity = AGENT.activity(Facts(event=line))
    assert (activity.state, activity.source, activity.detail) == ("waiting", "hook", "permission.asked")
    assert activity.since == json.loads(line)["at"]


def test_the_plugin_writes_to_the_events_of_this_session() -> None:
    made = AGENT.start(REQUEST)
    assert '"/state/my s/events"' in made.files["opencode-plugin.js"]
    assert config(REQUEST)["plugin"] == ["file:///state/my%20s/opencode-plugin.js"]


def test_configuration_of_the_session_is_added_to_and_not_replaced() -> None:
    theirs = {"OPENCODE_CONFIG_CONTENT": '{"plugin": ["theirs"], "theme": "x"}', "npm_config_fetch_retries": "3"}
    made = AGENT.start(replace(REQUEST, env=theirs))
    assert config(replace(REQUEST, env=theirs)) == {
        "plugin": ["theirs", "file:///state/my%20s/opencode-plugin.js"],
        "theme": "x",
    }
    assert made.env["npm_config_fetch_retries"] == "3"


def test_configuration_that_cannot_be_read_is_left_alone() -> None:
    theirs = {"OPENCODE_CONFIG_CONTENT": "${file:opencode.json}"}
    assert AGENT.start(replace(REQUEST, env=theirs)).env["OPENCODE_CONFIG_CONTENT"] == "${file:opencode.json}"


def test_a_resume_pastes_its_prompt_and_a_turn_reads_stdin() -> None:
    made = AGENT.resume(replace(REQUEST, prompt="x"))
    assert (made.argv, made.delivered) == (("opencode", f"--session={REQUEST.session_id}"), "paste")
    made = AGENT.resume_turn(replace(REQUEST, prompt="two words"))
    assert made.argv[-3:] == (f"--session={REQUEST.session_id}", "--dir", WORKDIR)
    assert (made.stdin, made.delivered) == ("two words", "stdin")


def test_asking_is_configured_and_never_assumed() -> None:
    assert "permission" not in config(REQUEST)
    assert config(replace(REQUEST, permission_mode="ask"))["permission"] == {
        "edit": "ask",
        "bash": "ask",
        "webfetch": "ask",
    }


def test_without_a_database_nothing_can_be_resumed() -> None:
    assert AGENT.exists(Facts(names={"database": (), "database-xdg": ()})) is False
    assert AGENT.exists(Facts(names={"database": (), "database-xdg": ("opencode.db",)})) is None
    assert AGENT.exists(Facts()) is None


def test_its_version_is_read() -> None:
    assert AGENT.parse_version(recorded.text(AGENT, "version.txt")) == "1.18.33"


def test_of_its_recorded_home_no_file_goes_to_the_archive() -> None:
    session_id, ours, others = recorded.tree(AGENT)
    assert ours == []
    assert not [path for path in others if AGENT.archive_name(path, session_id)]
    assert AGENT.restore_path("export", session_id, "/srv/app") is None


def test_one_conversation_goes_out_and_in_by_its_id() -> None:
    session_id, _, _ = recorded.tree(AGENT)
    assert AGENT.export_args(session_id) == ("export", session_id)
    assert AGENT.export_args("--all") is None
    assert AGENT.import_args("/state/export") == ("import", "/state/export")


def test_an_export_of_another_kind_or_version_is_told() -> None:
    head = recorded.text(AGENT, "head.txt")
    assert AGENT.store_version(head) is None
    assert AGENT.store_version(head.replace('"1.18.33"', '"2.0.1"')) == "written by opencode 2.0.1, verified with 1.18"
    assert AGENT.store_version('{"error": "none"}') == "no export of OpenCode"


def test_the_texts_of_the_last_step_are_the_answer_and_every_step_costs() -> None:
    reply = AGENT.reply(0, *recorded.printed(AGENT, "tool"))
    assert reply == Reply(
        "STUB turns=1 marks=MARK-t tool=(no output) :: MARK-t TOOL:ls",
        conversation="ses_e026f0904ffedagj8t17J2rW6U", cost=0.0, tokens=33,
    )  # fmt: skip


def test_the_words_before_a_last_step_without_any_stand_for_it() -> None:
    out, _ = recorded.printed(AGENT, "tool")
    lines = [line for line in out.splitlines() if "tool=(no output)" not in line]
    assert AGENT.reply(0, "\n".join(lines), "").text == "STUB turns=1 marks=MARK-t tool=- :: MARK-t TOOL:ls"


def test_a_failed_turn_says_why() -> None:
    reply = AGENT.reply(1, *recorded.printed(AGENT, "failed"))
    assert (reply.text, reply.error, reply.cost) == ("", "stub error 400 as asked", None)
    assert reply.conversation == "ses_e026ef7d9ffe3PJOIIE0XnExqk"


def test_a_session_that_it_does_not_know_is_told_without_its_colours() -> None:
    reply = AGENT.reply(1, *recorded.printed(AGENT, "unknown"))
    assert reply == Reply(error="Error: Session not found", unknown=True)


def test_an_answer_in_the_part_that_is_missing_is_not_replaced_by_an_earlier_one() -> None:
    out, _ = recorded.printed(AGENT, "tool")
    cut = out.index("tool=(no output)")
    reply = AGENT.reply(0, out[:cut] + out[cut:].partition("\n")[2], "")
    assert (reply.text, reply.error) == ("", "a part of what opencode printed is missing, and its answer with it")


def test_a_read_only_turn_is_taken_by_an_agent_that_nobody_else_can_define() -> None:
    theirs = {"OPENCODE_CONFIG_CONTENT": '{"agent": {"mine": {"mode": "primary"}}, "permission": {"bash": "allow"}}'}
    args = ("--auto", "--agent", "mine", "--agent=mine", "--command", "deploy")
    request = replace(REQUEST, read_only=True, permission_mode="edit", args=args, env=theirs, prompt="x")
    for made in (AGENT.turn(request), AGENT.resume_turn(request)):
        (chosen,) = [word.removeprefix("--agent=") for word in made.argv if word.startswith("--agent")]
        assert "deploy" not in made.argv
        given = json.loads(made.env["OPENCODE_CONFIG_CONTENT"])
        assert set(given["agent"]) == {"mine", chosen}
        rules = given["agent"][chosen]["permission"]
        assert (next(iter(rules)), rules["*"], rules["edit"], rules["bash"]) == ("*", "deny", "deny", "deny")
        assert given["permission"] == {"bash": "allow"}, "rules of the agent come behind these"
    other = AGENT.turn(replace(request, session_dir="/state/other"))
    assert f"--agent={chosen}" not in other.argv


def test_a_read_only_turn_is_refused_where_nothing_can_be_forbidden() -> None:
    theirs = {"OPENCODE_CONFIG_CONTENT": "${file:opencode.json}"}
    with pytest.raises(OperationError, match="OPENCODE_CONFIG_CONTENT is no JSON object") as refused:
        AGENT.turn(replace(REQUEST, read_only=True, env=theirs))
    assert refused.value.code == "read-only"
