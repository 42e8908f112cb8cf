"""What became of a commit."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.status import Condition, Status
from reconciler.core.verdicts import refused, verdict

OK = Status("session.a", "h", "idle", (Condition("Ready", "True", "unchanged"),))
MOVING = replace(OK, address="session.b", conditions=(Condition("Drifted", "True", "moved", "from a to b"),))
UNSEEN = replace(OK, address="session.c", conditions=(Condition("Ready", "Unknown", "unreachable"),))
STALLED = replace(OK, address="session.d", conditions=(Condition("Stalled", "True", "stalled", "no \x1b model"),))
HOST = Status("host.h", "h", "unknown", (Condition("Ready", "Unknown", "timeout"),))


def test_it_is_pending_until_all_sessions_are_as_declared() -> None:
    assert verdict("c", [HOST, OK]).state == "success"
    assert verdict("c", [HOST, OK]).description == "1 session is as declared"
    assert verdict("c", []).description == "0 sessions are as declared"
    assert verdict("c", [OK, MOVING, UNSEEN]).state == "pending"
    assert verdict("c", [OK, MOVING, UNSEEN]).description == "1 of 3 sessions are as declared; next session.b"
    assert verdict("c", [OK, UNSEEN]).state == "pending"


def test_one_that_is_stalled_fails_it_in_one_short_line() -> None:
    found = verdict("c", [OK, MOVING, STALLED])
    assert found.state == "failure"
    assert found.description.startswith("1 of 3 stalled: session.d: no ")
    assert "\x1b" not in found.description
    long = replace(STALLED, conditions=(Condition("Stalled", "True", "x", "x" * 1000),))
    assert len(verdict("c", [long]).description) == 140


def test_a_revision_that_is_not_in_force_has_failed() -> None:
    assert refused("c", "fleet.toml:3: no TOML").description == "not in force: fleet.toml:3: no TOML"
    assert refused("c", "x").state == "failure"
