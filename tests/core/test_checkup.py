"""What `doctor` makes of what a host says: each trouble with a remedy, and nothing made up where it says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import machine
from reconciler.core.facts import Check, Facts, parse_facts
from reconciler.core.observed import Reached

SEEN = Reached("gpu", "h", "me", "/home/me", "Linux", "m", "b", "/s", 1000, 1)


def facts(**values: object) -> Facts:
    return Facts({key: str(value) for key, value in values.items()})


def only(checks: list[Check]) -> Check:
    (check,) = checks
    return check


@pytest.mark.parametrize(
    ("told", "name", "ok"),
    [
        ({"linger": "no", "uid": 1000}, "linger", None),
        ({"linger": "yes", "bus": "yes", "uid": 1000}, "scope", True),
        ({"linger": "yes", "bus": "no", "uid": 1000}, "scope", None),
    ],
)
def test_what_outlives_a_logout_is_told(told: dict[str, object], name: str, ok: bool | None) -> None:
    check = machine.scope(SEEN, facts(**told))
    assert check is not None
    assert (check.name, check.ok) == (name, ok)
    assert bool(check.remedy) is (ok is None)
    assert machine.scope(SEEN, facts()) is None
    assert machine.scope(SEEN, facts(linger="no", uid=0)) is None


def test_memory_that_a_cgroup_withholds_is_told_with_the_command_that_gives_it() -> None:
    check = only(machine.memory(SEEN, facts(memory=8_000_000, memory_limit=500_000, uid=1000), 1))
    assert (check.ok, "(cgroup)" in check.message) == (None, True)
    assert check.remedy == (
        "reconciler exec gpu -- sudo systemctl set-property user-1000.slice MemoryMax=infinity"
    )  # fmt: skip
    assert only(machine.memory(SEEN, facts(memory=8_000_000, memory_limit=9_000_000), 1)).ok is True
    assert only(machine.memory(SEEN, facts(memory=8_000_000), 40)).ok is None
    assert machine.memory(SEEN, facts(memory="lots"), 1) == []
    tasks = [c for c in machine.memory(SEEN, facts(tasks_limit=64, uid=1000), 1) if c.name == "tasks"]
    assert tasks[0].remedy.endswith("TasksMax=infinity")


def test_a_disk_without_room_for_bytes_or_for_files_is_told() -> None:
    assert machine.disk(SEEN, facts(disk=50_000)).ok is False
    assert machine.disk(SEEN, facts(disk=1_000_000)).ok is None
    assert machine.disk(SEEN, facts(disk=9_000_000, inodes=0)).ok is False
    assert machine.disk(SEEN, facts(disk=9_000_000, inodes=500)).ok is None
    assert machine.disk(SEEN, facts(disk=9_000_000, inodes=500_000)) == Check("disk", True, "9.0 GB free in the home")
    assert machine.disk(SEEN, facts()).ok is None


def test_a_clock_that_is_wrong_is_told_with_its_direction() -> None:
    assert machine.clock(SEEN, facts(), 1000.4).ok is True
    check = machine.clock(SEEN, facts(uid=0), 2000)
    assert (check.ok, check.message) == (None, "its clock is 1000 s behind of ours")
    assert check.remedy == "reconciler exec gpu -- timedatectl set-ntp true"


@given(st.binary(max_size=300))
def test_no_answer_of_a_host_breaks_it(noise: bytes) -> None:
    found = parse_facts("n", b"doctor\tn\nfact\tdisk\t" + noise + b"\nend\t\n")
    for check in (machine.disk(SEEN, found), machine.clock(SEEN, found, 0), machine.git(SEEN, found)):
        assert (check.message + check.remedy).isprintable()
