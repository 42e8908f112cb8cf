"""Group chats of the real agent CLIs on real hosts: each leads one and takes part, and so does one by a template.

Agents tried: Claude Code 2.1.197, Codex 0.169.0, OpenCode 1.18.33, Gemini CLI 0.61.0.
What anybody was asked is read from the requests that its model got, not from our log.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.chats import Chat
from tests.e2e.program import fleet_of, until
from tests.e2e.real_chats import BAD_KEY, MEMBERS, OPEN, Stage, said_to
from tests.support import agents as support
from tests.support.stub_llm import Server, delegation

pytestmark = [pytest.mark.e2e, pytest.mark.agents, pytest.mark.timeout(900)]
# Who leads: an agent of the chat's own, here or on a host, or a session. Who takes part: in the first one of each kind.
CHATS = {
    "claude-code": ('{ agent = "claude-code", workdir = "~/work/project" }', ("clio", "cody", "opal", "gems", "home")),
    "codex": ('{ agent = "codex", host = "one", workdir = "~/work/project" }', ("clio", "gems", "home")),
    "opencode": ('"lead"', ("cody", "home")),
    "gemini": ('{ agent = "gemini", host = "one", workdir = "~/work/project" }', ("clio", "cody")),
    "homemade": ('{ agent = "homemade", host = "two", workdir = "~/work/project" }', ("cody", "gems")),
}
# What each tells of a turn. OpenCode knows no price of this model; what Codex counts is the whole conversation.
TELLS = {"claude-code": {"cost", "tokens"}, "opencode": {"tokens"}, "gemini": {"tokens"}}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    if shutil.which("git") is None:
        pytest.fail("these tests need git: apt-get install git")
    with fleet_of() as fleet:
        for name, user in (("one", "dev"), ("two", "ops")):
            fleet.host(name, user=user, binds=[str(support.agents_dir())])
        server = Server((f"10.77.{fleet.network}.1", 0), None, False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        made = Stage(fleet, server)
        try:
            yield made
        finally:
            Chat(made.program).end()
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.mark.parametrize("kind", CHATS)
def test_each_agent_leads_others_and_everybody_is_asked_once_in_one_conversation(stage: Stage, kind: str) -> None:
    moderator, names = CHATS[kind]
    leader, name = ("lead" if "{" not in moderator else "moderator"), f"by-{kind}"
    chat = stage.declare(name, moderator, names)
    groups = [group for group in (names[:2], names[2:]) if group]
    first = [{who: f"item {number} for {who}" for who in group} for number, group in enumerate(groups, 1)]
    last = {who: f"the last item for {who}" for who in names}
    stage.ask(name, "NOTE-q1", *first, "one answer")
    stage.ask(name, "NOTE-q2", last, "another answer")

    entries = chat.of("participant", "moderator")
    assert {entry["status"] for entry in entries} == {"ok"}
    assert [entry["text"] for entry in entries if entry["from"] == leader] == [
        *map(delegation, first), "one answer", delegation(last), "another answer"
    ]  # fmt: skip
    assert chat.closings == ["final", "final"]
    heard = {who: max(entry["seq"] for entry in entries if who in entry["to"]) for who in (leader, *names)}
    for who in (leader, *names):
        turns = stage.turns(name, "moderator" if who == leader else who)
        # Each request held the prompts of all turns before it, and one more: nothing lost, nothing asked twice.
        assert turns == [turns[-1][: number + 1] for number in range(len(turns))]
        assert len(turns) == sum(entry["from"] == who for entry in entries)
        whole = "\n".join(turns[-1])
        assert [whole.count(f"{mark} PLAN:") for mark in ("NOTE-q1", "NOTE-q2")] == [1, 1]
        for entry in entries:
            if entry["kind"] == "participant" and entry["seq"] <= heard[who]:
                assert whole.count(f"[{entry['from']}]\n{entry['text']}\n") == (entry["from"] != who)
        if who != leader:
            assert turns[0][0].startswith(f"You are `{who}` in the group chat `{name}`, which `{leader}` moderates.")
            assert [said_to(prompt) for prompt in turns[-1]] == [said[who] for said in (*first, last) if who in said]
            answers = [entry["text"] for entry in entries if entry["from"] == who]
            assert all(text.startswith(f"STUB turns={number} ") for number, text in enumerate(answers, 1)), answers
    kinds = {who: member.agent for who, member in MEMBERS.items()} | {"moderator": kind}
    for entry in entries:
        used = entry.get("usage", {})
        assert set(used) == TELLS.get(kinds[entry["from"]], set()), entry
        assert all(amount > 0 for amount in used.values())
    until("its cost", lambda: chat.now["cost"] == round(sum(e.get("usage", {}).get("cost", 0) for e in entries), 6))


def test_sessions_in_their_terminals_go_on_untouched_while_they_take_part(stage: Stage) -> None:
    chat = stage.declare("by-gemini", *CHATS["gemini"])
    before = {name: (stage.idle(name)["conversation_id"], stage.pid(name)) for name in OPEN}
    for name in OPEN:
        assert stage.program.run("send", name, f"MARK-busy_{name} SLOW:10").returncode == 0
        stage.asked(f"MARK-busy_{name}")
    entries = stage.ask("by-gemini", "NOTE-chat", dict.fromkeys(OPEN, "NOTE-beside, please"), "they did")
    assert sorted(entry["from"] for entry in entries if entry["kind"] == "participant") == sorted(OPEN)
    for name in OPEN:
        stage.idle(name)
        assert stage.program.run("send", name, f"MARK-after_{name}").returncode == 0
    for name in OPEN:
        own = stage.asked(f"MARK-after_{name}")
        assert (stage.idle(name)["conversation_id"], stage.pid(name)) == before[name]
        assert own == [["MARK-own", f"MARK-busy_{name} SLOW:10", f"MARK-after_{name}"]]
    told = {entry["data"]["conversation"] for entry in chat.of("participant")}
    assert not told & {conversation for conversation, _ in before.values()}
    stage.program.settled()


def test_in_a_read_only_chat_nobody_writes_who_writes_otherwise(stage: Stage) -> None:
    stage.declare("by-claude-code", *CHATS["claude-code"])
    everybody = CHATS["claude-code"][1]
    files = {who: stage.path(who, f"by-{who}")[0] for who in everybody}
    stage.ask("by-claude-code", "NOTE-write", {who: stage.touch(who, f"by-{who}") for who in everybody}, "written")
    assert [who for who in everybody if not files[who].exists()] == []
    for file in files.values():
        file.unlink()
    others = [who for who in everybody if who != "clio"]
    chat = stage.declare("held", '"clio"', others, "read_only = true\n")
    stage.ask("held", "NOTE-q", {who: stage.touch(who, f"by-{who}") for who in others}, stage.touch("clio", "by-clio"))
    assert {entry["status"] for entry in chat.of("participant", "moderator")} == {"ok"}
    assert [who for who in everybody if files[who].exists()] == []
    for who in ("moderator", *others):
        assert [asked.tool_output for asked in stage.requests("held", who) if asked.tool_output], f"{who} was not asked"


def test_an_agent_that_lost_its_conversation_gets_a_new_one_from_the_log_and_goes_on_in_it(stage: Stage) -> None:
    name, names = "by-claude-code", CHATS["claude-code"][1]
    stage.declare(name, *CHATS["claude-code"])
    early = stage.ask(name, "NOTE-before", {who: f"NOTE-early_{who}" for who in names}, "noted, all of it")
    lost = conversations(early)
    assert set(lost) == {"moderator", "clio", "cody", "gems", "opal"}
    lose(stage, lost)
    entries = stage.ask(name, "NOTE-after", {who: f"NOTE-late_{who}" for who in names}, "found")
    said = [entry["text"] for entry in entries if entry["status"] == "conversation"]
    assert sorted(said) == sorted(
        f"{who} no longer knew its conversation: it was started anew from this log" for who in lost
    )
    for who in lost:
        (begun,) = [turn for turn in stage.turns(name, who) if len(turn) == 1 and "NOTE-after" in turn[0]]
        assert begun[0].count("NOTE-before PLAN:") == begun[0].count("NOTE-after PLAN:") == 1
        assert begun[0].count("[moderator]\nnoted, all of it\n") == 1
        for other in names:
            assert begun[0].count(f"(to {other}) NOTE-early_{other}\n") == 1
        for entry in early:
            if entry["kind"] == "participant":
                assert begun[0].count(f"[{entry['from']}]\n{entry['text']}\n") == 1
    well = [who for who in lost if who not in ("moderator", "opal")]
    last = stage.ask(name, "NOTE-end", dict.fromkeys(well, "and now?"), "good")
    assert "conversation" not in {entry["status"] for entry in last}
    for who in well:
        turns = stage.turns(name, who)
        assert (turns[-1][:-1], len(turns[-1])) == (turns[-2], 2)
        assert conversations(last)[who] == conversations(entries)[who] != lost[who]


def conversations(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Which conversation each agent named last."""
    return {e["from"]: e["data"]["conversation"] for e in entries if "conversation" in e.get("data", {})}


