"""What somebody is told for a turn: all that is new to them, once, and nothing that is not for them yet."""

from __future__ import annotations

from dataclasses import replace

from reconciler.chat.prompts import ALL_LIMIT, ONE_LIMIT, Scene, compose
from reconciler.chat.turns import Limits
from tests.chat.driver import Play

SCENE = Scene("review", "Review what {is} there.", {"web": "the web front", "api": ""}, max_rounds=3)


def begun(*messages: str) -> Play:
    play = Play()
    play.open()
    for _ in messages or ("",):
        play.say()
    return play


def prompts(play: Play) -> list[str]:
    return [compose(SCENE, play.chat, play.entries, owed) for owed in play.chat.owed]


def test_a_moderator_is_told_the_purpose_the_participants_and_the_message() -> None:
    assert prompts(begun()) == ["""\
You moderate the group chat `review`. Its purpose: Review what {is} there.

The participants, each an agent in its own workspace:
- web: the web front
- api

You cannot change files yourself. To ask participants, end your answer with a block like this one, and \
nothing behind it:

```route
{"to": [{"name": "web", "message": "what you want of web"}]}
```

Everyone you name is asked at the same time; their answers come back to you. When you have what you need, give the \
final answer to the user, without such a block or with {"final": "..."} in it.

The chat so far:

[lead]
<<m0>>

Delegate, or answer.
"""]  # fmt: skip


def test_participants_are_told_what_is_said_to_all_and_to_each_alone() -> None:
    play = begun()
    play.members("lead", ("web", "api", "db"))
    play.reply(
        0, 'Look.\n```route\n{"to": [{"name": "web", "message": "left"}, {"name": "db", "message": "right"}]}\n```'
    )
    assert (
        prompts(play)[0]
        == """\
You are `web` in the group chat `review`, which `lead` moderates. With you: api, db. Answer what you are asked; your \
answer goes back to the chat as it is.

The chat so far:

[lead]
<<m0>>

[members]

[lead to web, db]
Look.
(to db) right

[lead to you]
left
"""
    )


def test_who_is_only_mentioned_reads_the_reply_itself() -> None:
    play = begun()
    play.reply(0, "@web, the left side, please")
    (told,) = prompts(play)
    assert told.count("the left side") == 1
    assert told.endswith("[lead to web]\n@web, the left side, please\n\nYour turn.\n")


def test_a_message_to_one_alone_is_told_once() -> None:
    play = begun()
    play.reply(0, '```route\n{"to": [{"name": "web", "message": "the left side"}]}\n```')
    (told,) = prompts(play)
    assert told.count("the left side") == 1
    assert "[lead to web]" not in told


def test_the_replies_come_back_and_what_was_told_is_not_told_again() -> None:
    play = begun()
    play.reply(0, "@web @api look")
    play.reply(0, "")
    play.miss(0, "timeout")
    (told,) = prompts(play)
    assert (
        told
        == """\
New in the chat:

[web]
(01234567.000003.web.1)

[api gave no answer: timeout. no reason]

Delegate again, or give the final answer.
"""
    )


def test_in_the_last_round_a_moderator_is_told_so() -> None:
    play = begun()
    for _ in range(2):
        play.reply(0, "@web look")
        play.reply(0, "")
    assert prompts(play)[0].endswith("Give the final answer now.\n")


def test_what_could_not_be_followed_is_told_with_the_reason() -> None:
    play = begun()
    play.reply(0, "@wbe look")
    assert prompts(play) == [
        "Your last answer could not be followed: there is no participant wbe; there are web, api. "
        "Delegate again, or give the final answer.\n"
    ]


def test_a_message_that_waits_is_told_when_its_turn_comes_and_only_then() -> None:
    play = begun("one")
    play.reply(0, "@web look")
    play.say()
    play.reply(0, "")
    assert "<<m1>>" not in prompts(play)[0]
    play.reply(0, "done")
    play.settle()
    assert prompts(play) == ["New in the chat:\n\n[lead]\n<<m1>>\n\nDelegate again, or give the final answer.\n"]


def test_a_turn_that_failed_is_told_again_in_whole() -> None:
    play = begun()
    before = prompts(play)
    play.miss(0, "failed")
    assert prompts(play) == before


def test_a_conversation_that_was_forgotten_is_told_everything_again() -> None:
    play = begun()
    play.reply(0, "@web look")
    play.reply(0, "")
    play.forget(0)
    (told,) = prompts(play)
    assert told.startswith("You moderate the group chat `review`.")
    assert all(part in told for part in ("<<m0>>", "(01234567.000003.web.1)"))


def test_a_late_reply_is_told_to_nobody() -> None:
    play = begun()
    play.reply(0, "@web look")
    play.miss(0, "removed")
    play.late([identity.split(".")[2] for identity in sorted(play.ever - {play.chat.owed[0].turn_id})].index("web"))
    play.miss(0, "failed")
    assert "too late" not in prompts(play)[0]


def test_who_joins_later_is_told_from_the_beginning() -> None:
    play = begun()
    play.reply(0, "@web look")
    play.reply(0, "")
    play.members("lead", ("web", "db"))
    play.reply(0, "@db look")
    (told,) = prompts(play)
    assert told.startswith("You are `db`")
    assert all(part in told for part in ("<<m0>>", "[web]", "@db look"))


def test_what_is_told_has_bounds_and_the_newest_is_kept() -> None:
    play = begun()
    play.limits = Limits(max_rounds=20)
    for turn in range(8):
        play.members("lead", ("web", "api"))
        play.reply(0, f"@web {turn} " + "x" * 30_000)
        play.reply(0, "")
    play.reply(0, "@api last")
    (told,) = prompts(play)
    assert len(told) < ALL_LIMIT + ONE_LIMIT
    assert "<<m0>>" in told
    assert "[older contributions are left out]" in told
    assert "@api last" in told
    assert "characters left out" in told


def test_who_forgot_the_conversation_is_told_all_of_it_its_own_words_too() -> None:
    play = begun()
    play.reply(0, '```route\n{"to": [{"name": "web", "message": "left"}, {"name": "api", "message": "right"}]}\n```')
    play.reply(0, "")
    play.reply(0, "")
    play.reply(0, "@web and now?")
    own = "(01234567.000003.web.1)"
    assert own not in prompts(play)[0]
    play.forget(0)
    (told,) = prompts(play)
    assert told.startswith("You are `web` in the group chat `review`")
    assert f"(to web) left\n(to api) right\n\n[web]\n{own}\n\n[api]\n" in told
    assert told.count("<<m0>>") == told.count(own) == 1
    play.reply(0, "")
    play.forget(0)
    (told,) = prompts(play)
    assert told.startswith("You moderate the group chat `review`")
    places = [told.index("(to web) left"), told.index(own), told.index("@web and now?"), told.rindex("[web]\n")]
    assert places == sorted(places)


def test_who_begins_each_turn_anew_is_told_all_each_time() -> None:
    play = begun()
    play.reply(0, "@web what of it?")
    play.reply(0, "it is so")
    play.reply(0, "@web and that?")
    (owed,) = play.chat.owed
    remembered = compose(SCENE, play.chat, play.entries, owed)
    anew = compose(replace(SCENE, forgetful=frozenset({"web"})), play.chat, play.entries, owed)
    assert "what of it?" not in remembered
    assert anew.startswith("You are `web` in the group chat")
    assert all(words in anew for words in ("what of it?", "[web]\n", "and that?"))
