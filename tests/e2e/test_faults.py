"""What can go wrong goes wrong: power, cables, hangs, kills, full disks, two controllers; nothing is lost or doubled"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import PATIENCE, Program, Site, fleet_of, install_script_agent, intact, until

pytestmark = pytest.mark.e2e
NAMES = ("one", "two", "three")
SLOW_LOGIN = 'PATH="$HOME/bin:$PATH"\nsleep 1\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of(*NAMES) as made:
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"faults{request.session.items.index(request.node)}")


@pytest.fixture
def one(fleet: Fleet) -> Host:
    return fleet.hosts["one"]


@pytest.fixture
def sites(fleet: Fleet, program: Program) -> dict[str, Site]:
    return {name: Site(fleet.hosts[name], program.name) for name in NAMES}


@pytest.fixture
def slow_login(one: Host) -> Iterator[None]:
    """Each launch on the first host takes some seconds: time for something to happen in between."""
    one.write("~/.profile", SLOW_LOGIN)
    yield
    install_script_agent(one)


def session(name: str, host: str = "one", agent: str = "script", more: str = "") -> str:
    return f'[sessions.{name}]\nhost = "{host}"\nagent = "{agent}"\n{more}\n'


def sleeper(name: str, host: str = "one", more: str = "") -> str:
    """A session that costs nothing."""
    return session(name, host, "shell", f'strategy = "process"\nargs = ["sleep", "4712"]\n{more}')


def many(count: int, more: str = "", strategy: str = "process") -> str:
    """So many sessions, spread over the hosts."""
    keys = f'strategy = "{strategy}"\n{more}'
    return "".join(session(f"s{number}", NAMES[number % 3], more=keys) for number in range(count))


def on(number: int) -> str:
    return NAMES[number % 3]


def all_run_once(sites: dict[str, Site], count: int) -> None:
    for number in range(count):
        site = sites[on(number)]
        assert len(site.pids(f"s{number}")) == 1, f"s{number}: {site.pids(f's{number}')}"
    intact(*sites.values())


def ended(process: subprocess.Popen[str], timeout: float = 60.0) -> tuple[int, str]:
    """Its exit code and what it printed."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def boundaries(journal: Path) -> int:
    """How many intents and outcomes stand in the journal."""
    if not journal.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=5) as database:
            rows = database.execute("SELECT count(*), count(outcome) FROM intents").fetchone()
        database.close()
    except sqlite3.OperationalError:  # not yet made
        return 0
    return int(rows[0]) + int(rows[1])


# -- power, cables, hangs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["power cut", "hang"])
def test_a_host_that_fails_in_the_middle_of_an_apply_holds_up_no_other_and_is_made_good_by_the_next(
    program: Program, sites: dict[str, Site], one: Host, fault: str
) -> None:
    specs = "".join(session(f"s{number}", more='prompt = "MARK-one"') for number in range(2))
    program.write(specs + session("other", "two"))
    with program.start("apply", "--auto-approve") as process:
        until("the first record", lambda: list(sites["one"].state.glob("sessions/*/record.json")))
        one.power_cut() if fault == "power cut" else one.freeze()
        code, output = ended(process)
    one.boot() if fault == "power cut" else one.thaw()
    assert code == 3, output
    assert "session.other on two: done" in output
    assert "3 done" not in output
    until("the last operation is over", lambda: not sites["one"].at_work())
    program.apply()
    program.settled()
    for number in range(2):
        assert sites["one"].messages(f"s{number}") == ["MARK-one"]
        assert len(sites["one"].pids(f"s{number}")) == 1
    intact(*sites.values())


def test_after_a_reboot_every_session_comes_back_with_its_conversation(
    program: Program, sites: dict[str, Site], fleet: Fleet
) -> None:
    program.write(many(6, 'prompt = "MARK-one"', strategy="tmux"))
    program.apply()
    before = {number: sites[on(number)].record(f"s{number}")["conversation"] for number in range(6)}
    for name in ("one", "two"):
        fleet.hosts[name].reboot()
    actions = program.plan()
    assert {action["reason"] for action in actions.values()} == {"rebooted"}
    assert set(actions) == {f"session.s{number}" for number in range(6) if on(number) != "three"}
    program.apply()
    program.settled()
    for number in range(6):
        site = sites[on(number)]
        assert site.record(f"s{number}")["conversation"] == before[number]
        assert site.messages(f"s{number}") == ["MARK-one"]
        assert site.opens(f"s{number}") == (["start"] if on(number) == "three" else ["start", "resume"])
    all_run_once(sites, 6)


