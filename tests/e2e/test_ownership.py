"""Which sessions are whose: protected by command, let go of, left over; on real hosts."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, Site, fleet_of, intact, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"own{request.session.items.index(request.node)}")


@pytest.fixture
def site(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["gpu"], program.name)


def session(name: str = "api", more: str = "") -> str:
    return f'[sessions.{name}]\nhost = "gpu"\nagent = "script"\n{more}\n'


def verbs(program: Program) -> list[tuple[str, str, str]]:
    entries = json.loads(program.run("history", "--json").stdout)["entries"]
    return [(entry["verb"], entry["address"], entry["outcome"]) for entry in entries]


def ok(program: Program, *words: str, code: int = 0) -> str:
    done = program.run(*words)
    assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_a_session_protected_by_command_outlives_every_change_of_the_specs(program: Program, site: Site) -> None:
    program.write(session())
    assert "session.api is on no host yet" in ok(program, "protect", "api", code=64)
    program.apply()
    (pid,) = site.pids("api")
    assert "protected until: reconciler unprotect session.api" in ok(program, "protect", "api")
    assert "was protected by" in ok(program, "protect", "session.api")
    program.settled()
    for specs in (session(more='state = "stopped"'), session(more='env = { A = "b" }'), ""):
        program.write(specs)
        action = program.plan()["session.api"]
        assert (action["verb"], action["reason"]) == ("blocked", "protected")
        assert "protected by root@" in action["message"]
        assert " since 20" in action["message"]
        assert "reconciler unprotect session.api" in program.apply(code=7)
        assert site.pids("api") == [pid]
    program.write(session(more='labels = { a = "b" }'))
    program.apply()
    assert site.record("api")["protected_by"].startswith("root@")
    assert program.run("apply", "--auto-approve", "--restart", "api").returncode == 7
    assert "Protected" in [c["type"] for c in program.status()["session.api"]["conditions"]]
    assert ("protect", "session.api", "done") in verbs(program)
    program.write("")
    assert "is not protected any more" in ok(program, "unprotect", "api")
    assert "was not protected" in ok(program, "unprotect", "api")
    program.apply()
    assert site.pids("api") == []
    intact(site)


def test_a_protection_outlives_the_death_of_the_process(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    ok(program, "protect", "api")
    site.kill(site.pids("api")[0])
    program.apply()
    assert site.opens("api") == ["start", "resume"]
    program.write("")
    assert program.plan()["session.api"]["reason"] == "protected"


def test_what_the_specs_protect_stays_protected_and_that_is_said(program: Program, site: Site) -> None:
    program.write(session(more="protect = true"))
    program.apply()
    said = ok(program, "unprotect", "api")
    assert "session.api on gpu was not protected" in said
    assert "the specs say protect = true at specs/fleet.toml:" in said
    assert site.record("api")["protected"]
    program.write("")  # nobody can write protect = false of what is not declared
    assert "reconciler unprotect session.api" in program.plan()["session.api"]["remedy"]
    assert "is not protected any more" in ok(program, "unprotect", "api")
    assert program.plan()["session.api"]["verb"] == "stop"


def test_a_session_on_a_host_that_does_not_answer_is_not_said_to_be_protected(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    site.host.cable_out()
    try:
        said = ok(program, "protect", "api", code=1)
        assert "gpu may have session.api, and does not answer" in said
    finally:
        site.host.cable_in()
    assert site.record("api")["protected_by"] == ""


@pytest.mark.parametrize("strategy", ["tmux", "process"])
def test_a_session_is_forgotten_by_command_and_goes_on(program: Program, site: Site, strategy: str) -> None:
    declared = session(more=f'strategy = "{strategy}"')
    program.write(declared)
    program.apply()
    (pid,) = site.pids("api")
    conversation = site.record("api")["conversation"]
    assert "declared at specs/fleet.toml:" in ok(program, "forget", "api", "--yes", code=7)
    program.write("")
    assert "there is no terminal to ask on" in ok(program, "forget", "api", code=64)
    assert site.record("api")["conversation"] == conversation
    assert "goes on, unmanaged" in ok(program, "forget", "api", "--yes")
    assert site.host.testinfra().process.get(pid=pid).state[0] == "S"
    assert not (site.state / "sessions" / "api").exists()
    program.settled()
    assert ("forget", "session.api", "done") in verbs(program)
    assert "is on no host" in ok(program, "forget", "api", "--yes", code=64)
    program.write(declared)
    program.apply()
    program.settled()
    assert site.record("api")["conversation"] != conversation, "declared again, it begins anew"
    assert site.host.testinfra().process.get(pid=pid).state[0] == "S", "and ends nothing that was let go of"
    site.kill(pid)
    until("its end is nobody's", lambda: pid not in [found for found, _ in site.host.processes()])
    time.sleep(0.5)
    program.settled()
    assert not (site.state / "sessions/api/exit.1").exists()
    intact(site)


def test_a_session_whose_host_left_the_specs_is_forgotten_here_and_goes_on_there(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    (pid,) = site.pids("api")
    rest = "[hosts.other]\nenabled = false\n"
    program.raw(f'[fleet]\nname = "{program.name}"\n{rest}')
    action = program.plan()["session.api"]
    assert (action["verb"], action["reason"]) == ("unknown", "host-undeclared")
    assert "reconciler forget session.api" in action["message"]
    assert "gpu is not in the specs: what runs there goes on" in ok(program, "forget", "api", "--yes")
    assert "session.api" not in program.plan()
    assert site.pids("api") == [pid]
    assert site.record("api")["intent"] == "running"


# -- orphans -----------------------------------------------------------------------------------------------------------


def by_hand(site: Site, session: str, conversation: str, *, socket: str = "") -> int:
    """An agent in a tmux session of the user's own; its pid."""
    words = ["tmux", *(["-S", socket] if socket else []), "new-session", "-d", "-s", session]
    command = f"exec $HOME/bin/script-agent start {conversation}"
    done = site.host.exec([*words, "-c", site.host.inner_home, "sh", "-c", f"sh -c '{command}'; sleep 0"])
    assert done.returncode == 0, done.stderr

    def found() -> int | None:
        pids = [pid for pid, argv in site.host.processes() if conversation in argv and "python3" in argv[0]]
        ready = pids and (site.host.home / f".claude/sessions/{pids[0]}.json").exists()
        return pids[0] if ready else None

    return until("the agent runs", found)


