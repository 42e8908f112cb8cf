"""Strays and adoption under each shell that a host may call `sh`: what is found, what is taken, what is left alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.agent import Probe
from reconciler.core.observed import Facts, Process, parse_strays
from reconciler.core.strays import Stray, parse_strays_found
from reconciler.runtimes.operations import Credentials, adopt_operation, stray_facts_script, strays_script
from tests.runtimes.test_scripts import Machine, anywhere, launch, machine, record, stop

__all__ = ["anywhere", "machine"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
PROBES = (Probe("notes", "file", "{NOTES:-{home}/notes}/{pid}.txt"), Probe("kept", "names", "{workdir}/*.lock"))


@pytest.fixture
def stray(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a directory of its own, with an environment of its own, that holds a lock open."""
    work = tmp_path / "it's a work"
    work.mkdir()
    (work / "mine.lock").touch()
    (work / "other.lock").touch()
    code = "import time; held = open('mine.lock'); print('ready', flush=True); time.sleep(60)"
    made = subprocess.Popen(
        ["python3", "-c", code, "stray-agent"], cwd=work, start_new_session=True, stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NOTES": str(tmp_path / "a \"b'c $(d)")},
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stdout.readline() == b"ready\n"
    notes = tmp_path / "a \"b'c $(d)"
    notes.mkdir()
    (notes / f"{made.pid}.txt").write_text("what it says")
    yield made
    with contextlib.suppress(ProcessLookupError):
        os.killpg(made.pid, signal.SIGKILL)
    made.wait()
    made.stdout.close()


def told(host: Machine, pid: int) -> tuple[Process, Facts]:
    found = parse_strays("here", "n", host.sh(stray_facts_script(host.env["PATH"], "n", [(pid, PROBES)])))
    return found[pid]


def adopt(host: Machine, ours: Credentials, pid: int, start: str, **changes: Any) -> dict[str, Any]:
    wanted = record(changes.pop("incarnation", 1))
    return host.do(
        lambda nonce: adopt_operation(
            ours, secrets.token_hex(8), nonce, record=wanted, pid=pid, start=start, probes=PROBES
        )
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    return process.returncode is not None


def test_a_stray_is_found_read_adopted_looked_at_and_stopped(machine: Machine, stray: subprocess.Popen[bytes]) -> None:
    answer = machine.sh(strays_script(machine.env["PATH"], "n"))
    found = parse_strays_found("here", "n", answer, {"python3": ["mine"]})
    mine = next(one for one in found if one.pid == stray.pid)
    assert mine == Stray(("mine",), stray.pid, mine.seconds)
    process, facts = told(machine, stray.pid)
    assert (process.group, facts.texts["notes"]) == (stray.pid, "what it says")
    assert facts.texts["cwd"].endswith("/it's a work")
    assert facts.texts["argv"].endswith("\0stray-agent\0")
    assert facts.names == {"open": ("mine.lock",), "kept": ("mine.lock", "other.lock")}
    ours = machine.lease()
    assert adopt(machine, ours, stray.pid, process.start) == {"ok": True, "group": str(stray.pid)}
    seen = machine.seen()
    assert (seen.state, seen.incarnation, seen.facts.pid) == ("running", 1, stray.pid)
    assert (seen.facts.texts["notes"], seen.facts.names["kept"]) == ("what it says", ("mine.lock", "other.lock"))
    again = parse_strays_found("here", "n", machine.sh(strays_script(machine.env["PATH"], "n")), {"python3": ["mine"]})
    assert stray.pid not in [one.pid for one in again]
    assert stop(machine, ours, 1)["how"] == "TERM"
    assert ended(stray)
    assert machine.seen().state == "stopped"
    assert launch(machine, ours, ("sleep", "30"), 2)["ok"]
    assert machine.seen().state == "running"


def test_what_is_not_the_process_that_was_meant_is_not_adopted(
    anywhere: Machine, stray: subprocess.Popen[bytes]
) -> None:
    ours = anywhere.lease()
    start = told(anywhere, stray.pid)[0].start
    for pid, when in ((stray.pid, str(int(start) - 1)), (2**22 + 1, start), (1, start)):
        answer = adopt(anywhere, ours, pid, when)
        assert (answer["ok"], answer["code"]) == (False, "stale"), answer
    assert anywhere.look().sessions == {} or anywhere.seen().record is None
    other = Credentials("another", "us")
    assert anywhere.do(lambda n: adopt_operation(
        anywhere.lease(other), "x", n, record=record(1), pid=stray.pid, start=start, probes=()
    ))["ok"]  # fmt: skip
    answer = adopt(anywhere, ours, stray.pid, start)
    assert answer["code"] == "already-running", "it is a session of another fleet"
    assert launch(anywhere, ours, ("sleep", "30"))["ok"]
    assert adopt(anywhere, ours, stray.pid, start)["code"] == "stale", "incarnations are counted"
    assert adopt(anywhere, ours, stray.pid, start, incarnation=2)["code"] == "already-running"
    assert stray.poll() is None


def test_whoever_dies_half_way_leaves_no_record_without_its_process(
    anywhere: Machine, stray: subprocess.Popen[bytes]
) -> None:
    """Cut off at any point: an agent that lives is never taken for one that is gone, and resumed."""
    ours = anywhere.lease()
    start = told(anywhere, stray.pid)[0].start
    whole = adopt_operation(ours, "op", "n", record=record(1), pid=stray.pid, start=start, probes=PROBES)
    for count in range(1, 40):
        # `put` writes each file; the power goes at the start of the next one.
        dies = f"  n_puts=$((${{n_puts:-0}} + 1)); [ $n_puts -lt {count} ] || kill -9 $$\n"
        cut = whole.replace("put() {\n", "put() {\n" + dies)
        assert cut != whole
        done = b'"ok":true' in anywhere.sh(cut)
        for session in anywhere.look().sessions.values():
            assert session.record is None or session.state == "running", (count, session)
        if done:
            break
        shutil.rmtree(anywhere.state / "sessions", ignore_errors=True)
        (anywhere.state / "lease").unlink(missing_ok=True)
    assert count > 6
    assert anywhere.seen().state == "running"
    assert stray.poll() is None
