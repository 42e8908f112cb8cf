"""`run` is told by the host itself when an agent has ended; where there is no room for that, all is as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.moving import on_screen
from tests.e2e.program import Program, Site, fleet_of, install_script_agent, intact, until
from tests.e2e.test_run import lives, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("wide") as made:
        for name, most in (("two", 2), ("one", 1)):
            host = made.host(name, boot=False)
            config = host.state / "sshd_config"
            config.write_text(f"MaxSessions {most}\n" + config.read_text())
            install_script_agent(host)
            host.boot()
        yield made


def _sessions(site: Site) -> list[str]:
    words = ["tmux", "-S", f"{site.inner_state}/tmux", "list-sessions", "-F", "#{session_name}:#{session_attached}"]
    return sorted(site.host.exec(words).stdout.split())  # between two sessions there may be no server


def test_an_agent_that_ends_is_back_long_before_the_next_look_was_due(fleet: Fleet) -> None:
    program = Program(fleet, "listening")
    site = Site(fleet.hosts["wide"], program.name)
    program.write(on_screen("api", "wide", 'prompt = "MARK-one"\n'))
    with running(program, interval="120s") as run:
        until("it runs", lambda: lives(site, "api"), 30)
        until("it is listened to", lambda: _sessions(site) == ["_ctl:1", "api:0"])
        until("it answers", lambda: site.messages("api") == ["MARK-one"])
        until("it is ready", lambda: program.status()["session.api"]["phase"] != "pending", 20)
        (pid,) = lives(site, "api")
        site.kill(pid)
        until("it was resumed", lambda: [p for p in lives(site, "api") if p != pid], 30)
        until("and is listened to", lambda: _sessions(site) == ["_ctl:1", "api:0"])
        until("and that is said", lambda: program.status()["session.api"]["phase"] in ("running", "idle", "busy"))
        assert program.run("orphans").stdout.count("_ctl") == 0
        assert run.end() == 0
    until("nothing of it is left", lambda: _sessions(site) == ["api:0"])
    intact(site)


@pytest.mark.parametrize("name", ["one", "two"])
def test_where_there_is_no_room_to_listen_all_is_as_before(fleet: Fleet, name: str) -> None:
    program = Program(fleet, f"narrow-{name}")
    site = Site(fleet.hosts[name], program.name)
    program.write(on_screen("api", name, 'prompt = "MARK-one"\n') + on_screen("web", name))
    with running(program, interval="1s") as run:
        until("they run", lambda: lives(site, "api") and lives(site, "web"), 40)
        until("it answers", lambda: site.messages("api") == ["MARK-one"])
        (pid,) = lives(site, "api")
        site.kill(pid)
        until("it was resumed", lambda: [p for p in lives(site, "api") if p != pid], 40)
        assert "unknown" not in run.said
        assert run.end() == 0
    until("nothing of it is left", lambda: _sessions(site) == ["api:0", "web:0"])
    intact(site)
