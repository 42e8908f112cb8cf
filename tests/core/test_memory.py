"""The loop's memory: back-off, stalls, and what lifts them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.memory import CAP, TERMINAL, Memory, back_off
from reconciler.core.report import Outcome

DICE = st.floats(0, 1, exclude_max=True)


def outcome(status: str, code: str = "not-ready", address: str = "session.a") -> Outcome:
    return Outcome(address, "h", "start", status, 1.0, code, "it did not come up", "reconciler logs a")  # type: ignore[arg-type]


def test_what_failed_waits_and_is_tried_again() -> None:
    memory = Memory().told([outcome("failed")], 100.0, 0.5)
    assert memory.hold(100.5)["session.a"].message == "failed once, again in 0 s: it did not come up"
    assert memory.next(100.5) == 101.0
    assert memory.hold(101.0) == {}


def test_what_succeeded_has_no_past() -> None:
    failed = Memory().told([outcome("failed")] * 7, 100.0, 0.9)
    assert failed.attempts["session.a"].failures == 7
    assert failed.told([outcome("done")], 200.0, 0.9) == Memory()


def test_a_terminal_error_waits_for_a_change_and_for_nothing_else() -> None:
    for code in TERMINAL:
        memory = Memory().told([outcome("failed", code)], 0.0, 0.5)
        assert memory.hold(1e9)["session.a"].reason == "stalled"
        assert memory.next(0.0) is None
        assert memory.forget(["session.a"]).hold(0.0) == {}


def test_what_was_not_tried_is_no_failure() -> None:
    told = [outcome("failed", "withdrawn"), outcome("failed", "stale"), outcome("skipped", "dependency")]
    assert Memory().told(told, 0.0, 0.5) == Memory()


def test_what_left_the_fleet_is_not_remembered() -> None:
    memory = Memory().told([outcome("failed"), outcome("failed", address="session.b")], 0.0, 0.5)
    assert set(memory.only(["session.b"]).attempts) == {"session.b"}


@given(st.integers(1, 10_000), DICE)
def test_the_back_off_doubles_up_to_ten_minutes(failures: int, dice: float) -> None:
    assert 0 <= back_off(failures, dice) <= CAP
    assert back_off(failures, dice) <= back_off(failures + 1, dice)
    assert back_off(1, dice) <= 2.0


@given(st.lists(st.tuples(st.sampled_from(["done", "failed", "unknown", "skipped"]), DICE, st.floats(0, 1e6))))
def test_whatever_happens_what_waits_is_tried_again_within_ten_minutes(
    story: list[tuple[str, float, float]],
) -> None:
    memory = Memory()
    for status, dice, now in sorted(story, key=lambda moment: moment[2]):
        memory = memory.told([outcome(status)], now, dice)
        assert memory.hold(now + CAP) == {}
        again = memory.next(now)
        assert again is None or now < again <= now + CAP
