"""The audit log beside the journal: it only grows, is whole after any death, and tells of every intent."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.audit import reading, verify_export
from reconciler.core.audit import FIELDS, GENESIS, Actor, Entry, Verdict, exported
from reconciler.core.holds import Suspension
from reconciler.core.observed import Observed, Reached
from reconciler.errors import ReconcilerError
from reconciler.journal import Journal
from reconciler.reconcile import settle
from reconciler.redaction import conceal

ANN = Actor("ann", "box", "ann@box:m/b:1:2:aa", "apply")
INTENT: dict[str, Any] = {
    "address": "session.a", "host": "gpu", "verb": "start", "precondition": "absent", "fence": 3, "revision": "r",
}  # fmt: skip
# The table as the version before the audit log made it.
OLD = """
CREATE TABLE intents (
  op TEXT PRIMARY KEY, address TEXT NOT NULL, host TEXT NOT NULL, verb TEXT NOT NULL, precondition TEXT NOT NULL,
  fence INTEGER NOT NULL, revision TEXT NOT NULL, at REAL NOT NULL, outcome TEXT, message TEXT, ended REAL
);
INSERT INTO intents VALUES ('one', 'session.a', 'gpu', 'start', 'absent', 1, 'r', 1000.5, 'done', '', 1001.0);
INSERT INTO intents VALUES ('two', 'session.b', 'gpu', 'stop', 'x', 2, 'r', 1002.25, NULL, NULL, NULL);
INSERT INTO intents VALUES ('six', 'session.b', 'gpu', 'stop', 'x', 2, 'r', 1003.0, 'failed', 'why ü', 1004.0);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def act(journal: Journal, op: str, outcome: str = "done") -> None:
    """One action, begun and ended."""
    journal.begin(op, **INTENT, evidence="missing: gpu: absent")
    journal.finish(op, outcome, "")


def entries(path: Path) -> list[Entry]:
    with reading(path) as log:
        assert log is not None
        return list(log.entries())


def verdict(path: Path, **options: str) -> Verdict:
    with reading(path) as log:
        assert log is not None
        return log.verify(**options)


