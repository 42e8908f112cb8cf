"""A session moves to another host and takes its memory along; or it does not, and is where it was."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.moving import (
    STORE,
    alive,
    answers,
    archive,
    archived,
    broken_agent,
    on_screen,
    only_on,
    same,
    session,
    tell,
    transcript,
    whole,
)
from tests.e2e.program import PATIENCE, SCRIPT_AGENT, Program, Site, fleet_of, install_script_agent, intact, until

pytestmark = pytest.mark.e2e
MAPPED = f'[hosts.b]\n{PATIENCE}path_map = {{ "/home/dev/work" = "/home/ops/their work" }}\n'
PROMPT = 'prompt = "MARK-one"\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        install_script_agent(made.host("b", user="ops"))
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"m{request.session.items.index(request.node)}")


@pytest.fixture
def sites(fleet: Fleet, program: Program) -> dict[str, Site]:
    return {name: Site(fleet.hosts[name], program.name) for name in ("a", "b")}


@pytest.fixture
def a(sites: dict[str, Site]) -> Site:
    return sites["a"]


@pytest.fixture
def b(sites: dict[str, Site]) -> Site:
    return sites["b"]


class Here:
    """The controlling machine as a host: its home is the one that the program has."""

    def __init__(self, fleet: Fleet) -> None:
        self.name = "local"
        self.home = fleet.controller_home
        self.inner_home = str(fleet.controller_home)
        self._env = fleet.env

    def exec(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env=self._env, cwd=self.home, capture_output=True, text=True, check=False)

    def processes(self) -> list[tuple[int, list[str]]]:
        mark = f"HOME={self.home}".encode()
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                    found.append((int(entry), [word.decode("utf-8", "replace") for word in words]))
        return found


@pytest.fixture
def here(fleet: Fleet, program: Program) -> Iterator[Site]:
    made = Here(fleet)
    agent = made.home / "bin/script-agent"
    agent.parent.mkdir(exist_ok=True)
    agent.write_text(SCRIPT_AGENT.read_text(encoding="utf-8"), encoding="utf-8")
    agent.chmod(0o755)
    (made.home / ".profile").write_text('PATH="$HOME/bin:$PATH"\n', encoding="utf-8")
    yield Site(made, program.name)  # type: ignore[arg-type]
    for pid, argv in made.processes():
        if "script-agent" in " ".join(argv[:2]) or f"{program.name}/" in " ".join(argv):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def directories(host: Host, *names: str) -> None:
    assert host.exec(["mkdir", "-p", *names]).returncode == 0


# -- there and back --------------------------------------------------------------------------------------------------


def test_a_session_goes_to_another_home_and_directory_with_its_memory_and_comes_back(
    program: Program, a: Site, b: Site
) -> None:
    directories(a.host, "work/api", "elsewhere")
    directories(b.host, "their work/api", "elsewhere")
    where = 'workdir = "/home/dev/work/api"\n'
    on_a = on_screen("api", "a", where + PROMPT) + session("ci", "a", more='workdir = "~/elsewhere"\n' + PROMPT)
    on_b = on_screen("api", "b", where + PROMPT) + session("ci", "b", more=PROMPT)
    program.write(MAPPED + on_a, fleet="prune = true")
    program.apply()
    tell(a, "api", "MARK-two")
    program.write(MAPPED + on_b, fleet="prune = true")
    planned = program.run("plan", "--detailed-exitcode")
    assert planned.returncode == 2
    assert "→ session.api  from a to b; its conversation goes with it" in planned.stdout
    assert "host: a → b" in planned.stdout
    assert "Plan: 2 to move." in planned.stdout
    program.apply()
    left = transcript(a, "api").read_bytes()
    program.settled()
    assert b.opens("api") == ["start", "resume"]
    assert b.messages("api") == ["MARK-one", "MARK-two"]
    assert whole(b, "api")[-1]["cwd"] == "/home/ops/their work/api"
    assert whole(b, "ci")[-1]["cwd"] == "/home/ops"
    tell(b, "api", "MARK-three")
    assert answers(b, "api") == [1, 2, 3]
    only_on([a, b], "b", "api")
    only_on([a, b], "b", "ci")
    program.apply()
    same(program, b, "api")
    assert transcript(b, "api").read_bytes().startswith(left)
    # The source keeps its copy and its record; prune is on.
    assert transcript(a, "api").read_bytes() == left
    assert a.record("api")["intent"] == "stopped"
    there = transcript(b, "api").read_bytes()

    program.write(MAPPED + on_a, fleet="prune = true")
    assert program.plan()["session.api"]["verb"] == "move"
    program.apply()
    program.settled()
    tell(a, "api", "MARK-four")
    assert answers(a, "api") == [1, 2, 3, 4]
    assert a.opens("api") == ["start", "resume", "resume"]
    assert transcript(b, "api").read_bytes().startswith(there)
    only_on([a, b], "a", "api")
    only_on([a, b], "a", "ci")
    program.apply()
    same(program, a, "api")
    same(program, a, "ci")
    intact(a, b)


def test_a_session_goes_from_this_machine_to_a_host_and_back(program: Program, a: Site, here: Site) -> None:
    program.write(session("api", "local", more=PROMPT))
    program.apply()
    until("an answer", lambda: answers(here, "api"))
    program.write(session("api", "a", more=PROMPT))
    assert program.plan()["session.api"]["message"].startswith("from local to a")
    program.apply()
    program.settled()
    assert a.opens("api") == ["start", "resume"]
    only_on([a, here], "a", "api")
    same(program, a, "api")
    program.write(session("api", "local", more='prompt = "MARK-two"\non_prompt_change = "ignore"'))
    program.apply()
    program.settled()
    assert here.opens("api") == ["start", "resume", "resume"]
    assert here.messages("api") == ["MARK-one"]
    only_on([a, here], "local", "api")
    same(program, here, "api")
    intact(a, here)
    program.write(session("api", "local", more='state = "stopped"'))
    program.apply()


def test_a_stopped_session_returns_with_its_memory_also_on_another_host(program: Program, a: Site, b: Site) -> None:
    program.write(on_screen("api", "a", PROMPT) + session("ci", "a", more=PROMPT))
    program.apply()
    stopped = 'state = "stopped"\n'
    program.write(on_screen("api", "a", PROMPT + stopped) + session("ci", "a", more=PROMPT + stopped))
    program.apply()
    same(program, a, "api")
    program.write(on_screen("api", "b", PROMPT + stopped) + session("ci", "a", more=PROMPT + stopped))
    program.settled()
    program.write(on_screen("api", "b", PROMPT) + session("ci", "a", more=PROMPT))
    actions = program.plan()
    assert (actions["session.api"]["verb"], actions["session.ci"]["verb"]) == ("move", "resume")
    assert actions["session.ci"]["to_remote_sync"] is False
    program.apply()
    program.settled()
    tell(b, "api", "MARK-two")
    assert answers(b, "api") == [1, 2]
    assert a.opens("ci") == ["start", "resume"]
    only_on([a, b], "b", "api")
    intact(a, b)


@pytest.mark.parametrize("lost", ["store", "everything", "home"])
def test_what_a_disk_lost_comes_back_from_the_archive(program: Program, a: Site, lost: str) -> None:
    program.write(on_screen("api", "a", PROMPT))
    program.apply()
    tell(a, "api", "MARK-two")
    program.apply()
    same(program, a, "api")
    conversation = a.record("api")["conversation"]
    a.host.power_cut()
    for path in {"store": [STORE], "everything": [STORE, ".local"], "home": os.listdir(a.host.home)}[lost]:
        gone = a.host.home / path
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    a.host.boot()
    install_script_agent(a.host)
    assert ">^ session.api" in program.run("plan").stdout
    action = program.plan()["session.api"]
    assert (action["verb"], action["to_remote_sync"]) == ("resume", True)
    program.apply()
    program.settled()
    tell(a, "api", "MARK-three")
    assert answers(a, "api") == [1, 2, 3]
    assert a.opens("api") == ["start", "resume"]
    assert a.record("api")["conversation"] == conversation
    intact(a)


# -- what does not move ----------------------------------------------------------------------------------------------


def test_what_the_target_lacks_is_said_before_anything_stops(program: Program, a: Site, b: Site) -> None:
    work = '[agents.absent]\ncommand = "other-agent"\nstart = ["other-agent", "start", "{session_id}"]\n'
    a.host.write("~/bin/other-agent", SCRIPT_AGENT.read_text(encoding="utf-8"), mode=0o755)
    directories(a.host, "only-here")

    def specs(host: str) -> str:
        return (
            work
            + session("lost", host, "absent")
            + session("nowhere", host, more='workdir = "~/only-here"')
            + on_screen("screen", host)
        )

    program.write(specs("a"))
    program.apply()
    pids = {name: _pid(a, name) for name in ("lost", "nowhere", "screen")}
    made = b.host.exec(["sh", "-c", "mkdir -p tools && ln -sf /usr/bin/* tools/ && rm tools/tmux"])
    assert made.returncode == 0, made.stderr
    b.host.write("~/.profile", 'PATH="$HOME/bin:$HOME/tools"\n')
    try:
        program.write(specs("b"))
        actions = program.plan()
        assert {address: (x["verb"], x["reason"]) for address, x in actions.items()} == {
            "session.lost": ("blocked", "agent-missing"),
            "session.nowhere": ("blocked", "workdir-missing"),
            "session.screen": ("blocked", "tmux-missing"),
        }
        assert actions["session.lost"]["changes"] == [{"field": "host", "before": "a", "after": "b"}]
        program.apply(code=7)
        assert {name: _pid(a, name) for name in pids} == pids
        assert not list((b.state / "sessions").glob("*"))
    finally:
        install_script_agent(b.host)


def _pid(site: Site, name: str) -> int:
    return int((site.state / "sessions" / name / "process.1").read_text(encoding="ascii").split()[0])


def test_where_the_target_fails_the_session_goes_on_at_the_source_and_the_next_apply_tries_again(
    program: Program, a: Site, b: Site
) -> None:
    program.write(on_screen("api", "a", PROMPT) + session("ci", "a", more=PROMPT))
    program.apply()
    conversation = a.record("api")["conversation"]
    program.write(on_screen("api", "b", PROMPT) + session("ci", "b", more=PROMPT))
    broken_agent(b.host, "echo it is broken; sleep 0.2; exit 3")
    try:
        output = program.apply(code=1)
        assert "session.api failed" in output
        assert "exit code 3" in output
        assert "it was resumed where it was" in output
        only_on([a, b], "a", "api")
        only_on([a, b], "a", "ci")
        tell(a, "api", "MARK-two")
        assert answers(a, "api") == [1, 2]
        assert a.record("api")["conversation"] == conversation
        # After a power cut of both, the source is still where it belongs, whatever the order of the hosts.
        a.host.reboot()
        b.host.reboot()
        assert program.plan()["session.api"]["message"].startswith("from a to b")
    finally:
        install_script_agent(b.host)
    program.apply()
    program.settled()
    only_on([a, b], "b", "api")
    tell(b, "api", "MARK-three")
    assert answers(b, "api") == [1, 2, 3]
    assert b.messages("ci") == ["MARK-one"]
    intact(a, b)


def test_a_launch_that_is_given_up_never_comes_up_beside_the_session_that_went_back(
    program: Program, a: Site, b: Site
) -> None:
    # Reading the login environment takes longer than anybody waits for a launch; then it comes up, too late.
    b.host.write(
        "~/.profile",
        'PATH="$HOME/bin:$PATH"\ncase $BASH_EXECUTION_STRING in *"export -p"*) [ ! -e ~/slow ] || sleep 31 ;; esac\n',
    )
    names = ("api", "ci")
    program.write(on_screen("api", "a", PROMPT) + session("ci", "a", more=PROMPT))
    program.apply()
    for name in names:
        until("an answer", lambda name=name: answers(a, name))  # type: ignore[misc]
    conversations = [a.record(name)["conversation"] for name in names]
    program.write(on_screen("api", "b", PROMPT) + session("ci", "b", more=PROMPT))
    try:
        b.host.write("~/slow", "")
        output = program.apply(code=1)
        assert output.count("did not start within 25 s; it was resumed where it was") >= len(names), output
        end = time.monotonic() + 12
        while time.monotonic() < end:
            assert [alive([a, b], conversation) for conversation in conversations] == [["a"], ["a"]]
            time.sleep(0.3)
    finally:
        b.host.exec(["rm", "-f", f"{b.host.inner_home}/slow"])
        install_script_agent(b.host)


def test_a_source_that_does_not_answer_holds_the_session_until_a_person_takes_it_over(
    program: Program, a: Site, b: Site
) -> None:
    program.write(on_screen("api", "a", PROMPT))
    program.apply()
    tell(a, "api", "MARK-two")
    program.apply()
    conversation = a.record("api")["conversation"]
    a.host.cable_out()
    try:
        program.write(on_screen("api", "b", PROMPT))
        shown = program.run("plan", "--detailed-exitcode")
        assert shown.returncode == 4
        assert "? session.api  it was last seen on a, which was not observed" in shown.stdout
        program.apply(code=4)
        assert not list((b.state / "sessions").glob("*"))
        # Without the journal nothing more is known than what the archive says.
        program.journal.rename(program.journal.with_suffix(".away"))
        program.apply(code=4)
        assert not list((b.state / "sessions").glob("*"))
        program.journal.with_suffix(".away").rename(program.journal)
        output = program.apply("--take-over", "session.api", code=4)
        assert "its conversation comes from the archive" in output
        tell(b, "api", "MARK-three")
        assert answers(b, "api") == [1, 2, 3]
        assert b.record("api")["conversation"] == conversation
        assert program.run("plan", "--detailed-exitcode").returncode == 4
    finally:
        a.host.cable_in()
    # It lives on both now: nobody but a person can say which one counts.
    shown = program.run("plan")
    assert "! session.api  it may run on" in shown.stdout, shown.stdout
    program.apply(code=7)
    assert [len(site.pids("api")) for site in (a, b)] == [1, 1]
    a.kill(a.pids("api")[0])
    program.settled()
    assert b.pids("api")
    # The one that was taken over counts, also when neither lives.
    b.host.reboot()
    assert program.plan()["session.api"]["verb"] == "resume"
    program.apply()
    assert answers(b, "api") == [1, 2, 3]
    assert a.messages("api") == ["MARK-one", "MARK-two"]
    only_on([a, b], "b", "api")


def test_a_protected_session_stays_and_a_busy_one_moves_when_it_is_idle(program: Program, a: Site, b: Site) -> None:
    keep = session("keep", "a", more="protect = true\n")
    program.write(keep + session("busy", "a", "telling", 'prompt = "SLOW:6"'))
    program.apply()
    program.write(keep.replace('"a"', '"b"') + session("busy", "b", "telling", 'prompt = "SLOW:6"'))
    actions = program.plan()
    assert (actions["session.keep"]["verb"], actions["session.keep"]["reason"]) == ("blocked", "protected")
    assert "busy: waits up to 10m for idle" in actions["session.busy"]["message"]
    program.apply(code=3)
    assert [entry["kind"] for entry in b.conversation("busy")] == ["open", "user", "answer", "end", "open"]
    only_on([a, b], "a", "keep")
    only_on([a, b], "b", "busy")
    assert a.opens("keep") == ["start"]
    intact(a, b)


# -- two copies ------------------------------------------------------------------------------------------------------


def stopped_with_copies(program: Program, site: Site, *names: str) -> str:
    """Sessions that were told two things, and were stopped; the specs that want them again."""
    specs = "".join(session(name, "a", more=PROMPT) for name in names)
    program.write(specs)
    program.apply()
    for name in names:
        until("an answer", lambda name=name: answers(site, name))  # type: ignore[misc]
    stop = "".join(session(name, "a", more=PROMPT + 'state = "stopped"') for name in names)
    program.write(stop)
    program.apply("--max-stop", "100%")
    for name in names:
        same(program, site, name)
    return specs


def test_copies_that_went_different_ways_are_shown_and_neither_is_touched(program: Program, a: Site, b: Site) -> None:
    specs = stopped_with_copies(program, a, "api", "longer", "moving")
    before = {}
    for name in ("api", "longer", "moving"):
        path = transcript(a, name)
        data = path.read_bytes().replace(b"MARK-one", b"MARK-won")
        path.write_bytes(data + (b'{"kind": "user", "text": "more"}\n' if name == "longer" else b""))
        before[path] = path.read_bytes()
        before[archived(program, a, name)] = archived(program, a, name).read_bytes()
    program.write(specs.replace('[sessions.moving]\nhost = "a"', '[sessions.moving]\nhost = "b"'))
    actions = program.plan()
    for name in ("api", "longer"):
        assert (actions[f"session.{name}"]["verb"], actions[f"session.{name}"]["reason"]) == ("blocked", "diverged")
        assert "reconciler sync" in actions[f"session.{name}"]["remedy"]
    assert "! session.api" in program.run("plan").stdout
    output = program.apply(code=1)
    assert "session.moving failed" in output
    assert "the archive has" in output, output
    for path, data in before.items():
        assert path.read_bytes() == data
    # Once it was seen, both heads stand in the plan.
    message = program.plan()["session.api"]["message"]
    assert "differ" in message
    assert "it was left where it was" in output
    assert [a.opens(name) for name in ("api", "longer", "moving")] == [["start"]] * 3
    assert program.plan()["session.moving"]["reason"] == "diverged"
    kept = list(archive(program).glob("*/*/diverged/*/*.jsonl"))
    assert {path.read_bytes() for path in kept} >= {data for path, data in before.items() if STORE in str(path)}


def test_clocks_decide_nothing(program: Program, a: Site) -> None:
    names = ("past", "future", "ahead", "behind", "torn")
    specs = stopped_with_copies(program, a, *names)
    original = {name: transcript(a, name).read_bytes() for name in names}
    more = b'{"kind": "user", "text": "MARK-two"}\n'
    transcript(a, "ahead").write_bytes(original["ahead"] + more)
    os.utime(transcript(a, "ahead"), (0, 0))
    lines = original["behind"].splitlines(keepends=True)
    transcript(a, "behind").write_bytes(b"".join(lines[:2]))
    os.utime(transcript(a, "behind"), (4_070_908_800, 4_070_908_800))
    transcript(a, "torn").write_bytes(original["torn"] + b'{"kind": "us')
    os.utime(transcript(a, "past"), (0, 0))
    os.utime(transcript(a, "future"), (4_070_908_800, 4_070_908_800))
    for name in names:
        os.utime(archived(program, a, name), (0, 0) if name in ("behind", "future") else (4_070_908_800,) * 2)
    program.write(specs)
    actions = program.plan()
    assert {name: actions[f"session.{name}"]["verb"] for name in names} == dict.fromkeys(names, "resume")
    assert [name for name in names if actions[f"session.{name}"]["to_remote_sync"]] == ["behind"]
    program.apply()
    for name in names:
        data = transcript(a, name).read_bytes()
        assert data.startswith(original[name]), name
        assert a.pids(name)
    assert transcript(a, "ahead").read_bytes().startswith(original["ahead"] + more)
    assert a.messages("ahead") == ["MARK-one", "MARK-two"]
    for name in ("past", "future", "ahead", "behind"):
        assert a.opens(name) == ["start", "resume"]
        same(program, a, name)
    program.settled()
    transcript(a, "torn").unlink()  # the agent wrote on behind the torn line


def test_a_line_torn_at_the_source_is_left_there_and_does_not_keep_a_session_from_coming_back(
    program: Program, a: Site, b: Site
) -> None:
    program.write(on_screen("api", "a", PROMPT))
    program.apply()
    until("an answer", lambda: answers(a, "api"))
    a.host.power_cut()
    data = transcript(a, "api").read_bytes()
    torn = data + b'{"kind": "us'
    transcript(a, "api").write_bytes(torn)
    a.host.boot()
    program.write(on_screen("api", "b", PROMPT))
    program.apply()
    tell(b, "api", "MARK-two")
    program.apply()
    program.settled()
    assert transcript(a, "api").read_bytes() == torn
    assert archived(program, b, "api").read_bytes().startswith(data)
    program.write(on_screen("api", "a", PROMPT))
    program.apply()
    program.settled()
    tell(a, "api", "MARK-three")
    assert answers(a, "api") == [1, 2, 3]
    assert torn in [path.read_bytes() for path in (a.state / "sessions/api/snapshot").iterdir()]
    only_on([a, b], "a", "api")
    intact(a, b)


def test_an_archive_that_was_restored_from_an_old_copy_loses_to_the_newer_host(
    program: Program, a: Site, b: Site
) -> None:
    program.write(on_screen("api", "a", PROMPT) + on_screen("moving", "a", PROMPT))
    program.apply()
    program.apply()
    old = archive(program).with_name("old")
    shutil.copytree(archive(program), old)
    for name in ("api", "moving"):
        tell(a, name, "MARK-two")
    program.apply()
    a.host.reboot()
    shutil.rmtree(archive(program))
    old.rename(archive(program))
    for path in archive(program).rglob("*"):
        os.utime(path, (4_070_908_800, 4_070_908_800), follow_symlinks=False)
    program.write(on_screen("api", "a", PROMPT) + on_screen("moving", "b", PROMPT))
    actions = program.plan()
    assert (actions["session.api"]["verb"], actions["session.api"]["to_remote_sync"]) == ("resume", False)
    program.apply()
    program.settled()
    for site, name in ((a, "api"), (b, "moving")):
        assert site.messages(name) == ["MARK-one", "MARK-two"]
        same(program, site, name)
    only_on([a, b], "b", "moving")


# -- a resume that fails ---------------------------------------------------------------------------------------------


def test_a_resume_that_never_gets_ready_is_ended_and_its_files_are_as_before(program: Program, a: Site) -> None:
    ready = 'ready = { pattern = "is ready", timeout = "2s" }\n'
    program.write(on_screen("api", "a", PROMPT + ready))
    program.apply()
    program.write(on_screen("api", "a", PROMPT + ready + 'state = "stopped"'))
    program.apply()
    before = transcript(a, "api").read_bytes()
    name = transcript(a, "api").name
    broken_agent(a.host, f"echo rubbish >>~/{STORE}/{name}; echo 'Do you trust this directory? [y/n]'; exec sleep 4713")
    program.write(on_screen("api", "a", PROMPT + ready))
    try:
        output = program.apply(code=9)
    finally:
        install_script_agent(a.host)
    assert "not ready within 2 s" in output
    assert "Do you trust this directory?" in output
    assert "its conversation is as it was before" in output
    assert transcript(a, "api").read_bytes() == before
    kept = list((a.state / "sessions/api/snapshot").iterdir())
    assert before in [path.read_bytes() for path in kept]
    assert before + b"rubbish\n" in [path.read_bytes() for path in kept]
    assert not [argv for _, argv in a.host.processes() if argv[:2] == ["sleep", "4713"]]
    program.apply()
    tell(a, "api", "MARK-two")
    assert answers(a, "api") == [1, 2]
    intact(a)


def test_after_a_reboot_sessions_start_two_at_a_time(program: Program, a: Site) -> None:
    a.host.write("~/bin/slow", "#!/bin/sh\nsleep 0.4\n", mode=0o755)
    more = PROMPT + 'ready = { command = ["sh", "-c", "sleep 0.4"] }\n'
    program.write("".join(session(f"s{number}", "a", more=more) for number in range(8)))
    program.apply()
    a.host.reboot()
    done = program.run("apply", "--auto-approve", "--json")
    assert done.returncode == 0, done.stderr
    begun = most = 0
    for event in map(json.loads, done.stdout.splitlines()):
        begun += {"apply_start": 1, "apply_complete": -1}.get(event["type"], 0)
        most = max(most, begun)
    assert most == 2
    assert [len(a.pids(f"s{number}")) for number in range(8)] == [1] * 8
    at = sorted(entry["at"] for number in range(8) for entry in whole(a, f"s{number}") if entry.get("verb") == "resume")
    assert all(later - earlier > 0.3 for earlier, later in zip(at, at[2:], strict=False)), at
    intact(a)
    assert time.time() > at[-1]
