"""Relations of copies: for all contents, sizes and clocks, the word is what the bytes say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.transcript import (
    NAME_LIMIT,
    Archived,
    ArchivedFile,
    Followed,
    HostFile,
    Relation,
    file_relation,
    is_due,
    overall,
    safe_name,
    unchanged,
)

BYTES = st.binary(max_size=12) | st.text("ab", max_size=6).map(str.encode)
TIMES = st.sampled_from([-1.0, 0.0, 1.0, 1e9, 4e9])
RELATIONS: Sequence[Relation] = get_args(Relation)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def there(data: bytes, mtime: float = -1.0, size: int = -1) -> ArchivedFile:
    return ArchivedFile("n", len(data), sha(data), "/p", size, mtime)


def here(data: bytes, mtime: float = 5.0, lengths: Sequence[int] | None = None) -> HostFile:
    known = range(len(data) + 1) if lengths is None else lengths
    return HostFile("n", "/p", len(data), mtime, {n: sha(data[:n]) for n in known})


@given(BYTES, BYTES, TIMES, TIMES)
def test_the_relation_is_that_of_the_bytes_whatever_the_clocks_say(
    host: bytes, archive: bytes, mtime: float, then: float
) -> None:
    found = file_relation(here(host, mtime), there(archive, then), sha(archive[: len(host)]))
    if host == archive:
        assert found == "equal"
    elif host.startswith(archive):
        assert found == "host-ahead"
    elif archive.startswith(host):
        assert found == "archive-ahead"
    else:
        assert found == "diverged"


@given(BYTES, BYTES)
def test_without_the_digest_that_matters_nothing_is_concluded(host: bytes, archive: bytes) -> None:
    if host and archive:
        assert file_relation(here(host, lengths=[]), there(archive), sha(archive[: len(host)])) == "unknown"
    if 0 < len(host) < len(archive):
        assert file_relation(here(host), there(archive), None) == "unknown"


@given(BYTES)
def test_what_is_on_one_side_only_is_ahead_there(data: bytes) -> None:
    assert file_relation(here(data), None) == ("host-ahead" if data else "equal")
    assert file_relation(None, there(data)) == ("archive-ahead" if data else "equal")
    assert file_relation(None, None) == "equal"


@given(BYTES, TIMES)
def test_what_is_as_it_was_at_the_last_sync_needs_no_digest(data: bytes, mtime: float) -> None:
    kept = data[: data.rfind(b"\n") + 1] or data
    file = there(kept, mtime, len(data))
    assert unchanged(here(data, mtime), file)
    assert file_relation(here(data, mtime, lengths=[]), file) == "equal"


@given(BYTES, TIMES, TIMES)
def test_another_path_size_or_time_is_a_change(data: bytes, mtime: float, other: float) -> None:
    file = there(data, mtime, len(data))
    assert not unchanged(HostFile("n", "/q", len(data), mtime), file)
    assert not unchanged(here(data + b"x", mtime), file)
    assert unchanged(here(data, other), file) == (mtime == other)


@given(st.lists(st.sampled_from(RELATIONS), max_size=6))
def test_a_conversation_is_as_bad_as_its_worst_file(relations: list[Relation]) -> None:
    found = overall(relations)
    assert overall(reversed(relations)) == found
    assert overall([*relations, *relations, "equal"]) == found
    if "diverged" in relations or ({"host-ahead", "archive-ahead"} <= set(relations) and "unknown" not in relations):
        assert found == "diverged"
    elif "unknown" in relations:
        assert found == "unknown"
    else:
        assert set(relations) <= {found, "equal"}


@given(st.text(max_size=40) | st.text("ab./\\~ -\n\x1b\0", max_size=20))
def test_a_safe_name_stays_below_and_holds_no_control_character(name: str) -> None:
    if safe_name(name):
        parts = name.split("/")
        assert not name.startswith(("/", "-", "~", " "))
        assert not {"", ".", ".."} & set(parts)
        assert name.isprintable()
        assert name.isascii()


def test_names_of_real_stores_are_safe_and_hostile_ones_are_not() -> None:
    for name in ("main.jsonl", "a/subagents/agent-1.meta.json", "rollout-2026-11-21T01-02-05-01a1.jsonl", "export.1"):
        assert safe_name(name), name
    for name in ("", "..", "a/..", "../a", "/a", "a//b", "a/", ".", "a\n", "a\0", "-a", "a/-b", "x" * (NAME_LIMIT + 1)):
        assert not safe_name(name), name


def test_an_archive_of_nothing_but_empty_files_has_nothing_to_resume_from() -> None:
    assert Archived("s", "c", "a", "h", 0.0).empty
    assert Archived("s", "c", "a", "h", 0.0, {"n": there(b"")}).empty
    assert not Archived("s", "c", "a", "h", 0.0, {"n": there(b"x")}).empty


def test_a_followed_conversation_is_copied_after_each_turn_and_every_interval_while_it_works() -> None:
    last = Followed(size=100, at=1000.0)
    assert is_due(None, 0, busy=True, interval=30, now=0)
    assert is_due(last, 101, busy=False, interval=30, now=1001)
    assert not is_due(last, 101, busy=True, interval=30, now=1029)
    assert is_due(last, 101, busy=True, interval=30, now=1030)
    assert not is_due(last, 100, busy=False, interval=30, now=9999)
