"""Leases and fences of two machines: who was frozen and overtaken acts no more, who comes second is told who is first,
and what a controller that is gone held is taken over by a person who says so."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.machines import Machine
from tests.e2e.moving import alive, answers, on_screen, only_on, session
from tests.e2e.program import PATIENCE, Site, fleet_of, install_script_agent, intact, until
from tests.e2e.test_faults import ended
from tests.e2e.test_move_faults import Move
from tests.e2e.test_run import running

pytestmark = pytest.mark.e2e
PROMPT = 'prompt = "MARK-one"\n'
ONE_AT_A_TIME = f"[hosts.a]\nmax_parallel_starts = 1\n{PATIENCE}"
WHO = r"(?:a|b): root@{name} \(pid {pid}\) holds the lease since \d\d:\d\d:\d\d, until \d\d:\d\d:\d\d"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        install_script_agent(made.host("b", user="ops"))
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"f{request.session.items.index(request.node)}"


@pytest.fixture
def desk(fleet: Fleet, name: str) -> Machine:
    return Machine(fleet, name, "desk")


@pytest.fixture
def lap(fleet: Fleet, name: str) -> Machine:
    return Machine(fleet, name, "lap")


@pytest.fixture
def a(fleet: Fleet, name: str) -> Site:
    return Site(fleet.hosts["a"], name)


@pytest.fixture
def b(fleet: Fleet, name: str) -> Site:
    return Site(fleet.hosts["b"], name)


@pytest.fixture
def slow_login(fleet: Fleet) -> Iterator[None]:
    fleet.hosts["a"].write("~/.profile", 'PATH="$HOME/bin:$PATH"\nsleep 0.4\n')
    yield
    install_script_agent(fleet.hosts["a"])


def world(*sites: Site) -> dict[str, Any]:
    """All that a controller can change on hosts: operations, fences, leases, records, processes, conversations."""
    found: dict[str, Any] = {}
    for site in sites:
        for path in (*site.state.glob("ops/*"), *site.state.glob("sessions/*/*"), site.state / "fence"):
            if path.is_file() and path.name not in ("log", "events"):
                found[f"{site.host.name} {path.relative_to(site.state)}"] = path.read_bytes()
        found[f"{site.host.name} agents"] = [
            (pid, argv) for pid, argv in site.host.processes() if "script-agent" in " ".join(argv[:2])
        ]
        for path in (site.host.home / ".script-agent").glob("*.jsonl"):
            opens = [line for line in path.read_text(encoding="utf-8").splitlines() if '"kind": "open"' in line]
            found[f"{site.host.name} {path.name}"] = opens
    return found


@contextlib.contextmanager
def begun(machine: Machine, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A controller that ends with the test, also where it is frozen."""
    with machine.start(*words) as process:
        try:
            yield process
        finally:
            process.kill()


def freeze(process: subprocess.Popen[str], when: Callable[[], Any]) -> None:
    """SIGSTOP at that moment, or right after it."""
    end = time.monotonic() + 30
    while not when():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the moment never came"
        time.sleep(0.0005)
    process.send_signal(signal.SIGSTOP)


def quiet(*sites: Site) -> None:
    """What a frozen controller had sent is over; the shells by which it looks stay."""

    def locked() -> bool:
        found: dict[str, tuple[int, str]] = {}
        for site in sites:
            for path in site.state.glob("locks/*.[0-9]*"):
                with contextlib.suppress(OSError, ValueError):
                    key, number = f"{site.host.name} {path.stem}", int(path.suffix[1:])
                    found[key] = max(found.get(key, (0, "")), (number, path.read_text(encoding="ascii").strip()))
        return any(holder != "free" for _, holder in found.values())

    for _ in range(4):
        until("what was sent is over", lambda: not locked())
        time.sleep(0.1)