@contextlib.contextmanager
def intruder(path: Path, *, triggers: bool = False) -> Iterator[sqlite3.Connection]:
    """Somebody who may write the file, and takes our triggers away unless they are to be met."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        if not triggers:
            for name in ("audit_update", "audit_delete", "audit_order"):
                db.execute(f"DROP TRIGGER {name}")
        yield db


def test_an_action_leaves_its_intent_and_its_outcome_with_who_why_and_at_which_revision(path: Path) -> None:
    with Journal(path, ANN) as journal:
        journal.comes_from("r", "c0ffee", "Ann <ann@example.com>")
        act(journal, "one")
        (listed,) = journal.history()
    begun, intent, outcome = entries(path)
    assert (begun.kind, begun.message) == ("begun", "the log begins with a new journal")
    said = intent.kind, intent.op, intent.address, intent.host, intent.verb
    assert said == ("intent", "one", "session.a", "gpu", "start")
    assert (intent.precondition, intent.evidence, intent.fence) == ("absent", "missing: gpu: absent", 3)
    assert (outcome.kind, outcome.op, outcome.outcome) == ("outcome", "one", "done")
    for entry in (intent, outcome):
        assert Actor(entry.user, entry.machine, entry.controller, entry.command) == ANN
        assert (entry.revision, entry.commit, entry.author) == ("r", "c0ffee", "Ann <ann@example.com>")
    assert (listed.user, listed.command, listed.evidence, listed.outcome) == ("ann", "apply", intent.evidence, "done")
    assert verdict(path).broken == ()


def test_what_a_person_does_at_once_has_an_entry_and_what_changes_nothing_has_none(path: Path) -> None:
    with Journal(path, ANN) as journal:
        journal.suspend(Suspension("session.a", None, "the demo", "ann"))
        journal.unsuspend("session.a")
        journal.unsuspend("session.a")
        journal.record("take-over", "session.b", message="its host is gone")
    assert [(e.kind, e.address, e.message) for e in entries(path)[1:]] == [
        ("suspend", "session.a", "suspended by ann: the demo"), ("unsuspend", "session.a", ""),
        ("take-over", "session.b", "its host is gone"),
    ]  # fmt: skip


VALUES = ", ".join("1" if name in ("seq", "fence") else "'x'" for name in FIELDS)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit SET message = 'x'", "UPDATE audit SET seq = 9 WHERE seq = 3", "DELETE FROM audit",
     "DELETE FROM audit WHERE seq = 3", f"INSERT OR REPLACE INTO audit VALUES ({VALUES})",
     f"INSERT INTO audit VALUES (9{VALUES[1:]})", f"INSERT INTO audit VALUES (NULL{VALUES[1:]})"],
)  # fmt: skip
def test_no_code_of_ours_can_change_delete_replace_or_leave_out_an_entry(path: Path, statement: str) -> None:
    with Journal(path, ANN) as journal:
        act(journal, "one")
    before = entries(path)
    with pytest.raises(sqlite3.IntegrityError, match="only grows"), intruder(path, triggers=True) as db:
        db.execute(statement)
    assert entries(path) == before


@pytest.mark.parametrize(
    ("statement", "broken"),
    [("UPDATE audit SET evidence = 'x' WHERE seq = 4", 4), ("UPDATE audit SET fence = 4 WHERE seq = 2", 2),
     ("UPDATE audit SET hash = '0' || hash WHERE seq = 5", 5), ("DELETE FROM audit WHERE seq = 3", 4),
     ("UPDATE audit SET seq = 99 WHERE seq = 4", 5), ("UPDATE audit SET at = x'00' WHERE seq = 2", 2),
     ("DELETE FROM audit WHERE seq = 1", 2), ("DELETE FROM audit WHERE seq >= 6", None),
     ("DELETE FROM intents WHERE op = 'two'", None), ("UPDATE intents SET outcome = 'failed' WHERE op = 'one'", None),
     ("INSERT INTO intents SELECT 'x', address, host, verb, '', 1, '', at, 'done', '', 1 FROM intents LIMIT 1", None),
     ("DELETE FROM audit", None), ("DROP TABLE audit", None)],
)  # fmt: skip
def test_what_somebody_changes_in_the_file_is_found_and_said_where(
    path: Path, statement: str, broken: int | None
) -> None:
    with Journal(path, ANN) as journal:
        for op in ("one", "two", "three"):
            act(journal, op)
    assert verdict(path).broken == ()
    with intruder(path) as db:
        db.execute(statement)
    found = verdict(path).broken
    assert found
    assert found[0][0] == (broken or 0)


def test_a_log_that_was_made_anew_holds_by_itself_and_not_against_the_head_that_was_kept(path: Path) -> None:
    with Journal(path, ANN) as journal:
        act(journal, "one", "failed")
        _, head = journal.head()
    assert verdict(path, head=head).after_head == 0
    path.unlink()
    with Journal(path, ANN) as journal:
        act(journal, "one")
    assert verdict(path).broken == ()
    ((_, message),) = verdict(path, head=head).broken
    assert message.startswith(f"no entry has the hash {head}")


def test_an_older_journal_gets_a_log_that_begins_with_what_was_there(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript(OLD)
    ((_, message),) = verdict(path).broken
    assert message.startswith("the journal has 3 intents and no audit log")
    with Journal(path, ANN) as journal:
        assert [intent.op for intent in journal.open_intents()] == ["two"]
        journal.settle("two", "seen afterwards: absent")
        act(journal, "new")
    found = entries(path)
    assert found[0].message == "the log begins with a journal without audit log, with 3 intents, 1 of them open"
    assert [(e.kind, e.op, e.outcome) for e in found[1:]] == [
        ("found", "one", "done"), ("found", "two", ""), ("found", "six", "failed"), ("settled", "two", "settled"),
        ("intent", "new", ""), ("outcome", "new", "done"),
    ]  # fmt: skip
    assert found[1].evidence == "begun at 1970-01-01T00:16:40.500000Z"
    assert verdict(path).broken == ()
    with Journal(path) as journal:
        listed = [(intent.op, intent.user) for intent in journal.history()]
        assert listed == [("new", "ann"), ("six", ""), ("two", ""), ("one", "")]


BEGINS = """
import sys, time
from pathlib import Path
from reconciler.core.audit import Actor
from reconciler.journal import Journal
journal = Journal(Path(sys.argv[1]), Actor("ann", "box", "the first"))
journal.begin("one", address="session.a", host="gpu", verb="start", precondition="absent", fence=3, revision="r")
if sys.argv[2] == "in the outcome":
    with journal.together():
        journal.finish("one", "done", "")
        print("there", flush=True)
        time.sleep(60)