def lose(stage: Stage, talks: dict[str, str]) -> None:
    """Somebody cleans up: what agents keep of these conversations is gone; that of the sessions stays."""
    for who, identity in talks.items():
        home = stage.homes[MEMBERS[who].host if who in MEMBERS else "local"]
        if who in MEMBERS and MEMBERS[who].agent == "opencode":
            with closing(sqlite3.connect(home / ".local/share/opencode/opencode.db")) as database:
                assert database.execute("DELETE FROM session WHERE id = ?", (identity,)).rowcount == 1
                database.commit()
            continue
        part = identity[:8] if who == "gems" else identity
        found = [path for path in home.rglob(f"*{part}*.jsonl") if ".local/state" not in str(path)]
        assert found, who
        for path in found:
            path.unlink()


def test_a_participant_whose_model_fails_is_gone_without_in_the_agents_own_words(stage: Stage) -> None:
    names = ("clio", "cody", "gems", "home", "deny")
    stage.declare("failing", '{ agent = "homemade", host = "one" }', names)
    fails = {"clio": "ERR:500", "cody": "ERR:400", "gems": "ERR:400", "home": "ERR:500", "deny": "hello"}
    entries = stage.ask("failing", "NOTE-q1", fails, "without them")
    failed = {entry["from"]: entry["text"] for entry in entries if entry["status"] == "failed"}
    assert set(failed) == set(names)
    for who, words in failed.items():
        code = fails[who].partition(":")[2]
        assert (f"stub error {code} as asked" if code else "401 stub: invalid API key") in words
        assert BAD_KEY not in words
        assert f"[{who} gave no answer: failed. {words}]" in stage.turns("failing", "moderator")[-1][-1]
    well = names[:4]
    entries = stage.ask("failing", "NOTE-q2", {who: f"NOTE-well_{who}" for who in well}, "with them")
    assert sorted(e["from"] for e in entries if e["kind"] == "participant" and e["status"] == "ok") == sorted(well)
    for who in well:
        whole = "\n".join(stage.turns("failing", who)[-1])
        assert all(mark in whole for mark in ("NOTE-q1", "NOTE-q2", f"NOTE-well_{who}"))