def kill_at_each_boundary(program: Program) -> int:
    """Apply again and again, killed at the first, the second, the third, ... intent or outcome that it writes, until
    one gets to its end; how many kills that took."""
    for number in range(1, 40):
        before = boundaries(program.journal)
        with program.start("apply", "--auto-approve") as process:
            while process.poll() is None and boundaries(program.journal) < before + number:
                time.sleep(0.001)
            process.kill()
            ended(process)
        if process.returncode != -signal.SIGKILL:
            return number - 1
    raise AssertionError("killed again and again, it never gets to the end")


def test_killed_at_every_boundary_of_the_journal_nothing_is_lost_or_doubled(
    program: Program, sites: dict[str, Site]
) -> None:
    program.write(many(12, 'prompt = "MARK-one"'))
    assert kill_at_each_boundary(program) >= 3
    until("the last operations are over", lambda: not any(site.at_work() for site in sites.values()))
    program.apply()
    program.settled()
    all_run_once(sites, 12)
    assert all(sites[on(number)].messages(f"s{number}") == ["MARK-one"] for number in range(12))
    program.write(many(12, 'prompt = "MARK-one"\nenv = { NEW = "process" }'))
    assert kill_at_each_boundary(program) >= 3
    until("the last operations are over", lambda: not any(site.at_work() for site in sites.values()))
    program.apply()
    program.settled()
    all_run_once(sites, 12)
    for number in range(12):
        site = sites[on(number)]
        assert site.messages(f"s{number}") == ["MARK-one"]
        assert site.environ(site.pids(f"s{number}")[0])["NEW"] == "process"
    entries = json.loads(program.run("history", "--json", "-n", "1000").stdout)["entries"]
    assert all(entry["outcome"] for entry in entries)


@pytest.mark.usefixtures("slow_login")
def test_a_cable_that_is_pulled_in_the_middle_of_a_launch_starts_nothing_twice(
    program: Program, sites: dict[str, Site], one: Host
) -> None:
    program.write(session("api", more='prompt = "MARK-one"'))
    with program.start("apply", "--auto-approve") as process:
        until("the launch is under way", lambda: list(sites["one"].state.glob("locks/session-api.*")))
        one.cable_out()
        try:
            code, output = ended(process)
        finally:
            one.cable_in()
    assert code == 1, output
    assert "session.api unknown" in output
    until("the launch went on", lambda: sites["one"].opens("api"))
    until("the operation is over", lambda: not sites["one"].at_work())
    program.apply()
    program.settled()
    assert sites["one"].opens("api") == ["start"]
    assert sites["one"].messages("api") == ["MARK-one"]


def test_a_hung_host_delays_no_other_and_is_unknown_in_bounded_time(
    program: Program, sites: dict[str, Site], fleet: Fleet
) -> None:
    program.write(many(3))
    program.apply()
    program.write(many(6))
    fleet.hosts["two"].freeze()
    try:
        begun = time.monotonic()
        output = program.apply(code=4)
        assert time.monotonic() - begun < 12
        assert "session.s1 unknown" in output
        assert "session.s4 unknown" in output
        told = program.status()
    finally:
        fleet.hosts["two"].thaw()
    assert told["host.two"]["phase"] == "unknown"
    assert told["session.s1"]["conditions"][0]["status"] == "Unknown"
    assert told["session.s0"]["phase"] == "running"
    for number in (0, 2, 3, 5):
        assert len(sites[on(number)].pids(f"s{number}")) == 1
    program.apply()
    program.settled()
    all_run_once(sites, 6)


def test_an_unreachable_host_is_exit_4_its_sessions_unknown_and_the_rest_is_done(
    program: Program, sites: dict[str, Site], fleet: Fleet
) -> None:
    program.write(many(3))
    fleet.hosts["three"].power_cut()
    try:
        shown = program.run("plan", "--detailed-exitcode")
        assert shown.returncode == 2
        assert "? session.s2" in shown.stdout
        program.apply(code=4)
        assert program.run("plan", "--detailed-exitcode").returncode == 4
        assert program.run("status").returncode == 4
    finally:
        fleet.hosts["three"].boot()
    assert [len(sites[on(number)].pids(f"s{number}")) for number in (0, 1)] == [1, 1]
    assert not sites["three"].state.exists()
    program.apply()
    all_run_once(sites, 3)


