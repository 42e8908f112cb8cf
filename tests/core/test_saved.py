"""A saved plan permits what it shows, as long as what it rests on is so, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.plan import Plan
from reconciler.core.report import Report, apply_exit_code
from reconciler.core.saved import LIFETIME, SavedPlan, bounded, parse_saved, to_json
from reconciler.core.spec import Desired
from tests.core.situations import applied, ended, host, plan_of, running, specs

TEXT = """
[sessions.api]
agent = "claude-code"
env = { KEY = "s3cret" }
[sessions.db]
agent = "claude-code"
[sessions.web]
agent = "claude-code"
depends_on = ["db"]
"""
AT = 1_800_000_000.0


def fleet() -> Desired:
    return specs(TEXT)


def saved(plan: Plan, **changes: object) -> SavedPlan:
    return replace(parse_saved(to_json(plan, AT)), **changes)  # type: ignore[arg-type]


def addresses(plan: Plan) -> list[str]:
    return [action.address for action in plan.actions]


def test_what_is_as_it_was_is_begun_under_the_same_id() -> None:
    plan = plan_of(fleet(), host("local"))
    allowed, outcomes = bounded(saved(plan), plan_of(fleet(), host("local")))
    assert addresses(allowed) == addresses(plan)
    assert outcomes == {}
    assert saved(plan).id == plan.id


def test_what_is_so_already_is_done() -> None:
    plan = plan_of(fleet(), host("local"))
    now = plan_of(fleet(), host("local", running(applied(fleet(), "api"))))
    allowed, outcomes = bounded(saved(plan), now)
    assert addresses(allowed) == ["session.db", "session.web"]
    assert {key: outcome.status for key, outcome in outcomes.items()} == {"session.api@local": "done"}


def test_what_would_be_something_else_is_stale_and_so_is_what_comes_after_it() -> None:
    plan = plan_of(fleet(), host("local"))
    # Somebody had started it, and it has crashed: a resume is no start of something new.
    now = plan_of(fleet(), host("local", ended(applied(fleet(), "db"), 1)))
    allowed, outcomes = bounded(saved(plan), now)
    assert addresses(allowed) == ["session.api"]
    assert {key: outcome.code for key, outcome in outcomes.items()} == {
        "session.db@local": "stale", "session.web@local": "stale",
    }  # fmt: skip


def test_what_nobody_approved_of_does_not_happen() -> None:
    api_runs = host("local", running(applied(fleet(), "api")))
    plan = plan_of(fleet(), api_runs)
    now = plan_of(fleet(), host("local", ended(applied(fleet(), "api"), 1)))
    assert "session.api" in addresses(now)
    allowed, _ = bounded(saved(plan), now)
    assert addresses(allowed) == ["session.db", "session.web"]


def test_the_same_verb_on_something_else_is_stale() -> None:
    stopping = specs(
        TEXT.replace('[sessions.db]\nagent = "claude-code"', '[sessions.db]\nagent = "claude-code"\nstate = "stopped"')
    )
    before = running(applied(fleet(), "db"))
    plan = plan_of(stopping, host("local", before))
    another = running(applied(fleet(), "db", incarnation=before.incarnation + 1))
    _, outcomes = bounded(saved(plan), plan_of(stopping, host("local", another)))
    assert outcomes["session.db@local"].code == "stale"


def test_where_all_is_stale_the_exit_code_says_so() -> None:
    plan = plan_of(fleet(), host("local"))
    now = plan_of(fleet(), host("local", *(ended(applied(fleet(), name), 1) for name in ("api", "db", "web"))))
    allowed, outcomes = bounded(saved(plan), now)
    assert not allowed.actions
    assert apply_exit_code(Report(allowed, tuple(outcomes.values()))) == 5


def test_it_holds_no_value_of_an_environment_and_no_step() -> None:
    text = to_json(plan_of(fleet(), host("local")), AT)
    assert "s3cret" not in text
    assert "argv" not in text


def test_it_is_good_for_a_day() -> None:
    plan = saved(plan_of(fleet(), host("local")))
    assert [plan.expired(AT + after) for after in (-3600, 0, LIFETIME - 1, LIFETIME + 1)] == [True, False, False, True]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=300) | JSON.map(json.dumps))
def test_any_text_is_a_plan_or_one_error(text: str) -> None:
    try:
        parse_saved(text)
    except ValueError:
        return


@given(st.data())
def test_a_plan_with_any_part_replaced_is_a_plan_or_one_error(data: st.DataObject) -> None:
    document = json.loads(to_json(plan_of(fleet(), host("local")), AT))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(JSON)
    if document["approved"] and isinstance(document["approved"], list) and isinstance(document["approved"][0], dict):
        document["approved"][0][data.draw(st.sampled_from(["verb", "hosts", "address"]))] = data.draw(JSON)
    try:
        parse_saved(json.dumps(document))
    except ValueError:
        return


@pytest.mark.parametrize("text", ["[" * 100_000, '{"type": "reconciler-plan", "format_version": "9.0"}'])
def test_what_no_version_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|format|no saved plan"):
        parse_saved(text)
