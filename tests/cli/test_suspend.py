"""`suspend` and `unsuspend`: what is kept, for how long, and that every command that acts or tells respects it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.suspend import parse_until
from reconciler.core.holds import Suspension
from reconciler.errors import UsageError
from reconciler.journal import Journal

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).astimezone()
SPECS = '[sessions.api]\nagent = "shell"\nargs = ["sleep", "60"]\nstrategy = "process"\n'


class Machine:
    """A home directory of its own, in which nothing runs and nothing is started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "specs").mkdir()
        self.specs(SPECS)

    def specs(self, text: str) -> None:
        (self.directory / "specs" / "fleet.toml").write_text(text)

    def run(self, *arguments: str, code: int = 0, stdin: int = subprocess.DEVNULL) -> str:
        env = {"HOME": str(self.directory), "PATH": "/usr/bin:/bin", "USER": "ann", "LOGNAME": "ann", "TZ": "UTC"}
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", *arguments], cwd=self.directory, env=env, capture_output=True,
            text=True, check=False, stdin=stdin,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_suspended_is_blocked_in_every_command_until_it_is_lifted(machine: Machine) -> None:
    said = machine.run("suspend", "api", "--until", "2099-12-01T08:00", "--reason", "the demo")
    assert said == "session.api is suspended by ann until 2099-12-01 08:00: the demo\n"
    (planned,) = json.loads(machine.run("plan", "--json").partition("\n}\n")[0] + "\n}")["actions"]
    assert (planned["verb"], planned["reason"]) == ("blocked", "suspended")
    sentence = planned["message"]
    since = r"since 20\d\d-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(rf"suspended by ann {since} until 2099-12-01 08:00: the demo", sentence)
    assert sentence in machine.run("apply", "--auto-approve", code=7)
    assert sentence in machine.run("why", "api")
    (found,) = json.loads(machine.run("status", "session.api", "--json"))["resources"]
    assert (found["phase"], found["remedy"]) == ("suspended", "reconciler unsuspend session.api")
    assert "session.api: reconciler unsuspend session.api" in machine.run("status", "session.api")
    assert machine.run("unsuspend", "session.api") == "session.api is not suspended any more\n"
    assert "1 to start" in machine.run("plan")


def test_a_host_and_the_fleet_can_be_suspended_and_what_still_holds_is_said(machine: Machine) -> None:
    machine.run("suspend", "host.local")
    machine.run("suspend", "fleet")
    assert "host.local is suspended by ann" in machine.run("plan")
    left = machine.run("unsuspend", "api")
    assert "session.api was not suspended" in left
    assert "still held: host.local is suspended by ann" in left
    assert "still held: fleet is suspended by ann" in machine.run("unsuspend", "host.local")
    assert "1 to start" not in machine.run("plan")
    machine.run("unsuspend", "fleet")
    assert "1 to start" in machine.run("plan")


def test_what_the_specs_suspend_is_said_to_be_still_held(machine: Machine) -> None:
    machine.specs(SPECS + "suspend = true\n")
    assert "suspended by the specs at specs/fleet.toml:5" in machine.run("plan")
    assert "still held: the specs say suspend = true" in machine.run("unsuspend", "api")


WINDOW = '[[windows]]\nkind = "deny"\nschedule = "* * * * *"\nduration = "1h"\n'


@pytest.mark.parametrize(
    ("options", "shown", "code"), [((), "held by the deny", 7), (("--ignore-windows",), "1 to start", 8)]
)
def test_a_window_holds_what_is_applied_by_hand_too_unless_told_otherwise(
    machine: Machine, options: tuple[str, ...], shown: str, code: int
) -> None:
    machine.specs(WINDOW + SPECS)
    assert "held by the deny window at specs/fleet.toml:1" in machine.run("plan")
    assert "held by the deny window" in machine.run("why", "api")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"no\n")
        assert shown in machine.run("apply", *options, code=code, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    "arguments",
    [("nobody",), ("host.nowhere",), ("agent.codex",), ("api", "--until", "2020-01-01"), ("api", "--until", "soon"),
     ("api", "--until", "0s"), ("api", "--until", "999999999d")],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_usage_error_and_keeps_nothing(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.run("suspend", *arguments, code=64)
    assert "1 to start" in machine.run("plan")


@pytest.mark.parametrize(
    ("text", "end"),
    [("2h", NOW + timedelta(hours=2)), ("30m", NOW + timedelta(minutes=30)),
     ("2026-12-01", datetime(2026, 12, 1).astimezone()), ("2026-12-01T08:00", datetime(2026, 12, 1, 8).astimezone()),
     ("2026-12-01T08:00+05:00", datetime(2026, 12, 1, 3, tzinfo=UTC)),
     ("2026-12-01T08:00Z", datetime(2026, 12, 1, 8, tzinfo=UTC))],
)  # fmt: skip
def test_a_span_or_a_local_time_is_a_moment(text: str, end: datetime) -> None:
    assert parse_until(text, NOW) == end


@given(st.text(max_size=30))
def test_any_other_text_is_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_until(text, NOW) > NOW


class TestJournal:
    def test_an_expired_suspension_does_not_hold_and_is_dropped_at_the_next_write(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "journal") as journal:
            end = datetime.now().astimezone() + timedelta(seconds=60)
            journal.suspend(Suspension("session.a", end, "why", "ann"))
            journal.suspend(Suspension("session.b"))
            later = time.time() + 61
            assert [s.address for s in journal.suspensions()] == ["session.a", "session.b"]
            assert [s.address for s in journal.suspensions(later)] == ["session.b"]
        with Journal(tmp_path / "journal") as journal:
            (first, _) = journal.suspensions()
            assert (first.until, first.reason, first.by) == (end, "why", "ann")
            assert first.at is not None
            journal.suspend(Suspension("session.a", datetime.now().astimezone() - timedelta(seconds=1)))
            assert journal.unsuspend("session.a") is False
            assert journal.unsuspend("session.b") is True
            assert journal.suspensions() == ()

    def test_what_is_kept_is_recalled_replaced_and_forgotten(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "journal") as journal:
            assert journal.recall("pin") is None
            journal.keep("pin", "a")
            journal.keep("pin", "b")
        with Journal(tmp_path / "journal") as journal:
            assert journal.recall("pin") == "b"
            journal.keep("pin", None)
            assert journal.recall("pin") is None
