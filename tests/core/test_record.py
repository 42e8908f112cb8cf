"""The record of a session: what is written is read again; what is strange is refused with ValueError alone."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.record import NUMBERS, VERSION, Record, parse_record
from reconciler.errors import HostError
from reconciler.runtimes.operations import parse_answer

words = st.text(max_size=20)
ids = st.from_regex(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,20}", fullmatch=True)
numbers = st.integers(1 - NUMBERS, NUMBERS - 1)
records = st.builds(
    Record,
    fleet=words, name=st.just("api"), agent=st.sampled_from(["claude-code", "mine"]),
    strategy=st.sampled_from(["tmux", "process"]), digest=words, intent=st.sampled_from(["running", "stopped"]),
    lifecycle=st.sampled_from(["service", "task"]), incarnation=st.integers(0, 99), conversation=st.none() | ids,
    workdir=words, written=st.dictionaries(st.sampled_from(["model", "args", "host.workdir"]), words), prompt=words,
    labels=st.dictionaries(words, words, max_size=3), protected=st.booleans(), protected_by=words,
    protected_at=numbers,
    restarts=st.lists(numbers, max_size=3).map(tuple), at=numbers,
    terminal=st.sampled_from([(), ("/tmp/tmux-1/default", "%3")]),
)  # fmt: skip
PLAIN = Record("default", "api", "claude-code", "tmux", "sha256:0")


@given(records)
def test_what_is_written_is_read_again(record: Record) -> None:
    line = record.to_json()
    assert line.isascii()
    assert "\n" not in line
    assert parse_record(line) == record


def test_a_record_of_an_unknown_version_says_so() -> None:
    with pytest.raises(ValueError, match=f"version 2, this program knows {VERSION}"):
        parse_record(PLAIN.to_json().replace('"version":1', '"version":2'))


def test_keys_of_a_later_minor_version_are_left_alone() -> None:
    assert parse_record(json.dumps({**json.loads(PLAIN.to_json()), "more": [1]})) == PLAIN


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fleet", 5), ("name", "../x"), ("name", "a\nb"), ("agent", "a.b"), ("agent", ""), ("agent", "_shared"),
        ("strategy", "operations"), ("strategy", "scripts"), ("intent", "maybe"), ("lifecycle", ""),
        ("incarnation", True), ("incarnation", "1"), ("conversation", "--dangerously-skip-permissions"),
        ("conversation", ""), ("conversation", "a b"), ("conversation", "a\0b"), ("conversation", "\ud800"),
        ("conversation", 5), ("written", []), ("written", {"env": "x"}), ("written", {"agent.env": [1]}),
        ("labels", {"a": 1}), ("protected", "no"), ("protected_by", True), ("protected_at", "now"),
        ("terminal", "x"), ("terminal", ["/s"]), ("terminal", ["s", "%1"]), ("terminal", ["/s", "-x"]),
        ("terminal", [1, 2]),        ("restarts", 1), ("at", "now"), ("prompt", 1),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError):
        parse_record(json.dumps({**json.loads(PLAIN.to_json()), key: value}))


@pytest.mark.parametrize("key", ["fleet", "name", "agent", "strategy", "digest", "intent", "lifecycle", "version"])
def test_a_record_without_what_it_needs_is_refused(key: str) -> None:
    data = json.loads(PLAIN.to_json())
    del data[key]
    with pytest.raises(ValueError):
        parse_record(json.dumps(data))


def test_a_record_cut_at_any_character_is_refused() -> None:
    line = PLAIN.to_json()
    for length in range(len(line)):
        with pytest.raises(ValueError):
            parse_record(line[:length])


scraps = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


class TestFuzz:
    @given(st.text(max_size=300))
    def test_any_text_is_a_record_or_a_ValueError(self, text: str) -> None:
        with pytest.raises(ValueError):
            parse_record(text)

    def test_deep_nesting_is_refused(self) -> None:
        with pytest.raises(ValueError):
            parse_record("[" * 100_000)

    @given(st.dictionaries(st.sampled_from([f.name for f in fields(Record)]), scraps, max_size=4))
    def test_any_values_in_a_record_are_a_record_or_a_ValueError(self, changes: dict[str, object]) -> None:
        try:
            found = parse_record(json.dumps({**json.loads(PLAIN.to_json()), **changes}))
        except ValueError:
            return
        assert found.to_json().isascii()


class TestAnswers:
    ANSWER = b'noise\nanswer\tn-1\t{"ok":true,"how":"TERM"}\n'

    def test_the_answer_is_found_among_noise(self) -> None:
        assert parse_answer("gpu", "n-1", b"motd\n" + self.ANSWER + b"logout\n") == {"ok": True, "how": "TERM"}

    def test_an_answer_cut_at_any_byte_is_none(self) -> None:
        for length in range(len(self.ANSWER) - 1):
            with pytest.raises(HostError):
                parse_answer("gpu", "n-1", self.ANSWER[:length])

    def test_the_answer_to_another_operation_is_none(self) -> None:
        with pytest.raises(HostError):
            parse_answer("gpu", "n-2", self.ANSWER)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_no_answer(self, data: bytes) -> None:
        with pytest.raises(HostError):
            parse_answer("gpu", "n-1", data)

    @given(st.text(max_size=50))
    def test_any_text_in_place_of_the_json_is_a_table_or_a_HostError(self, text: str) -> None:
        with contextlib.suppress(HostError):
            assert isinstance(parse_answer("gpu", "n-1", f"answer\tn-1\t{text}\n".encode()), dict)

    def test_deep_nesting_is_no_answer(self) -> None:
        with pytest.raises(HostError):
            parse_answer("gpu", "n-1", b"answer\tn-1\t" + b"[" * 50_000 + b"\n")
