"""What the benchmarks say of their figures: which got worse than recorded, which gates hold, in which order."""

from __future__ import annotations

from benchmarks.figure import Figure, Sample, against
from benchmarks.report import as_json, markdown, ordered, table, worse


def figure(name: str, ratio: float, target: str = "", spread: float = 0.0) -> Figure:
    return Figure(name, ratio, 1.0, 2.0, target=target, spread=spread)


def test_what_is_a_fifth_above_what_was_recorded_is_named() -> None:
    before = {"a": {"ratio": 1.0, "spread": 0.0}, "b": {"ratio": 1.0, "spread": 0.0}}
    lines = worse([figure("a", 1.19), figure("b", 1.21)], before)
    assert [line.partition(":")[0] for line in lines] == ["b"]


def test_what_varied_by_more_when_it_was_recorded_may_vary_as_much() -> None:
    before = {"a": {"ratio": 1.0, "spread": 0.5}}
    assert worse([figure("a", 1.4)], before) == []
    assert len(worse([figure("a", 1.6)], before)) == 1


def test_a_figure_that_was_never_recorded_is_not_worse() -> None:
    assert worse([figure("new", 100.0)], {}) == []


def test_targets_come_in_their_order_and_what_has_none_at_the_end() -> None:
    found = ordered([figure("x", 1), figure("ten", 1, "G10"), figure("two", 1, "G2")])
    assert [one.target for one in found] == ["G2", "G10", ""]


def test_a_gate_that_is_missed_is_said_with_how_much_it_is_missed_by() -> None:
    assert figure("a", 1.9).verdict == "ok"
    assert figure("a", 3.0).verdict == "MISSED by 1.5x"
    assert "MISSED by 1.5x" in table([figure("a", 3.0)])
    assert '"met": false' in as_json(figure("a", 3.0))


def test_samples_become_medians_with_the_spread_of_their_pairs() -> None:
    made = against("a", [Sample(1.0), Sample(2.0), Sample(3.0)], [Sample(1.0)] * 3, 2.0)
    assert (made.ratio, made.spread) == (2.0, 0.5)


def test_the_document_has_a_row_and_a_note_for_each_figure() -> None:
    text = markdown([figure("a thing", 1.0, "G3")], [], {"date": "today"})
    assert "| G3 | a thing |" in text
    assert "- **a thing**" in text
    assert "1 of 1 gates" in text


def test_a_disturbed_record_does_not_excuse_whatever_comes_later() -> None:
    before = {"a": {"ratio": 1.0, "spread": 9.0}}
    assert len(worse([figure("a", 1.6)], before)) == 1
