"""Guards that look at the whole: specs that declare nothing, a plan that stops too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.guards import allowed_stops, check_emptiness, check_stops
from reconciler.core.plan import Action, Plan
from reconciler.errors import GuardError
from tests.core.situations import AGENT, applied, host, plan_of, running, specs


def stopping(count: int, running: int) -> Plan:
    actions = [Action(f"session.s{i}", "gpu", "stop", "", "", stops_running=True) for i in range(count)]
    return Plan("p", "f", "r", tuple(actions), 0, running)


class TestEmptiness:
    @pytest.mark.parametrize("text", ["", "# nothing\n", "[fleet]\nname = 'acme'\n"])
    def test_specs_that_declare_nothing_are_taken_for_a_mistake(self, text: str) -> None:
        with pytest.raises(GuardError) as caught:
            check_emptiness(specs(text))
        assert (caught.value.exit_code, caught.value.code) == (7, "empty-specs")

    @pytest.mark.parametrize("text", ["[hosts.gpu]\n", "[hosts.local]\nworkdir='/x'\n", AGENT, "[agents.codex]\n"])
    def test_a_fleet_of_hosts_alone_is_valid(self, text: str) -> None:
        check_emptiness(specs(text))


class TestStops:
    @pytest.mark.parametrize(
        ("limit", "running", "allowed"),
        [("20%", 100, 20), ("20%", 99, 19), ("20%", 3, 2), ("20%", 0, 2), ("0%", 50, 2), ("100%", 7, 7), ("0", 9, 0),
         ("5", 2, 5)],
    )  # fmt: skip
    def test_a_number_or_a_share_of_what_runs_and_at_least_two(self, limit: str, running: int, allowed: int) -> None:
        assert allowed_stops(limit, running) == allowed

    @given(st.integers(0, 100), st.integers(0, 400), st.integers(0, 400))
    def test_a_plan_is_refused_exactly_beyond_what_is_allowed(self, share: int, stops: int, running: int) -> None:
        plan = stopping(stops, running)
        if stops <= max(2, running * share // 100):
            check_stops(plan, f"{share}%")
        else:
            with pytest.raises(GuardError):
                check_stops(plan, f"{share}%")

    def test_the_refusal_says_how_to_mean_it(self) -> None:
        with pytest.raises(GuardError) as caught:
            check_stops(stopping(9, 10), "20%")
        assert "stops 9 of 10 running sessions; max_stop = 20% allows 2" in caught.value.message
        assert caught.value.remedy.endswith("--max-stop 9")

    def test_a_directory_that_lost_its_sessions_stops_none_of_them(self) -> None:
        left = [specs(f"[sessions.s{i}]\nagent='codex'\n") for i in range(9)]
        seen = [running(applied(desired, f"s{i}")) for i, desired in enumerate(left)]
        plan = plan_of(specs("[hosts.local]\nworkdir='/x'\n"), host("local", *seen))
        assert plan.summary["stop"] == 9
        with pytest.raises(GuardError):
            check_stops(plan, "20%")
