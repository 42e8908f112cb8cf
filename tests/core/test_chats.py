"""A group chat in the plan: after its participants, changed in place, closed before it is stopped; secrets apart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reconciler.chat.cast import read_cast
from reconciler.core.chats import CLOSE, CONFIG, document
from reconciler.core.observed import Facts, Process, SessionSeen, StoreFile
from reconciler.core.plan import Action, Plan
from reconciler.core.printed import render
from reconciler.core.record import Record
from reconciler.core.spec import Desired
from reconciler.core.steps import IdleStep, LaunchStep, RecordStep, StopStep
from reconciler.errors import OperationError
from tests.core.situations import BOOT, NOW, applied, host, plan_of, running, specs

MEMBERS = """
[hosts.gpu]
address = "gpu.example.com"
env = { ON_HOST = "s3cret-of-host" }
auth = { type = "password", password = "s3cret-of-login" }
path_map = { "~/code" = "/srv/code" }

[sessions.api]
host = "gpu"
agent = "claude-code"
workdir = "~/code/api"
model = "opus"
env = { KEY = "${env:API_KEY}" }
description = "the API"

[sessions.db]
agent = "mine"
prompt = "Own the schema."

[agents.mine]
command = "mine"
start = ["mine", "{prompt}"]
turn = ["mine", "-p", "{prompt}"]
env = { OF_AGENT = "s3cret-of-agent" }
"""
CHAT = '[group_chats.design]\nmoderator = { agent = "claude-code" }\nparticipants = ["api", "db"]\nprompt = "Agree."\n'
ADDRESS = "group_chat.design"


def live(desired: Desired, state: str = "idle", record: Record | None = None) -> SessionSeen:
    """The process of the chat as an apply of these specs started it."""
    record = record or applied(desired, "design")
    told = json.dumps({"pid": 100, "state": state, "round": 1, "max_rounds": 8, "since": NOW, "owed": []})
    log = StoreFile("/home/me/.local/state/reconciler/default/sessions/design/log.jsonl", 900, 1.0)
    facts = Facts(texts={"chat": told}, store=(log,), pid=100, started="7")
    process = Process(100, "7", record.incarnation, 99, True, BOOT)
    return SessionSeen("design", "running", record, record.incarnation, process=process, facts=facts)


def everyone(desired: Desired, chat: SessionSeen | None, **changes: object) -> Plan:
    """The plan where all members run as declared."""
    local = [seen for seen in (running(applied(desired, "db"), None), chat) if seen is not None]
    return plan_of(desired, host("gpu", running(applied(desired, "api"))), host("local", *local), **changes)  # type: ignore[arg-type]


def chat_action(plan: Plan) -> Action:
    (found,) = [action for action in plan.actions if action.address == ADDRESS]
    return found


def test_a_chat_starts_after_its_participants_and_although_one_of_them_fails() -> None:
    desired = specs(MEMBERS + CHAT)
    plan = plan_of(desired, host("gpu"), host("local"))
    assert [action.address for action in plan.actions][-1] == ADDRESS
    action = chat_action(plan)
    assert (action.verb, action.host, set(action.after)) == ("start", "local", {"session.api", "session.db"})
    assert action.anyway
    assert not action.needs
    missing = plan_of(desired, host("gpu", commands={"claude": ""}), host("local"))
    assert {action.address: action.verb for action in missing.actions} == {
        "session.api": "blocked", "session.db": "start", ADDRESS: "start",
    }  # fmt: skip


def test_a_chat_that_runs_as_declared_needs_nothing() -> None:
    desired = specs(MEMBERS + CHAT)
    assert everyone(desired, live(desired)).actions == ()


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('["api", "db"]', '["api"]', "participants"),
        ('"Agree."', '"Agree soon."', "prompt"),
        ("[group_chats.design]", "[group_chats.design]\nmax_rounds = 3", "max_rounds"),
        ('model = "opus"', 'model = "haiku"', "sessions.api.model"),
        ("gpu.example.com", "gpu2.example.com", "hosts.gpu.address"),
        ('agent = "claude-code" }', 'agent = "mine" }', "moderator"),
    ],
)
def test_what_changes_is_written_beside_the_process_which_goes_on(before: str, after: str, field: str) -> None:
    old, new = specs(MEMBERS + CHAT), specs((MEMBERS + CHAT).replace(before, after))
    action = chat_action(everyone(new, live(old)))
    assert action.verb == "update"
    assert field in {change.field for change in action.changes}
    (step,) = action.steps
    assert isinstance(step, RecordStep)
    assert step.file[0] == CONFIG
    assert json.loads(step.file[1])["id"] == step.record.conversation
    assert everyone(new, live(new, record=step.record)).actions == ()


def test_an_ignored_prompt_changes_nothing() -> None:
    text = MEMBERS + CHAT + 'on_prompt_change = "ignore"\n'
    old, new = specs(text), specs(text.replace("Agree.", "Agree soon."))
    assert everyone(new, live(old)).actions == ()


def test_another_environment_needs_another_process_and_shows_no_value() -> None:
    old, new = specs(MEMBERS + CHAT), specs((MEMBERS + CHAT).replace("s3cret-of-agent", "s3cret-of-later"))
    plan = everyone(new, live(old, "gathering"))
    action = chat_action(plan)
    assert action.verb == "restart"
    kinds = [type(step) for step in action.steps]
    assert IdleStep not in kinds  # its turns go on while it is another process
    assert kinds.index(StopStep) < kinds.index(LaunchStep)
    assert "s3cret" not in render(plan)
    assert any(change.field == "env.agents.mine.OF_AGENT" for change in action.changes)


def test_closing_asks_the_process_first_and_waits_for_turns_that_run() -> None:
    text = MEMBERS + CHAT + 'turn_timeout = "2m"\n'
    old, new = specs(text), specs(text + 'state = "closed"\n')
    action = chat_action(everyone(new, live(old, "gathering")))
    assert action.verb == "stop"
    asked, idle, stop = (step for step in action.steps if isinstance(step, RecordStep | IdleStep | StopStep))
    assert isinstance(asked, RecordStep)
    assert asked.file == (CLOSE, "1\n")
    assert isinstance(idle, IdleStep)
    assert idle.stop.timeout == 150
    assert isinstance(stop, StopStep)
    closed = replace(applied(old, "design"), intent="stopped")
    seen = replace(live(old, record=closed), state="stopped", process=None)
    assert everyone(new, seen).actions == ()
    assert chat_action(everyone(old, seen)).verb == "resume"


def test_a_chat_that_left_the_specs_is_closed_by_its_own_address() -> None:
    old, new = specs(MEMBERS + CHAT), specs(MEMBERS)
    action = chat_action(everyone(new, live(old)))
    assert (action.verb, action.reason) == ("stop", "left-specs")
    assert any(isinstance(step, RecordStep) and step.file[0] == CLOSE for step in action.steps)


def test_no_value_that_may_be_secret_stands_in_the_document_or_the_record() -> None:
    desired = specs(MEMBERS + CHAT)
    given = document(desired, "design", "an-id")
    step = next(s for s in chat_action(plan_of(desired, host("gpu"), host("local"))).steps if isinstance(s, LaunchStep))
    for text in (given.text, step.record.to_json(), json.dumps(step.invocation.files), *step.invocation.argv):
        assert "s3cret" not in text
        assert "API_KEY" not in text
    assert set(given.values.values()) == {"s3cret-of-host", "s3cret-of-login", "s3cret-of-agent", "${env:API_KEY}"}
    assert set(given.values) <= set(step.environment)


def test_the_process_finds_in_its_document_how_everybody_is_asked() -> None:
    desired = specs(MEMBERS + CHAT)
    given = document(desired, "design", "an-id")
    cast = read_cast(given.text, given.values)
    assert cast.members == ("moderator", "api", "db")
    assert [cast.host_of(who) for who in cast.members] == ["local", "gpu", "local"]
    assert cast.workdir("api") == "/srv/code/api"
    assert cast.environment("api") == {"ON_HOST": "s3cret-of-host", "KEY": "${env:API_KEY}"}
    assert cast.host("api").transport == "ssh"
    assert cast.host("db").transport == "local"
    assert cast.about["api"] == "the API"
    assert cast.about["db"] == "Own the schema."
    turn = cast.invocation("db", "/d", "hello", (None, False), False)
    assert turn.argv == ("mine", "-p", "hello")
    assert turn.env["OF_AGENT"] == "s3cret-of-agent"
    assert cast.remembers("api")
    assert not cast.remembers("db")  # its table has no `resume_turn`: every turn is told all
    assert cast.scene.forgetful == {"db"}
    again_turn = 'resume_turn = ["mine", "-r", "{session_id}"]\nturn = ["mine"'
    with_turns = (MEMBERS + CHAT).replace('turn = ["mine"', again_turn)
    again = document(specs(with_turns), "design", "an-id")
    assert read_cast(again.text, again.values).remembers("db")
    asked = cast.invocation("api", "/d", "hello", ("11111111-2222-4333-8444-555555555555", True), True)
    assert "--resume" in asked.argv
    assert "opus" in asked.argv


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2}', '{"version": 1}', "[" * 100_000, "null"])
def test_a_document_that_cannot_be_read_is_one_error(text: str) -> None:
    with pytest.raises(OperationError) as caught:
        read_cast(text, {})
    assert caught.value.code == "chat-broken"


def test_who_cannot_be_held_to_reading_takes_no_part_in_a_read_only_chat() -> None:
    text = MEMBERS + CHAT + "read_only = true\n"
    action = chat_action(plan_of(specs(text), host("gpu"), host("local")))
    assert (action.verb, action.reason) == ("blocked", "read-only")
    assert "db" in action.message
    others = text.replace("read_only = true", 'read_only = ["api"]')
    assert chat_action(plan_of(specs(others), host("gpu"), host("local"))).verb == "start"
    assert json.loads(document(specs(others), "design", None).text)["read_only"] == ["api"]
    with_words = text.replace('command = "mine"', 'command = "mine"\nread_only = ["--dry"]')
    assert chat_action(plan_of(specs(with_words), host("gpu"), host("local"))).verb == "start"


def test_a_moderator_is_called_by_its_session_or_by_a_word_that_nobody_has() -> None:
    by_session = specs(MEMBERS + CHAT.replace('{ agent = "claude-code" }', '"db"').replace('["api", "db"]', '["api"]'))
    assert json.loads(document(by_session, "design", None).text)["moderator"] == "db"
    taken = (MEMBERS + CHAT).replace("sessions.db", "sessions.moderator").replace('"db"]', '"moderator"]')
    assert json.loads(document(specs(taken), "design", None).text)["moderator"] == "design"
