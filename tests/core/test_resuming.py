"""What of an interrupted apply may be done another time: never more than was approved of, and nothing twice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.observed import HostSeen, SessionSeen
from reconciler.core.plan import Plan
from reconciler.core.report import Outcome, Report, apply_exit_code
from reconciler.core.resuming import Progress, Run, after, parse_run, remaining, resumed, to_json
from reconciler.core.saved import approve, saved_of
from reconciler.core.spec import Desired
from tests.core.situations import applied, ended, gone, host, plan_of, running, silent, specs

TEXT = """
[hosts.gpu]
[sessions.api]
agent = "claude-code"
[sessions.db]
agent = "claude-code"
host = "gpu"
[sessions.web]
agent = "claude-code"
depends_on = ["db"]
"""
AT = 1_800_000_000.0
NAMES = ("api", "db", "web")


def fleet(more: str = "") -> Desired:
    return specs(TEXT + more)


def place(name: str) -> str:
    return "gpu" if name == "db" else "local"


def run_of(plan: Plan) -> Run:
    return Run(saved_of(plan, AT), AT, len(plan.effective))


def begun(*keys: str, **failures: int) -> Progress:
    return Progress(begun=frozenset(keys), failures={f"session.{name}@local": n for name, n in failures.items()})


def seen(desired: Desired, states: dict[str, str]) -> list[HostSeen]:
    """Both hosts, the sessions as `states` says: absent, running, ... ; "silent" is the host's."""
    found: dict[str, list[SessionSeen]] = {"local": [], "gpu": []}
    for name, state in states.items():
        if state in ("absent", "silent"):
            continue
        record = applied(desired, name)
        made = {
            "running": running(record),
            "crashed": ended(record, 1),
            "rebooted": gone(record, "lost", boot="boot-0"),
            "stopped": gone(replace(record, intent="stopped"), "stopped"),
        }[state]
        found[place(name)].append(made)
    lost = {place(name) for name, state in states.items() if state == "silent"}
    return [silent(name) if name in lost else host(name, *sessions) for name, sessions in found.items()]


STATES = st.fixed_dictionaries(
    {name: st.sampled_from(("absent", "running", "crashed", "rebooted", "stopped", "silent")) for name in NAMES}
)
KEYS = [f"session.{name}@{place(name)}" for name in NAMES]


@given(STATES, STATES, st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)))
def test_whatever_happened_meanwhile_only_what_is_left_of_the_approved_is_begun(
    before: dict[str, str], now: dict[str, str], done: set[str], cut: set[str]
) -> None:
    approved = plan_of(fleet(), *seen(fleet(), before))
    run = run_of(approved)
    fresh = plan_of(fleet(), *seen(fleet(), now), plan_id=run.id)
    plan, outcomes = resumed(run, fresh, Progress(frozenset(done), frozenset(cut)))
    started = {f"{action.address}@{action.host}" for action in plan.actions}
    left = {action.key for action in run.left.actions} - done
    assert started | set(outcomes) == left
    assert not started & set(outcomes)
    permitted = set(run.left.actions)
    assert all(approve(action) in permitted for action in plan.actions if f"{action.address}@{action.host}" not in cut)
    assert max((action.severity for action in plan.actions), default=0) <= max(
        (action.severity for action in approved.actions), default=0
    )
    # Whoever begins waits for nobody who does not.
    assert all(set(action.after) <= {other.address for other in plan.actions} for action in plan.actions)


@given(STATES)
def test_where_nothing_happened_all_of_it_is_begun_and_a_finished_run_has_nothing_left(states: dict[str, str]) -> None:
    plan = plan_of(fleet(), *seen(fleet(), states))
    run = run_of(plan)
    again, outcomes = resumed(run, plan, Progress())
    assert [action.address for action in again.actions] == [action.address for action in plan.effective]
    assert outcomes == {}
    report = Report(plan, tuple(Outcome(a.address, a.host, a.verb, "done") for a in plan.effective))
    assert after(run, report).left.actions == ()


def test_what_was_begun_keeps_its_operation_and_what_failed_gets_another() -> None:
    plan = plan_of(fleet(), host("local"), host("gpu"))
    again, _ = resumed(run_of(plan), plan, begun("session.api@local", "session.web@local", web=2))
    assert {action.address: action.again for action in again.actions} == {
        "session.api": "", "session.db": "", "session.web": "2",
    }  # fmt: skip


