"""`reconciler sync`, `transcript` and `purge` as a user runs them, on real hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, Site, fleet_of, until

pytestmark = pytest.mark.e2e
RUNS = '[sessions.api]\nhost = "gpu"\nagent = "script"\nprompt = "hello"\n'
STOPPED = RUNS + 'state = "stopped"\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


class World:
    """One fleet by a name of its own, with one session that has said something and is archived."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.host = fleet.hosts["gpu"]
        self.program = Program(fleet, name)
        self.site = Site(self.host, name)
        self.program.write(RUNS)
        self.program.apply()
        until("the first answer", lambda: '"answer"' in self.path.read_text())
        self.stop()
        self.ok("sync")

    def stop(self) -> None:
        self.program.write(STOPPED)
        self.program.apply()

    @property
    def path(self) -> Path:
        """The transcript on the host."""
        return self.host.home / ".script-agent" / f"{self.site.record('api')['conversation']}.jsonl"

    @property
    def archive(self) -> Path:
        """Where the archive lies on the controller."""
        return self.program.fleet.controller_home / ".local/share/reconciler" / self.program.name / "archive"

    def archived(self) -> bytes:
        """The archive's copy."""
        [found] = self.archive.glob("api/*/files/*.jsonl")
        return found.read_bytes()

    def ok(self, *arguments: str, code: int = 0) -> str:
        done = self.program.run(*arguments)
        assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def audited(self, verb: str) -> list[tuple[str, str]]:
        """Kind and outcome of the entries of the audit log that a command left, oldest first; the chain holds."""
        self.ok("audit", "verify")
        entries = json.loads(self.ok("audit", "show", "--json"))["entries"]
        return [(entry["kind"], entry["outcome"]) for entry in entries if entry["command"] == verb]

    def rewrite(self, text: str) -> bytes:
        """The host's copy takes another course."""
        data = self.path.read_bytes().replace(b'"hello"', b'"HELLO"') + text.encode() + b"\n"
        self.host.write(f".script-agent/{self.path.name}", data.decode())
        return data


@pytest.fixture
def world(fleet: Fleet, request: pytest.FixtureRequest) -> World:
    return World(fleet, f"f{abs(hash(request.node.name)) % 10**8}")


def test_a_sync_brings_the_archive_up_to_date(world: World) -> None:
    assert world.archived() == world.path.read_bytes()
    world.host.write(f".script-agent/{world.path.name}", world.path.read_text() + '{"kind":"user","text":"more"}\n')
    said = world.ok("sync")
    assert "↓ session.api" in said
    assert world.archived() == world.path.read_bytes()
    assert "= session.api" in world.ok("sync", "api")
    assert "more" in world.ok("transcript", "api")
    assert "hello" in world.ok("transcript", "api", "--markdown")


def test_where_the_copies_part_both_are_shown_and_nothing_is_decided(world: World) -> None:
    ours = world.archived()
    theirs = world.rewrite('{"kind": "user", "text": "another course"}')
    document = json.loads(world.program.run("sync", "--json").stdout)
    [found] = document["sessions"]
    assert found["outcome"] == "diverged"
    assert found["forks"][0]["host"]["size"] == len(theirs)
    assert found["forks"][0]["archive"]["size"] == len(ours)
    assert "reconciler sync api --take archive, or reconciler sync api --take host" in world.ok("sync", code=3)
    assert (world.archived(), world.path.read_bytes()) == (ours, theirs)
    assert "no terminal" in world.ok("sync", "api", "--take", "host", code=64)
    assert "named" in world.ok("sync", "--take", "host", "--auto-approve", code=64)


def test_the_hosts_copy_can_be_taken(world: World) -> None:
    ours = world.archived()
    theirs = world.rewrite('{"kind": "user", "text": "another course"}')
    world.ok("sync", "api", "--take", "host", "--auto-approve")
    assert (world.archived(), world.path.read_bytes()) == (theirs, theirs)
    assert ours in [path.read_bytes() for path in world.archive.rglob("diverged/*/*")]
    assert "= session.api" in world.ok("sync")
    assert world.audited("sync") == [("sync-take", "")]


def test_the_archives_copy_can_be_taken_and_the_hosts_is_kept_there(world: World) -> None:
    ours = world.archived()
    theirs = world.rewrite('{"kind": "user", "text": "another course"}')
    said = world.ok("sync", "api", "--take", "archive", "--auto-approve")
    assert "is kept there" in said
    assert (world.archived(), world.path.read_bytes()) == (ours, ours)
    replaced = world.site.state / "sessions/api/replaced"
    assert theirs in [path.read_bytes() for path in replaced.rglob("*") if path.is_file()]
    assert "= session.api" in world.ok("sync")
    assert world.audited("sync") == [("intent", ""), ("outcome", "done")]


def test_the_archives_copy_is_not_put_under_a_session_that_runs(world: World) -> None:
    world.program.write(RUNS)
    world.program.apply()
    theirs = world.rewrite('{"kind": "user", "text": "another course"}')
    said = world.ok("sync", "api", "--take", "archive", "--auto-approve", code=1)
    assert "cannot be replaced under it" in said
    assert world.audited("sync") == [("intent", ""), ("outcome", "failed")]
    assert world.path.read_bytes().startswith(theirs)


def test_a_purge_deletes_everything_but_the_tombstone(world: World) -> None:
    path = world.path
    assert "no terminal" in world.ok("purge", "api", code=64)
    assert path.exists()
    world.ok("purge", "api", "--auto-approve")
    assert not path.exists()
    assert not (world.site.state / "sessions/api").exists()
    assert [p.name for p in world.archive.rglob("*.json")] == [f"{path.stem}.json"]
    assert not list(world.archive.rglob("*.jsonl"))
    assert world.audited("purge") == [("purge", ""), ("intent", ""), ("outcome", "done")]
    assert "neither on a host nor in the archive" in world.ok("purge", "api", "--auto-approve", code=64)


def test_a_purged_name_that_is_declared_again_begins_anew_and_nothing_blocks_it(world: World) -> None:
    before = world.site.record("api")["conversation"]
    world.ok("purge", "api", "--auto-approve")
    world.program.write(RUNS)
    action = world.program.plan()["session.api"]
    assert (action["verb"], action["reason"]) == ("start", "new")
    world.program.apply()
    world.program.settled()
    after = world.site.record("api")["conversation"]
    assert after != before
    until("the first answer", lambda: '"answer"' in world.path.read_text())
    world.stop()
    world.ok("sync")
    assert world.archived() == world.path.read_bytes()
    assert {p.stem for p in world.archive.glob(".tombstones/api/*.json")} == {before}, "the tombstone stays"
    world.ok("purge", "api", "--auto-approve")
    assert {p.stem for p in world.archive.glob(".tombstones/api/*.json")} == {before, after}
    world.program.write(RUNS)
    world.program.apply()
    assert world.site.record("api")["conversation"] not in (before, after)


def test_a_purge_of_a_session_that_runs_is_refused(world: World) -> None:
    world.program.write(RUNS)
    world.program.apply()
    assert "nothing was deleted" in world.ok("purge", "api", "--auto-approve", code=7)
    assert world.path.exists()
    assert world.archived()


def test_a_purge_is_refused_while_the_host_does_not_answer(world: World) -> None:
    world.host.cable_out()
    try:
        assert "nothing was deleted" in world.ok("purge", "api", "--auto-approve", code=1)
        assert "? host.gpu was not reached" in world.ok("sync", code=4)
    finally:
        world.host.cable_in()
    assert world.path.exists()
    assert world.archived()