def orphans(program: Program, code: int = 0) -> list[dict[str, Any]]:
    done = program.run("orphans", "--json")
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)["orphans"]
    assert isinstance(found, list)
    return found


def test_what_runs_and_is_declared_by_nobody_is_told_with_what_to_do(program: Program, site: Site) -> None:
    conversation = str(uuid.uuid4())
    hand = by_hand(site, "work", conversation)
    elsewhere = by_hand(site, "deep", str(uuid.uuid4()), socket="/tmp/other.sock")
    try:
        program.write(session() + session("left"))
        program.apply()
        (left,) = site.pids("left")
        program.write(session())
        program.env["COLUMNS"] = "200"
        mine, *strays = [o for o in orphans(program) if o["pid"] in (hand, elsewhere) or o["kind"] == "session"]
        assert (mine["kind"], mine["what"], mine["pid"]) == ("session", "session.left", left)
        assert (mine["take"], mine["end"]) == (
            "reconciler forget session.left", "reconciler apply --target session.left",
        )  # fmt: skip
        assert mine["conversation_id"] == site.record("left")["conversation"]
        assert [o["pid"] for o in strays] == sorted([hand, elsewhere])
        told = {o["pid"]: o for o in strays}
        assert told[hand]["conversation_id"] == conversation
        assert told[hand]["tmux"]["socket"].endswith("/default")
        assert told[elsewhere]["tmux"]["socket"] == "/tmp/other.sock"
        assert told[hand]["take"] == f"reconciler adopt work --host gpu --pid {hand}"
        assert told[hand]["directory"] == site.host.inner_home
        assert told[hand]["since"] == pytest.approx(time.time(), abs=60)
        pids = {o["pid"] for o in orphans(program)}
        assert not pids & {*site.pids("api")}, "what is declared is no orphan"
        text = ok(program, "orphans")
        assert f"gpu: telling, pid {hand}" in text or f"gpu: script, pid {hand}" in text
        ok(program, "forget", "left", "--yes")
        (gone,) = [o for o in orphans(program) if o["pid"] == left]
        assert gone["kind"] == "process"
        assert f"let go of as session.left of the fleet {program.name}" in gone["note"]
        assert gone["conversation_id"]
    finally:
        for pid in (hand, elsewhere):
            site.kill(pid)


def test_a_host_that_does_not_answer_has_no_orphans_that_anybody_knows_of(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    program.write("")
    site.host.cable_out()
    try:
        done = program.run("orphans")
    finally:
        site.host.cable_in()
    assert done.returncode == 4
    assert "? host.gpu:" in done.stdout
