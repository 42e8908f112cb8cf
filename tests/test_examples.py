"""Every example validates, and its plan for a fleet on which nothing runs is the one that is committed beside it.

`UPDATE_EXAMPLES=1 pytest tests/test_examples.py` writes the plans anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler import drivers
from reconciler.core.diff import compare
from reconciler.core.observed import Observed, Reached
from reconciler.core.plan import Plan, make_plan
from reconciler.core.printed import render
from reconciler.core.spec import Desired
from reconciler.sources.directory import load

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/specs"))

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


def empty(name: str) -> Reached:
    """A host that answers, has everything, and on which nothing of ours runs."""
    home = "/home/dev"
    return Reached(
        name=name, hostname=name, user="dev", home=home, system="Linux", machine=f"machine of {name}", boot="boot",
        state_dir=f"{home}/.local/state/reconciler/example", now=1_800_000_000, fence=0, path="/usr/bin:/bin",
        tmux="tmux 3.4", shell="/bin/bash",
    )  # fmt: skip


def first_plan(desired: Desired) -> Plan:
    """What would happen on hosts that have never seen this fleet."""
    observed = Observed({name: empty(name) for name in desired.hosts})
    agents = drivers.agents(desired)
    return make_plan(compare(desired, observed), desired, observed, agents, plan_id="example")


@every_example
def test_an_example_gives_the_plan_that_is_committed_beside_it(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example)  # files are named as after `reconciler -C`
    plan = first_plan(load("specs"))
    golden = example / "plan.txt"
    if os.environ.get("UPDATE_EXAMPLES"):
        golden.write_text(render(plan), encoding="utf-8")
    assert render(plan) == golden.read_text(encoding="utf-8")


@every_example
def test_an_example_starts_everything_and_blocks_nothing(example: Path) -> None:
    desired = load(str(example / "specs"))
    plan = first_plan(desired)
    assert {action.verb for action in plan.actions} == {"start"}
    assert len(plan.actions) == len(desired.sessions)


@every_example
def test_an_example_says_what_it_shows(example: Path) -> None:
    assert (example / "README.md").read_text(encoding="utf-8").startswith("# ")
    assert f"({example.name})" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def test_the_specs_of_the_demo_are_valid_in_a_plain_checkout() -> None:
    plan = first_plan(load(str(ROOT / "specs")))
    assert plan.summary["start"] == 4
