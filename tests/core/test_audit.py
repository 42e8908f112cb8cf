"""The chain of the audit log: whatever is changed, taken out, put in or moved is found, and said where."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.audit import (
    FIELDS,
    GENESIS,
    Check,
    Entry,
    Kept,
    entry_of,
    exported,
    imported,
    link,
    verify,
)
from reconciler.errors import ReconcilerError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
KINDS = st.sampled_from(["intent", "outcome", "settled", "approval", "suspend"])


def chained(entries: Iterable[Entry]) -> list[Entry]:
    """The same with numbers and hashes as a writer gives them."""
    done: list[Entry] = []
    previous = GENESIS
    for number, entry in enumerate(entries, 1):
        numbered = replace(entry, seq=number, hash="")
        previous = link(previous, numbered)
        done.append(replace(numbered, hash=previous))
    return done


ENTRIES = st.builds(
    Entry, seq=st.just(0), at=TEXT.filter(bool), kind=KINDS, address=TEXT, host=TEXT, verb=TEXT, revision=TEXT,
    evidence=TEXT, user=TEXT, op=TEXT, fence=st.integers(0, 2**62), outcome=TEXT, message=TEXT, run=TEXT,
)  # fmt: skip
CHAINS = st.lists(ENTRIES, min_size=2, max_size=8).map(chained)


@given(CHAINS)
def test_a_chain_holds_as_it_was_written_also_through_an_export(chain: list[Entry]) -> None:
    verdict = verify(chain)
    assert (verdict.broken, verdict.count, verdict.head) == ((), len(chain), chain[-1].hash)
    check, previous = Check(), GENESIS
    for entry in chain:
        line = exported(previous, entry)
        assert imported(line) == (previous, entry)
        assert check.take(imported(line)[1], previous)
        previous = entry.hash


@given(CHAINS, st.data())
def test_a_change_of_any_field_of_any_entry_is_found_at_that_entry(chain: list[Entry], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(chain) - 1))
    name = data.draw(st.sampled_from(FIELDS))
    old = getattr(chain[at], name)
    new = data.draw((st.integers(0, 2**62) if isinstance(old, int) else TEXT).filter(lambda value: value != old))
    changed: dict[str, Any] = {name: new}
    verdict = verify([*chain[:at], replace(chain[at], **changed), *chain[at + 1 :]])
    found = chain[at].seq if name != "seq" else new
    assert [number for number, _ in verdict.broken] == [found]
    assert verdict.count == at


@given(CHAINS, st.data())
def test_what_is_taken_out_in_the_middle_or_at_the_beginning_is_found(chain: list[Entry], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(chain) - 2))
    assert verify([*chain[:at], *chain[at + 1 :]]).broken
    renumbered = [replace(entry, seq=number) for number, entry in enumerate([*chain[:at], *chain[at + 1 :]], 1)]
    assert verify(renumbered).broken


@given(CHAINS, st.data())
def test_two_that_changed_places_are_found_also_with_their_numbers_changed(
    chain: list[Entry], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(chain) - 2))
    second = data.draw(st.integers(first + 1, len(chain) - 1))
    swapped = list(chain)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert verify(swapped).broken
    if replace(swapped[first], seq=0, hash="") != replace(swapped[second], seq=0, hash=""):
        assert verify(replace(entry, seq=number) for number, entry in enumerate(swapped, 1)).broken


@given(CHAINS, ENTRIES, st.data())
def test_what_was_put_in_is_found(chain: list[Entry], more: Entry, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(chain) - 1))
    forged = replace(more, seq=at + 1, hash="")
    forged = replace(forged, hash=link(chain[at - 1].hash if at else GENESIS, forged))
    rest = [replace(entry, seq=entry.seq + 1) for entry in chain[at:]]
    assert verify([*chain[:at], forged, *rest]).broken


@given(CHAINS, st.data())
def test_an_end_that_was_cut_off_or_a_chain_made_anew_shows_against_a_head_that_was_kept(
    chain: list[Entry], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(chain) - 1))
    head = chain[-1].hash
    assert not verify(chain[:cut]).broken, "by itself a shorter chain is whole"
    assert verify(chain[:cut], head).broken
    anew = chained([replace(chain[0], message=chain[0].message + "!"), *chain[1:]])
    assert not verify(anew).broken
    assert verify(anew, head).broken


@given(CHAINS, st.data())
def test_a_head_that_was_kept_holds_when_more_came_and_says_how_much(chain: list[Entry], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(chain) - 1))
    verdict = verify(chain, chain[at].hash)
    assert (verdict.broken, verdict.after_head) == ((), len(chain) - 1 - at)


def kept(entry: Entry, **values: object) -> Kept:
    row = Kept(entry.op, entry.at, entry.address, entry.host, entry.verb, entry.precondition, entry.revision,
               entry.fence, None, "")  # fmt: skip
    return replace(row, **values)  # type: ignore[arg-type]


BEGUN = Entry(0, "2026-11-21T12:00:00Z", "intent", "session.a", "gpu", "start", op="one", fence=3)
DONE = Entry(0, "2026-11-21T12:00:01Z", "outcome", "session.a", "gpu", "start", op="one", fence=3, outcome="done")


def compared(rows: list[Kept], *entries: Entry, since: str = "") -> list[str]:
    check = Check()
    assert all(check.take(entry) for entry in chained(entries))
    check.compare(rows, since)
    return [message for _, message in check.broken]


def test_the_table_of_intents_agrees_with_what_was_begun_ended_and_begun_again() -> None:
    assert compared([kept(BEGUN)], BEGUN) == []
    assert compared([kept(BEGUN, outcome="done")], BEGUN, DONE) == []
    again = replace(BEGUN, at="2026-11-21T12:00:02Z", fence=4)
    assert compared([kept(BEGUN, fence=4)], BEGUN, DONE, again) == []
    found = replace(BEGUN, kind="found", at="2026-11-30T00:00:00Z", outcome="failed", message="why")
    assert compared([kept(BEGUN, outcome="failed", message="why")], found) == []


def test_an_intent_without_an_entry_and_an_entry_without_an_intent_are_named() -> None:
    (message,) = compared([kept(BEGUN)])
    assert message == "the intent one (start session.a on gpu) is in the journal, and no entry tells of it"
    (message,) = compared([], BEGUN)
    assert message.endswith("has an entry, and is not in the journal any more")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"host": "b"}, "its host is 'gpu' in the chain and 'b' in the journal"), ({"fence": 9}, "its fence is 3 in"),
     ({"at": "2026"}, "its at is"), ({"outcome": None}, "its outcome is 'done' in the chain and None in the journal"),
     ({"message": "x"}, "its message is '' in")],
)  # fmt: skip
def test_what_differs_between_the_table_and_the_chain_is_named(changes: dict[str, object], said: str) -> None:
    (message,) = compared([kept(BEGUN, **{"outcome": "done", **changes})], BEGUN, DONE)
    assert said in message


def test_a_part_is_compared_only_with_what_was_begun_in_it() -> None:
    assert compared([kept(BEGUN, outcome="done")], DONE, since="2026-11-21T12:00:01Z") == []
    assert compared([kept(BEGUN, op="two")], DONE, since="2026-11-21T12:00:01Z") == []
    assert compared([kept(BEGUN, op="two")], DONE, since="2026-11-21T12:00:00Z") != []


@pytest.mark.parametrize(
    "values",
    [{}, {"seq": 1}, {"seq": 1, "at": "x", "kind": "intent"}, {"seq": True, "at": "x", "kind": "k", "hash": "h"},
     {"seq": 1, "at": "x", "kind": "k", "hash": "h", "fence": "3"},
     {"seq": 1, "at": "x", "kind": "k", "hash": "h", "fence": 3.0},
     {"seq": 1, "at": "x", "kind": "k", "hash": "h", "message": None},
     {"seq": 1, "at": "x", "kind": "k", "hash": "h", "more": "unhashed"}],
)  # fmt: skip
def test_what_no_writer_writes_is_no_entry(values: dict[str, object]) -> None:
    with pytest.raises(ReconcilerError) as caught:
        entry_of(values)
    assert caught.value.code == "audit-entry"


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_a_line_that_is_none_of_an_export_is_refused(line: str) -> None:
    with pytest.raises(ReconcilerError):
        imported(line)


def test_the_hash_of_an_entry_stays_what_it_is() -> None:
    """A log that was written once has to hold for ever."""
    entry = Entry(1, "2026-11-21T12:00:00.000000Z", "intent", "session.ä", "gpu", "start", op="x", fence=3, message="m")
    assert link(GENESIS, entry) == "ce6dfd8c774189d141a98a2800dba8b9087f9b3dfe1ed8167aaa7462ff3aecaa"
