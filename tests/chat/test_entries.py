"""The lines of a log: what is written comes back, and what anybody else writes there is refused in words."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.chat.entries import EVENTS, OUTCOMES, Entry, Kind, parse_entry

text = st.text(max_size=20)
numbers = st.floats(-1e15, 1e15) | st.integers(-(10**15), 10**15)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8,
)  # fmt: skip
FINITE = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8,
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(get_args(Kind)))
    return Entry(
        draw(st.integers(0, 10**15)), kind, draw(text), tuple(draw(st.lists(text, max_size=3))), draw(text),
        draw(st.sampled_from(EVENTS if kind == "system" else OUTCOMES)), draw(text), draw(st.integers(0, 99)),
        draw(numbers), draw(st.dictionaries(text, numbers, max_size=3)),
        draw(st.dictionaries(text, FINITE, max_size=3)),
    )  # fmt: skip


@settings(deadline=None)
@given(entries())
def test_an_entry_comes_back_as_it_was_in_one_line(entry: Entry) -> None:
    line = entry.to_json()
    assert "\n" not in line
    assert "\r" not in line
    assert parse_entry(line) == entry


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_any_text_comes_back(said: str) -> None:
    entry = Entry(1, "participant", "web", text=said)
    assert parse_entry(entry.to_json()) == entry


def test_its_keys_have_an_order_and_what_is_empty_is_left_out() -> None:
    entry = Entry(3, "moderator", "lead", ("web",), "go", "ok", "t.3", 2, 1.5, {"cost": 0.5}, {"messages": {"web": ""}})
    assert entry.to_json() == (
        '{"seq":3,"turn_id":"t.3","round":2,"at":1.5,"from":"lead","to":["web"],"kind":"moderator","text":"go",'
        '"status":"ok","usage":{"cost":0.5},"data":{"messages":{"web":""}}}'
    )
    assert Entry(1, "user", "").to_json() == (
        '{"seq":1,"round":0,"at":0.0,"from":"","to":[],"kind":"user","text":"","status":"ok"}'
    )


@settings(deadline=None)
@given(st.text() | JSON.map(json.dumps))
def test_a_line_is_read_or_refused_with_a_value_error(line: str) -> None:
    with contextlib.suppress(ValueError):
        parse_entry(line)


@settings(deadline=None)
@given(entries(), st.sampled_from(["seq", "turn_id", "round", "at", "from", "to", "kind", "text", "status", "usage",
                                   "data", "more"]), JSON)  # fmt: skip
def test_one_odd_value_is_read_or_refused(entry: Entry, key: str, value: Any) -> None:
    line = json.dumps({**json.loads(entry.to_json()), key: value})
    try:
        found = parse_entry(line)
    except ValueError:
        return
    assert parse_entry(found.to_json()) == found
    assert isinstance(found.cost + found.seq + found.round + found.at, int | float)
    hash((found.turn_id, found.to, found.sender))


GOOD = {"seq": 1, "from": "a", "kind": "user"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seq": True}, "a number"), ({"seq": -1}, "a number"), ({"seq": "1"}, "a number"), ({"seq": 1.0}, "a number"),
        ({"round": None}, "a number"), ({"at": "now"}, "no time"), ({"at": False}, "no time"), ({"at": 1e300}, "time"),
        ({"at": float("nan")}, "no time"), ({"at": float("inf")}, "no time"), ({"to": "a"}, "`to` is no list"),
        ({"to": [1]}, "a text"), ({"to": [["a"]]}, "a text"), ({"from": None}, "a text"), ({"text": 1}, "a text"),
        ({"kind": "root"}, "known word"), ({"kind": ["user"]}, "known word"), ({"status": "idle"}, "known word"),
        ({"kind": "system", "status": "ok"}, "known word"), ({"usage": {"cost": "1"}}, "no number"),
        ({"usage": {"cost": True}}, "no number"), ({"usage": {"cost": float("nan")}}, "no number"),
        ({"usage": {"cost": 10**400}}, "no number"), ({"usage": []}, "no table"), ({"data": "x"}, "no table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(changes: dict[str, Any], why: str) -> None:
    assert parse_entry(json.dumps(GOOD)) == Entry(1, "user", "a")
    with pytest.raises(ValueError, match=why):
        parse_entry(json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", "1", '"x"', "{}", '{"from":"a"}', '{"seq":1,"from":"a"}', "[" * 100_000,
     '{"from":' * 50_000, '{"seq":%s,"from":"a","kind":"user"}' % ("9" * 5000), "\x00", "\ufeff{}"],
)  # fmt: skip
def test_what_is_no_entry_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse_entry(line)


def test_what_is_a_contribution() -> None:
    assert Entry(1, "user", "ann").said
    assert Entry(1, "participant", "web").said
    assert Entry(1, "moderator", "lead", status="unclear").said
    assert not Entry(1, "participant", "web", status="late").said
    assert not Entry(1, "participant", "web", status="timeout").said
    assert not Entry(1, "system", "chat", status="idle").said


def test_a_cost_is_never_negative() -> None:
    assert replace(Entry(1, "user", "a"), usage={"cost": -3.0}).cost == 0.0
    assert replace(Entry(1, "user", "a"), usage={"cost": 3.0}).cost == 3.0
