"""A session that somebody protected by command: no specs get at it, and every record that follows says so too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.record import Record
from reconciler.core.steps import LaunchStep, RecordStep, StopStep
from tests.core.situations import AGENT, ON_GPU, action, applied, ended, gone, host, plan_of, running, specs

HELD: dict[str, Any] = {"protected_by": "ann@desk", "protected_at": 1_799_999_000}
KEYS = {
    "model": ('model = "opus"', ""), "state": ('state = "stopped"', ""),
    "protect": ("protect = true", "protect = false", ""),
    "env": ('env = { A = "b" }', ""), "prompt": ('prompt = "b"', ""), "labels": ('labels = { a = "b" }', ""),
    "workdir": ('workdir = "/x"', ""), "host": ('host = "gpu"', ""),
    "on_prompt_change": ('on_prompt_change = "restart"', ""),
}  # fmt: skip
changed = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in KEYS.items()}).map(
    lambda lines: AGENT + "\n".join(lines.values()) + "\n"
)
LEFT = '[sessions.other]\nagent = "claude-code"\nstate = "stopped"\n'


@given(changed | st.just(LEFT), st.booleans())
def test_whatever_the_specs_become_nothing_ends_or_replaces_its_process(text: str, forced: bool) -> None:
    record = applied(specs(AGENT), **HELD)
    restart = frozenset({"session.api"}) if forced else frozenset[str]()
    plan = plan_of(specs("[hosts.gpu]\n" + text), host("local", running(record)), host("gpu"), restart=restart)
    for found in plan.actions:
        assert not [step for step in found.steps if isinstance(step, StopStep | LaunchStep)], text
        assert not found.stops_running
        assert [s.record.protected_by for s in found.steps if isinstance(s, RecordStep)] in ([], ["ann@desk"])


@pytest.mark.parametrize("seen", [lambda r: ended(r, 1), lambda r: gone(r, "lost")], ids=["crashed", "lost"])
def test_a_resume_after_death_keeps_the_protection(seen: Any) -> None:
    plan = plan_of(specs(AGENT), host("local", seen(applied(specs(AGENT), **HELD))))
    launch = next(step for step in action(plan).steps if isinstance(step, LaunchStep))
    assert (launch.record.protected_by, launch.record.protected_at) == ("ann@desk", 1_799_999_000)


def test_what_was_protected_before_it_moved_is_not_what_the_old_record_of_its_target_says() -> None:
    old = applied(specs(AGENT), **HELD)
    now = applied(specs(AGENT), moves=1)
    plan = plan_of(specs(ON_GPU + AGENT), host("local", running(now)), host("gpu", gone(old, "stopped")))
    launch = next(step for step in action(plan).steps if isinstance(step, LaunchStep))
    assert action(plan).verb == "move"
    assert launch.record.protected_by == ""


def test_a_plan_that_was_made_before_the_protection_does_not_hold_after_it() -> None:
    desired = specs(AGENT + 'model = "opus"\n')

    def of(**changes: Any) -> str:
        record: Record = applied(specs(AGENT), **changes)
        return action(plan_of(desired, host("local", running(record)))).precondition

    assert of() != of(**HELD)