# -- hosts that lie --------------------------------------------------------------------------------------------------

FAKES = {
    "garbage": "import os\nos.write(1, os.urandom(4096) + b'\\nhost\\t-\\t{}\\n')\nos.read(0, 1)\n",
    "half": "import os, subprocess\np = subprocess.Popen(['/bin/sh', *__import__('sys').argv[1:]], stdout=-1)\n"
    "os.write(1, p.stdout.read(700))\np.kill()\n",
    "a line missing": "import os, subprocess, sys\np = subprocess.Popen(['/bin/sh', *sys.argv[1:]], stdout=-1)\n"
    "for line in p.stdout:\n    line.startswith((b'session', b'record', b'process')) or os.write(1, line)\n",
    "nothing": "import sys\nsys.exit(0)\n",
    "an empty machine": "import os, re, sys\ntext = b''\nwhile not re.search(rb'reconciler_look \\S+ \\w+', text):\n"
    "    text += os.read(0, 65536)\n"
    "nonce = re.findall(rb'reconciler_look \\S+ (\\w+)', text)[-1]\nos.write(1, b'end\\t' + nonce + b'\\t0\\n')\n",
}


@pytest.fixture
def liar(one: Host) -> Iterator[Callable[[str], None]]:
    """`sh` as remote commands find it: earlier in the PATH lies another one."""

    def lie(program: str) -> None:
        one.write("~/fake/sh", f"#!/usr/bin/python3\n{program}", mode=0o755)
        one.write("~/.bashrc", 'PATH="$HOME/fake:$PATH"\n')

    yield lie
    one.write("~/.bashrc", "")


@pytest.mark.parametrize("fake", FAKES)
def test_an_answer_that_is_not_whole_is_unknown_and_never_absent(
    program: Program, sites: dict[str, Site], liar: Callable[[str], None], fake: str
) -> None:
    program.write(session("api"))
    program.apply()
    pids, fence = sites["one"].pids("api"), sites["one"].fence()
    liar(FAKES[fake])
    program.write(session("api", more='env = { NEW = "process" }') + session("new", "two"))
    begun = time.monotonic()
    output = program.apply(code=4)
    assert time.monotonic() - begun < 15
    assert "session.api unknown" in output
    assert sites["one"].pids("api") == pids
    assert sites["one"].fence() == fence
    assert len(sites["two"].pids("new")) == 1


def test_a_login_that_greets_everybody_is_looked_at_all_the_same(
    program: Program, sites: dict[str, Site], one: Host
) -> None:
    one.write("~/.bashrc", "echo 'Welcome to one!'; printf 'no newline '\n")
    try:
        program.write(session("api"))
        program.apply()
        program.settled()
    finally:
        one.write("~/.bashrc", "")
    assert sites["one"].opens("api") == ["start"]


# -- several controllers ---------------------------------------------------------------------------------------------


@pytest.fixture
def one_at_a_time(program: Program) -> str:
    """Two sessions that are started one after the other."""
    return f"[hosts.one]\nmax_parallel_starts = 1\n{PATIENCE}" + session("a") + session("b")


@pytest.mark.usefixtures("slow_login")
def test_the_second_of_two_applies_is_told_who_holds_the_lease(
    program: Program, sites: dict[str, Site], one_at_a_time: str
) -> None:
    program.write(one_at_a_time + session("c"))
    with program.start("apply", "--auto-approve") as process:
        until("the first session", lambda: (sites["one"].state / "sessions/a/incarnation").exists())
        second = program.run("apply", "--auto-approve")
        pid = process.pid
        code, output = ended(process)
    assert second.returncode == 6, second.stdout + second.stderr
    assert f"(pid {pid}) holds the lease" in second.stderr
    assert "remedy:" in second.stderr
    assert code == 0, output
    program.settled()
    assert [sites["one"].opens(name) for name in ("a", "b", "c")] == [["start"]] * 3
    intact(sites["one"])


