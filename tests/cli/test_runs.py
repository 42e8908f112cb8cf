"""The runs that a journal remembers: which are known, what is left of them, and what Tab and `history` say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import runs
from reconciler.core.resuming import Run
from reconciler.core.saved import Approved, SavedPlan
from reconciler.errors import UsageError
from reconciler.execute import operation_id
from reconciler.journal import Journal

NAMES = ("api", "db", "web")
SPECS = '[sessions.api]\nagent = "codex"\n'


def run_of(begin: str, at: float = 1.0) -> Run:
    actions = tuple(Approved(f"session.{name}", "gpu", "start", "absent", ("gpu",)) for name in NAMES)
    left = SavedPlan(begin.ljust(32, "0"), "default", "r", at, (), (), None, actions, "")
    return Run(left, at, len(actions))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / ".local/state/reconciler/default/controller/journal.sqlite") as made:
        yield made


def happened(journal: Journal, run: Run, name: str, outcome: str | None, again: str = "") -> None:
    op = operation_id(run.id, f"session.{name}@gpu", again)
    journal.begin(op, address=f"session.{name}", host="gpu", verb="start", precondition="absent", fence=1, revision="r")
    if outcome is not None:
        journal.finish(op, outcome, "")


def program(directory: Path, *arguments: str, **more: str) -> str:
    (directory / "specs").mkdir(exist_ok=True)
    (directory / "specs" / "fleet.toml").write_text(SPECS)
    env = {"HOME": str(directory), "PATH": os.environ["PATH"], **more}
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", *arguments], cwd=directory, env=env, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_what_is_done_was_begun_or_failed_is_told_by_the_intents(journal: Journal) -> None:
    run = run_of("aaaa")
    happened(journal, run, "api", "done")
    happened(journal, run, "db", "failed")
    happened(journal, run, "db", "failed", "1")
    happened(journal, run, "web", None)
    found = runs.progress(journal, run)
    assert found.done == {"session.api@gpu"}
    assert found.begun == {f"session.{name}@gpu" for name in NAMES}
    assert found.failures == {"session.db@gpu": 2}
    assert runs.left(journal, run) == 2
    # The third time it works.
    happened(journal, run, "db", "done", "2")
    assert runs.progress(journal, run).done == {"session.api@gpu", "session.db@gpu"}
    # Of another run nothing is known.
    assert runs.progress(journal, run_of("bbbb")).begun == frozenset()


def test_a_run_is_found_by_how_its_id_begins_where_that_is_one_only(journal: Journal) -> None:
    first, second = run_of("aaaa1", 1.0), run_of("aaaa2", 2.0)
    for run in (first, second):
        runs.keep(journal, run)
    assert runs.find(journal, "aaaa1") == first
    assert runs.find(journal, second.short) == second
    for text, says in (("aaaa", "more than one"), ("aaa", "no run"), ("cccc", "no run"), ("", "no run")):
        with pytest.raises(UsageError, match=says) as caught:
            runs.find(journal, text)
        assert first.short in caught.value.message
        assert caught.value.remedy == f"reconciler apply --resume {second.short}"


def test_the_latest_are_remembered_and_what_cannot_be_read_is_none(journal: Journal) -> None:
    every = [run_of(f"{number:04d}", float(number)) for number in range(runs.KEPT + 5)]
    for run in every:
        runs.keep(journal, run)
    journal.keep("run broken", "{")
    assert runs.known(journal) == every[:4:-1]
    finished = replace(every[-1], left=replace(every[-1].left, actions=()))
    runs.keep(journal, finished)
    assert finished in runs.known(journal)
    assert finished.id not in [run.id for run, _ in runs.unfinished(journal)]


def test_tab_and_history_name_what_is_left(journal: Journal, tmp_path: Path) -> None:
    run = run_of("feedbeef")
    runs.keep(journal, run)
    runs.keep(journal, replace(run_of("cafe"), left=replace(run_of("cafe").left, actions=())))
    happened(journal, run, "api", "done")
    words = {"COMP_WORDS": "reconciler apply --resume fe", "COMP_CWORD": "3", "_RECONCILER_COMPLETE": "complete_bash"}
    assert program(tmp_path, **words).split() == [run.short]
    assert f"2 of 3 actions are left: reconciler apply --resume {run.short}" in program(tmp_path, "history")
    (found,) = json.loads(program(tmp_path, "history", "--json"))["runs"]
    assert (found["id"], found["approved"], found["left"]) == (run.id, 3, 2)


def test_a_run_that_is_complete_or_of_other_specs_says_so_and_asks_no_host(journal: Journal, tmp_path: Path) -> None:
    done = run_of("cafe")
    runs.keep(journal, replace(done, left=replace(done.left, actions=())))
    said = program(tmp_path, "apply", "--resume", "cafe")
    assert said == f"Nothing is left of run {done.short}: all 3 actions are done.\n"
    runs.keep(journal, run_of("feed"))
    said = program(tmp_path, "apply", "--resume", "feed")
    assert "was approved of for other specs" in said
    assert "remedy: reconciler apply\n" in said