def test_a_restart_that_was_cut_off_between_its_halves_ends_with_a_resume_under_another_operation() -> None:
    wanted = specs(
        TEXT.replace('[sessions.api]\nagent = "claude-code"', '[sessions.api]\nagent = "claude-code"\nmodel = "x"')
    )
    others = [running(applied(wanted, "web"))]
    gpu = host("gpu", running(applied(wanted, "db")))
    old = applied(fleet(), "api")
    plan = plan_of(wanted, host("local", running(old), *others), gpu)
    assert [action.verb for action in plan.actions] == ["restart"]
    half = plan_of(wanted, host("local", gone(replace(old, intent="stopped"), "stopped"), *others), gpu)
    assert [action.verb for action in half.actions] == ["resume"]
    run = run_of(plan)
    allowed, outcomes = resumed(run, half, begun("session.api@local"))
    assert ([action.verb for action in allowed.actions], outcomes) == (["resume"], {})
    assert allowed.actions[0].again
    # Nobody of us has begun it: then it was somebody else who stopped it.
    allowed, outcomes = resumed(run, half, Progress())
    assert allowed.actions == ()
    assert outcomes["session.api@local"].code == "stale"
    # It came up and died of itself: that is no rest of ours.
    dead = plan_of(wanted, host("local", ended(old, 1), *others), gpu)
    assert resumed(run, dead, begun("session.api@local"))[0].actions == ()


def test_a_restart_that_was_asked_for_is_not_done_twice() -> None:
    here = [running(applied(fleet(), "web"))]
    gpu = host("gpu", running(applied(fleet(), "db")))
    old, new = applied(fleet(), "api"), applied(fleet(), "api", incarnation=2)
    asked = frozenset({"session.api"})
    plan = plan_of(fleet(), host("local", running(old), *here), gpu, restart=asked)
    run = run_of(plan)
    fresh = plan_of(fleet(), host("local", running(new), *here), gpu, restart=asked)
    allowed, outcomes = resumed(run, fresh, begun("session.api@local"))
    assert allowed.actions == ()
    assert outcomes["session.api@local"].status == "done"
    assert [a.verb for a in resumed(run, plan, begun("session.api@local"))[0].actions] == ["restart"]


def test_what_is_on_a_silent_host_waits_and_so_does_what_comes_after_it() -> None:
    plan = plan_of(fleet(), host("local"), host("gpu"))
    run = run_of(plan)
    now = plan_of(fleet(), host("local", running(applied(fleet(), "api"))), silent("gpu"))
    allowed, outcomes = resumed(run, now, Progress(frozenset({"session.api@local"})))
    assert allowed.actions == ()
    assert {key: outcome.code for key, outcome in outcomes.items()} == {
        "session.db@gpu": "unreached", "session.web@local": "blocked",
    }  # fmt: skip
    assert apply_exit_code(Report(allowed, (outcomes["session.db@gpu"],))) == 4


def test_what_left_the_specs_on_a_silent_host_is_not_taken_for_stopped() -> None:
    left = specs('[fleet]\nprune = true\n[hosts.gpu]\n[sessions.api]\nagent = "claude-code"\n')
    orphan = running(applied(fleet(), "db"))
    plan = plan_of(left, host("local", running(applied(left, "api"))), host("gpu", orphan))
    assert [action.verb for action in plan.actions] == ["stop"]
    now = plan_of(left, host("local", running(applied(left, "api"))), silent("gpu"))
    _, outcomes = resumed(run_of(plan), now, Progress())
    assert [(outcome.status, outcome.code) for outcome in outcomes.values()] == [("skipped", "unreached")]


def test_what_would_wait_for_something_that_nobody_approved_of_is_not_begun() -> None:
    plan = plan_of(fleet(), host("local"), host("gpu"))
    run = remaining(run_of(plan), {"session.db@gpu", "session.api@local"})
    now = plan_of(
        fleet(), host("local", running(applied(fleet(), "api"))), host("gpu", ended(applied(fleet(), "db"), 1))
    )
    allowed, outcomes = resumed(run, now, Progress())
    assert allowed.actions == ()
    assert "session.db, and nobody approved of that: resume" in outcomes["session.web@local"].message


def test_it_is_kept_as_it_is_and_without_any_value() -> None:
    run = run_of(plan_of(specs(TEXT + 'env = { KEY = "s3cret" }\n'), host("local"), host("gpu")))
    assert parse_run(to_json(run)) == run
    assert "s3cret" not in to_json(run)
    assert "argv" not in to_json(run)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=100) | JSON.map(json.dumps), st.data())
def test_any_text_is_a_run_or_one_error(text: str, data: st.DataObject) -> None:
    good = json.loads(to_json(run_of(plan_of(fleet(), host("local"), host("gpu")))))
    good[data.draw(st.sampled_from(sorted(good)))] = data.draw(JSON)
    for found in (text, json.dumps(good)):
        try:
            parse_run(found)
        except ValueError:
            continue


def test_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(ValueError, match="nested"):
        parse_run("[" * 100_000)
