"""Which programs each kind of look starts: exact, so that they are guarded here and not only by benchmarks."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.observed import Reached
from tests.runtimes.test_glance import Eye
from tests.runtimes.test_looking import faults
from tests.runtimes.test_scripts import Machine, anywhere, record

__all__ = ["anywhere"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]
PROGRAMS = ("base64", "cat", "date", "head", "id", "mkdir", "readlink", "sed", "sh", "sleep", "stat", "tail", "timeout",
            "tmux", "tr", "uname", "wc")  # fmt: skip


class Programs:
    """What a machine starts of these programs, by a PATH of wrappers."""

    def __init__(self, machine: Machine) -> None:
        self._log = machine.home / "programs.log"
        for name in PROGRAMS:
            real = shutil.which(name)
            assert real, f"{name} is missing here: scripts/install-test-deps.sh"
            real = "/bin/dash" if name == "sh" else real
            (machine.bin / name).write_text(f'#!/bin/dash\necho {name} >>{self._log}\nexec {real} "$@"\n')
            (machine.bin / name).chmod(0o755)

    def started(self) -> dict[str, int]:
        """Since the last time."""
        words = self._log.read_text().split() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return dict(Counter(words))


def sessions(machine: Machine, number: int) -> None:
    """So many, each of whose agents is this very process."""
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (machine.state / "locks").mkdir(parents=True)
    (machine.home / "work").mkdir()
    for name in (f"s{n}" for n in range(number)):
        place = machine.state / "sessions" / name
        place.mkdir(parents=True)
        (place / "record.json").write_text(replace(record(1), name=name).to_json() + "\n")
        (place / "incarnation").write_text("1\n")
        (place / "conversation").write_text(f"id-of-{name}\n")
        (place / "process.1").write_text(f"{os.getpid()} {start} {boot} 1 {os.getpid()}\n")
        (machine.state / "locks" / f"session-{name}.1").write_text("free\n")


def probes(machine: Machine, number: int) -> None:
    """What an agent with hooks, a status file and a conversation has."""
    (machine.home / "store").mkdir()
    for name in (f"s{n}" for n in range(number)):
        place = machine.state / "sessions" / name
        words = (
            ("file", "status", f"{machine.home}/{name}.status"),
            ("store", "store", f"{machine.home}/store/{{session_id}}*"),
        )
        (place / "probe").write_text("".join("\t".join(probe) + "\n" for probe in words))
        (place / "events").write_text('{"event":"busy"}\n')
        (machine.home / f"{name}.status").write_text('{"status":"idle"}\n')
        (machine.home / f"store/id-of-{name}.jsonl").write_text("{}\n")


def rewrite(path: Path) -> None:
    path.with_name(".new").write_bytes(path.read_bytes())
    path.with_name(".new").rename(path)


@pytest.fixture
def programs(anywhere: Machine) -> Programs:
    return Programs(anywhere)


@pytest.fixture
def eye(anywhere: Machine, programs: Programs) -> Iterator[Eye]:
    made = Eye(anywhere, (("directory", "~/work"),))
    yield made
    made.close()


def whole(eye: Eye) -> Reached:
    seen = eye.look()
    assert isinstance(seen, Reached)
    return seen


def test_a_first_look_starts_these_programs_however_many_sessions_there_are(
    anywhere: Machine,
    eye: Eye,
    programs: Programs,
) -> None:
    sessions(anywhere, 10)
    assert len(whole(eye).sessions) == 10
    # The shell itself and the login's, which says the PATH; which tmux there is.
    own = {
        "uname": 0 if os.path.exists("/proc/sys/kernel/arch") else 1,
        "id": 1,
        "timeout": 2,
        "sh": 2,
        "tmux": 1,
        "date": 1,
    }
    found = programs.started()
    profile = {name: found.get(name, 0) - count for name, count in own.items()}
    assert not {name for name in found if name not in own}
    assert {name: more for name, more in profile.items() if more and name != "id"} == {}  # /etc/profile may ask `id`


def test_whatever_changes_of_ten_sessions_is_told_without_a_fork(
    anywhere: Machine,
    eye: Eye,
    programs: Programs,
) -> None:
    sessions(anywhere, 10)
    eye.settle()
    eye.settle()
    programs.started()
    before = faults(eye.shell.pid)
    rewrite(anywhere.state / "sessions/s3/record.json")
    assert whole(eye).sessions["s3"].state == "running"
    for n in range(10):
        rewrite(anywhere.state / f"sessions/s{n}/record.json")
        rewrite(anywhere.state / f"sessions/s{n}/incarnation")
    assert len(whole(eye).sessions) == 10
    (anywhere.state / "fence").write_text("7\n")
    assert whole(eye).fence == 7
    assert faults(eye.shell.pid) == before
    assert programs.started() == {}


def test_a_whole_look_that_repeats_nothing_asks_for_the_time(
    anywhere: Machine,
    eye: Eye,
    programs: Programs,
) -> None:
    sessions(anywhere, 10)
    eye.settle()
    programs.started()
    eye.since = ""
    assert len(whole(eye).sessions) == 10
    assert programs.started() == {"date": 1}


def test_many_sessions_are_read_by_one_program_and_their_processes_by_another(
    anywhere: Machine,
    eye: Eye,
    programs: Programs,
) -> None:
    sessions(anywhere, 40)
    eye.settle()
    programs.started()
    eye.since = ""
    seen = whole(eye)
    assert {session.state for session in seen.sessions.values()} == {"running"}
    assert {session.record.name for session in seen.sessions.values() if session.record} == set(seen.sessions)
    assert programs.started() == {"date": 1, "head": 2}


def test_of_what_probes_find_only_what_is_new_is_read(anywhere: Machine, eye: Eye, programs: Programs) -> None:
    sessions(anywhere, 10)
    probes(anywhere, 10)
    eye.settle()
    eye.settle()
    programs.started()
    rewrite(anywhere.state / "sessions/s3/record.json")
    first = whole(eye).sessions["s3"].facts
    assert (first.event, first.texts["status"]) == ('{"event":"busy"}', '{"status":"idle"}\n')
    assert programs.started() == {}
    eye.settle()
    programs.started()
    for n in range(10):
        (anywhere.home / f"store/id-of-s{n}.jsonl").write_text("{}\n{}\n")
    seen = whole(eye).sessions
    assert [file.size for n in range(10) for file in seen[f"s{n}"].facts.store or ()] == [6] * 10
    assert programs.started() == {"stat": 1}
    eye.settle()
    programs.started()
    for n in range(10):
        (anywhere.state / f"sessions/s{n}/events").write_text(f'{{"event":"busy"}}\n{{"event":"idle{n}"}}\n')
    seen = whole(eye).sessions
    assert [seen[f"s{n}"].facts.event for n in range(10)] == [f'{{"event":"idle{n}"}}' for n in range(10)]
    assert programs.started() == {"tail": 1}
    eye.settle()
    programs.started()
    (anywhere.home / "s5.status").write_text('{"status":"busy"}\n')
    assert whole(eye).sessions["s5"].facts.texts["status"] == '{"status":"busy"}\n'
    assert programs.started() == {"head": 1, "base64": 1}


def test_what_is_repeated_of_some_sessions_is_what_a_whole_look_finds(anywhere: Machine, eye: Eye) -> None:
    sessions(anywhere, 6)
    probes(anywhere, 6)
    chance, number = random.Random(7), 0
    changes = (
        lambda place: rewrite(place / "record.json"),
        lambda place: (place / "events").write_text(f'{{"event":"{chance.random()}"}}\n'),
        lambda place: (place / "incarnation").write_text(f"{chance.randrange(9)}\n"),
        lambda place: (place / "conversation").write_text(f"id-of-s{chance.randrange(6)}\n"),
        lambda place: (place / f"exit.{chance.randrange(3)}").write_text('{"code":1,"at":1,"incarnation":1}\n'),
        lambda place: (place / "exit.1").unlink(missing_ok=True),
        lambda place: (place / "process.1").write_text(f"{os.getpid()} 1 x 1 0\n"),
        lambda place: (place / "process.1").unlink(missing_ok=True),
        lambda place: (place / "record.json").write_text('{"torn'),
        lambda place: (anywhere.home / f"{place.name}.status").write_text(str(chance.random())),
        lambda place: (anywhere.home / f"{place.name}.status").unlink(missing_ok=True),
        lambda place: (anywhere.home / f"store/id-of-{place.name}{chance.randrange(3)}").write_text("x" * number),
        lambda place: (anywhere.home / f"store/id-of-{place.name}0").unlink(missing_ok=True),
        lambda place: place.rename(place.with_name(f"t{chance.randrange(9)}{place.name}")),
        lambda place: (anywhere.state / f"locks/session-{place.name}.{chance.randrange(2, 20)}").write_text("free\n"),
    )  # fmt: skip
    other = Eye(anywhere, eye.checks)
    for number in range(20):
        for _ in range(chance.randrange(3)):
            chance.choice(changes)(chance.choice(sorted((anywhere.state / "sessions").iterdir())))
        eye._send("look_newest_at=0\n")
        time.sleep(eye.tick)
        found = eye.look()
        if found != "same":
            seen = found
        assert isinstance(seen, Reached)
        other.since = ""
        assert replace(seen, now=0) == replace(whole(other), now=0), number
    other.close()
