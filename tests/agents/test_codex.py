"""Codex: its title, its locks, its first event."""

from __future__ import annotations

from dataclasses import replace

from reconciler.agents.codex import AGENT
from reconciler.core.agent import UNKNOWN, WORKDIR, Facts, LaunchRequest, StoreFile
from tests.agents import recorded

REQUEST = LaunchRequest("codex", "/srv/app", "/state/s", session_id="01a1fb74-9e11-75a3-bcb4-06dbf628aa62")


def test_its_recorded_life_is_read_as_it_was() -> None:
    assert recorded.states(AGENT) == ["unknown", "busy", "idle", "busy", "waiting", "idle"]


def test_the_id_is_that_of_the_lock_that_the_title_names() -> None:
    _, facts = recorded.frames(AGENT)[-1]
    (lock,) = facts.names["locks"]
    assert AGENT.conversation(facts) == lock.removesuffix(".lock")
    others = ("01a1fb74-9e11-75a3-bcb4-06dbf628aa62.lock", lock)
    assert AGENT.conversation(replace(facts, names={"locks": others})) == lock.removesuffix(".lock")


def test_no_lock_or_two_of_that_name_give_no_id() -> None:
    _, facts = recorded.frames(AGENT)[-1]
    (lock,) = facts.names["locks"]
    twin = lock[:-7] + ("00" if lock[-7:-5] != "00" else "11") + lock[-5:]
    assert AGENT.conversation(replace(facts, names={"locks": ()})) is None
    assert AGENT.conversation(replace(facts, names={"locks": (lock, twin)})) is None


def test_a_title_that_is_not_its_own_says_nothing() -> None:
    for title in ("host", "Ready", "Ready | main.py", "vim", "Frobbing | 01a1fb74-9e11-75a3-bcb4-06dbf..."):
        assert AGENT.activity(Facts(title=title)).state == UNKNOWN.state
    assert AGENT.ready(Facts(title="host")) is False
    assert AGENT.ready(Facts()) is None


def test_a_headless_run_says_its_id_in_its_first_event() -> None:
    out = recorded.text(AGENT, "turn.out")
    found = out.partition('"thread_id":"')[2][:36]
    held = {"locks": (f"{found}.lock",)}
    assert AGENT.conversation(Facts(texts={"log": out}, names=held)) == found
    assert AGENT.conversation(Facts(texts={"log": "WARNING: no aliases\n" + out}, names=held)) == found
    later = '{"type":"item.completed"}\n' + out
    assert AGENT.conversation(Facts(texts={"log": later}, names=held)) is None, "only the first event counts"


def test_a_log_that_begins_with_an_earlier_run_gives_no_id() -> None:
    assert AGENT.conversation(Facts(texts={"log": recorded.text(AGENT, "turn.out")}, names={"locks": ()})) is None


def test_the_end_of_a_headless_turn_says_its_id() -> None:
    facts = Facts(event=recorded.text(AGENT, "events").splitlines()[-1])
    assert AGENT.conversation(facts) is not None
    assert AGENT.activity(facts).state == "idle"


def test_a_terminal_never_gets_its_id_from_printed_text() -> None:
    out = recorded.text(AGENT, "turn.out")
    found = out.partition('"thread_id":"')[2][:36]
    assert AGENT.conversation(Facts(texts={"log": out}, names={"locks": (found,)}, title="host")) is None


def test_its_directory_is_trusted_and_no_other() -> None:
    argv = AGENT.start(REQUEST).argv
    assert argv[:4] == ("codex", "--no-daemon", "-c", f'projects={{"{WORKDIR}"={{trust_level="trusted"}}}}')
    assert "projects" not in " ".join(AGENT.turn(REQUEST).argv)


def test_a_resume_names_directory_and_thread() -> None:
    argv = AGENT.resume(replace(REQUEST, prompt="-x")).argv
    assert argv[:5] == ("codex", "resume", "--no-daemon", "-C", WORKDIR)
    assert argv[-3:] == ("--", REQUEST.session_id, "-x")


def test_a_lone_dash_is_a_prompt_and_not_a_wish_for_stdin() -> None:
    made = AGENT.turn(replace(REQUEST, prompt="-"))
    assert (made.argv[-1], made.stdin, made.delivered) == ("-", "-", "stdin")


def test_a_rollout_with_content_can_be_resumed() -> None:
    file = StoreFile("/home/me/.codex/sessions/2026/11/21/rollout-x.jsonl", 0, 0.0)
    assert AGENT.exists(Facts()) is None
    assert AGENT.exists(Facts(store=(file,))) is False
    assert AGENT.exists(Facts(store=(replace(file, size=5),))) is True


def test_its_version_is_read() -> None:
    assert AGENT.parse_version(recorded.text(AGENT, "version.txt")) == "0.169.0"