def leased(site: Site, process: subprocess.Popen[str]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return f":{process.pid}:" in site.lease()[1] and site.lease()[0] > 0
    return False


def moment(which: str, site: Site, process: subprocess.Popen[str]) -> bool:
    if which == "leased":
        return leased(site, process)
    if which == "launch":
        return bool(list(site.state.glob("locks/session-s*")))
    return any(site.state.glob("sessions/*/process.1"))


@pytest.mark.usefixtures("slow_login")
@pytest.mark.parametrize("which", ["leased", "launch", "process"])
def test_an_apply_that_was_frozen_until_another_machine_took_over_does_nothing_more(
    desk: Machine, lap: Machine, a: Site, b: Site, which: str
) -> None:
    specs = ONE_AT_A_TIME + "".join(session(f"s{n}", "a", more=PROMPT) for n in range(2)) + session("other", "b")
    desk.write(specs)
    lap.write(specs.replace(PROMPT, 'prompt = "MARK-one"\nenv = { BY = "lap" }\n'))
    with begun(desk, "apply", "--auto-approve") as process:
        freeze(process, lambda: moment(which, a, process))
        quiet(a, b)
        began = [path for site in (a, b) for path in site.state.glob("sessions/*/process.1")]
        refused = lap.run("apply", "--auto-approve")
        assert refused.returncode == 6, refused.stdout + refused.stderr
        assert re.search(WHO.format(name="desk", pid=process.pid), refused.stderr), refused.stderr
        taken = lap.run("take-over", "--yes")
        assert taken.returncode == 0, taken.stderr
        lap.apply()
        before = world(a, b)
        process.send_signal(signal.SIGCONT)
        code, output = ended(process)
    assert code == (3 if "1 done" in output or "2 done" in output else 6), output
    assert code == 6 or began, output
    assert "another controller took over" in output
    assert world(a, b) == before
    for n in range(2):
        assert a.environ(a.pids(f"s{n}")[0])["BY"] == "lap"
    lap.settled()
    intact(a, b)


def test_a_lease_that_nobody_renews_is_over_by_itself_and_its_holder_acts_no_more(
    desk: Machine, lap: Machine, a: Site, b: Site
) -> None:
    """The specs say how long it lasts, and no person takes it over."""
    specs = ONE_AT_A_TIME + "".join(on_screen(f"s{n}", "a", PROMPT) for n in range(2))
    desk.write(specs, fleet='lease = "5s"\n')
    lap.write(specs, fleet='lease = "5s"\n')
    with begun(desk, "apply", "--auto-approve") as process:
        freeze(process, lambda: list(a.state.glob("sessions/*/process.1")))
        quiet(a, b)
        assert lap.run("apply", "--auto-approve").returncode == 6
        until("the leases are over", lambda: all(site.lease()[0] < time.time() for site in (a, b)), 10)
        lap.apply()
        before = world(a, b)
        process.send_signal(signal.SIGCONT)
        code, output = ended(process)
    assert code in (3, 6), output
    assert "another controller took over" in output
    assert world(a, b) == before
    lap.settled()
    intact(a, b)


@pytest.mark.parametrize("which", ["stopped", "staged"])
def test_a_move_that_was_frozen_and_made_by_another_machine_brings_nothing_back(
    desk: Machine, lap: Machine, a: Site, b: Site, which: str
) -> None:
    desk.write(on_screen("api", "a", PROMPT))
    desk.apply()
    until("an answer", lambda: answers(a, "api"))
    for machine in (desk, lap):
        machine.write(on_screen("api", "b", PROMPT))
    move = Move(desk, a, b)
    with begun(desk, "apply", "--auto-approve") as process:
        freeze(process, lambda: move.reached(which))
        quiet(a, b)
        assert lap.run("take-over", "--yes").returncode == 0
        lap.apply()
        only_on([a, b], "b", "api")
        before = world(a, b)
        process.send_signal(signal.SIGCONT)
        code, output = ended(process)
    assert code in (0, 1, 3, 6), output
    assert world(a, b) == before, output
    assert "another controller took over" in output
    only_on([a, b], "b", "api")
    assert b.messages("api") == ["MARK-one"]
    lap.settled()
    intact(a, b)


@pytest.mark.parametrize("which", ["at rest", "launch"])
def test_a_run_that_was_frozen_and_overtaken_lets_the_other_go_on(
    desk: Machine, lap: Machine, a: Site, b: Site, which: str
) -> None:
    desk.write(on_screen("api", "a", PROMPT))
    lap.write(on_screen("api", "b", PROMPT))
    with running(desk) as first:
        if which == "at rest":
            until("it answers", lambda: (a.state / "sessions/api/process.1").exists() and answers(a, "api"), 30)
        freeze(first.process, lambda: list(a.state.glob("locks/session-api*")))
        quiet(a, b)
        assert lap.run("take-over", "--yes").returncode == 0
        with running(lap) as second:
            until("it has moved", lambda: (b.state / "sessions/api/process.1").exists() and b.pids("api"), 40)
            until("it is verified", lambda: "session.api on b: done" in second.said or b.record("api"), 20)
            quiet(a, b)
            only_on([a, b], "b", "api")
            time.sleep(1)
            before = world(a, b)
            first.process.send_signal(signal.SIGCONT)
            until("it says who has the lease", lambda: "holds the lease" in first.said, 20)
            time.sleep(2)  # two intervals
            assert world(a, b) == before
            assert "root@lap" in first.said
            assert first.end() == 0
            assert world(a, b) == before
            assert second.end() == 0
    assert alive([a, b], str(b.record("api")["conversation"])) == ["b"]
    intact(a, b)


def test_of_two_machines_that_apply_at_once_one_acts_and_the_other_is_told_who_since_when_and_until_when(
    desk: Machine, lap: Machine, a: Site, b: Site
) -> None:
    sessions = "".join(on_screen(f"s{n}", "ab"[n % 2], PROMPT) for n in range(4))
    for machine in (desk, lap):
        machine.write(sessions)
    for attempt in range(3):
        both = [machine.start("apply", "--auto-approve") for machine in (desk, lap)]
        done = [ended(process) for process in both]
        codes = sorted(code for code, _ in done)
        if attempt == 0:
            assert set(codes) <= {0, 6}, done
            assert codes[0] == 0, done
        for (code, output), other, process in zip(done, ("lap", "desk"), both[::-1], strict=True):
            if code == 6 and "holds the lease" in output:
                assert re.search(WHO.format(name=other, pid=process.pid), output), output
                assert "nothing was done" in output
    desk.settled()
    lap.settled()
    for n in range(4):
        assert (a, b)[n % 2].opens(f"s{n}") == ["start"]
    intact(a, b)


def test_who_waits_for_a_yes_while_another_machine_takes_the_fleet_does_nothing(
    desk: Machine, lap: Machine, a: Site, b: Site
) -> None:
    desk.write(on_screen("api", "a", PROMPT))
    lap.write(on_screen("api", "b", PROMPT))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        desk.argv("apply"), cwd=desk.directory, env=desk.environment(), stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        said = _read(ours, "Do you want this?")
        process.send_signal(signal.SIGSTOP)
        with running(lap) as other:
            until("it runs", lambda: (b.state / "sessions/api/process.1").exists(), 30)
            until("it answers", lambda: answers(b, "api"))
            before = world(a, b)
            process.send_signal(signal.SIGCONT)
            os.write(ours, b"yes\n")
            said += _read(ours, "")
            assert process.wait(30) == 6, said
            assert re.search(WHO.format(name="lap", pid=other.process.pid), said), said
            assert world(a, b) == before
            assert other.end() == 0
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    intact(a, b)


def _read(terminal: int, wanted: str) -> str:
    """What is said on a terminal, up to these words or its end."""
    said = ""
    with contextlib.suppress(OSError):
        while not wanted or wanted not in said:
            data = os.read(terminal, 4096)
            if not data:
                break
            said += data.decode("utf-8", "replace")
    return said


def test_a_person_takes_over_only_by_a_yes_and_only_from_whom_was_shown(
    desk: Machine, lap: Machine, a: Site, b: Site
) -> None:
    desk.write(on_screen("api", "a", PROMPT), fleet='lease = "10m"\n')
    lap.write(on_screen("api", "a", PROMPT))
    nothing = lap.run("take-over")
    assert nothing.returncode == 0
    assert "There is nothing to take over." in nothing.stdout
    assert not a.state.exists(), "a question leaves nothing behind"
    with running(desk) as first:
        until("it runs", lambda: (a.state / "sessions/api/process.1").exists() and answers(a, "api"), 30)
        busy = desk.run("take-over", "--yes")
        assert busy.returncode == 7
        assert "lends its leases" in busy.stderr
        first.kill()
        pid, fence, lease = first.process.pid, a.fence(), a.lease()
    asked = lap.run("take-over")
    assert asked.returncode == 64
    assert "--yes" in asked.stderr
    assert re.search(WHO.format(name="desk", pid=pid), asked.stderr), asked.stderr
    assert (a.fence(), a.lease()) == (fence, lease)
    assert lap.run("apply", "--auto-approve", "--restart", "api").returncode == 6
    b.host.cable_out()
    try:
        taken = lap.run("take-over", "--yes")
    finally:
        b.host.cable_in()
    assert taken.returncode == 4, taken.stderr
    assert "a: taken over" in taken.stdout
    assert "? b (" in taken.stderr
    assert a.fence() > fence
    assert a.lease()[0] == 0
    entries = json.loads(lap.run("history", "--json").stdout)["entries"]
    (entry,) = [entry for entry in entries if entry["verb"] == "take-over"]
    assert (entry["address"], entry["outcome"]) == ("host.a", "done")
    assert f":{pid}:" in entry["message"]
    assert lap.run("take-over", "b", "--yes").returncode == 0
    assert lap.run("take-over", "nowhere").returncode == 64
    lap.apply("--restart", "api")
    lap.settled()
    assert a.opens("api") == ["start", "resume"]
    intact(a, b)


def test_the_machine_that_local_stands_for_is_another_one_once_a_person_says_so(
    desk: Machine, lap: Machine, a: Site
) -> None:
    here = '[sessions.tool]\nhost = "local"\nagent = "shell"\nstrategy = "process"\nargs = ["sleep", "4713"]\n'
    for machine in (desk, lap):
        machine.write(session("api", "a") + f"[hosts.local]\n{here}")
    desk.apply()
    silent = lap.apply(code=4)
    assert "reconciler take-over local" in silent
    assert "desk" in silent
    taken = lap.run("take-over", "local", "--yes")
    assert taken.returncode == 0, taken.stderr
    assert "its `local` is desk" in taken.stderr
    lap.apply()
    lap.settled()
    try:
        again = desk.apply(code=4)
        assert "the sessions on local are run by lap" in again
    finally:
        for machine in (desk, lap):
            machine.run("apply", "--auto-approve", "--max-stop", "100%")
            _stop_all(machine)


def _stop_all(machine: Machine) -> None:
    for path in (machine.home / ".local/state/reconciler" / machine.name).glob("sessions/*/process.*"):
        words = path.read_text(encoding="ascii").split()
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(words[4]), signal.SIGKILL)
