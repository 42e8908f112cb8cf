"""A group chat on real hosts: who is asked what, once; what people change meanwhile; what participants may say"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.chats import AGENT, Chat, chat, member, opening, prepared, said
from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, Site, fleet_of, until
from tests.e2e.test_exactness import Watch, below

pytestmark = pytest.mark.e2e
MEMBERS = AGENT + member("a", "one", 'description = "knows the server"\n') + member("b", "two") + member("c", "local")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("one", "two") as made:
        yield prepared(made)


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"talk{request.session.items.index(request.node)}")


@pytest.fixture
def team(program: Program) -> Iterator[Chat]:
    made = Chat(program)
    yield made
    made.end()


@pytest.fixture(scope="module")
def standing(fleet: Fleet) -> Iterator[Chat]:
    """A chat for whatever may be said in one."""
    program = Program(fleet, "talking")
    made = Chat(program)
    program.write(MEMBERS + chat("team", "a b c", more="max_rounds = 3"))
    program.apply()
    yield made
    made.exactly_once()
    made.end()


# -- a conversation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leads", ["an agent of its own here", "a session on a host"])
def test_a_mixed_chat_runs_to_its_final_answer_and_every_turn_is_asked_once(
    program: Program, team: Chat, fleet: Fleet, leads: str
) -> None:
    lead = "lead" if leads == "a session on a host" else "moderator"
    moderator = '"lead"' if lead == "lead" else '{ agent = "chatty" }'
    first = opening({"a": "what of it?", "b": "and you?"}, {"c": "sum up"}, "all is well")
    more = member("lead", "two") if lead == "lead" else ""
    program.write(MEMBERS + more + chat("team", "a b c", moderator, first))
    program.apply()
    team.closed()
    assert team.said[0] == (lead, "I ask them.")
    assert sorted(team.said[1:3]) == [("a", "a answers 1"), ("b", "b answers 1")]
    assert team.said[3:] == [(lead, "I ask them."), ("c", "c answers 1"), (lead, "all is well")]
    turns = team.of("moderator", "participant")
    assert [turn["round"] for turn in turns] == [1, 1, 1, 2, 2, 3]
    assert [turn["to"] for turn in turns] == [["a", "b"], [lead], [lead], ["c"], [lead], []]
    assert team.closings == ["final"]
    assert {turn.who: turn.host for turn in team.asked if turn.who in "abc"} == {"a": "one", "b": "two", "c": "local"}
    assert "knows the server" in team.asked[0].prompt
    assert "[b]\nb answers 1" in team.asked_of("c")[0]
    team.exactly_once()
    team.in_place()
    seen = program.status()["group_chat.team"]
    assert (seen["phase"], seen["observed"]["conversation_id"]) == ("idle", team.entries[0]["data"]["id"])
    assert "activity: idle (source: chat)" in program.run("why", "group_chat.team").stdout


def test_a_second_message_resumes_the_conversations_of_the_chat_and_no_others(
    program: Program, team: Chat, fleet: Fleet
) -> None:
    site = Site(fleet.hosts["one"], program.name)
    terminal = member("a", "one", 'strategy = "tmux"\nprompt = "MARK-own"\n')
    program.write(AGENT + terminal + member("b", "two") + chat("team", "a b", more=opening({"a": "x", "b": "y"}, "1")))
    program.apply()
    team.closed()
    own, pids, before = site.record("a")["conversation"], site.pids("a"), site.conversation("a")
    entries = team.ask({"a": "SLOW:0.5 again", "b": "again"}, {"a": "and again"}, "2")
    assert sorted(said(entries)[1:3]) == [("a", "a answers 2"), ("b", "b answers 2")]
    assert said(entries)[4] == ("a", "a answers 3")
    assert [turn.rest["verb"] for turn in team.asked if turn.who == "a"] == ["turn", "resume", "resume"]
    assert "y" not in team.asked_of("a")[2].splitlines()
    assert "[b]\nb answers 2" in team.asked_of("a")[2]
    assert "b answers 1" not in team.asked_of("a")[2], "it was told that before"
    assert entries[0]["from"] == "ann"
    team.exactly_once()
    assert (site.record("a")["conversation"], site.pids("a")) == (own, pids)
    assert len(pids) == 1
    assert site.conversation("a") == before
    assert own not in {turn.rest["conversation"] for turn in team.asked}
    done = program.run("send", "a", "MARK-typed")
    assert done.returncode == 0, done.stderr
    until("the typed message", lambda: "MARK-typed" in site.messages("a"))


def test_why_and_status_say_who_owes_a_turn(program: Program, team: Chat) -> None:
    program.write(MEMBERS + chat("team", "a b c", more=opening({"a": "HOLD:a", "b": "HOLD:b", "c": "hello"}, "fine")))
    program.apply()
    until("its work", lambda: team.at_work("a", "b"))
    assert "activity: busy (source: chat) round 1 of 8; waits for a, b" in program.run("why", "group_chat.team").stdout
    assert [(owed["host"], owed["status"]) for owed in team.now["owed"]] == [("one", "asked"), ("two", "asked")]
    seen = program.status()["group_chat.team"]
    assert seen["phase"] == "busy"
    assert seen["observed"]["detail"] == "round 1 of 8; waits for a, b"
    team.release("a", "b")
    team.closed()


def test_messages_that_come_at_once_queue_in_the_order_of_sending(standing: Chat) -> None:
    before, count = len(standing.entries), len(standing.closings)
    for number in range(3):
        standing.send({"a": f"HOLD:queue number {number}"}, f"answer {number}", sender=f"user{number}")
    until("the queue", lambda: standing.now["queued"] == 2 and standing.at_work("a"))
    standing.release("queue")
    entries = standing.closed(count + 3)[before:]
    assert [entry["text"] for entry in entries if entry["from"] == "moderator"][1::2] == [
        "answer 0", "answer 1", "answer 2"
    ]  # fmt: skip
    assert [entry["from"] for entry in entries if entry["kind"] == "user"] == ["user0", "user1", "user2"]
    assert [entry["data"]["message"] for entry in entries if entry["status"] == "idle"] == [
        entry["seq"] for entry in entries if entry["kind"] == "user"
    ]


# -- what may be said ------------------------------------------------------------------------------------------------


def test_what_participants_write_addresses_nobody(standing: Chat) -> None:
    words = {
        "a": "SAY:@a @b @everyone @moderator, ask ann@b.example.org\nSAY:    @c\nSAY:```route",
        "b": 'SAY:```route\nSAY:{"to": ["a"]}\nSAY:```',
        "c": "SAY:```python\nSAY:@a\nSAY:def f(): ...",
    }
    entries = standing.ask(words, "thanks")
    assert sorted(name for name, _ in said(entries)) == ["a", "b", "c", "moderator", "moderator"]
    assert all(entry["to"] == ["moderator"] for entry in entries if entry["kind"] == "participant")
    assert "@a @b @everyone" in standing.asked_of("moderator")[-1]


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ("@a, what do you say? And @B!", ["a", "b"]),
        ("@everyone: and now?", ["a", "b", "c"]),
        ("@moderator has it from ann@b.example.org: `@a` and\n```python\n@b\ndef f(): ...\n```\n    @c", []),
        ("nobody is asked", []),
    ],
)
def test_mentions_of_the_moderator_address_whom_they_name(standing: Chat, answer: str, asked: list[str]) -> None:
    entries = standing.ask(answer, "that is all")
    assert sorted(entry["from"] for entry in entries if entry["kind"] == "participant") == asked
    assert entries[-1]["data"]["reason"] == "final"


def test_five_megabytes_and_escape_codes_come_to_a_log_that_can_be_read(standing: Chat) -> None:
    entries = standing.ask({"a": "BIG:5000", "b": "ESC", "c": "BIG:30 SAY:it is long"}, "seen")
    big, codes, long = (next(e["text"] for e in entries if e["from"] == name) for name in "abc")
    assert 199_000 < len(big) < 201_000
    assert big.startswith("a answers")
    assert big.endswith("the end")
    assert "characters left out" in big
    assert len(long) > 30_000
    assert [ord(c) for c in codes if (ord(c) < 32 or 127 <= ord(c) < 160) and c != "\n"] == []
    assert "red" in codes
    assert "bell nul" in codes
    told = standing.asked_of("moderator")[-1]
    assert len(told) < 90_000
    assert "the end" in told
    assert entries[-1]["data"]["reason"] == "final"


def test_a_participant_that_fails_is_gone_without_and_the_moderator_hears_why(standing: Chat) -> None:
    entries = standing.ask({"a": "EXIT:3", "b": "hello"}, "so be it")
    failed = next(entry for entry in entries if entry["from"] == "a")
    assert (failed["status"], failed["text"]) == ("failed", "it went wrong")
    assert "[a gave no answer: failed. it went wrong]" in standing.asked_of("moderator")[-1]
    assert said(entries)[-1] == ("moderator", "so be it")
    again = standing.ask({"a": "and now?"}, "good")
    assert any(text.startswith("a answers") for _, text in said(again))


def test_a_moderator_that_goes_on_for_ever_is_stopped_by_max_rounds(standing: Chat) -> None:
    entries = standing.ask(*[{"b": f"round {number}"} for number in range(9)])
    assert [name for name, _ in said(entries)] == ["moderator", "b", "moderator", "b", "moderator"]
    assert entries[-1]["data"]["reason"] == "max_rounds"
    assert "This is the last round" in standing.asked_of("moderator")[-1]


def test_a_moderator_that_names_nobody_who_is_there_is_told_once_and_then_closed(standing: Chat) -> None:
    nobody = '```route\n{"to": []}\n```'
    entries = standing.ask(nobody, "@dave, please")
    assert [entry["status"] for entry in entries] == ["ok", "unclear", "unclear", "idle"]
    assert entries[-1]["data"]["reason"] == "unclear"
    assert "it delegates to nobody" in standing.asked_of("moderator")[-1]
    entries = standing.ask(nobody, {"a": "then you"}, "good")
    assert [entry["status"] for entry in entries] == ["ok", "unclear", "ok", "ok", "ok", "idle"]
    assert entries[-1]["data"]["reason"] == "final"


def test_a_moderator_that_fails_is_asked_once_more_and_then_the_message_is_closed(standing: Chat) -> None:
    entries = standing.ask("EXIT:3 now", "EXIT:4 again", "never said")
    assert [entry["status"] for entry in entries] == ["ok", "failed", "failed", "idle"]
    assert entries[-1]["data"]["reason"] == "moderator"
    entries = standing.ask("EXIT:3 now", "at last")
    assert said(entries) == [("moderator", "[failed]"), ("moderator", "at last")]


def test_a_participant_that_never_answers_is_ended_on_its_host_and_gone_without(
    program: Program, team: Chat, fleet: Fleet
) -> None:
    first = opening({"a": "NEVER", "b": "hello", "c": "DEAF NEVER"}, "without them")
    program.write(MEMBERS + chat("team", "a b c", more=f'turn_timeout = "3s"\n{first}'))
    program.apply()
    until("the turns", lambda: len(team.asked) == 4)
    pids = {turn.who: turn.rest["pid"] for turn in team.asked}
    entries = team.closed()
    assert sorted(said(entries)[1:4]) == [("a", "[timeout]"), ("b", "b answers 1"), ("c", "[timeout]")]
    assert said(entries)[-1] == ("moderator", "without them")
    assert "[a gave no answer: timeout. it was ended after 3 s]" in team.asked_of("moderator")[-1]
    assert pids["a"] not in [pid for pid, _ in fleet.hosts["one"].processes()]
    assert pids["c"] not in team.processes()
    team.exactly_once()
    entries = team.ask({"a": "once more", "c": "you too"}, "good")
    assert sorted(said(entries)[1:3]) == [("a", "a answers 2"), ("c", "c answers 2")]
    team.exactly_once()


# -- what people change ----------------------------------------------------------------------------------------------


def test_members_change_between_rounds_without_a_new_process(program: Program, team: Chat) -> None:
    first = opening({"a": "HOLD:a and?", "b": "hello"}, {"c": "you are new"}, "@b, are you there?", "fine")
    program.write(MEMBERS + chat("team", "a b", more=first))
    program.apply()
    until("a reply", lambda: ("b", "b answers 1") in team.said)
    pid = team.pid
    program.write(MEMBERS + chat("team", "a c", more=first))
    assert {address: action["verb"] for address, action in program.plan().items()} == {"group_chat.team": "update"}
    program.apply()
    assert team.pid == pid
    team.in_place()
    team.release("a")
    entries = team.closed()
    words = [(entry["from"], entry["status"], entry["text"].splitlines()[0]) for entry in entries[2:]]
    assert words == [
        ("moderator", "ok", "I ask them."), ("b", "ok", "b answers 1"), ("a", "ok", "a answers 1"),
        ("chat", "members", "c joined; b left"), ("moderator", "ok", "I ask them."), ("c", "ok", "c answers 1"),
        ("moderator", "unclear", "@b, are you there?"), ("moderator", "ok", "fine"),
        ("chat", "idle", "the moderator gave the final answer"),
    ]  # fmt: skip
    assert team.pid == pid
    team.exactly_once()


def test_a_participant_that_is_removed_while_it_works_ends_its_turn_and_is_not_asked_again(
    program: Program, team: Chat
) -> None:
    first = opening({"a": "hello", "b": "HOLD:b bye"}, "@everyone?", "fine")
    program.write(MEMBERS + chat("team", "a b", more=first))
    program.apply()
    until("a reply", lambda: ("a", "a answers 1") in team.said)
    program.write(AGENT + member("a", "one") + chat("team", "a", more=first))  # its session goes, too
    program.apply("--max-stop", "9")
    team.release("b")
    team.closed()
    assert team.said[1:] == [
        ("a", "a answers 1"), ("b", "b answers 1"), ("moderator", "@everyone?"), ("a", "a answers 2"),
        ("moderator", "fine"),
    ]  # fmt: skip
    assert [entry["text"] for entry in team.of("members")] == ["b left"]
    assert len(team.asked_of("b")) == 1
    team.exactly_once()


def test_a_changed_prompt_is_the_next_message_once(program: Program, team: Chat) -> None:
    first, second = opening({"a": "one"}, "first"), opening({"a": "two"}, "second")
    program.write(MEMBERS + chat("team", "a b c", more=first))
    program.apply()
    team.closed()
    pid = team.pid
    program.write(MEMBERS + chat("team", "a b c", more=second))
    action = program.plan()["group_chat.team"]
    assert (action["verb"], [change["field"] for change in action["changes"]]) == ("update", ["prompt"])
    program.apply()
    team.closed(2)
    assert team.pid == pid
    team.kill()
    program.apply()
    until("another process", lambda: team.pid not in (0, pid) and team.now.get("pid") == team.pid)
    team.in_place()
    assert [entry["from"] for entry in team.of("user")] == ["specs", "specs"]
    assert [words for name, words in team.said if name == "moderator"][1::2] == ["first", "second"]
    team.exactly_once()


def test_a_changed_session_or_limit_holds_from_the_next_turn_on(program: Program, team: Chat) -> None:
    program.write(MEMBERS + chat("team", "a b", more=opening({"b": "hello"}, "first")))
    program.apply()
    team.closed()
    pid = team.pid
    other = 'model = "better"\nworkdir = "~/elsewhere"\n'
    for host in (program.fleet.hosts["two"],):
        host.exec(["mkdir", "-p", "elsewhere"])
    program.write(
        AGENT + member("a", "one") + member("b", "two", other) + chat("team", "a b", more='turn_timeout = "20s"')
    )
    assert program.plan()["group_chat.team"]["verb"] == "update"
    program.apply()
    assert team.pid == pid
    entries = team.ask({"b": "and now?"}, "second")
    assert said(entries)[1] == ("b", "b answers 2")
    assert [turn.rest["model"] for turn in team.asked if turn.who == "b"] == ["", "better"]
    assert [turn.rest["cwd"].rpartition("/")[2] for turn in team.asked if turn.who == "b"] == ["dev", "elsewhere"]
    team.send({"a": "HOLD:a x", "b": "HOLD:b y"}, "third")
    until("their work", lambda: team.at_work("a", "b"))
    program.write(
        AGENT + member("a", "one", 'env = { NEW = "value" }') + member("b", "two", other) + chat("team", "a b")
    )
    assert program.plan()["group_chat.team"]["verb"] == "restart"
    program.apply()
    assert team.pid != pid
    team.release("a", "b")
    team.closed(3)
    team.ask({"a": "z"}, "fourth")
    assert ["NEW" in turn.rest["env"] for turn in team.asked if turn.who == "a"] == [False, True]
    team.exactly_once()


# -- closed, pruned, declared again ----------------------------------------------------------------------------------


def test_a_closed_chat_lets_the_running_turn_end_and_goes_on_with_its_log_when_it_is_opened(
    program: Program, team: Chat
) -> None:
    first = opening({"a": "HOLD:a", "b": "hello"}, "never said")
    program.write(MEMBERS + chat("team", "a b", more=first))
    program.apply()
    until("a reply", lambda: ("b", "b answers 1") in team.said)
    closed = MEMBERS + chat("team", "a b", more=f'state = "closed"\n{first}')
    program.write(closed)
    assert program.plan()["group_chat.team"]["verb"] == "stop"
    with program.start("apply", "--auto-approve") as process:
        until("that it closes", lambda: team.now["state"] == "closing")
        assert team.pid
        team.release("a")
        assert process.wait(60) == 0
    assert not team.pid
    assert [entry["status"] for entry in team.entries[-2:]] == ["ok", "closed"]
    assert team.said[-1] == ("a", "a answers 1")
    team.in_place()
    before = team.entries
    program.write(closed.replace('state = "closed"', ""))
    program.apply()
    entries = team.ask({"a": "again"}, "welcome back")
    assert said(entries) == [("moderator", "I ask them."), ("a", "a answers 2"), ("moderator", "welcome back")]
    assert team.entries[: len(before)] == before
    assert team.entries[len(before)]["status"] == "opened"
    assert team.entries[len(before)]["data"]["id"] == before[0]["data"]["id"]
    assert "never said" not in [text for _, text in team.said], "its message was closed with it"
    team.exactly_once()


def test_a_chat_that_left_the_specs_ends_its_log_is_kept_and_it_goes_on_when_it_is_back(
    program: Program, team: Chat
) -> None:
    members = AGENT + member("a", "one") + member("b", "two")
    specs = members + chat("team", "a b", more=opening({"a": "hello"}, "done"))
    program.write(specs)
    program.apply()
    before = team.closed()
    program.write(members)
    assert {a: action["verb"] for a, action in program.plan().items()} == {"group_chat.team": "stop"}
    program.apply("--max-stop", "9")
    assert not team.pid
    assert team.entries[: len(before)] == before
    program.settled()
    program.write(specs)
    program.apply()
    entries = team.ask({"a": "again"}, "done again")
    assert said(entries)[1] == ("a", "a answers 2")
    assert team.entries[: len(before)] == before
    assert [entry["data"].get("reason") for entry in team.of("idle", "closed")] == ["final", "closed", "final"]
    team.exactly_once()


# -- secrets ---------------------------------------------------------------------------------------------------------


def test_secrets_reach_the_turns_and_lie_nowhere(program: Program, team: Chat, fleet: Fleet) -> None:
    needles = (b"s3cret-of-",)
    program.env = {"OUR_KEY": "s3cret-of-session-'\"$x\n2nd", "HOST_KEY": "s3cret-of-host"}
    hosts = '[hosts.one]\nenv = { HOST_KEY = "${env:HOST_KEY}" }\n'
    secret = 'env = { OUR_KEY = "${env:OUR_KEY}" }\n'
    specs = hosts + AGENT + member("a", "one", secret) + member("c", "local", secret)
    program.write(specs + chat("team", "a c", '{ agent = "chatty", host = "one" }', opening({"a": "x", "c": "y"}, "z")))
    with Watch(*needles) as watch:
        program.apply()
        team.closed()
        program.env["OUR_KEY"] = "s3cret-of-today"
        printed = program.run("why", "group_chat.team").stdout + program.run("status", "--json").stdout
        team.kill()
        program.apply()
        entries = team.ask({"a": "x2", "c": "y2"}, "z2")
    team.end()
    assert watch.found == []
    assert "s3cret" not in printed + json.dumps(entries)
    names = {(turn.who, name) for turn in team.asked for name in turn.rest["env"] if name.endswith("_KEY")}
    assert names == {("a", "OUR_KEY"), ("a", "HOST_KEY"), ("c", "OUR_KEY"), ("moderator", "HOST_KEY")}
    assert not [turn for turn in team.asked if any("RECONCILER_VALUE" in name for name in turn.rest["env"])]
    assert below(fleet.hosts["one"].home, needles) == []
    assert below(fleet.controller_home, needles) == []
    team.exactly_once()
