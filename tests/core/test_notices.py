"""What people are told: each trouble once, when it has lasted, and its end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.notices import LOOPING, Notice, Told, message, noticed, resumed, wanted
from reconciler.core.parse import parse
from reconciler.core.status import Condition, Status, source_status

AFTER = 300.0
NOW = 1_800_000_000.0
IDLE = Status("session.api", "gpu", "idle", (Condition("Ready", "True", "unchanged"),), {"activity": "idle", "age": 5})
WAITS = replace(IDLE, phase="waiting", seen={"activity": "waiting", "age": 301, "waiting_for": "permission: rm -rf"})
STALLED = replace(IDLE, phase="blocked", conditions=(
    Condition("Ready", "False", "stalled"), Condition("Stalled", "True", "stalled", "failed 5 times", NOW),
))  # fmt: skip
UNKNOWN = replace(IDLE, phase="unknown", conditions=(Condition("Ready", "Unknown", "unreachable"),), seen={})
SILENT = Status("host.gpu", "gpu", "unknown", (
    Condition("Ready", "Unknown", "timeout"), Condition("Reachable", "Unknown", "timeout", "no answer", NOW - 400),
))  # fmt: skip
BACK = Status(
    "host.gpu", "gpu", "ready", (Condition("Ready", "True", "Reached"), Condition("Reachable", "True", "Reached"))
)


class Trouble:
    code = "invalid"
    message = "fleet.toml:3: no TOML"


def kinds(*rounds: list[Status], failures: dict[str, int] | None = None) -> list[list[str]]:
    told = Told()
    found: list[list[str]] = []
    for statuses in rounds:
        told, notices = noticed(told, statuses, failures or {}, NOW, AFTER)
        told = Told.from_json(told.to_json())
        found.append([notice.kind for notice in notices])
    return found


def test_a_trouble_is_told_once_and_its_end_once() -> None:
    assert kinds([IDLE], [STALLED], [STALLED], [STALLED], [IDLE], [IDLE]) == [
        [], ["crash-looping"], [], [], ["healed"], [],
    ]  # fmt: skip


def test_who_waits_for_a_person_is_told_of_after_a_while_and_an_answer_needs_no_message() -> None:
    brief = replace(WAITS, seen={**WAITS.seen, "age": 299})
    assert kinds([brief], [WAITS], [WAITS], [IDLE], [WAITS]) == [[], ["waiting"], [], [], ["waiting"]]


def test_a_host_that_is_silent_for_a_moment_is_nobodys_business() -> None:
    brief = replace(SILENT, conditions=(replace(SILENT.conditions[1], since=NOW - 10),))
    assert kinds([brief], [SILENT], [SILENT], [BACK]) == [[], ["unreachable"], [], ["healed"]]


def test_what_nobody_can_see_is_neither_told_again_nor_over() -> None:
    assert kinds([STALLED], [UNKNOWN], [STALLED], [UNKNOWN], [IDLE]) == [["crash-looping"], [], [], [], ["healed"]]


def test_what_has_left_the_fleet_is_forgotten_without_a_word() -> None:
    assert kinds([STALLED], [], [STALLED]) == [["crash-looping"], [], ["crash-looping"]]


def test_a_source_is_told_of_again_when_another_revision_is_refused() -> None:
    bad, worse = source_status("main@1", Trouble()), Trouble()
    worse.message = "fleet.toml:9: unknown key"
    good = source_status("main@2", None)
    assert kinds([bad], [bad], [source_status("main@1", worse)], [good]) == [["source"], [], ["source"], ["healed"]]


def test_a_source_that_cannot_be_reached_for_a_moment_is_no_news() -> None:
    away = Trouble()
    away.code = "fetch-failed"
    status = source_status("main@1", away)
    for age, told in ((10, []), (AFTER, ["source"])):
        conditions = tuple(replace(condition, since=NOW - age) for condition in status.conditions)
        assert kinds([replace(status, conditions=conditions)]) == [told]


def test_failures_in_a_row_are_a_loop_from_the_third_on_until_it_runs() -> None:
    waits = replace(STALLED, conditions=(Condition("Reconciling", "True", "back-off", "failed 3 times", NOW),))
    tries = replace(STALLED, conditions=(Condition("Reconciling", "True", "in-progress", "starts", NOW),))
    assert kinds([waits], failures={"session.api": LOOPING - 1}) == [[]]
    assert kinds([waits], [tries], [waits], [IDLE], failures={"session.api": LOOPING}) == [
        ["crash-looping"], [], [], ["healed"],
    ]  # fmt: skip


def test_diverged_has_a_kind_of_its_own_and_other_stalls_are_blocked() -> None:
    for reason, kind in (("diverged", "diverged"), ("protected", "blocked")):
        status = replace(STALLED, conditions=(Condition("Stalled", "True", reason, "x", NOW),))
        assert kinds([status]) == [[kind]]


def test_a_resume_is_told_at_once_and_is_the_end_of_what_was_told() -> None:
    told, _ = noticed(Told(), [STALLED], {}, NOW, AFTER)
    told, notice = resumed(told, "session.api", "gpu", "its host was booted again")
    assert notice.kind == "healed"
    assert noticed(told, [IDLE], {}, NOW, AFTER) == (Told(), [])


def test_what_a_host_says_gives_no_orders_to_a_terminal_and_fits_a_chat() -> None:
    evil = Notice("blocked", "session.api", "gpu", "x", "\x1b]0;owned\x07\n" + "long " * 10_000, NOW)
    title, body = message("acme", [evil] * 50)
    assert title == "acme: 50 × blocked"
    assert "\x1b" not in body
    assert "\x07" not in body
    assert len(body) < 10_000
    assert body.splitlines()[-1] == "… and 30 more: reconciler status"


def test_a_notifier_gets_only_what_it_is_for() -> None:
    specs = parse(
        {
            "f.toml": """
[sessions.api]
agent = "codex"
labels = { team = "web" }
[sessions.db]
agent = "codex"
[notifiers.web]
url = "json://x"
select = "team=web"
[notifiers.broken]
url = "json://x"
events = ["source", "diverged"]
"""
        },
        {},
    )
    notices = [
        Notice("blocked", "session.api", "h", "", ""), Notice("blocked", "session.db", "h", "", ""),
        Notice("source", "source.specs", "", "", ""),
    ]  # fmt: skip
    assert wanted(specs, specs.notifiers["web"], notices) == notices[:1]
    assert wanted(specs, specs.notifiers["broken"], notices) == notices[2:]


def test_what_was_kept_by_a_stranger_is_as_good_as_nothing() -> None:
    for text in (None, "", "{", "7", '[["a"]]', "[1]", '[["a","h","unheard-of","r"]]'):
        assert Told.from_json(text) == Told()


@given(st.lists(st.sampled_from([IDLE, WAITS, STALLED, UNKNOWN]), max_size=12))
def test_whatever_happens_troubles_and_ends_take_turns(states: list[Status]) -> None:
    told = Told()
    known: dict[str, bool] = {}
    for status in states:
        told, notices = noticed(told, [status], {}, NOW, AFTER)
        for notice in notices:
            kind = notice.reason if notice.kind == "healed" else notice.kind
            assert known.get(kind, False) == (notice.kind == "healed")
            known[kind] = notice.kind != "healed"
        if status in (IDLE, STALLED) and known.get("waiting"):
            known["waiting"] = False  # whoever answered it knows
