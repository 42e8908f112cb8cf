"""What can go wrong in a group chat goes wrong: kills, power, cables, disks, two runners; nothing is lost or doubled"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chats import AGENT, Chat, chat, install_agents, member, opening, prepared, said
from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, Site, fleet_of, until

pytestmark = pytest.mark.e2e
MEMBERS = AGENT + member("a", "one") + member("b", "two") + member("c", "local")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("one", "two") as made:
        yield prepared(made)


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"broken{request.session.items.index(request.node)}")


@pytest.fixture
def team(program: Program) -> Iterator[Chat]:
    made = Chat(program)
    yield made
    made.end()


@pytest.fixture
def one(fleet: Fleet) -> Host:
    return fleet.hosts["one"]


@pytest.fixture
def two(fleet: Fleet) -> Host:
    return fleet.hosts["two"]


# -- the process of the chat is killed -------------------------------------------------------------------------------


def test_killed_at_any_moment_every_owed_turn_is_asked_once_and_the_chat_comes_to_its_end(
    program: Program, team: Chat, one: Host, two: Host
) -> None:
    first = opening({"": "HOLD:lead", "a": "HOLD:ab x", "b": "HOLD:ab y"}, {"c": "HOLD:c z"}, "done")
    program.write(MEMBERS + chat("team", "a b c", '{ agent = "chatty", host = "two" }', first))
    program.apply()
    until("the moderator's work", lambda: team.at_work("moderator"))
    team.kill()
    assert program.plan()["group_chat.team"]["reason"] == "crashed"
    program.apply()
    team.release("lead")
    until("the participants' work", lambda: team.at_work("a", "b"))
    team.kill()
    team.release("ab")
    until("answers that nobody hears", lambda: team.ended_unheard("a", one.home) and team.ended_unheard("b", two.home))
    program.apply()
    until("the last one's work", lambda: team.at_work("c"))
    team.kill()
    program.apply()
    team.release("c")
    team.closed()
    team.exactly_once()
    assert sorted(team.said) == sorted([
        ("moderator", "I ask them."), ("a", "a answers 1"), ("b", "b answers 1"), ("moderator", "I ask them."),
        ("c", "c answers 1"), ("moderator", "done"),
    ])  # fmt: skip
    team.kill()
    team.send({"a": "and?"}, "again")
    program.apply()
    team.closed(2)
    assert said(team.entries)[-2:] == [("a", "a answers 2"), ("moderator", "again")]
    team.exactly_once()
    assert team.closings == ["final", "final"]


def test_killed_after_each_entry_nothing_is_lost_or_doubled(program: Program, team: Chat) -> None:
    program.write(MEMBERS + chat("team", "a b c"))
    program.apply()
    until("its process", lambda: team.now.get("state") == "idle")
    team.kill()
    team.send({"a": "x", "b": "y"}, {"c": "z", "a": "z"}, "done")
    kills = 0
    while not team.closings and kills < 20:
        count = len(team.entries)
        with subprocess.Popen(runner(team), env=program.environment()) as process:
            until("another entry", lambda: len(team.entries) > count)  # noqa: B023
            process.kill()
        kills += 1
    assert kills >= 5
    program.apply()
    team.closed()
    team.exactly_once()
    assert len(team.asked) == 7
    assert [name for name, _ in team.said if name == "moderator"] == ["moderator"] * 3


def runner(team: Chat) -> list[str]:
    """How the process of a chat is started."""
    return [sys.executable, "-P", "-m", "reconciler.chat", str(team.folder)]


# -- power and cables ------------------------------------------------------------------------------------------------


def test_a_power_cut_in_the_middle_of_a_turn_loses_that_turn_alone_and_says_so(
    program: Program, team: Chat, one: Host
) -> None:
    program.write(
        MEMBERS + chat("team", "a b", more=opening({"a": "HOLD:never x", "b": "y"}, {"a": "and now?"}, "fine"))
    )
    program.apply()
    until("the work of a", lambda: team.at_work("a"))
    one.reboot()
    team.closed()
    assert sorted(said(team.entries)[1:3]) == [("a", "[lost]"), ("b", "b answers 1")]
    assert said(team.entries)[3:] == [("moderator", "I ask them."), ("a", "a answers 2"), ("moderator", "fine")]
    assert "[a gave no answer: lost. its host lost the turn" in team.asked_of("moderator")[1]
    team.exactly_once()


def test_a_cable_that_heals_in_time_costs_nothing(program: Program, team: Chat, one: Host, two: Host) -> None:
    first = opening({"a": "HOLD:a x", "b": "HOLD:b y"}, {"a": "more"}, "fine")
    program.write(MEMBERS + chat("team", "a b", '{ agent = "chatty", host = "two" }', first))
    program.apply()
    until("their work", lambda: team.at_work("a", "b"))
    for host in (one, two):
        host.cable_out()
    try:
        until("that it is noticed", lambda: "one" in team.now["trouble"] and "two" in team.now["trouble"])
        assert program.status()["group_chat.team"]["observed"]["detail"].startswith("round 1 of 8; waits for a, b; ")
        team.release("a")
        until("an answer that nobody hears", lambda: team.ended_unheard("a", one.home))
    finally:
        for host in (one, two):
            host.cable_in()
    until("the answer", lambda: ("a", "a answers 1") in team.said)
    team.release("b")
    team.closed()
    assert sorted(said(team.entries)[1:3]) == [("a", "a answers 1"), ("b", "b answers 1")]
    assert said(team.entries)[-2:] == [("a", "a answers 2"), ("moderator", "fine")]
    team.exactly_once()


def test_a_reply_that_comes_too_late_is_logged_leads_to_nothing_and_its_conversation_goes_on(
    program: Program, team: Chat, one: Host
) -> None:
    program.write(MEMBERS + chat("team", "a b", more='turn_timeout = "4s"'))
    program.apply()
    team.send({"a": "HOLD:a x", "b": "y"}, "without a")
    until("the work of a", lambda: team.asked_of("a"))
    one.cable_out()
    team.release("a")
    try:
        team.closed()
        program.write(AGENT + member("b", "two") + chat("team", "b", more='turn_timeout = "20s"'))
        program.apply(code=4)
        until("that a left", lambda: team.of("members"))
    finally:
        one.cable_in()
    assert sorted(said(team.entries)[1:]) == [("a", "[unreachable]"), ("b", "b answers 1"), ("moderator", "without a")]
    until("the late reply", lambda: team.of("late"))
    assert [(e["from"], e["text"], e["to"]) for e in team.of("late")] == [("a", "a answers 1", [])]
    assert [entry["data"]["participants"] for entry in team.of("members")] == [["b"]], "it does not add itself again"
    program.write(MEMBERS + chat("team", "a b", more='turn_timeout = "20s"'))
    program.apply()
    entries = team.ask({"a": "and now?"}, "fine")
    assert ("a", "a answers 2") in said(entries)
    assert not [prompt for prompt in team.asked_of("moderator") if "a answers 1" in prompt], "it is not passed on"
    assert [turn.rest["verb"] for turn in team.asked if turn.who == "a"] == ["turn", "resume"]


def test_a_host_that_is_away_from_the_beginning_is_gone_without_and_comes_in_when_it_is_back(
    program: Program, team: Chat, two: Host
) -> None:
    two.power_cut()
    try:
        program.write(
            MEMBERS + chat("team", "a b", more='turn_timeout = "4s"\n' + opening({"a": "x", "b": "y"}, "without b"))
        )
        program.apply(code=4)
        team.closed()
    finally:
        two.boot()
    assert sorted(said(team.entries)[1:]) == [("a", "a answers 1"), ("b", "[unreachable]"), ("moderator", "without b")]
    assert "[b gave no answer: unreachable. two (" in team.asked_of("moderator")[-1]
    entries = team.ask({"b": "and now?"}, "fine")
    assert said(entries)[1:] == [("b", "b answers 1"), ("moderator", "fine")]
    assert [turn.rest["verb"] for turn in team.asked if turn.who == "b"] == ["turn"]
    team.exactly_once()


def test_a_chat_whose_moderator_cannot_be_reached_waits_for_it(program: Program, team: Chat, two: Host) -> None:
    program.write(MEMBERS + chat("team", "a c", '{ agent = "chatty", host = "two" }', 'turn_timeout = "2s"\n'))
    program.apply()
    team.send({"": "HOLD:lead", "a": "x"}, "fine")
    until("its work", lambda: team.asked_of("moderator"))
    two.cable_out()
    team.release("lead")
    try:
        until("that it is noticed", lambda: team.now.get("state") == "waiting")
        seen = program.status()["group_chat.team"]
        assert seen["phase"] == "busy"
        assert "round 1 of 8; waits for moderator; two" in seen["observed"]["detail"]
        time.sleep(8)  # longer than a turn may take
        assert team.closings == []
    finally:
        two.cable_in()
    team.closed()
    two.cable_out()
    try:
        team.send({"c": "y"}, "good")
        until("that it is noticed", lambda: team.now.get("state") == "waiting")
    finally:
        two.cable_in()
    team.closed(2)
    assert said(team.entries) == [
        ("moderator", "I ask them."), ("a", "a answers 1"), ("moderator", "fine"),
        ("moderator", "I ask them."), ("c", "c answers 1"), ("moderator", "good"),
    ]  # fmt: skip
    team.exactly_once()


# -- two runners -----------------------------------------------------------------------------------------------------


def test_a_second_process_of_a_chat_is_refused(program: Program, team: Chat) -> None:
    program.write(MEMBERS + chat("team", "a b", more=opening({"a": "HOLD:a x"}, "done")))
    program.apply()
    until("its work", lambda: team.at_work("a"))
    before, pid = team.entries, team.pid
    second = subprocess.run(
        runner(team), env=program.environment(), capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip
    assert second.returncode == 6, second.stderr
    assert "another process runs this chat" in second.stderr
    assert team.entries == before
    assert team.pid == pid
    team.release("a")
    team.closed()
    team.exactly_once()


@pytest.mark.parametrize("host", ["a participant's", "the moderator's"])
def test_a_chat_that_another_machine_runs_is_refused_and_says_who(
    program: Program, team: Chat, one: Host, host: str
) -> None:
    moderator = '{ agent = "chatty", host = "one" }' if host == "the moderator's" else '{ agent = "chatty" }'
    program.write(MEMBERS + chat("team", "b" if host == "the moderator's" else "a", moderator, opening({"a": "x"})))
    program.apply("--target", "a", "--target", "b")
    lease = one.write(
        f"{Site(one, program.name).inner_state}/chats/team", f"{int(time.time()) + 100} elsewhere/0123456789abcdef\n"
    )
    one.own(lease.parent)
    output = program.apply(code=3)
    assert "group_chat.team is run by elsewhere/0123456789abcdef, for another" in output
    assert team.asked == []
    assert not team.pid
    assert lease.read_text(encoding="ascii").endswith("elsewhere/0123456789abcdef\n")
    lease.write_text(f"{int(time.time()) - 1} elsewhere/0123456789abcdef\n", encoding="ascii")
    program.apply()
    team.closed()
    team.exactly_once()


# -- what a machine lacks --------------------------------------------------------------------------------------------


def test_a_full_disk_of_a_participants_host_is_said_and_the_chat_goes_on(
    fleet: Fleet, program: Program, team: Chat
) -> None:
    tiny = fleet.host("tiny", home_size="4m")
    try:
        install_agents(tiny.home, tiny)
        program.write(
            MEMBERS + member("d", "tiny") + chat("team", "a d", more='turn_timeout = "4s"\n' + opening({"d": "x"}, "1"))
        )
        program.apply()
        team.closed()
        tiny.fill_disk()
        team.send({"d": "y", "a": "y"}, "without d")
        until("that it is said", lambda: "is the disk full" in team.now["trouble"])
        team.closed(2)
        tiny.free_disk()
        assert sorted(said(team.entries)[4:]) == [
            ("a", "a answers 1"), ("d", "[unreachable]"), ("moderator", "without d")
        ]  # fmt: skip
        assert "is the disk full" in team.asked_of("moderator")[-1]
        entries = team.ask({"d": "z"}, "all")
        assert ("d", "d answers 2") in said(entries)
        tiny.fill_disk()
        team.send({"d": "late, but in time"}, "whole")
        until("that it is said", lambda: "is the disk full" in team.now["trouble"])
        tiny.free_disk()
        team.closed(4)
        assert said(team.entries)[-2:] == [("d", "d answers 3"), ("moderator", "whole")]
        team.exactly_once()
    finally:
        team.end()
        tiny.remove()
        del fleet.hosts["tiny"]


@pytest.fixture
def small_disk(team: Chat) -> Iterator[Path]:
    """The state of the fleet on this machine lies on a disk of its own."""
    team.state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(team.state)], check=True)
    yield team.state
    team.end()
    subprocess.run(["umount", "-l", str(team.state)], check=True)


def test_a_full_disk_of_the_machine_that_runs_the_chat_is_said_and_loses_nothing(
    program: Program, team: Chat, small_disk: Path
) -> None:
    program.write(AGENT + member("a", "one") + member("b", "two") + chat(
        "team", "a b", '{ agent = "chatty", host = "one" }', opening({"a": "HOLD:a BIG:9", "b": "y"}, "done")
    ))  # fmt: skip
    program.apply()
    until("the work of a", lambda: ("b", "b answers 1") in team.said)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    team.release("a")
    try:
        until("that it is said", lambda: "No space left" in team.now.get("trouble", ""))
        assert len(team.asked) == 3
    finally:
        filler.unlink()
    team.closed()
    assert said(team.entries)[2:] == [("a", "a answers 1"), ("moderator", "done")]
    team.exactly_once()


# Agents that cannot take such a turn: without a way to, with a model that there is no place for, in no directory.
OTHERS = (
    '[agents.mute]\ncommand = "script-agent"\nstart = ["script-agent", "start", "{session_id}", "{prompt}"]\n'
    '[agents.plain]\ncommand = "script-agent"\nturn = ["chat-agent", "turn", "{session_id}"]\n'
    'start = ["script-agent", "start", "{session_id}", "{prompt}", "{model}"]\n'
    + member("d", "local").replace("chatty", "mute")
    + member("e", "local", 'model = "best"\n').replace("chatty", "plain")
    + member("f", "two", 'workdir = "~/gone"\n')
)


def test_whoever_cannot_be_asked_is_gone_without_and_begins_a_conversation_once_that_is_mended(
    program: Program, team: Chat, one: Host
) -> None:
    (one.home / "bin/chat-agent").rename(one.home / "bin/away")
    try:
        words = dict.fromkeys("adef", "x")
        program.write(MEMBERS + OTHERS + chat("team", "a b d e f", more=opening(words, "without them")))
        program.apply(code=3)
        team.closed()
    finally:
        (one.home / "bin/away").rename(one.home / "bin/chat-agent")
    failed = {entry["from"]: (entry["status"], entry["text"]) for entry in team.of("participant")}
    assert {status for status, _ in failed.values()} == {"failed"}
    assert "its agent is not on the PATH of the login shell" in failed["a"][1]
    assert "agent mute has no template `turn`" in failed["d"][1]
    assert "the template has no {model}" in failed["e"][1]
    assert "its working directory" in failed["f"][1]
    entries = team.ask({"a": "and now?"}, "fine")
    assert said(entries)[1] == ("a", "a answers 1")
    assert [turn.rest["verb"] for turn in team.asked if turn.who == "a"] == ["turn"]


def test_a_disabled_host_is_left_alone_and_the_chat_says_so(program: Program, team: Chat, fleet: Fleet) -> None:
    first = opening({"a": "what of it?", "b": "and you?"}, "all is well")
    disabled = "[hosts.two]\nenabled = false\n"
    program.write(disabled + MEMBERS + chat("team", "a b", more=first))
    program.apply()
    team.closed()
    assert {entry["from"]: entry["status"] for entry in team.of("participant")} == {"a": "ok", "b": "unreachable"}
    assert "host.two is not enabled" in next(e["text"] for e in team.of("participant") if e["from"] == "b")
    assert team.closings == ["final"]
    assert not (fleet.hosts["two"].home / ".local/state/reconciler" / program.name / "chats").exists()