print("there", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("where", ["before the outcome", "in the outcome"])
def test_killed_between_intent_and_outcome_the_chain_is_whole_and_the_next_one_settles_it(
    path: Path, where: str
) -> None:
    argv = [sys.executable, "-c", BEGINS, str(path), where]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    assert verdict(path).broken == ()
    gpu = Reached("gpu", "gpu", "dev", "/home/dev", "Linux", "x86_64", "boot", "/s", now=1, fence=3)
    with Journal(path, Actor("bob", "box", "the second")) as journal:
        settle(journal, Observed({"gpu": gpu}), journal.open_intents())
        assert journal.open_intents() == []
    _, intent, settled = entries(path)
    assert (intent.kind, intent.controller) == ("intent", "the first")
    assert (settled.kind, settled.controller, settled.op) == ("settled", "the second", "one")
    assert settled.message == "seen afterwards: absent"
    assert verdict(path).broken == ()


def test_what_was_ended_meanwhile_is_not_settled_again(path: Path) -> None:
    with Journal(path, ANN) as journal:
        act(journal, "one")
        journal.settle("one", "seen afterwards: absent")
        journal.finish("nobody began this", "done", "")
        assert journal.history()[0].outcome == "done"
    assert [entry.kind for entry in entries(path)] == ["begun", "intent", "outcome"]


def test_an_operation_that_is_begun_again_agrees_with_the_journal(path: Path) -> None:
    with Journal(path, ANN) as journal:
        act(journal, "one", "failed")
        journal.begin("one", **{**INTENT, "fence": 9})
        assert verdict(path).broken == ()
        journal.finish("one", "done", "")
    assert verdict(path).broken == ()


def test_neither_the_outcome_nor_its_entry_is_kept_without_the_other(path: Path) -> None:
    with Journal(path, ANN) as journal:
        journal.begin("one", **INTENT)
        with intruder(path, triggers=True) as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        with pytest.raises(ReconcilerError) as caught:
            journal.finish("one", "done", "")
        assert caught.value.code == "journal"
        with pytest.raises(ReconcilerError):
            journal.begin("two", **INTENT)
        with intruder(path, triggers=True) as db:
            db.execute("DROP TRIGGER full")
        assert [(intent.op, intent.outcome) for intent in journal.history()] == [("one", None)]
        journal.finish("one", "done", "")
    assert verdict(path).broken == ()


WRITES = """
import sys
from pathlib import Path
from reconciler.core.audit import Actor
from reconciler.journal import Journal
with Journal(Path(sys.argv[1]), Actor("ann", "box", sys.argv[2])) as journal:
    for number in range(40):
        op = f"{sys.argv[2]}-{number}"
        journal.begin(op, address="session.a", host="gpu", verb="start", precondition="", fence=1, revision="r")
        journal.finish(op, "done", "")
"""


def test_two_processes_that_write_at_once_write_one_chain_and_readers_see_it_whole(path: Path) -> None:
    Journal(path).close()
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, str(path), name]) for name in ("first", "second")]
    try:
        end = time.monotonic() + 60
        while any(writer.poll() is None for writer in writers):
            assert time.monotonic() < end
            assert verdict(path).broken == ()
            time.sleep(0.02)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert [writer.returncode for writer in writers] == [0, 0]
    found = entries(path)
    assert [entry.seq for entry in found] == list(range(1, 162))
    assert {entry.controller for entry in found} == {"first", "second"}
    assert verdict(path).broken == ()


def test_no_secret_stands_in_the_log(path: Path) -> None:
    conceal("n33dle-of-audit")
    with Journal(path, ANN) as journal:
        journal.comes_from("r", "c", "n33dle-of-audit <x>")
        journal.begin("one", **INTENT, evidence="it said n33dle-of-audit")
        journal.finish("one", "failed", f"{'x' * 1995} n33dle-of-audit \udcff")
        journal.suspend(Suspension("session.a", None, "n33dle-of-audit", "ann"))
        journal.record("approval", "fleet", message="n33dle-of-audit", evidence="n33dle-of-audit")
    assert not [file for file in path.parent.iterdir() if b"n33dle" in file.read_bytes()]
    assert verdict(path).broken == ()


def export(path: Path, to: Path, drop: int = 0) -> None:
    previous, lines = GENESIS, []
    for entry in entries(path):
        lines.append(exported(previous, entry) + "\n")
        previous = entry.hash
    to.write_text("".join(lines[drop:]))


def test_an_export_holds_wherever_it_is_checked_also_a_later_part_of_one(path: Path, tmp_path: Path) -> None:
    with Journal(path, ANN) as journal:
        for op in ("one", "two"):
            act(journal, op)
        _, head = journal.head()
    file = tmp_path / "log.jsonl"
    export(path, file)
    found = verify_export(file, head=head)
    assert (found.broken, found.count, found.head, found.after_head) == ((), 5, head, 0)
    middle = entries(path)[3].at
    assert verify_export(file, since=middle).start == 4
    export(path, file, drop=2)
    found = verify_export(file)
    assert (found.broken, found.start, found.count, found.begun) == ((), 3, 3, "")


def test_a_line_that_was_changed_cut_short_or_taken_out_is_found(path: Path, tmp_path: Path) -> None:
    with Journal(path, ANN) as journal:
        for op in ("one", "two"):
            act(journal, op)
    file = tmp_path / "log.jsonl"
    export(path, file)
    lines = file.read_text().splitlines(keepends=True)
    changed = json.dumps({**json.loads(lines[2]), "outcome": "failed"}) + "\n"
    more = json.dumps({**json.loads(lines[2]), "more": "unhashed"}) + "\n"
    for text, number in (
        ([*lines[:2], changed, *lines[3:]], 3), ([*lines[:2], more, *lines[3:]], 3), ([*lines[:2], *lines[3:]], 4),
        ([*lines[:3], lines[3][:-20]], 4), ([*lines[:3], "\n"], 4),
    ):  # fmt: skip
        file.write_text("".join(text))
        ((found, _),) = verify_export(file).broken
        assert found == number


def test_a_part_from_a_time_on_is_checked_by_itself(path: Path) -> None:
    with Journal(path, ANN) as journal:
        for op in ("one", "two"):
            act(journal, op)
    since = entries(path)[3].at
    found = verdict(path, since=since)
    assert (found.broken, found.start, found.count) == ((), 4, 2)
    assert verdict(path, since="2999").count == 0
    assert verdict(path, since="2999").broken == ()
