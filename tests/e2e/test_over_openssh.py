"""The whole way over the system's own `ssh`: plan, apply, no changes, resume after a kill, move to another host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.moving import only_on, session
from tests.e2e.program import Program, Site, fleet_of, install_script_agent, intact, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        install_script_agent(made.host("b"))
        yield made


def test_a_session_lives_dies_returns_and_moves_over_the_systems_own_ssh(fleet: Fleet) -> None:
    program = Program(fleet, "over")
    a, b = Site(fleet.hosts["a"], "over"), Site(fleet.hosts["b"], "over")
    hosts = "".join(f'[hosts.{name}]\ntransport = "openssh"\n' for name in ("a", "b"))
    program.write(hosts + session("api", "a", more='prompt = "MARK-one"\n'))
    program.apply()
    program.settled()
    until("it answers", lambda: a.messages("api") == ["MARK-one"])
    (pid,) = a.pids("api")
    a.kill(pid)
    assert "session.api" in program.apply()
    assert a.opens("api") == ["start", "resume"]
    program.write(hosts + session("api", "b", more='prompt = "MARK-one"\n'))
    program.apply()
    only_on([a, b], "b", "api")
    assert b.messages("api") == ["MARK-one"]
    intact(a, b)
