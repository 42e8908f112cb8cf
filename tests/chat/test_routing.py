"""Whom a reply goes to: what people and models write, and what somebody writes to stall or to mislead it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.chat.routing import REPLY_LIMIT, Route, mentions, prose, route

NAMES = ("web", "api", "data-base", "a_b", "a-b")


def to(text: str, *names: str) -> tuple[str, ...]:
    found = route(text, names or NAMES, "lead")
    assert not found.trouble, found.trouble
    return tuple(found.messages)


def trouble(text: str) -> str:
    found = route(text, NAMES, "lead")
    assert (found.messages, found.final) == ({}, None)
    return found.trouble


# -- mentions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@web look", ["web"]), ("look, @web", ["web"]), ("@WEB and @Api", ["web", "api"]),
        ("@web, @api; @data-base!", ["web", "api", "data-base"]), ("(@web) [@api]", ["web", "api"]),
        ("@web. @api? @data-base:", ["web", "api", "data-base"]), ("**@web** _@api_ \"@a-b\"", ["web", "api", "a-b"]),
        ("@Data_Base", ["data-base"]), ("@a_b", ["a_b"]), ("@a-b", ["a-b"]), ("@A_B", ["a_b"]),
        ("@web @Web @WEB", ["web"]), ("@web's turn", ["web"]), ("@web…", ["web"]), ("@web—look", ["web"]),
        ("\t@web\n", []), ("- @web\n- @api", ["web", "api"]), ("1. x\n   - @web y", ["web"]),
        ("- x:\n    - @web do\n    - @api do", ["web", "api"]), ("> @web", ["web"]), ("# @web", ["web"]),
        ("@webを見て", ["web"]), ("@web\r\n@api", ["web", "api"]), ("@web-", ["web"]), ("@web_", ["web"]),
        ("@everyone", list(NAMES)), ("@all @web", list(NAMES)), ("@Everybody!", list(NAMES)),
        ("`x` @web `y`", ["web"]), ("```\nx\n```\n@web", ["web"]), ("a ` b\n\n@web ` c", ["web"]),
        ("~~~\n@api\n~~~\n@web", ["web"]), ("x\n\n    code\n\n@web", ["web"]), ("@user see @web", ["web"]),
        ("@@web", []), ("@ web", []), ("@-web", []),
    ],
)  # fmt: skip
def test_who_is_mentioned(text: str, names: list[str]) -> None:
    found = route(text, NAMES, "lead")
    assert list(found.messages) == names
    assert not found.trouble
    assert set(found.messages.values()) <= {text.strip()}


@pytest.mark.parametrize(
    "text",
    [
        "mail ann@web.example", "mail web@api", "ann.@web.de", "x+y@web", "see https://x.example/@web",
        "npm i @web/api", "@web.py and @api.ts", "`@web`", "``a ` @web``", "a `b\n@web` c", "```\n@web\n```",
        "```py\n@web\n",
        "~~~\n@web\n~~~", "````\n```\n@web\n```\n@api\n````", "    @web", "x\n\n\t@web", "  ```\n  @web\n  ```",
        "- x\n\n        @web", "1. x\n   ```\n   @web\n   ```", "foo@web", "a@web@api", "@web@api", "@web@",
        "``` x ` \n@web\n```", "the last\n```", "@lead", "@Lead, @user, @ME and @moderator", "nobody",
    ],
)  # fmt: skip
def test_what_is_no_mention_is_a_final_answer(text: str) -> None:
    if text == "``` x ` \n@web\n```":  # no fence, since it has a backtick behind it: @web is spoken
        assert to(text) == ("web",)
        return
    assert route(text, NAMES, "lead") == Route(final=text.strip())


def test_a_mention_of_somebody_unknown_is_trouble_that_names_who_is_there() -> None:
    said = trouble("@web and @wbe and @nobody")
    assert said == "there is no participant wbe, nobody; there are web, api, data-base, a_b, a-b"
    assert trouble("") == trouble(" \n ") == "the answer is empty"


def test_of_many_unknown_names_some_are_told() -> None:
    said = trouble(" ".join(f"@u{n}" for n in range(500)))
    assert said.startswith("there is no participant u0, u1, u2, u3, u4 and 495 more; ")


def test_a_participant_may_be_called_like_nobody() -> None:
    assert to("@user @all", "user", "all") == ("user", "all")
    assert to("@all", "web", "all") == ("all",)
    assert to("@lead", "lead") == ("lead",)


def test_with_nobody_there_everybody_is_trouble() -> None:
    assert route("@all", (), "lead").trouble
    assert route("fine", (), "lead").final == "fine"


@settings(deadline=None)
@given(st.text(alphabet="@web.-_/ `~\n\tA", max_size=40))
def test_any_text_has_exactly_one_consequence(text: str) -> None:
    found = route(text, ("web", "we"), "lead")
    assert [bool(found.messages), found.final is not None, bool(found.trouble)].count(True) == 1
    assert set(found.messages) <= {"web", "we"}


@settings(deadline=None)
@given(st.text(alphabet="@web `~\n\tx", max_size=60))
def test_what_is_fenced_is_never_read(inside: str) -> None:
    text = f"~~~~~\n{inside.replace('~~~~~', '')}\n~~~~~"
    assert mentions(text) == ()


# -- blocks ------------------------------------------------------------------------------------------------------------


def block(value: object, tag: str = "route", fence: str = "```") -> str:
    return f"{fence}{tag}\n{json.dumps(value)}\n{fence}"


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ({"to": [{"name": "web", "message": "m"}]}, {"web": "m"}),
        ({"to": [{"name": "Web", "message": " m "}, {"name": "@api"}]}, {"web": "m", "api": ""}),
        ({"to": ["web", "data base"], "message": "m"}, {"web": "m", "data-base": "m"}),
        ({"to": "web", "message": "m"}, {"web": "m"}), ({"to": {"web": "m", "api": "n"}}, {"web": "m", "api": "n"}),
        ({"to": {"name": "web", "message": "m"}}, {"web": "m"}), ({"to": ["@web"]}, {"web": ""}),
        ({"to": [{"name": "web", "message": None}], "message": "m"}, {"web": ""}),
        ({"to": [{"name": "web"}, "api"], "message": "m"}, {"web": "m", "api": "m"}),
        ({"to": ["web", "web"], "message": "m"}, {"web": "m"}),
        ({"to": [{"name": "web", "message": "m"}, {"name": "web", "message": "n"}]}, {"web": "m\n\nn"}),
        ({"to": ["all"], "message": "m"}, dict.fromkeys(NAMES, "m")), ({"to": ["a_b"], "final": ""}, {"a_b": ""}),
        ({"to": [{"name": "all", "message": "m"}, {"name": "web", "message": "n"}]},
         {**dict.fromkeys(NAMES, "m"), "web": "m\n\nn"}),
        ({"to": [{"name": "web", "message": "n"}, {"name": "all", "message": "m"}]},
         {**dict.fromkeys(NAMES, "m"), "web": "n\n\nm"}),
    ],
)  # fmt: skip
def test_a_block_delegates(value: object, messages: dict[str, str]) -> None:
    for text in (block(value), f"@api, as I said:\n\n{block(value)}\n", block(value, "json"), block(value, "")):
        found = route(text, NAMES, "lead")
        assert (dict(found.messages), found.trouble) == (messages, "")


@pytest.mark.parametrize("fence", ["```", "````", "~~~", "  ```", "\t~~~~~"])
def test_a_block_has_any_fence(fence: str) -> None:
    assert to(block({"to": ["web"]}, "route", fence)) == ("web",)
    assert to(block({"to": ["web"]}, " Route  x", fence)) == ("web",)
    assert to(block({"to": ["web"]}, "route", fence).replace("\n", "\r\n")) == ("web",)


def test_a_block_may_lack_its_end() -> None:
    assert to('x\n```route\n{"to": ["web"]}\n') == ("web",)
    assert trouble('x\n```route\n{"to": ["web"') == "the block is no JSON object with `to` or `final`"


def test_a_block_can_give_the_final_answer() -> None:
    assert route(block({"final": " done "}), NAMES).final == "done"
    assert route(block({"final": "done", "to": []}), NAMES).final == "done"
    assert route(block({"final": "done", "to": None}) + "\n@web", NAMES).final == "done"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"to": []}, "nobody"), ({"to": {}}, "nobody"), ({"to": [], "final": ""}, "nobody"),
        ({"to": ["web"], "final": "x"}, "both delegates and is final"), ({"final": ""}, "neither"),
        ({"final": 3}, "neither"), ({"to": None}, "neither"), ({"to": 3}, "`to` has to be"),
        ({"to": [3]}, "`to` has to be"), ({"to": [{}]}, "`to` has to be"), ({"to": [["web"]]}, "`to` has to be"),
        ({"to": [{"name": "web", "message": 3}]}, "`to` has to be"), ({"to": ["wbe"]}, "no participant wbe"),
        ({"to": ["web", "wbe"]}, "no participant wbe"), ({"to": [""]}, "without a name"), ({"to": ["lead"]}, "lead"),
        ({"to": ["user"]}, "no participant user"), ([], "no JSON object"), ({}, "no JSON object"), (3, "no JSON"),
        ({"message": "x"}, "no JSON object"),
    ],
)  # fmt: skip
def test_a_block_that_cannot_be_followed_is_trouble(value: object, why: str) -> None:
    assert why in trouble(block(value))


def test_several_blocks_are_followed_together() -> None:
    first, second = block({"to": [{"name": "web", "message": "m"}]}), block({"to": ["api"], "message": "n"})
    assert dict(route(f"{first}\nand\n{second}", NAMES).messages) == {"web": "m", "api": "n"}
    assert "both" in trouble(f"{first}\n{block({'final': 'x'})}")
    assert "no JSON" in trouble(f"{first}\n```route\nweb\n```")


def test_only_what_is_called_a_block_counts_beside_other_json() -> None:
    other = block({"to": "ann@example.com", "final": True}, "json")
    assert to(f"{other}\n{block({'to': ['web']})}") == ("web",)
    assert route(block({"to": ["web"]}, "python"), NAMES).messages == {}
    assert route(block({"id": 3}, "json") + "\nfine", NAMES).final


def test_prose_is_what_is_left_without_the_blocks() -> None:
    code = "```py\nx = 1\n```"
    text = f"Look:\n{code}\n\n{block({'to': ['web']})}\n"
    assert prose(text) == f"Look:\n{code}"
    assert prose(block({"final": "x"})) == ""
    assert prose("a\n```route\nbroken") == "a"
    assert prose("plain") == "plain"


# -- hostile -----------------------------------------------------------------------------------------------------------

SIZE = 5_000_000
HOSTILE = {
    "one run of backticks": "`" * SIZE,
    "fences that nothing closes": "```x\n" * (SIZE // 5),
    "fences of all lengths": "".join("`" * n + "x\n" for n in range(3, 3000)),
    "runs of all lengths": " ".join("`" * n for n in range(1, 3000)),
    "runs in turn": "`a``b" * (SIZE // 5),
    "a name without an end": "@" + "a" * SIZE + ".b",
    "only at": "@" * SIZE,
    "names in one another": "@a" * (SIZE // 2),
    "many mentions": "@web @Web " * (SIZE // 10),
    "many unknown": " ".join(f"@u{n}" for n in range(SIZE // 8)),
    "a name and dots": "@web" + "." * SIZE,
    "spaces": " " * SIZE,
    "lines": "\n" * SIZE,
    "returns": "\r\n" * (SIZE // 2),
    "indented": "    @web\n" * (SIZE // 9),
    "markers": "- " * (SIZE // 2),
    "a deep list": "```route\n" + "[" * SIZE,
    "a deep table": '```route\n{"to":' * (SIZE // 15),
    "a deep value": '```route\n{"to":' + '{"a":' * 30_000 + "\n```",
    "many messages": '```route\n{"to":[' + ",".join(f'{{"name":"web","message":"{n}"}}' for n in range(6000)) + "]}\n",
    "a long name": '```route\n{"to":"' + "_ " * 90_000 + '"}\n```',
    "a long number": '```route\n{"to":' + "9" * 150_000 + "}\n```",
    "many blocks": '```\n{"to":[]}\n```\n' * (SIZE // 18),
}


@pytest.mark.parametrize("text", list(HOSTILE.values()), ids=list(HOSTILE))
def test_no_reply_takes_long(text: str) -> None:
    begun = time.process_time()
    found = route(text, NAMES, "lead")
    assert time.process_time() - begun < 1
    assert len(found.trouble) < 1000
    assert sum(map(len, found.messages.values())) <= len(found.messages) * (REPLY_LIMIT + 100)


@pytest.mark.parametrize("text", [text[:300_000] for text in HOSTILE.values()], ids=list(HOSTILE))
def test_taking_a_reply_apart_takes_time_in_proportion(text: str) -> None:
    begun = time.process_time()
    prose(text)
    mentions(text)
    assert time.process_time() - begun < 2


def test_of_a_very_long_reply_the_beginning_and_the_end_are_read() -> None:
    words = "lorem ipsum\n" * 100_000
    assert to(f"@web\n{words}") == ("web",)
    assert to(f"{words}{block({'to': ['api']})}") == ("api",)
    assert "characters left out" in str(route(words, NAMES).final)