def test_of_its_recorded_home_only_the_rollout_goes_to_the_archive_and_keeps_its_place() -> None:
    session_id, (rollout,), others = recorded.tree(AGENT)
    name = AGENT.archive_name(rollout, session_id)
    assert name == rollout.removeprefix("/home/me/.codex/sessions/")
    assert AGENT.restore_path(name, session_id, "/srv/other") == f"{{CODEX_HOME:-{{home}}/.codex}}/sessions/{name}"
    credentials = "/home/me/.codex/auth.json"
    assert not [path for path in (*others, credentials) if AGENT.archive_name(path, session_id)]


def test_a_rollout_of_another_version_is_told_and_a_fork_names_its_parent() -> None:
    head = recorded.text(AGENT, "head.txt")
    assert AGENT.store_version(head) is None
    other = head.replace('"cli_version":"0.169.0"', '"cli_version":"1.2.0"')
    assert AGENT.store_version(other) == "written by codex 1.2.0, verified with 0.169"
    fork = AGENT.store_version(recorded.text(AGENT, "fork-head.txt"))
    assert fork is not None
    assert fork.startswith(f"a fork of {recorded.tree(AGENT)[0]}: it cannot be resumed where")
    assert AGENT.store_version('{"type":"message"}') == "no rollout of Codex"


def test_a_directory_name_that_looks_like_a_key_says_nothing() -> None:
    head = recorded.text(AGENT, "head.txt")
    lying = head.replace("/home/me/project", '/x\\",\\"forked_from_id\\":\\"01a1fb74-9e11-75a3-bcb4-06dbf628aa62\\"')
    assert AGENT.store_version(lying) is None


def test_the_last_message_is_the_answer_and_the_count_is_of_the_whole_conversation() -> None:
    reply = AGENT.reply(0, *recorded.printed(AGENT, "tool"))
    assert reply.text == "STUB turns=1 marks=MARK-t tool=Chunk ID: 1a890f :: MARK-t TOOL:ls"
    assert (reply.conversation, reply.cost, reply.error) == ("01a1fd90-957e-7a52-8f36-f079ae2c8947", None, "")
    assert (reply.tokens, reply.running) == (34, True)
    first = AGENT.reply(0, recorded.text(AGENT, "turn.out"), "")
    second = AGENT.reply(0, *recorded.printed(AGENT, "resumed"))
    assert (first.tokens, second.tokens) == (13, 30), "17 of them are the second turn's"


def test_a_failed_turn_says_why_out_of_the_json_around_it() -> None:
    reply = AGENT.reply(1, *recorded.printed(AGENT, "failed"))
    assert (reply.text, reply.error) == ("", "stub error 400 as asked")
    assert reply.conversation == "01a1fd90-96ae-7283-b3c1-918f3b8f6ea2"


def test_an_attempt_that_was_made_again_with_success_is_no_error() -> None:
    out = recorded.text(AGENT, "turn.out")
    again = out.replace('{"type":"turn.started"}', '{"type":"error","message":"Reconnecting... 1/5"}')
    assert AGENT.reply(0, again, "") == AGENT.reply(0, out, "")


def test_a_thread_that_it_does_not_know_is_told() -> None:
    out, err = recorded.printed(AGENT, "unknown")
    reply = AGENT.reply(1, out, err)
    assert reply.unknown is True
    assert reply.error.startswith(
        "Error: thread/resume: thread/resume failed: no rollout found for thread id b36a997d-"
    )
    begun = recorded.text(AGENT, "turn.out").splitlines()[0]
    assert AGENT.reply(1, begun, err).unknown is False, "a thread that began is known, whatever stderr repeats"


def test_an_answer_in_the_part_that_is_missing_is_not_replaced_by_an_earlier_one() -> None:
    out, _ = recorded.printed(AGENT, "tool")
    cut = out.index("tool=Chunk ID")
    reply = AGENT.reply(0, out[:cut] + "\n[...]\n" + out[cut + 20 :], "")
    assert (reply.text, reply.tokens) == ("", 34)
    assert reply.error == "a part of what codex printed is missing, and its answer with it"
    early = out.index("aggregated_output")
    kept = AGENT.reply(0, out[:early] + "\n[...]\n" + out[early + 20 :], "")
    assert kept == AGENT.reply(0, out, ""), "what is missing before the answer is no loss"


def test_a_read_only_turn_runs_in_the_sandbox_whatever_the_session_says() -> None:
    loose = ("-c", 'sandbox_mode="danger-full-access"', "--yolo", "-s", "danger-full-access", "-sworkspace-write",
             "--sandbox=danger-full-access", "--dangerously-bypass-approvals-and-sandbox", "-C", "/srv")  # fmt: skip
    request = replace(REQUEST, read_only=True, permission_mode="bypass", args=loose, prompt="x")
    for made in (AGENT.turn(request), AGENT.resume_turn(request)):
        words = made.argv[made.argv.index('sandbox_mode="danger-full-access"') + 1 :]
        assert words[:3] == ("-C", "/srv", "--ignore-rules"), "a rule that allows a command lets it out of the sandbox"
        assert words[3:7] == ("-c", 'sandbox_mode="read-only"', "-c", 'approval_policy="never"')
