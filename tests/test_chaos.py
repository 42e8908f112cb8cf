"""The fault suite finds what is broken, and a few of its scripts run each time, so that it does not rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import faults, invariants
from chaos.script import HOSTS, script
from tests.e2e.program import REPOSITORY


def chaos(*words: str) -> tuple[int, list[dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--json", *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=150,
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.e2e
@pytest.mark.parametrize("words", [("--seed", "2728", "--scripts", "2"), ("--seed", "15", "--plain")])
def test_some_scripts_run_and_nothing_breaks(words: tuple[str, ...], tmp_path: Path) -> None:
    code, (*results, summary) = chaos(*words, "--keep", str(tmp_path / "kept"))
    assert code == 0, results
    assert summary["scripts"] == len(results)
    assert summary["broken"] == {}
    assert summary["faults"] == sum(int(str(result["injected"])) for result in results)
    assert "clock-jump" in str(summary["not_done"])
    assert not (tmp_path / "kept").exists()


def test_a_seed_is_always_the_same_script_and_all_faults_come_up() -> None:
    kinds = faults.kinds(namespaces=True)
    many = [script(seed, kinds) for seed in range(200)]
    assert many == [script(seed, kinds) for seed in range(200)]
    assert {word.partition(":")[0] for one in many for word in one.faults} == set(kinds)
    assert {fault.host for one in many for step in one.steps for fault in step.faults} == {*HOSTS, ""}
    assert {step.controllers for one in many for step in one.steps} == {1, 2}
    assert many[0].without(0).steps == many[0].steps[1:]
    assert "slow-link" in faults.not_done(namespaces=False)


def test_lines_that_are_neither_in_a_store_nor_in_an_archive_are_missed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "archive/c1").mkdir(parents=True)
    (tmp_path / "store/c1.jsonl").write_bytes(b"one\n")
    (tmp_path / "archive/c1/file.jsonl").write_bytes(b"two\n")
    (tmp_path / "store/c2.jsonl").write_bytes(b"three\n")
    roots = [tmp_path / "store", tmp_path / "archive"]
    assert invariants.kept({"c1.jsonl": {b"one\n", b"two\n"}}, roots) == []
    (lost,) = invariants.kept({"c1.jsonl": {b"one\n", b"three\n"}}, roots)
    assert lost.invariant == "I6"
    assert "three" in lost.words


def test_a_secret_in_a_file_or_in_what_was_said_is_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a needle-1 here")
    assert [b.invariant for b in invariants.secret("needle-1", [tmp_path], ["said needle-1"])] == ["I9", "I9"]
    assert invariants.secret("needle-2", [tmp_path], ["said needle-1"]) == []


def test_what_was_begun_without_being_planned_and_what_has_no_outcome_is_found() -> None:
    plan, start = (
        '{"type": "planned_action", "address": "session.a"}',
        '{"type": "apply_start", "address": "session.%s"}',
    )
    assert invariants.planned(f"{plan}\n{start % 'a'}\nwords\n") == []
    assert [b.invariant for b in invariants.planned(f"{plan}\n{start % 'b'}\n")] == ["I5"]
    entry = {"verb": "start", "address": "session.a", "outcome": None}
    assert [b.invariant for b in invariants.settled([entry, {**entry, "outcome": "done"}], "desk")] == ["I7"]


def test_a_host_that_could_not_be_reached_and_has_changed_is_found() -> None:
    assert invariants.untouched("a", {"fence": b"1"}, {"fence": b"1"}) == []
    assert [b.words for b in invariants.untouched("a", {"fence": b"1"}, {"fence": b"2", "ops/x": b""})] == [
        "a could not be reached, and fence, ops/x changed there"
    ]
