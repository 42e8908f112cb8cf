"""A host that opens one session on a connection (`MaxSessions 1`): slower, and otherwise as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, Site, fleet_of, install_script_agent, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of() as made:
        host = made.host("narrow", boot=False)
        config = host.state / "sshd_config"
        config.write_text("MaxSessions 1\n" + config.read_text())
        install_script_agent(host)
        host.boot()
        yield made


@pytest.mark.parametrize("transport", ["ssh", "openssh"])
def test_sessions_are_planned_started_and_looked_at_over_the_one_session_that_there_is(
    fleet: Fleet, transport: str
) -> None:
    program = Program(fleet, f"narrow-{transport}")
    site = Site(fleet.hosts["narrow"], program.name)
    sessions = "".join(
        f'[sessions.{name}]\nhost = "narrow"\nagent = "script"\nprompt = "MARK-{name}"\n' for name in ("a", "b")
    )
    program.write(f'[hosts.narrow]\ntransport = "{transport}"\n{sessions}')
    assert {action["verb"] for action in program.plan().values()} == {"start"}
    program.apply()
    program.settled()
    until("they answer", lambda: [site.messages(name) for name in ("a", "b")] == [["MARK-a"], ["MARK-b"]])
    assert program.run("exec", "narrow", "--", "echo", "there").stdout == "there\n"
    done = program.run("doctor", "narrow", "--json")
    (check,) = [c for c in json.loads(done.stdout)["hosts"][0]["checks"] if c["name"] == "channels"]
    assert (check["ok"], check["message"]) == (None, "its sshd opens only 1 session on one connection")
    assert check["remedy"].endswith("MaxSessions 10")
