"""The order of a plan, what waits for what, what is blocked by what, and what a decision rests on."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.holds import Hold
from reconciler.core.launching import _uuid5
from reconciler.core.observed import Exit, Facts, Process, SessionSeen
from reconciler.core.ordering import ordered
from reconciler.core.plan import SEVERITY, Action, Plan, precondition
from reconciler.core.printed import plan_json, render
from reconciler.core.selection import Selection, hold_for
from reconciler.core.spec import Desired
from reconciler.core.steps import LaunchStep
from tests.core.situations import (
    AGENT,
    BOOT,
    action,
    applied,
    diff_of,
    ended,
    gone,
    host,
    plan_of,
    running,
    silent,
    specs,
    status_file,
)


def chain(*names: str, until: str = "ready", agent: str = "claude-code", more: str = "") -> str:
    """Sessions each of which depends on the one before."""
    text = ""
    for before, name in zip((None, *names), names, strict=False):
        depends = f'depends_on = [{{ session = "{before}", until = "{until}" }}]\n' if before else ""
        text += f'[sessions.{name}]\nagent = "{agent}"\n{depends}{more}'
    return text


def order(plan: Plan) -> list[str]:
    return [item.address.removeprefix("session.") for item in plan.actions]


class TestOrder:
    def test_dependencies_come_before_their_dependents_however_they_are_written(self) -> None:
        backwards = "[sessions.z]\nagent='codex'\ndepends_on=['y']\n[sessions.y]\nagent='codex'\ndepends_on=['x']\n"
        plan = plan_of(specs(backwards + "[sessions.x]\nagent='codex'\n"), host("local"))
        assert order(plan) == ["x", "y", "z"]
        assert action(plan, "z").after == ("session.y",)

    def test_without_dependencies_the_order_is_that_of_the_specs(self) -> None:
        text = "".join(f"[sessions.{name}]\nagent='codex'\n" for name in "cab")
        assert order(plan_of(specs(text), host("local"))) == ["c", "a", "b"]

    def test_stops_come_in_reverse(self) -> None:
        desired = specs(chain("db", "api", "web", more='state = "stopped"\n'))
        before = specs(chain("db", "api", "web"))
        seen = [running(applied(before, name)) for name in ("db", "api", "web")]
        plan = plan_of(desired, host("local", *seen))
        assert order(plan) == ["web", "api", "db"]
        assert action(plan, "db").after == ("session.api",)

    def test_a_chain_of_thousands_is_no_recursion(self) -> None:
        names = [f"s{index}" for index in range(2000)]
        tables = chain(*names, agent="codex").split("[sessions.")
        plan = plan_of(specs("[sessions.".join(["", *reversed(tables[1:])])), host("local"))
        assert order(plan) == names

    @given(st.permutations(list("abcdef")), st.data())
    def test_every_plan_may_be_carried_out_one_by_one(self, names: list[str], data: st.DataObject) -> None:
        text = ""
        for index, name in enumerate(names):
            first = data.draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
            text = f"[sessions.{name}]\nagent = 'codex'\ndepends_on = {first}\n" + text
        plan = plan_of(specs(text), host("local"))
        done: set[str] = set()
        for item in plan.actions:
            assert set(item.after) <= done
            done.add(item.address)
        assert len(done) == len(names)


BOTH = chain("db", "api")


class TestConditions:
    def api(self, until: str, db: SessionSeen | None, more: str = "") -> Any:
        text = chain("db", "api", until=until, more=more)
        if until == "completed":  # which only a task can be
            text = text.replace("[sessions.db]\n", '[sessions.db]\nlifecycle = "task"\nprompt = "x"\n', 1)
        desired = specs(text)
        return action(plan_of(desired, host("local", *([db] if db else []))))

    def record(self, **changes: Any) -> Any:
        return applied(specs(BOTH), "db", **changes)

    @pytest.mark.parametrize("until", ["started", "ready", "idle", "completed"])
    def test_a_dependency_that_is_launched_first_is_waited_for(self, until: str) -> None:
        item = self.api(until, None)
        (need,) = item.needs
        assert (item.verb, item.after, need.session, need.until) == ("start", ("session.db",), "db", until)

    @pytest.mark.parametrize(
        ("until", "status", "waits"),
        [("started", "busy", False), ("started", None, False), ("ready", "busy", False), ("ready", None, True),
         ("idle", "idle", False), ("idle", "busy", True), ("idle", "waiting", True)],
    )  # fmt: skip
    def test_a_dependency_that_runs_is_waited_for_until_the_condition_holds(
        self, until: str, status: str | None, waits: bool
    ) -> None:
        item = self.api(until, running(self.record(), status))
        assert (item.verb, bool(item.needs), item.after) == ("start", waits, ())

    def test_a_task_that_runs_is_waited_for_until_it_is_complete(self) -> None:
        desired = specs(
            '[sessions.db]\nagent = "claude-code"\nlifecycle = "task"\nprompt = "x"\n'
            '[sessions.api]\nagent = "codex"\ndepends_on = [{ session = "db", until = "completed" }]\n'
        )
        item = action(plan_of(desired, host("local", running(applied(desired, "db"), "idle"))))
        assert (item.verb, [need.until for need in item.needs], item.after) == ("start", ["completed"], ())

    @pytest.mark.parametrize("until", ["started", "ready", "idle", "completed"])
    def test_a_task_that_is_complete_satisfies_every_condition(self, until: str) -> None:
        desired = specs(
            '[sessions.db]\nagent = "claude-code"\nlifecycle = "task"\nprompt = "x"\n'
            f'[sessions.api]\nagent = "codex"\ndepends_on = [{{ session = "db", until = "{until}" }}]\n'
        )
        item = action(plan_of(desired, host("local", ended(applied(desired, "db"), 0))))
        assert (item.verb, item.needs) == ("start", ())

    def test_a_condition_of_the_specs_own_is_always_asked_for_on_the_host(self) -> None:
        desired = specs(
            '[sessions.db]\nagent = "claude-code"\nready = { port = 80 }\n'
            '[sessions.api]\nagent = "codex"\ndepends_on = ["db"]\n'
        )
        item = action(plan_of(desired, host("local", running(applied(desired, "db")))))
        assert [need.ready.port for need in item.needs] == [80]

    def test_a_dependency_that_is_declared_stopped_blocks(self) -> None:
        desired = specs("[sessions.db]\nagent = 'codex'\nstate = 'stopped'\n" + AGENT + "depends_on = ['db']\n")
        item = action(plan_of(desired, host("local")))
        assert (item.verb, item.reason) == ("blocked", "dependency")
        assert "session.db, which is not ready and not about to be" in item.message


class TestBlockedChains:
    def test_a_blocked_dependency_blocks_the_chain_behind_it_by_name(self) -> None:
        plan = plan_of(specs(chain("db", "api", "web")), host("local", tmux="", commands={}))
        assert [item.verb for item in plan.actions] == ["blocked"] * 3
        plan = plan_of(
            specs(chain("db", "api", "web")), host("local", ended(applied(specs(chain("db")), "db"), 0))
        )  # fmt: skip
        assert action(plan, "db").reason == "clean-exit"
        assert action(plan, "api").message.startswith("depends on session.db, which is blocked: its agent exited")
        assert action(plan, "web").message.startswith("depends on session.api, which is blocked: depends on session.db")

    def test_the_order_of_the_specs_changes_nothing_about_it(self) -> None:
        text = "[sessions.web]\nagent='codex'\ndepends_on=['api']\n[sessions.api]\nagent='codex'\ndepends_on=['db']\n"
        plan = plan_of(specs(text + chain("db")), host("local", ended(applied(specs(chain("db")), "db"), 0)))
        assert [item.verb for item in plan.actions] == ["blocked"] * 3

    def test_a_dependency_on_a_silent_host_blocks(self) -> None:
        desired = specs("[hosts.gpu]\n[sessions.db]\nhost='gpu'\nagent='codex'\n" + AGENT + "depends_on = ['db']\n")
        item = action(plan_of(desired, silent("gpu"), host("local")))
        assert (item.verb, item.steps) == ("blocked", ())
        assert "session.db, which is unknown" in item.message

    def test_a_dependent_that_runs_is_left_alone(self) -> None:
        desired = specs(chain("db", "api"))
        plan = plan_of(desired, host("local", ended(applied(desired, "db"), 0), running(applied(desired, "api"))))
        assert [item.address for item in plan.actions] == ["session.db"]


class TestHolds:
    DESIRED = specs(chain("db", "api") + "[sessions.web]\nagent='codex'\n")

    def plan(self, selection: Selection) -> Plan:
        diff = diff_of(self.DESIRED, host("local"))
        return plan_of(self.DESIRED, host("local"), hold=hold_for(self.DESIRED, diff, selection))

    def test_a_target_brings_its_dependencies(self) -> None:
        assert order(self.plan(Selection(targets=("api",)))) == ["db", "api"]

    def test_an_excluded_dependency_is_looked_at_and_not_touched(self) -> None:
        plan = self.plan(Selection(exclude=("db",)))
        assert [(i.address, i.verb) for i in plan.actions] == [("session.api", "blocked"), ("session.web", "start")]

    def test_a_hold_with_a_reason_is_shown_as_blocked_and_blocks_what_depends_on_it(self) -> None:
        plan = plan_of(self.DESIRED, host("local"), hold={"session.db": Hold("held", "back-off: again in 40 s")})
        assert (action(plan, "db").verb, action(plan, "db").reason) == ("blocked", "held")
        assert "back-off" in action(plan, "api").message
        assert action(plan, "web").verb == "start"

    def test_what_is_held_without_a_reason_counts_neither_as_changed_nor_as_unchanged(self) -> None:
        assert self.plan(Selection(targets=("web",))).summary["unchanged"] == 0


class TestTheWhole:
    def test_the_summary_counts_every_verb_once(self) -> None:
        desired = specs(
            AGENT + "[sessions.same]\nagent='codex'\n[sessions.down]\nagent='codex'\nstate='stopped'\n"
            "[sessions.held]\nagent='codex'\n"
        )
        down, same = running(applied(desired, "down")), running(applied(desired, "same"))
        left = running(applied(specs("[sessions.left]\nagent='codex'\n"), "left"))
        plan = plan_of(
            desired, host("local", down, same, left), silent("gpu"), hold={"session.held": Hold("held", "later")}
        )
        expected = {"start": 1, "stop": 2, "blocked": 1, "unknown": 1, "unchanged": 1}
        assert {key: count for key, count in plan.summary.items() if count} == expected
        assert set(plan.summary) == {*SEVERITY, "unchanged"}
        assert plan.running == 3
        assert [item.verb for item in plan.effective] == ["start", "stop", "stop"]

    def test_a_silent_host_without_sessions_is_said_to_be_unknown(self) -> None:
        plan = plan_of(specs("[hosts.gpu]\n" + AGENT), host("local", running(applied(specs(AGENT)))), silent("gpu"))
        assert [(i.address, i.verb) for i in plan.actions] == [("host.gpu", "unknown")]

    def test_the_same_fleet_gives_the_same_plan_apart_from_its_id(self) -> None:
        def made(plan_id: str) -> Plan:
            return plan_of(specs(chain("db", "api")), host("local"), silent("gpu"), plan_id=plan_id)

        assert made("a") == made("a")
        assert (render(made("a")), plan_json(made("a"))) == (render(made("b")), plan_json(made("b")))

    def test_a_conversation_id_follows_from_the_plan_so_that_a_repeat_makes_no_second_one(self) -> None:
        def conversation(plan_id: str) -> str | None:
            step = action(plan_of(specs(AGENT), host("local"), plan_id=plan_id)).steps[0]
            assert isinstance(step, LaunchStep)
            return step.record.conversation

        assert conversation("a") == conversation("a") != conversation("b")

    def test_an_action_says_where_its_reason_is_written(self) -> None:
        before = applied(specs(AGENT))
        source = action(plan_of(specs(AGENT + '\nmodel = "opus"\n'), host("local", running(before)))).source
        assert source is not None
        assert (source.file, source.line) == ("fleet.toml", 4)

    def test_only_a_stop_of_something_that_runs_counts_for_the_guard(self) -> None:
        stopped = specs(AGENT + 'state = "stopped"\n')
        assert action(plan_of(stopped, host("local", running(applied(stopped))))).stops_running
        assert not action(
            plan_of(specs(AGENT + 'model="x"\n'), host("local", running(applied(specs(AGENT)))))
        ).stops_running


def same_name_on_two_hosts() -> tuple[Desired, Plan]:
    desired = specs("[hosts.gpu]\n" + AGENT)
    left = specs("[sessions.left]\nagent='codex'\n")
    one, two = (running(applied(left, "left")) for _ in range(2))
    return desired, plan_of(desired, host("gpu", one), host("local", two, running(applied(desired))))


def test_an_orphan_on_two_hosts_is_stopped_on_both() -> None:
    _, plan = same_name_on_two_hosts()
    assert sorted(item.host for item in plan.actions if item.verb == "stop") == ["gpu", "local"]


class TestPrecondition:
    SEEN = running(applied(specs(AGENT)))

    def test_of_a_session_that_is_not_there_is_a_word(self) -> None:
        assert precondition(None) == "absent"

    @pytest.mark.parametrize(
        "changes",
        [
            {"attached": 3}, {"trouble": "x"}, {"exit": Exit(1, 5, 0)},
            {"facts": Facts(texts={"status": status_file("busy")})},
            {"record": replace(applied(specs(AGENT)), revision="r", at=5, labels={"a": "b"}, controller="x", op="y")},
            {"process": Process(100, "7", 1, 55, True, BOOT)},
        ],
        ids=lambda changes: next(iter(changes)),
    )  # fmt: skip
    def test_does_not_change_with_age_activity_or_labels(self, changes: dict[str, Any]) -> None:
        assert precondition(replace(self.SEEN, **changes)) == precondition(self.SEEN)

    @pytest.mark.parametrize(
        "changes",
        [
            {"state": "exited"}, {"incarnation": 2}, {"record": None}, {"process": None},
            {"process": Process(101, "7", 1, 99, True, BOOT)}, {"process": Process(100, "8", 1, 99, True, BOOT)},
            {"record": applied(specs(AGENT), digest="other")},
            {"record": applied(specs(AGENT), conversation="other")},
            {"record": applied(specs(AGENT), prompt="x")},
            {"record": applied(specs(AGENT), protected=True)},
            {"record": applied(specs(AGENT), intent="stopped")},
        ],
        ids=str,
    )  # fmt: skip
    def test_changes_with_liveness_digests_conversation_and_protection(self, changes: dict[str, Any]) -> None:
        assert precondition(replace(self.SEEN, **changes)) != precondition(self.SEEN)

    def test_a_dead_process_is_as_good_as_none(self) -> None:
        dead = gone(applied(specs(AGENT)), "lost")
        assert precondition(dead) == precondition(replace(dead, process=None))


@given(st.text())
def test_an_id_is_the_uuid_that_the_library_makes(name: str) -> None:
    assert _uuid5(name) == str(uuid.uuid5(uuid.NAMESPACE_OID, name))


@given(st.lists(st.sets(st.integers(0, 11), max_size=3), max_size=12))
def test_what_waits_for_nothing_keeps_its_place_and_what_waits_comes_as_early_as_it_can(waits: list[set[int]]) -> None:
    actions = [
        Action(f"session.s{i}", "h", "start", "new", "", after=tuple(f"session.s{j}" for j in sorted(after) if j > i))
        for i, after in enumerate(waits)
    ]
    left, expected = list(actions), []
    while left:
        waiting = {action.address for action in left}
        expected.append(next(action for action in left if not waiting & set(action.after)))
        left.remove(expected[-1])
    assert ordered(actions) == expected