@pytest.mark.usefixtures("slow_login")
def test_a_controller_that_slept_past_its_lease_and_was_overtaken_cannot_act_any_more(
    program: Program, sites: dict[str, Site], one_at_a_time: str
) -> None:
    site = sites["one"]
    program.write(one_at_a_time)
    with program.start("apply", "--auto-approve") as process:
        until("the first session", lambda: (site.state / "sessions/a/process.1").exists())
        process.send_signal(signal.SIGSTOP)
        until("its operation is over", lambda: not any(site.state.glob("locks/session-a.free*")) and _free(site, "a"))
        local = program.fleet.controller_home / ".local/state/reconciler" / program.name
        for state in (local, *(held.state for held in sites.values())):  # it acts on one, and has those of all
            holder = (state / "lease").read_text(encoding="ascii").split()[1]
            (state / "lease").write_text(f"1 {holder}\n", encoding="ascii")
        program.apply()
        fence, conversation = site.fence(), site.record("b")["conversation"]
        process.send_signal(signal.SIGCONT)
        code, output = ended(process)
    assert code == 3, output
    assert "session.b failed" in output
    assert "another controller took over" in output
    assert (site.fence(), site.record("b")["conversation"]) == (fence, conversation)
    assert [site.opens(name) for name in ("a", "b")] == [["start"], ["start"]]
    program.settled()
    intact(site)


def _free(site: Site, name: str) -> bool:
    locks = sorted(site.state.glob(f"locks/session-{name}.[0-9]*"))
    return bool(locks) and locks[-1].read_text(encoding="ascii").strip() == "free"


# -- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("slow_login")
def test_one_interrupt_lets_what_runs_finish_and_begins_nothing_more(
    program: Program, sites: dict[str, Site], one_at_a_time: str
) -> None:
    program.write(one_at_a_time)
    with program.start("apply", "--auto-approve") as process:
        until("the first session", lambda: (sites["one"].state / "sessions/a/incarnation").exists())
        process.send_signal(signal.SIGINT)
        code, output = ended(process)
    assert code == 130, output
    assert "session.a on one: done" in output
    assert "session.b skipped: interrupted before it began" in output
    assert "Apply: 1 done, 1 skipped." in output
    assert len(sites["one"].pids("a")) == 1
    assert not (sites["one"].state / "sessions/b").exists()
    assert sites["one"].lease()[0] == 0
    program.apply()
    program.settled()
    intact(sites["one"])


@pytest.mark.usefixtures("slow_login")
def test_a_second_interrupt_cuts_it_off_gives_the_lease_back_and_loses_nothing(
    program: Program, sites: dict[str, Site], one_at_a_time: str
) -> None:
    program.write(one_at_a_time)
    with program.start("apply", "--auto-approve") as process:
        until("the first session", lambda: (sites["one"].state / "sessions/a/incarnation").exists())
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, output = ended(process)
    assert code == 130, output
    assert time.monotonic() - begun < 6
    assert "session.a unknown" in output
    assert sites["one"].lease()[0] == 0
    until("the operation is over", lambda: not sites["one"].at_work())
    program.apply()
    program.settled()
    assert [sites["one"].opens(name) for name in ("a", "b")] == [["start"], ["start"]]
    intact(sites["one"])


# -- what a host lacks -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_named_with_its_remedy_and_nothing_is_half_done(fleet: Fleet, program: Program) -> None:
    tiny = fleet.host("tiny", home_size="4m")
    try:
        install_script_agent(tiny)
        site = Site(tiny, program.name)
        program.write(session("api", "tiny", more='prompt = "MARK-one"'))
        tiny.fill_disk()
        output = program.apply(code=1)
        assert "is the disk full" in output
        assert "remedy: free some space on tiny, then apply again" in output
        assert not [argv for _, argv in tiny.processes() if "script-agent" in " ".join(argv)]
        tiny.free_disk()
        program.apply()
        program.settled()
        assert site.opens("api") == ["start"]
        assert site.messages("api") == ["MARK-one"]
    finally:
        tiny.remove()
        del fleet.hosts["tiny"]


