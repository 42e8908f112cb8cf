"""Who owes a turn, after anything that can happen: nothing is lost, nothing is asked twice, it is never silent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.chat.entries import Entry
from reconciler.chat.turns import (
    REASONS,
    Chat,
    Limits,
    Talk,
    after,
    answered,
    close,
    conversation_of,
    fold,
    missed,
    turn_id,
)
from tests.chat.driver import EVERYBODY, MISSES, MODERATORS, REPLIES, Play

_which = st.integers(0, 4)
_members = st.tuples(st.sampled_from(MODERATORS), st.lists(st.sampled_from(EVERYBODY), unique=True).map(tuple))
_cost = st.sampled_from([0.0, 0.0, 1.0, 4.0])
HAPPENINGS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("say")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("reply"), _which, st.sampled_from(list(REPLIES.values())), _cost),
    st.tuples(st.just("reply"), _which, st.sampled_from(list(REPLIES.values())), _cost, st.sampled_from(["t1", "t2"])),
    st.tuples(st.just("miss"), _which, st.sampled_from(MISSES)),
    st.tuples(st.just("forget"), _which),
    st.tuples(st.just("late"), _which),
    st.tuples(st.just("repeat"), _which),
    st.tuples(st.just("members"), _members),
    st.tuples(st.just("close")),
    st.tuples(st.just("open")),
)
GOES_WELL: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("reply"), _which, st.sampled_from([REPLIES["many"], REPLIES["one"]]), _cost),
    st.tuples(st.just("reply"), _which, st.sampled_from([REPLIES["many"], REPLIES["one"]]), _cost),
    HAPPENINGS,
)
LIMITS = st.builds(Limits, st.integers(1, 4), st.sampled_from([None, None, 3.0, 6.0]))


def played(happenings: list[tuple[Any, ...]], limits: Limits) -> Play:
    play = Play(limits)
    play.open()
    for name, *arguments in happenings:
        if name == "members":
            arguments = list(arguments[0])
        getattr(play, name)(*arguments)
    return play


@settings(max_examples=150, deadline=None)
@given(st.lists(HAPPENINGS, max_size=40), LIMITS)
def test_whatever_happens_every_message_is_closed_once_and_nobody_is_asked_twice(
    happenings: list[tuple[Any, ...]], limits: Limits
) -> None:
    play = played(happenings, limits)
    play.open()
    play.finish()
    assert play.chat.state == "idle"
    assert not play.chat.queue
    reasons = [entry.data["reason"] for entry in play.entries if entry.status in ("idle", "closed")]
    assert set(reasons) <= set(REASONS)


@settings(max_examples=60, deadline=None)
@given(st.lists(HAPPENINGS, max_size=30), LIMITS, st.integers(0, 60))
def test_a_log_in_two_parts_leads_to_the_same_chat(happenings: list[tuple[Any, ...]], limits: Limits, at: int) -> None:
    entries = played(happenings, limits).entries
    chat = fold(entries[:at], limits)
    for entry in entries[at:]:
        chat = after(chat, entry, limits)
    assert chat == fold(entries, limits)


@settings(max_examples=100, deadline=None)
@given(st.lists(GOES_WELL, min_size=10, max_size=40).map(lambda found: [("say",), *found]), LIMITS, LIMITS)
def test_other_limits_never_undo_what_was_said(
    happenings: list[tuple[Any, ...]], limits: Limits, others: Limits
) -> None:
    play = played(happenings, limits)
    play.finish()
    known = fold(play.entries, others)
    if play.chat.state in ("idle", "closed"):
        assert (known.talks, known.done, known.queue) == (play.chat.talks, play.chat.done, play.chat.queue)
        assert known.state == play.chat.state


def test_a_lower_limit_does_not_forget_what_came_of_the_rounds_before_it() -> None:
    play = idle(max_rounds=4)
    play.say()
    for _ in range(2):
        play.reply(0, REPLIES["one"])
        play.reply(0, "")
    play.reply(0, REPLIES["many"])
    lower = Limits(max_rounds=1)
    assert fold(play.entries, lower).closing == "max_rounds"
    play.reply(0, "")
    chat = fold(play.entries, lower)
    assert (chat.round, chat.talks, [owed.who for owed in chat.owed]) == (3, play.chat.talks, ["api"])


@settings(deadline=None)
@given(st.lists(st.sampled_from(["opened", "members", "conversation", "note", "idle", "closed"]), max_size=8))
def test_events_in_any_order_are_folded(events: list[str]) -> None:
    chat = Chat()
    for seq, event in enumerate(events, 1):
        chat = after(chat, Entry(seq, "system", "chat", (), "", event, "x", data={"participants": "odd"}), Limits())
    assert chat.seq == len(events)
    last = [event for event in events if event in ("opened", "closed")][-1:]
    assert chat.state == ("closed" if last == ["closed"] else "idle")


def idle(**limits: Any) -> Play:
    play = Play(Limits(**limits))
    play.open()
    return play


def status(play: Play) -> str:
    return str(play.entries[-1].data.get("reason"))


def who(play: Play) -> list[str]:
    return [owed.who for owed in play.chat.owed]


def test_a_message_is_delegated_gathered_and_answered() -> None:
    play = idle()
    play.say()
    assert (play.chat.state, who(play), play.chat.round) == ("moderating", ["lead"], 1)
    play.reply(0, REPLIES["many"])
    assert (play.chat.state, who(play), play.chat.between) == ("gathering", ["web", "api"], False)
    play.reply(1, "")
    assert who(play) == ["web"]
    play.reply(0, "")
    assert (play.chat.state, who(play), play.chat.round) == ("moderating", ["lead"], 2)
    play.reply(0, REPLIES["final"])
    assert (play.chat.closing, play.chat.owed) == ("final", ())
    play.settle()
    assert (play.chat.state, status(play)) == ("idle", "final")


@pytest.mark.parametrize("first", ["unknown", "broken", "nobody", "empty"])
def test_what_cannot_be_followed_goes_back_once_with_the_reason_and_then_it_is_said(first: str) -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES[first])
    (owed,) = play.chat.owed
    assert owed.trouble
    assert owed.cause == len(play.entries)
    play.reply(0, REPLIES["unknown"])
    play.settle()
    assert status(play) == "unclear"
    assert "twice" in play.entries[-1].text


def test_an_answer_that_could_be_followed_makes_up_for_the_one_before() -> None:
    play = idle()
    play.say()
    for _ in range(3):
        play.reply(0, REPLIES["unknown"])
        play.reply(0, REPLIES["one"])
        assert who(play) == ["web"]
        play.reply(0, "")
    play.reply(0, REPLIES["final"])
    play.settle()
    assert status(play) == "final"


@pytest.mark.parametrize("miss", MISSES)
def test_a_participant_without_an_answer_holds_nobody_up(miss: str) -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES["many"])
    play.miss(0, miss)
    assert who(play) == ["api"]
    play.reply(0, "")
    assert (who(play), play.chat.round) == (["lead"], 2)


@pytest.mark.parametrize("miss", MISSES)
def test_a_moderators_turn_is_tried_twice(miss: str) -> None:
    play = idle()
    play.say()
    (first,) = play.chat.owed
    play.miss(0, miss)
    (second,) = play.chat.owed
    assert (second.attempt, second.cause) == (2, first.cause)
    assert second.turn_id != first.turn_id
    play.miss(0, miss)
    play.settle()
    assert status(play) == "moderator"


def test_a_second_try_still_knows_why_there_is_one() -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES["unknown"])
    (before,) = play.chat.owed
    play.miss(0, "failed")
    assert play.chat.owed[0].trouble == before.trouble != ""


def test_the_last_round_is_not_delegated_any_more() -> None:
    play = idle(max_rounds=2)
    play.say()
    play.reply(0, REPLIES["one"])
    play.reply(0, "")
    play.reply(0, REPLIES["one"])
    assert (play.chat.owed, play.chat.closing) == ((), "max_rounds")
    play.settle()
    assert play.entries[-1].round == 2


@pytest.mark.parametrize("spender", ["moderator", "participant"])
def test_a_spent_budget_closes_the_message_and_the_next_one_begins_anew(spender: str) -> None:
    play = idle(max_cost=2.0)
    play.say()
    play.say()
    play.reply(0, REPLIES["one"], 2.0 if spender == "moderator" else 0.5)
    if spender == "participant":
        play.reply(0, "", 1.5)
    assert play.chat.closing == "budget"
    play.settle()
    assert (play.chat.spent, play.chat.cost, who(play)) == (0.0, 2.0, ["lead"])


def test_a_final_answer_is_one_whatever_it_cost() -> None:
    play = idle(max_cost=1.0)
    play.say()
    play.reply(0, REPLIES["final"], 5.0)
    assert play.chat.closing == "final"


def test_messages_queue_and_are_taken_up_in_their_order() -> None:
    play = idle()
    for _ in range(3):
        play.say()
    seqs = list(play.asked.values())
    assert (play.chat.current, list(play.chat.queue)) == (seqs[0], seqs[1:])
    for expected in seqs:
        assert play.chat.current == expected
        play.reply(0, "done")
        play.settle()
        assert play.entries[-1].data["message"] == expected


def test_a_chat_that_is_closed_in_the_middle_goes_on_with_what_waits_once_it_is_opened() -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES["many"])
    gone = [owed.turn_id for owed in play.chat.owed]
    play.close()
    assert (play.chat.state, status(play), play.entries[-1].data["message"]) == ("closed", "closed", 2)
    play.say()
    assert (play.chat.state, play.chat.owed) == ("closed", ())
    play.late(0)
    play.open("boss", ("db",))
    assert (who(play), play.chat.participants) == (["boss"], ("db",))
    assert not {owed.turn_id for owed in play.chat.owed} & set(gone)


def test_who_moderates_now_owes_what_the_moderator_before_owed() -> None:
    play = idle()
    play.say()
    (first,) = play.chat.owed
    play.members("boss", ("web",))
    assert [(owed.who, owed.cause) for owed in play.chat.owed] == [("boss", first.cause)]
    play.late(0)
    play.members("lead", ("web",))
    (again,) = play.chat.owed
    assert again.who == "lead"
    assert again.turn_id != first.turn_id, "that turn has its outcome"


def test_members_do_not_change_while_participants_are_asked() -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES["one"])
    assert not play.chat.between
    play.reply(0, "")
    assert play.chat.between


def test_a_late_reply_leads_to_nothing_and_brings_nobody_back() -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES["one"])
    play.miss(0, "removed")
    play.members("lead", ("api",))
    before = play.chat
    play.late([owed.split(".")[2] for owed in sorted(play.ever)].index("web"))
    assert play.entries[-1].status == "late"
    assert (play.chat.owed, play.chat.participants) == (before.owed, ("api",))
    assert play.chat.talks["web"].begun, "its conversation exists, should it come back"


def test_a_forgotten_conversation_is_another_one_and_the_same_turn() -> None:
    play = idle()
    play.say()
    play.reply(0, "done")
    play.settle()
    play.say()
    before, (first,) = play.chat, play.chat.owed
    play.forget(0)
    (owed,) = play.chat.owed
    assert (owed.who, owed.cause, owed.anew) == (first.who, first.cause, True)
    assert owed.turn_id != first.turn_id
    assert conversation_of(play.chat, "lead") != conversation_of(before, "lead")
    assert play.chat.talks["lead"].heard == 0


def test_an_agent_names_its_conversation() -> None:
    play = idle()
    play.say()
    play.reply(0, "done", 0.0, "thread-1")
    play.settle()
    play.say()
    play.miss(0, "timeout")
    assert play.chat.talks["lead"].id == "thread-1"


@pytest.mark.parametrize(("status", "talk"), [("failed", Talk(1)), ("lost", Talk(0, begun=True))])
def test_a_turn_that_may_not_have_reached_its_agent_has_not_been_heard(status: str, talk: Talk) -> None:
    play = idle()
    play.say()
    play.miss(0, status)
    # One that failed before its conversation held anything begins another one.
    assert play.chat.talks["lead"] == talk


def test_a_message_that_is_logged_twice_is_asked_once() -> None:
    play = idle()
    play.say()
    play.repeat(0)
    play.reply(0, "done")
    play.settle()
    play.repeat(0)
    assert play.chat.state == "idle"


def test_a_prompt_of_the_specs_is_remembered_by_its_id() -> None:
    chat = fold([Entry(1, "user", "specs", text="x", turn_id="prompt-1")], Limits())
    assert chat.prompt == "prompt-1"
    assert after(chat, Entry(2, "user", "ann", text="y", turn_id="7"), Limits()).prompt == "prompt-1"


def test_an_answer_in_bounds_and_amounts_that_are_some() -> None:
    play = idle()
    play.say()
    (owed,) = play.chat.owed
    block = '```route\n{"to": ["all"], "message": "%s"}\n```' % ("x" * 150_000)
    play.members("lead", tuple(f"p{n}" for n in range(50)))
    entry = answered(play.chat, owed, "y" * 5_000_000 + block, {"cost": float("nan"), "a": -1.0, "b": 2.0})
    assert entry.usage == {"b": 2.0}
    assert len(entry.text) < 210_000
    assert len(entry.to_json()) < 3_000_000
    assert len(missed(play.chat, owed, "failed", "z" * 5_000_000, {"cost": float("inf")}).to_json()) < 300_000


def test_what_everybody_reads_is_not_said_to_each_alone_again() -> None:
    play = idle()
    play.say()
    play.reply(0, REPLIES["many"])
    assert play.entries[-1].data["messages"] == {"web": "", "api": ""}
    assert [owed.message for owed in play.chat.owed] == ["", ""]


def test_the_same_turn_has_the_same_id_whoever_works_it_out() -> None:
    chat = Chat(id="0123456789abcdef")
    assert turn_id(chat, "web", 12, 1) == "01234567.000012.web.1"
    assert close(Chat(closing="final", current=3)).data == {"reason": "final", "message": 3}
