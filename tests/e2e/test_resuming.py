"""`apply --resume RUN` on real hosts: what was approved of and is not done is done, once, and nothing else"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, Site, fleet_of, install_script_agent, intact, until

pytestmark = pytest.mark.e2e
SLOW_LOGIN = 'PATH="$HOME/bin:$PATH"\nsleep 0.4\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("near", "far") as made:
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"resume{request.session.items.index(request.node)}")


@pytest.fixture
def near(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["near"], program.name)


@pytest.fixture
def far(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["far"], program.name)


@pytest.fixture
def slow(fleet: Fleet) -> Iterator[Host]:
    """Each launch on this host takes a while: time to be killed in."""
    host = fleet.hosts["near"]
    host.write("~/.profile", SLOW_LOGIN)
    yield host
    install_script_agent(host)


def session(name: str, host: str = "near", more: str = "") -> str:
    keys = 'agent = "script"\nstrategy = "process"\nprompt = "MARK-one"'
    return f'[sessions.{name}]\nhost = "{host}"\n{keys}\n{more}\n'


def chain(count: int, more: str = "") -> str:
    """One after the other, so that something is left whenever it is cut off."""
    after = [f'depends_on = ["s{number - 1}"]' if number else "" for number in range(count)]
    return "".join(session(f"s{number}", more=f"{after[number]}\n{more}") for number in range(count))


def hint(text: str) -> str:
    """The run that a recap says how to continue."""
    found = re.search(r"^continue with: reconciler apply --resume (\w+)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def known(program: Program) -> str:
    """The run that was begun last, as the refusal of an unknown one names it."""
    done = program.run("apply", "--resume", "feedfeed")
    assert done.returncode == 64, done.stderr
    found = re.search(r"remedy: reconciler apply --resume (\w+)", done.stderr)
    assert found, done.stderr
    return found[1]


def resume(program: Program, run: str, code: int = 0) -> str:
    done = program.run("apply", "--resume", run)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def once(site: Site, *names: str) -> None:
    """Each was begun once and told once, in one process."""
    for name in names:
        assert (len(site.pids(name)), site.messages(name)) == (1, ["MARK-one"]), name
    intact(site)


def test_where_a_host_was_away_the_rest_is_done_once_it_is_back_and_only_the_rest(
    program: Program, near: Site, far: Site, fleet: Fleet
) -> None:
    program.write(session("api") + session("db", "far") + session("web", "far", 'depends_on = ["db"]'))
    assert program.run("plan", "-o", "plan.json").returncode == 0
    fleet.hosts["far"].power_cut()
    try:
        done = program.run("apply", "plan.json")
    finally:
        fleet.hosts["far"].boot()
    assert done.returncode == 3, done.stdout + done.stderr
    run = hint(done.stdout)
    assert not (far.state / "sessions/db").exists()
    # What is done is done: that it dies afterwards is nothing that this run was approved of mending.
    (pid,) = near.pids("api")
    near.kill(pid)
    assert resume(program, run).count(": done in") == 2
    once(far, "db", "web")
    assert near.pids("api") == []
    assert "Nothing is left of run" in resume(program, run)
    assert program.run("apply", "plan.json").returncode == 5
    assert near.pids("api") == []


def test_a_host_that_goes_away_in_the_middle_leaves_a_rest(
    program: Program, near: Site, far: Site, fleet: Fleet
) -> None:
    telling = '[sessions.db]\nhost = "near"\nagent = "telling"\nstrategy = "process"\nprompt = "SLOW:3"\n'
    until_idle = 'depends_on = [{ session = "db", until = "idle" }]'
    program.write(telling + session("web", "far", until_idle))
    with program.start("apply", "--auto-approve", "--json") as process:
        until("the first message", lambda: (near.state / "sessions/db/record.json").exists() and near.messages("db"))
        fleet.hosts["far"].cable_out()
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            fleet.hosts["far"].cable_in()
    assert process.returncode == 3, output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    (version,) = [line for line in lines if line["type"] == "version"]
    (recap,) = [line for line in lines if line["type"] == "recap"]
    assert recap["resume"] == f"reconciler apply --resume {version['run'][:12]}"
    assert recap["run"] == version["run"]
    resume(program, version["run"])
    once(far, "web")
    assert near.messages("db") == ["SLOW:3"]
    program.settled()


@pytest.mark.usefixtures("slow")
def test_killed_again_and_again_the_run_gets_to_its_end_and_does_everything_once(program: Program, near: Site) -> None:
    program.write(chain(3))
    with program.start("apply", "--auto-approve") as process:
        until("the first record", lambda: (near.state / "sessions/s0/record.json").exists())
        process.kill()
        process.communicate()
    run = known(program)
    entries = json.loads(program.run("history", "--json").stdout)
    assert [(found["id"][:12], found["left"]) for found in entries["runs"]] == [(run, 3)]
    with program.start("apply", "--resume", run) as process:
        until("the second record", lambda: (near.state / "sessions/s1/record.json").exists())
        process.kill()
        process.communicate()
    until("the last operation is over", lambda: not near.at_work())
    resume(program, run)
    once(near, "s0", "s1", "s2")
    assert {tuple(near.opens(f"s{number}")) for number in range(3)} == {("start",)}
    program.settled()


@pytest.mark.usefixtures("slow")
def test_killed_between_the_end_and_the_start_of_a_restart_the_run_starts_it_again(
    program: Program, near: Site
) -> None:
    program.write(chain(2))
    program.apply()
    old = {number: near.pids(f"s{number}") for number in range(2)}
    program.write(chain(2, 'env = { NEW = "process" }\nstop = { when = "now" }'))
    with program.start("apply", "--auto-approve") as process:
        until("one is stopped", lambda: any(near.record(f"s{n}")["intent"] == "stopped" for n in range(2)))
        process.kill()
        process.communicate()
    until("the last operation is over", lambda: not near.at_work())
    resume(program, known(program))
    once(near, "s0", "s1")
    for number in range(2):
        (pid,) = near.pids(f"s{number}")
        assert [pid] != old[number]
        assert near.environ(pid)["NEW"] == "process"
        assert near.opens(f"s{number}") == ["start", "resume"]
    program.settled()


@pytest.mark.usefixtures("slow")
def test_after_ctrl_c_and_after_a_failure_it_goes_on_and_never_past_what_was_approved(
    program: Program, near: Site
) -> None:
    program.write(chain(3, 'workdir = "~/work"'))
    near.host.write("~/work/x", "")
    with program.start("apply", "--auto-approve") as process:
        until("the first record", lambda: (near.state / "sessions/s0/record.json").exists())
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    run = hint(output)
    # What the next one needs is gone: it cannot be done, and it can be once that is back.
    assert near.host.exec(["mv", f"{near.host.inner_home}/work", f"{near.host.inner_home}/away"]).returncode == 0
    said = resume(program, run, code=7)
    assert "does not exist on near" in said
    assert hint(said) == run
    assert near.host.exec(["mv", f"{near.host.inner_home}/away", f"{near.host.inner_home}/work"]).returncode == 0
    # Another session dies meanwhile: that is for another plan.
    (pid,) = near.pids("s0")
    near.kill(pid)
    said = resume(program, run, code=7)
    assert "session.s0" in said
    assert near.pids("s0") == []
    program.apply()
    assert "Apply: 2 done." in resume(program, run)  # somebody else did it meanwhile
    assert "Nothing is left" in resume(program, run)


def test_other_specs_another_day_and_what_nobody_knows_are_refused(program: Program, near: Site) -> None:
    program.write(session("api"))
    assert "there is no run" in program.run("apply", "--resume", "feedfeed").stderr
    program.write(session("api") + session("gone", more='ready = { pattern = "never", timeout = "1s" }'))
    run = hint(program.apply(code=3))
    program.write(session("api", more='labels = { other = "specs" }'))
    assert "other specs" in resume(program, run, code=5)
    program.write(session("api") + session("gone", more='ready = { pattern = "never", timeout = "1s" }'))
    with sqlite3.connect(program.journal) as database:
        ((key, text),) = database.execute("SELECT key, value FROM memory WHERE key LIKE 'run %'").fetchall()
        found = json.loads(text)
        found["left"]["at"] = time.time() - 90_000
        database.execute("UPDATE memory SET value = ? WHERE key = ?", (json.dumps(found), key))
    database.close()
    refused = resume(program, run, code=5)
    assert "more than a day ago" in refused
    assert "remedy: reconciler apply" in refused
    assert program.run("apply", "--resume", run, "--target", "api").returncode == 64
    assert len(near.pids("api")) == 1