def test_a_host_without_tmux_is_blocked_at_the_plan_with_two_ways_out(
    program: Program, sites: dict[str, Site], one: Host
) -> None:
    made = one.exec(["sh", "-c", "mkdir tools && ln -s /usr/bin/* tools/ && rm tools/tmux"])
    assert made.returncode == 0, made.stderr
    one.write("~/.profile", 'PATH="$HOME/bin:$HOME/tools"\n')
    try:
        program.write(session("api"))
        action = program.plan()["session.api"]
        assert (action["verb"], action["reason"]) == ("blocked", "tmux-missing")
        assert "apt install tmux" in action["remedy"]
        assert 'strategy = "process"' in action["remedy"]
        program.apply(code=7)
        assert not sites["one"].state.exists()
        program.write(session("api", more='strategy = "process"'))
        program.apply()
        assert len(sites["one"].pids("api")) == 1
    finally:
        install_script_agent(one)


def test_a_missing_agent_or_directory_is_blocked_and_the_rest_goes_on(
    program: Program, sites: dict[str, Site], one: Host
) -> None:
    program.write(
        '[agents.absent]\ncommand = "no-such-agent"\nstart = ["no-such-agent"]\ninstall = "npm install -g it"\n'
        + session("lost", agent="absent")
        + session("nowhere", more='workdir = "~/not/there"')
    )
    actions = program.plan()
    assert actions["session.lost"]["reason"] == "agent-missing"
    assert f"{one.inner_home}/bin" in actions["session.lost"]["message"]
    assert actions["session.lost"]["remedy"] == "on one: npm install -g it"
    assert actions["session.nowhere"]["reason"] == "workdir-missing"
    assert "mkdir -p ~/not/there" in actions["session.nowhere"]["remedy"]
    program.apply(code=7)
    assert not (sites["one"].state / "sessions").exists()
    program.write(session("nowhere", more='workdir = "~/not/there"') + sleeper("fine"))
    program.apply(code=3)
    one.exec(["mkdir", "-p", "not/there"])
    program.apply()
    assert sites["one"].conversation("nowhere")[0]["cwd"] == f"{one.inner_home}/not/there"


def test_an_agent_that_ends_at_once_fails_with_its_last_words(program: Program) -> None:
    for strategy in ("tmux", "process"):
        more = f'strategy = "{strategy}"\nargs = ["sh", "-c", "echo it is broken; exit 3"]'
        program.write(session("api", agent="shell", more=more))
        output = program.apply("--restart", "api", code=1)
        assert "exit code 3" in output
        assert "it is broken" in output
        assert "remedy: reconciler logs api" in output


# -- guards ----------------------------------------------------------------------------------------------------------


def test_stopping_more_than_max_stop_allows_is_refused_unless_it_is_asked_for(
    program: Program, sites: dict[str, Site]
) -> None:
    program.write("".join(sleeper(f"s{number}", on(number)) for number in range(5)))
    program.apply()
    program.write("".join(sleeper(f"s{number}", on(number)) for number in range(2)))
    warned = program.run("plan")
    assert "apply will refuse this" in warned.stderr
    output = program.apply(code=7)
    assert "the plan stops 3 of 5 running sessions; max_stop = 20% allows 2" in output
    assert "remedy: if it is meant: reconciler apply --max-stop 3" in output
    alive = [site.host for site in sites.values()]
    assert sum(_sleeps(host, program) for host in alive) == 5
    program.apply("--max-stop", "3")
    assert sum(_sleeps(host, program) for host in alive) == 2


def _sleeps(host: Host, program: Program) -> int:
    """The wrappers of this fleet's sessions that live on a host."""
    return sum(argv[0] == "sh" and f"/{program.name}/" in " ".join(argv) for _, argv in host.processes())


def test_specs_that_declare_nothing_stop_nothing(program: Program, one: Host) -> None:
    program.write(sleeper("s0"))
    program.apply()
    program.raw(f'[fleet]\nname = "{program.name}"\n')
    output = program.apply(code=7)
    assert "taken for a mistake" in output
    assert program.run("plan").returncode == 7
    (program.specs / "fleet.toml").unlink()
    assert program.run("apply", "--auto-approve").returncode in (7, 65)
    program.raw("[sessions.s0\n")
    assert program.run("apply", "--auto-approve").returncode == 65
    assert _sleeps(one, program) == 1


