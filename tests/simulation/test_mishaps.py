"""The language in which people say what goes wrong: what it means, and where it makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.diagnostics import Diagnostic
from reconciler.simulation.mishaps import EVER, KINDS, NAMES, FaultsError, Mishap, Stage, parse_mishaps

STAGE = Stage(("gpu", "build"), {"db": "gpu", "api": "build"}, 1800.0, seed=3)
HOSTILE = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from((*NAMES, "at", "for", "by", "seed", "count", "gpu", "db", "5m", "ever", ";", "\n", "#")))
    .map(" ".join),
)  # fmt: skip


def wrong(text: str) -> list[Diagnostic]:
    with pytest.raises(FaultsError) as caught:
        parse_mishaps(text, STAGE)
    assert caught.value.exit_code == 64
    return [found for found in caught.value.diagnostics if isinstance(found, Diagnostic)]


def test_a_fault_has_a_kind_a_target_a_time_and_a_duration() -> None:
    [cut] = parse_mishaps("power-cut gpu at 5m for 15m", STAGE)
    assert cut == Mishap(300.0, "power-cut", "gpu", 900.0)
    assert cut.end == 1200.0


def test_what_is_not_said_has_a_usual_value() -> None:
    reboot, killed, jump = parse_mishaps("reboot gpu; kill-agent db; clock-jump build", STAGE)
    assert (reboot.at, reboot.lasts) == (300.0, 60.0)
    assert killed.lasts is None
    assert (jump.lasts, jump.by) == (EVER, 3600.0)


def test_faults_come_in_the_order_of_time_whatever_the_order_of_words() -> None:
    text = "# first\nslow gpu for 1m at 9m; kill-agent session.db at 1m # here\n\ncable host.build at 3m for ever"
    assert [(m.kind, m.target, m.at) for m in parse_mishaps(text, STAGE)] == [
        ("kill-agent", "db", 60.0), ("cable", "build", 180.0), ("slow", "gpu", 540.0),
    ]  # fmt: skip


def test_all_is_every_host_or_every_session() -> None:
    assert [m.target for m in parse_mishaps("reboot all; kill-agent all", STAGE)] == ["gpu", "build", "db", "api"]


def test_a_clock_jumps_to_and_fro() -> None:
    assert [m.by for m in parse_mishaps("clock-jump gpu by -2h; clock-jump gpu by +90s", STAGE)] == [-7200.0, 90.0]


def test_random_faults_are_those_of_their_seed() -> None:
    one, again = (parse_mishaps("random seed 7 count 40", STAGE) for _ in range(2))
    assert one == again
    assert len(one) == 40
    assert one != parse_mishaps("random seed 8 count 40", STAGE)
    assert parse_mishaps("random count 9", STAGE) == parse_mishaps("random seed 3 count 9", STAGE)


def test_random_faults_end_before_the_end_of_what_is_watched() -> None:
    found = parse_mishaps("random count 1000", STAGE)
    assert {m.kind for m in found} == set(KINDS)
    assert max(m.end for m in found if m.lasts != EVER) <= STAGE.seconds


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("power-cut gpv", (1, 11), "no host `gpv`; did you mean `gpu`?"),
        ("slow gpu;\n  kil-agent db", (2, 3), "did you mean `kill-agent`?"),
        ("reboot", (1, 1), "needs a host"),
        ("kill-agent gpu", (1, 12), "no session `gpu`"),
        ("slow gpu at soon", (1, 13), "no duration"),
        ("slow gpu at", (1, 10), "nothing follows"),
        ("slow gpu at 1m at 2m", (1, 16), "twice"),
        ("slow gpu build", (1, 10), "one word too many"),
        ("slow gpu by 1h", (1, 10), "takes no `by`"),
        ("kill-agent db for 1m", (1, 19), "over at once"),
        ("kill-controller gpu", (1, 17), "takes no target"),
        ("slow gpu at 45m", (1, 13), "after the end, at 30m"),
        ("random count many", (1, 14), "no number"),
        ("random count 1001", (1, 14), "at most"),
    ],
)
def test_what_makes_no_sense_is_shown_where_it_stands(text: str, place: tuple[int, int], words: str) -> None:
    [found] = wrong(text)
    assert (found.line, found.column) == place
    assert words in found.summary


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert len(wrong("slow gpv; slow bild; reboot gpu; what")) == 3


@given(HOSTILE)
def test_whatever_is_written_means_something_or_is_refused(text: str) -> None:
    found: tuple[Mishap, ...] = ()
    said: tuple[object, ...] = ("",)
    try:
        found = parse_mishaps(text, STAGE)
    except FaultsError as error:
        said = error.diagnostics
        assert all(isinstance(d, Diagnostic) and d.line and str(d) for d in said)
    assert said
    assert all(0 <= m.at < STAGE.seconds and m.kind in KINDS for m in found)


@given(st.integers(0, 10**6))
def test_what_a_fault_says_of_itself_is_read_again_as_the_same_fault(seed: int) -> None:
    found = parse_mishaps(f"random seed {seed} count 5", STAGE)
    assert parse_mishaps("; ".join(map(str, found)), STAGE) == found
