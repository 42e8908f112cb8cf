"""What is suspended is observed only: every way to say so, and everything that would otherwise be done."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.diff import written
from reconciler.core.holds import Suspension, suspended
from reconciler.core.observed import HostSeen
from reconciler.core.plan import Plan
from reconciler.core.printed import render
from reconciler.core.status import Status, statuses
from tests.core.situations import (
    AGENT,
    action,
    agents_of,
    applied,
    diff_of,
    ended,
    gone,
    host,
    observed,
    plan_of,
    running,
    silent,
    specs,
)

UNTIL = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
ANN = Suspension("session.api", UNTIL, "the demo is on it", "ann")
RECORD = applied(specs(AGENT))


def plan(text: str, *hosts: HostSeen, by: Iterable[Suspension] = ()) -> Plan:
    desired = specs(text)
    return plan_of(desired, *hosts, hold=suspended(desired, diff_of(desired, *hosts), by))


def status(text: str, *hosts: HostSeen, by: Iterable[Suspension] = ()) -> Status:
    desired = specs(text)
    made = plan(text, *hosts, by=by)
    every = statuses(desired, observed(*hosts), diff_of(desired, *hosts), made, agents_of(desired))
    (found,) = [one for one in every if one.address == "session.api"]
    return found


def test_a_suspension_says_who_until_when_why_and_how_to_lift_it() -> None:
    item = action(plan(AGENT, host("local"), by=[ANN]))
    assert (item.verb, item.reason, item.steps) == ("blocked", "suspended", ())
    assert item.message == "suspended by ann until 2026-12-01 08:00: the demo is on it"
    assert item.remedy == "reconciler unsuspend session.api"
    assert Suspension("session.api").sentence() == "suspended"
    assert Suspension("host.gpu", by="ann").sentence() == "host.gpu is suspended by ann"


def test_the_specs_can_suspend_too() -> None:
    item = action(plan(AGENT + "suspend = true\n", host("local")))
    assert (item.verb, item.reason, item.message) == ("blocked", "suspended", "suspended by the specs at fleet.toml:3")
    assert action(plan(AGENT + "suspend = false\n", host("local"))).verb == "start"


def test_suspending_in_the_specs_is_no_change_of_the_launch() -> None:
    before, after = specs(AGENT), specs(AGENT + "suspend = true\n")
    assert written(before, "api") == written(after, "api")
    assert plan(AGENT + "suspend = true\n", host("local", running(RECORD))).actions == ()


STATES = [
    ("start", AGENT, ()),
    ("resume", AGENT, (ended(RECORD, 1),)),
    ("resume", AGENT, (gone(RECORD, "lost"),)),
    ("restart", AGENT + 'model = "x"\n', (running(RECORD),)),
    ("update", AGENT + 'labels = { a = "b" }\n', (running(RECORD),)),
    ("stop", AGENT + 'state = "stopped"\n', (running(RECORD),)),
    ("stop", "[hosts.x]\nenabled = false\n", (running(RECORD),)),
]


@pytest.mark.parametrize(("verb", "text", "seen"), STATES)
@pytest.mark.parametrize("where", ["session.api", "host.local", "fleet"])
def test_whatever_would_be_done_is_not_done(verb: str, text: str, seen: tuple, where: str) -> None:  # type: ignore[type-arg]
    assert action(plan(text, host("local", *seen))).verb == verb
    held = plan(text, host("local", *seen), by=[Suspension(where)])
    assert (action(held).verb, action(held).reason, held.effective) == ("blocked", "suspended", ())


@pytest.mark.parametrize("where", ["host.gpu", "host.local"])
def test_a_suspended_host_neither_gives_nor_takes(where: str) -> None:
    text = "[hosts.gpu]\n" + AGENT + 'host = "gpu"\n'
    seen = (host("local", running(RECORD)), host("gpu"))
    assert action(plan(text, *seen)).verb == "move"
    assert action(plan(text, *seen, by=[Suspension(where)])).reason == "suspended"


def test_a_suspended_host_holds_no_other_host() -> None:
    assert (
        action(plan("[hosts.gpu]\n" + AGENT, host("local"), host("gpu"), by=[Suspension("host.gpu")])).verb == "start"
    )


def test_a_new_name_does_not_lift_what_was_said_of_the_old_one() -> None:
    text = '[sessions.new]\nagent = "claude-code"\n[[moved]]\nfrom = "session.api"\nto = "session.new"\n'
    seen = host("local", running(RECORD))
    assert action(plan(text, seen), "new").verb == "update"
    assert action(plan(text, seen, by=[ANN]), "new").reason == "suspended"


def test_what_depends_on_a_suspended_session_that_runs_goes_on() -> None:
    text = AGENT + '[sessions.web]\nagent = "codex"\ndepends_on = [{ session = "api", until = "started" }]\n'
    assert action(plan(text, host("local", running(RECORD)), by=[ANN]), "web").verb == "start"
    assert action(plan(text, host("local"), by=[ANN]), "web").reason == "dependency"


def test_what_is_unknown_or_blocked_by_itself_stays_that() -> None:
    text = "[hosts.gpu]\n" + AGENT + 'host = "gpu"\n'
    assert action(plan(text, silent("gpu"), by=[ANN])).verb == "unknown"
    assert action(plan(AGENT, host("local", ended(RECORD, 0)), by=[ANN])).reason == "clean-exit"


def test_status_says_suspended_whether_or_not_there_is_something_to_do() -> None:
    same = status(AGENT, host("local", running(RECORD, "busy")), by=[ANN])
    dead = status(AGENT, host("local", ended(RECORD, 1)), by=[ANN])
    for found in (same, dead):
        assert (found.phase, found.message) == ("suspended", ANN.sentence())
        assert {c.type: c.status for c in found.conditions}["Suspended"] == "True"
        assert "Stalled" not in {c.type for c in found.conditions}
    assert {c.type: c.status for c in same.conditions}["Ready"] == "True"
    assert same.seen["activity"] == "busy"
    assert {c.type: c.status for c in dead.conditions}["Ready"] == "False"


def test_a_suspended_session_on_a_silent_host_is_unknown() -> None:
    found = status("[hosts.gpu]\n" + AGENT + 'host = "gpu"\n', silent("gpu"), by=[ANN])
    assert (found.phase, {c.status for c in found.conditions}) == ("unknown", {"Unknown"})


@given(st.text(max_size=40), st.text(max_size=20))
def test_a_reason_cannot_break_the_printed_plan(reason: str, by: str) -> None:
    text = render(plan(AGENT, host("local"), by=[Suspension("session.api", None, reason, by)]))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == len(render(plan(AGENT, host("local"), by=[Suspension("session.api")])).split("\n"))