def test_a_protected_session_is_neither_stopped_nor_restarted_until_it_is_unprotected(
    program: Program, one: Host
) -> None:
    program.write(sleeper("s0", more="protect = true"))
    program.apply()
    for specs in (
        sleeper("s0", more='protect = true\nstate = "stopped"'),
        sleeper("s0", more='protect = true\nenv = { A = "b" }'),
        "",
    ):
        program.write(specs)
        assert program.plan()["session.s0"]["reason"] == "protected"
        program.apply(code=7)
        assert _sleeps(one, program) == 1
    program.write(sleeper("s0"))
    program.apply()
    program.write("")
    program.apply()
    assert _sleeps(one, program) == 0


# -- dependencies ----------------------------------------------------------------------------------------------------

LISTEN = (
    "import socket, time; time.sleep(1); s = socket.create_server(('127.0.0.1', 7654)); "
    "open('ready-at', 'w').write(str(time.time())); print('listening now', flush=True); time.sleep(1000)"
)
BECOMES_READY = {
    "port": "port = 7654",
    "pattern": 'pattern = "^listening n.w$"',
    "command": 'command = ["test", "-s", "dir/ready-at"]',
}


@pytest.mark.parametrize("ready", BECOMES_READY)
@pytest.mark.parametrize("strategy", ["process"])
def test_a_dependent_begins_only_once_what_it_needs_is_ready(
    program: Program, sites: dict[str, Site], one: Host, ready: str, strategy: str
) -> None:
    one.exec(["sh", "-c", "mkdir -p dir && rm -f dir/ready-at"])
    listener = f'strategy = "{strategy}"\nworkdir = "~/dir"\nargs = ["python3", "-c", "{LISTEN}"]\n'
    program.write(
        session("db", agent="shell", more=f"{listener}ready = {{ {BECOMES_READY[ready]} }}")
        + session("api", "two", more='depends_on = ["db"]')
    )
    output = program.apply()
    assert "waits for session.db to be ready" in output
    ready_at = float((one.home / "dir/ready-at").read_text(encoding="ascii"))
    assert sites["two"].conversation("api")[0]["at"] > ready_at
    program.write(session("db", agent="shell", more=f'{listener}state = "stopped"') + session("api", "two"))
    program.apply()


def test_dependents_wait_for_started_idle_and_completed(program: Program, sites: dict[str, Site]) -> None:
    program.write(
        session("task", more='strategy = "process"\nlifecycle = "task"\nprompt = "SLOW:1"')
        + session("lead", agent="telling", more='prompt = "SLOW:2.5"')
        + session("x", "two", more='depends_on = [{ session = "task", until = "completed" }]')
        + session("y", "two", more='depends_on = [{ session = "lead", until = "idle" }]')
        + session("z", "three", more='depends_on = [{ session = "lead", until = "started" }]')
    )
    program.apply()
    begun = {
        name: sites[host].conversation(name)[0]["at"] for name, host in (("x", "two"), ("y", "two"), ("z", "three"))
    }
    lead, task = (sites["one"].conversation(name)[0]["at"] for name in ("lead", "task"))
    assert begun["x"] > task + 1
    assert begun["y"] > lead + 2.5
    assert lead < begun["z"] < lead + 2.5
    program.settled()


def test_dependents_of_a_failed_action_are_skipped_by_name_and_the_rest_goes_on(
    program: Program, sites: dict[str, Site]
) -> None:
    program.write(
        session("db", agent="shell", more='args = ["sh", "-c", "exit 3"]')
        + session("api", "two", more='depends_on = ["db"]')
        + session("web", "three", more='depends_on = ["api"]')
        + session("other", "three")
    )
    output = program.apply(code=3)
    assert "session.db failed" in output
    assert "session.api skipped: session.db failed" in output
    assert "session.web skipped: session.api skipped" in output
    assert len(sites["three"].pids("other")) == 1
    assert not (sites["two"].state / "sessions/api").exists()


def test_a_busy_session_is_not_stopped_in_the_middle_of_its_work(program: Program, sites: dict[str, Site]) -> None:
    program.write(session("api", agent="telling", more='prompt = "SLOW:4"'))
    program.apply()
    program.write(session("api", agent="telling", more='prompt = "SLOW:4"\nstate = "stopped"'))
    action = program.plan()["session.api"]
    assert "busy: waits up to 10m for idle, then interrupts" in action["message"]
    program.apply()
    kinds = [entry["kind"] for entry in sites["one"].conversation("api")]
    assert kinds == ["open", "user", "answer", "end"]
