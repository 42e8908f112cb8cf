"""`audit verify`, `show` and `export`, and what `history` and `why` say of it, as a user calls them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.audit import reading
from reconciler.cli.audit import parse_since
from reconciler.core.audit import Actor
from reconciler.errors import UsageError
from reconciler.journal import Journal

SPECS = '[sessions.api]\nagent = "shell"\nargs = ["sleep", "60"]\nstrategy = "process"\n'
WINDOW = '[[windows]]\nkind = "deny"\nschedule = "* * * * *"\nduration = "1h"\n'


class Machine:
    """A home directory of its own, in which nothing runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / ".local/state/reconciler/default/controller/journal.sqlite"
        (directory / "specs").mkdir()
        (directory / "specs" / "fleet.toml").write_text(SPECS)

    def run(self, *arguments: str, code: int = 0, stdin: int = subprocess.DEVNULL) -> str:
        env = {"HOME": str(self.directory), "PATH": "/usr/bin:/bin", "USER": "ann", "LOGNAME": "ann", "TZ": "UTC"}
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", *arguments], cwd=self.directory, env=env, capture_output=True,
            text=True, check=False, stdin=stdin,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def act(self, op: str = "op") -> None:
        """Something that `run` did at a commit."""
        with Journal(self.journal, Actor("svc", "box", "svc@box:1", "run")) as journal:
            journal.comes_from("main@sha1:" + "ab" * 20, "ab" * 20, "Bob <bob@example.com>")
            journal.begin(
                op, address="session.api", host="local", verb="start", precondition="absent", fence=7,
                revision="main@sha1:" + "ab" * 20, evidence="missing: \x1b[31mit is not there; seen: local: absent",
            )  # fmt: skip
            journal.finish(op, "done", "")

    def entries(self) -> list[dict[str, Any]]:
        """All of them; and the chain holds."""
        with reading(self.journal) as log:
            assert log is not None
            assert log.verify().broken == ()
            return [asdict(entry) for entry in log.entries()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_history_and_why_say_who_at_which_revision_and_on_what_evidence(machine: Machine) -> None:
    machine.act()
    said = machine.run("history")
    assert "start    session.api on local  done\n" in said
    assert "by svc@box (run), at main@sha1:abababababab of Bob <bob@example.com>" in said
    assert "missing: \\x1b[31mit is not there; seen: local: absent" in said
    (entry,) = json.loads(machine.run("history", "api", "--json"))["entries"]
    wanted = {"op": "op", "user": "svc", "machine": "box", "command": "run", "author": "Bob <bob@example.com>",
              "precondition": "absent", "fence": 7, "outcome": "done"}  # fmt: skip
    assert entry | wanted == entry
    assert "done last:\n  3  " in machine.run("why", "api")
    assert json.loads(machine.run("why", "api", "--json"))["audit"]["kind"] == "outcome"


def test_verify_gives_a_head_that_proves_later_that_nothing_is_gone(machine: Machine) -> None:
    assert machine.run("audit", "verify") == "the audit log has no entries yet\n"
    assert not machine.journal.exists()
    machine.act()
    said = machine.run("audit", "verify")
    assert said.startswith("3 entries, ")
    assert "keep this hash elsewhere" in said
    found = json.loads(machine.run("audit", "verify", "--json"))
    assert (found["valid"], found["entries"], found["broken"]) == (True, 3, [])
    machine.act("two")
    assert "2 came after it" in machine.run("audit", "verify", "--head", found["head"])
    with contextlib.closing(sqlite3.connect(machine.journal)) as db, db:
        db.execute("DROP TRIGGER audit_delete")
        db.execute("DELETE FROM audit WHERE seq > 2")
        db.execute("DELETE FROM intents WHERE op = 'two'")
        db.execute("UPDATE intents SET outcome = NULL, message = NULL")
    assert machine.entries()[-1]["seq"] == 2, "by itself what is left holds"
    assert f"no entry has the hash {found['head']}" in machine.run("audit", "verify", "--head", found["head"], code=1)
    machine.run("audit", "verify", "--head", "abc", code=64)


def test_verify_ends_with_1_and_names_the_entry_where_the_chain_is_broken(machine: Machine) -> None:
    machine.act()
    with contextlib.closing(sqlite3.connect(machine.journal)) as db, db:
        db.execute("DROP TRIGGER audit_update")
        db.execute("UPDATE audit SET user = 'mallory' WHERE seq = 2")
    found = json.loads(machine.run("audit", "verify", "--json", code=1))
    assert (found["valid"], [item["entry"] for item in found["broken"]]) == (False, [2])
    assert found["broken"][0]["message"].startswith("what it says gives the hash")


def test_an_export_is_checked_without_specs_and_journal_and_so_is_a_copy_of_the_file(
    machine: Machine, tmp_path: Path
) -> None:
    machine.act()
    text = machine.run("audit", "export")
    assert [json.loads(line)["seq"] for line in text.splitlines()] == [1, 2, 3]
    (tmp_path / "log.jsonl").write_text(text)
    machine.journal.rename(tmp_path / "copy.sqlite")
    (tmp_path / "specs" / "fleet.toml").unlink()
    for file in ("log.jsonl", "copy.sqlite"):
        assert machine.run("audit", "verify", file).startswith("3 entries, ")
    (tmp_path / "log.jsonl").write_text(text.replace('"done"', '"gone"'))
    assert "broken at entry 3" in machine.run("audit", "verify", "log.jsonl", code=1)


def test_what_a_person_does_here_is_written_down_with_the_person(machine: Machine) -> None:
    machine.run("suspend", "api", "--reason", "the demo")
    machine.run("unsuspend", "api")
    machine.run("rollback", "--pin", "c" * 40, "--reason", "it broke")
    machine.run("rollback", "--unpin")
    found = [(e["kind"], e["address"], e["user"], e["command"], e["message"]) for e in machine.entries()[1:]]
    assert found == [
        ("suspend", "session.api", "ann", "suspend", "suspended by ann: the demo"),
        ("unsuspend", "session.api", "ann", "unsuspend", ""),
        ("pin", "source", "ann", "rollback", "it broke"),
        ("unpin", "source", "ann", "rollback", ""),
    ]  # fmt: skip
    assert "suspend          session.api  suspended by ann: the demo; by ann@" in machine.run("audit", "show", "api")


def test_an_approval_and_the_guards_it_lifts_are_written_down_before_anything_is_done(machine: Machine) -> None:
    (machine.directory / "specs" / "fleet.toml").write_text(WINDOW + SPECS.replace('"sleep", "60"', '"true"'))
    machine.run("apply", "--auto-approve", "--ignore-windows", code=1)  # it ends at once, and is not ready
    approval, lifted, intent, outcome = machine.entries()[1:]
    assert (approval["kind"], approval["evidence"].partition(".")[0]) == ("approval", "Plan: 1 to start")
    assert approval["message"].startswith("--auto-approve, plan ")
    assert (lifted["kind"], lifted["verb"], lifted["message"]) == ("guard-lifted", "windows", "--ignore-windows")
    assert (intent["kind"], intent["verb"], intent["op"]) == ("intent", "start", outcome["op"])
    assert intent["evidence"].endswith("seen: local: absent")
    assert (outcome["kind"], outcome["outcome"]) == ("outcome", "failed")


def test_what_is_refused_leaves_no_approval(machine: Machine) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"no\n")
        machine.run("apply", code=8, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert machine.entries() == []


NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_since_is_a_span_before_now_or_a_time() -> None:
    assert parse_since(None) == ""
    assert parse_since("2h", NOW) == "2026-11-21T10:00:00.000000Z"
    assert parse_since("2026-11-01T08:00+02:00") == "2026-11-01T06:00:00.000000Z"
    for text in ("soon", "", "999999999999d"):
        with pytest.raises(UsageError):
            parse_since(text, NOW)
