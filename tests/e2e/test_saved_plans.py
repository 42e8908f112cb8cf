"""A saved plan on a real host: shown without it, carried out once, and never for something else than it says."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, Site, fleet_of

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"saved{request.session.items.index(request.node)}")


@pytest.fixture
def site(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["gpu"], program.name)


def session(name: str, more: str = "") -> str:
    return f'[sessions.{name}]\nhost = "gpu"\nagent = "script"\nstop = {{ when = "now" }}\n{more}\n'


def save(program: Program) -> str:
    done = program.run("plan", "-o", "plan.json")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_shown_without_the_host_and_carried_out_once(program: Program, site: Site) -> None:
    program.write(session("api"))
    text = save(program)
    path = program.directory / "plan.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    spec = (program.specs / "fleet.toml").read_text(encoding="utf-8")
    (program.specs / "fleet.toml").unlink()
    shown = program.run("show", "plan.json")
    assert shown.returncode == 0
    assert shown.stdout.startswith(text)
    assert json.loads(program.run("show", "plan.json", "--json").stdout)["plan"]["summary"]["start"] == 1
    (program.specs / "fleet.toml").write_text(spec, encoding="utf-8")

    applied = program.run("apply", "plan.json")
    assert applied.returncode == 0, applied.stderr
    (pid,) = site.pids("api")
    again = program.run("apply", "plan.json")
    assert again.returncode == 5
    assert "carried out before" in again.stderr
    assert site.pids("api") == [pid]


def test_what_is_not_as_it_was_is_left_and_the_rest_is_done(program: Program, site: Site) -> None:
    program.write(session("api") + session("db"))
    program.apply("--target", "api")
    program.write(session("api", 'state = "stopped"') + session("db"))
    save(program)
    (old,) = site.pids("api")
    site.kill(old)
    program.write(session("api") + session("db"))
    program.apply("--target", "api")
    (new,) = site.pids("api")
    program.write(session("api", 'state = "stopped"') + session("db"))
    done = program.run("apply", "plan.json")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "session.api skipped" in done.stdout
    assert site.pids("api") == [new]  # it was another process that was to be stopped
    assert len(site.pids("db")) == 1


def test_other_specs_or_another_day_are_refused(program: Program, site: Site) -> None:
    program.write(session("api"))
    save(program)
    path = program.directory / "plan.json"
    program.write(session("api", 'model = "other"'))
    refused = program.run("apply", "plan.json")
    assert (refused.returncode, "made of other specs" in refused.stderr) == (5, True)
    program.write(session("api"))
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, "at": document["at"] - 90_000}), encoding="utf-8")
    refused = program.run("apply", "plan.json")
    assert (refused.returncode, "older than a day" in refused.stderr) == (5, True)
    path.write_text("{}", encoding="utf-8")
    assert program.run("apply", "plan.json").returncode == 64
    assert program.run("apply", "plan.json", "--target", "api").returncode == 64
    assert not (site.state / "sessions/api/record.json").exists()
