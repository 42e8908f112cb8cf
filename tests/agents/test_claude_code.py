"""Claude Code: its registry, its transcripts, its ways to resume."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.agents.claude_code import AGENT
from reconciler.core.agent import UNKNOWN, LaunchRequest, Reply, StoreFile
from tests.agents import recorded

ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
REQUEST = LaunchRequest("claude", "/srv/app", "/state/s", session_id=ID)
FILE = StoreFile(f"/home/me/.claude/projects/-srv-app/{ID}.jsonl", 9000, 0.0)


def test_its_recorded_life_is_read_as_it_was() -> None:
    assert recorded.states(AGENT) == ["unknown", "idle", "busy", "idle", "waiting", "idle"]


def test_a_question_says_what_it_waits_for_and_since_when() -> None:
    waiting = [AGENT.activity(facts) for _, facts in recorded.frames(AGENT)]
    asked = next(activity for activity in waiting if activity.state == "waiting")
    assert (asked.source, asked.detail) == ("registry", "permission prompt")
    assert asked.since is not None
    assert asked.since > 1_700_000_000


def test_the_live_process_tells_its_conversation() -> None:
    _, facts = recorded.frames(AGENT)[-1]
    assert AGENT.conversation(facts) == ID
    assert AGENT.ready(facts) is True


@pytest.mark.parametrize("other", [{"pid": 1}, {"started": "1"}, {"pid": None}])
def test_a_file_that_another_process_left_says_nothing(other: dict[str, object]) -> None:
    _, facts = recorded.frames(AGENT)[-1]
    stale = replace(facts, **other)  # type: ignore[arg-type]
    assert AGENT.activity(stale) == UNKNOWN
    assert AGENT.conversation(stale) is None
    assert AGENT.ready(stale) is not True


def test_a_live_process_without_a_status_file_is_not_ready() -> None:
    _, facts = recorded.frames(AGENT)[0]
    assert AGENT.ready(facts) is False


def test_only_a_transcript_with_content_can_be_resumed() -> None:
    _, facts = recorded.frames(AGENT)[0]
    beside = StoreFile(f"/home/me/.claude/projects/-srv-app/{ID}/subagents/agent-a1.jsonl", 10, 0.0)
    assert AGENT.exists(replace(facts, store=None)) is None
    assert AGENT.exists(replace(facts, store=(beside,))) is False
    assert AGENT.exists(replace(facts, store=(replace(FILE, size=0),))) is False
    assert AGENT.exists(replace(facts, store=(beside, FILE))) is True


def test_it_resumes_by_path_where_one_file_is_known_and_by_id_otherwise() -> None:
    assert AGENT.resume(replace(REQUEST, store=(FILE,))).argv[1:3] == ("--resume", FILE.path)
    twin = replace(FILE, path=FILE.path.replace("-srv-app", "-srv-other"))
    for store in ((), (FILE, twin), (replace(FILE, size=0),)):
        assert AGENT.resume(replace(REQUEST, store=store)).argv[1:3] == ("--resume", ID)


def test_trust_is_answered_for_a_terminal_alone() -> None:
    assert AGENT.start(REQUEST).env == {"CLAUDE_CODE_SANDBOXED": "1"}
    assert AGENT.turn(REQUEST).env == {}


def test_bypass_is_confirmed_only_when_asked_for() -> None:
    argv = AGENT.start(replace(REQUEST, permission_mode="bypass")).argv
    assert argv[-4:] == (
        "--permission-mode", "bypassPermissions", "--settings", '{"skipDangerousModePermissionPrompt":true}',
    )  # fmt: skip


def test_its_version_is_read() -> None:
    assert AGENT.parse_version(recorded.text(AGENT, "version.txt")) == "2.1.197"
    assert AGENT.parse_version("command not found: claude") is None


def test_of_its_recorded_home_only_the_conversation_goes_to_the_archive() -> None:
    session_id, ours, others = recorded.tree(AGENT)
    names = [AGENT.archive_name(path, session_id) for path in ours]
    assert names[0] == f"{session_id}.jsonl"
    assert [name.split("/")[1] for name in names[1:] if name] == ["subagents", "subagents", "tool-results"]
    credentials = "/home/me/.claude/.credentials.json"
    assert [AGENT.archive_name(path, session_id) for path in (*others, credentials)] == [None] * (len(others) + 1)


@pytest.mark.parametrize(
    ("workdir", "slug"),
    [
        ("/srv/my app/é.b", "-srv-my-app---b"),
        ("/srv/\N{MATHEMATICAL SCRIPT CAPITAL X}", "-srv---"),
        ("/" + "a" * 199, "-" + "a" * 199),
        ("/" + "ab/" * 80, ("-" + "ab-" * 80)[:200] + "-ot5dch"),
    ],
)
def test_the_directory_of_a_transcript_is_named_after_the_working_directory(workdir: str, slug: str) -> None:
    restored = AGENT.restore_path(f"{ID}.jsonl", ID, workdir)
    assert restored == f"{{CLAUDE_CONFIG_DIR:-{{home}}/.claude}}/projects/{slug}/{ID}.jsonl"


def test_a_transcript_of_another_kind_or_version_is_told() -> None:
    head = recorded.text(AGENT, "head.txt")
    assert AGENT.store_version(head) is None
    assert (
        AGENT.store_version(head.replace('"2.1.197"', '"3.0.0"')) == "written by claude-code 3.0.0, verified with 2.1"
    )
    assert AGENT.store_version('{"type":"hologram"}\n' + head) == "records of an unknown type: hologram"
    assert AGENT.store_version("") == "no transcript of Claude Code"


def test_the_answer_of_a_turn_comes_with_what_that_turn_alone_cost() -> None:
    reply = AGENT.reply(0, *recorded.printed(AGENT, "resumed"))
    assert reply == Reply(
        "STUB turns=2 marks=MARK-one,MARK-two tool=- :: MARK-two",
        conversation="8cb89490-344c-4340-bc97-51f1823f9c63", cost=0.000345, tokens=17,
    )  # fmt: skip


def test_an_error_is_no_answer_though_its_subtype_says_success() -> None:
    reply = AGENT.reply(1, *recorded.printed(AGENT, "failed"))
    assert (reply.text, reply.error) == ("", "API Error: 400 stub error 400 as asked")
    assert reply.conversation == "463824c2-dafa-43b1-afec-d73fe15478ca"


def test_a_limit_that_was_reached_is_told_in_its_words() -> None:
    out = (
        '{"type":"result","subtype":"error_max_turns","is_error":true,"errors":["Reached maximum number of turns (1)"]}'
    )
    assert AGENT.reply(1, out, "").error == "Reached maximum number of turns (1)"
    assert (
        AGENT.reply(1, '{"type":"result","subtype":"error_max_turns","is_error":false}', "").error == "error_max_turns"
    )


def test_a_conversation_that_it_does_not_know_and_an_id_in_use_are_told_apart() -> None:
    unknown = AGENT.reply(1, *recorded.printed(AGENT, "unknown"))
    taken = AGENT.reply(1, *recorded.printed(AGENT, "taken"))
    assert (unknown.unknown, unknown.taken, taken.unknown, taken.taken) == (True, False, False, True)
    assert unknown.error.startswith("No conversation found with session ID: ")


def test_words_of_the_answer_never_count_as_the_programs_own() -> None:
    out, _ = recorded.printed(AGENT, "resumed")
    reply = AGENT.reply(1, out, "No conversation found with session ID: x")
    assert (reply.unknown, reply.text[:4]) == (False, "STUB")


def test_a_verbose_turn_prints_an_array_and_its_result_is_found_in_it() -> None:
    out, _ = recorded.printed(AGENT, "resumed")
    verbose = f'[{{"type":"system","session_id":"x"}},{out.strip()}]'
    assert AGENT.reply(0, "log line\n" + verbose, "") == AGENT.reply(0, out, "")


def test_a_read_only_turn_has_no_tool_that_writes_whatever_the_session_allows() -> None:
    loose = replace(REQUEST, read_only=True, permission_mode="bypass", args=("--tools", "default"), prompt="-x")
    for made in (AGENT.turn(loose), AGENT.resume_turn(loose)):
        argv = made.argv
        assert argv.index("default") < argv.index("Read,Grep,Glob,WebFetch,WebSearch")
        assert "mcp__*" in argv[argv.index("--disallowedTools") + 1].split(",")
        assert argv[-5:] == ("--strict-mcp-config", "--permission-mode", "dontAsk", "--", "-x")
        assert "bypassPermissions" not in argv
