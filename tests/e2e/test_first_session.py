"""One session on one host, through every layer: the real program, a real sshd, a real tmux, a conversation on disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, Site, fleet_of, intact, until

pytestmark = pytest.mark.e2e
both = pytest.mark.parametrize("strategy", ["tmux", "process"])


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


@pytest.fixture
def gpu(fleet: Fleet) -> Host:
    return fleet.hosts["gpu"]


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    number = request.session.items.index(request.node)
    return Program(fleet, f"first{number}")


@pytest.fixture
def site(gpu: Host, program: Program) -> Site:
    return Site(gpu, program.name)


def session(name: str = "api", agent: str = "script", **keys: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f'[sessions.{name}]\nhost = "gpu"\nagent = "{agent}"\n{lines}'


def quoted(text: str) -> str:
    return json.dumps(text)


@both
def test_a_first_session_goes_from_validate_to_no_changes(program: Program, site: Site, strategy: str) -> None:
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    assert program.run("validate").returncode == 0
    planned = program.run("plan", "--detailed-exitcode")
    assert planned.returncode == 2
    assert "+ session.api" in planned.stdout
    assert "Plan: 1 to start. 0 unchanged." in planned.stdout
    assert not site.state.exists()
    assert not program.journal.exists()
    assert "Apply: 1 done." in program.apply()
    program.settled()
    assert program.run("plan", "--detailed-exitcode").returncode == 0
    assert site.messages("api") == ["MARK-one"]
    assert site.opens("api") == ["start"]
    (pid,) = site.pids("api")
    running = site.host.testinfra().process.get(pid=pid)
    assert (running.user, running.state[0]) == ("dev", "S")
    intact(site)


@both
def test_status_logs_why_and_history_tell_what_the_host_shows(program: Program, site: Site, strategy: str) -> None:
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    program.apply()
    told = program.status()["session.api"]
    assert told["phase"] == "running"
    assert told["observed"]["pid"] == site.pids("api")[0]
    assert told["observed"]["conversation_id"] == site.record("api")["conversation"]
    assert told["observed"]["host"] == "gpu"
    text = program.run("status")
    assert text.returncode == 0
    (line,) = [line for line in text.stdout.splitlines() if line.startswith("api")]
    assert line.split()[1:4] == ["gpu", "script", "running"]
    until("an answer", lambda: site.conversation("api")[-1]["kind"] == "answer")
    assert "turns=1" in program.run("logs", "api").stdout.splitlines()
    why = program.run("why", "api").stdout
    assert "specs/fleet.toml:" in why
    assert f"pid {site.pids('api')[0]}" in why
    assert site.record("api")["conversation"] in why
    entries = json.loads(program.run("history", "--json").stdout)["entries"]
    assert [(e["verb"], e["address"], e["host"], e["outcome"]) for e in entries] == [
        ("start", "session.api", "gpu", "done")
    ]


def test_a_message_that_is_sent_arrives_whole_and_once(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    message = "-two $(touch no) `touch no` 'single' \"double\" \\\nline two\tü 🜁"
    assert program.run("send", "api", "--", message).returncode == 0
    until("the message", lambda: site.messages("api"))
    assert program.run("send", "api", "-", stdin="from stdin").returncode == 0
    until("the other message", lambda: len(site.messages("api")) == 2)
    assert site.messages("api") == [message, "from stdin"]
    assert not (site.host.home / "no").exists()


def test_a_session_without_a_terminal_takes_no_message_and_says_so(program: Program, site: Site) -> None:
    program.write(session(strategy=quoted("process")))
    program.apply()
    done = program.run("send", "api", "hello")
    assert done.returncode == 1
    assert "session.api has no terminal" in done.stderr
    assert site.messages("api") == []


@both
def test_a_killed_agent_shows_in_the_plan_and_apply_resumes_it(program: Program, site: Site, strategy: str) -> None:
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    program.apply()
    conversation = site.record("api")["conversation"]
    (pid,) = site.pids("api")
    site.kill(pid)
    until("its exit is noted", lambda: list((site.state / "sessions/api").glob("exit.1")))
    action = program.plan()["session.api"]
    assert (action["verb"], action["reason"]) == ("resume", "crashed")
    program.apply()
    program.settled()
    assert site.record("api")["conversation"] == conversation
    assert site.opens("api") == ["start", "resume"]
    assert site.messages("api") == ["MARK-one"]
    assert site.pids("api") != [pid]
    intact(site)


@both
def test_stopped_in_the_specs_stops_and_running_resumes(program: Program, site: Site, strategy: str) -> None:
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    program.apply()
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one"), state=quoted("stopped")))
    assert program.plan()["session.api"]["verb"] == "stop"
    program.apply()
    program.settled()
    assert site.pids("api") == []
    assert site.conversation("api")[-1]["kind"] == "end"
    assert not [argv for _, argv in site.host.processes() if any(site.inner_state in word for word in argv)]
    assert "turns=1" in program.run("logs", "api").stdout
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    program.apply()
    program.settled()
    assert site.opens("api") == ["start", "resume"]
    intact(site)


@both
def test_a_session_that_leaves_the_specs_keeps_its_record_and_returns(
    program: Program, site: Site, strategy: str
) -> None:
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    program.apply()
    conversation = site.record("api")["conversation"]
    program.write("")
    assert program.plan()["session.api"]["verb"] == "stop"
    program.apply()
    program.settled()
    assert site.pids("api") == []
    assert site.record("api")["conversation"] == conversation
    program.write(session(strategy=quoted(strategy), prompt=quoted("MARK-one")))
    assert program.plan()["session.api"]["verb"] == "resume"
    program.apply()
    assert site.record("api")["conversation"] == conversation
    assert site.opens("api") == ["start", "resume"]
    assert site.messages("api") == ["MARK-one"]


def test_a_session_that_is_forgotten_goes_on_unmanaged(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    (pid,) = site.pids("api")
    program.write('[[removed]]\naddress = "session.api"\naction = "forget"\n')
    assert program.plan()["session.api"]["verb"] == "forget"
    program.apply()
    program.settled()
    assert site.host.testinfra().process.get(pid=pid).state[0] == "S"
    assert not (site.state / "sessions" / "api").exists()
    assert list((site.state / "forgotten").glob("api-*/record.json"))


@both
def test_a_plain_command_is_started_watched_and_stopped(program: Program, site: Site, strategy: str) -> None:
    command = '["sh", "-c", "echo \\"it is $WORD\\"; exec sleep 4711"]'
    spec = session(agent="shell", strategy=quoted(strategy), args=command, env='{ WORD = "here" }')

    def sleeps() -> list[int]:
        return [pid for pid, argv in site.host.processes() if argv == ["sleep", "4711"]]

    program.write(spec)
    program.apply()
    program.settled()
    (pid,) = sleeps()
    assert "it is here" in program.run("logs", "api").stdout
    assert program.status()["session.api"]["observed"]["pid"] == pid
    site.kill(pid)
    until("its exit is noted", lambda: list((site.state / "sessions/api").glob("exit.1")))
    assert program.plan()["session.api"]["reason"] == "crashed"
    program.apply()
    assert len(sleeps()) == 1
    program.write(spec + 'state = "stopped"\n')
    program.apply()
    program.settled()
    assert sleeps() == []


@both
def test_a_task_is_complete_when_it_ends_well_and_the_next_prompt_goes_on(
    program: Program, site: Site, strategy: str
) -> None:
    spec = session(strategy=quoted(strategy), lifecycle=quoted("task"))
    program.write(spec + 'prompt = "MARK-one"\n')
    program.apply()
    until("its end", lambda: list((site.state / "sessions/api").glob("exit.1")))
    assert program.status()["session.api"]["phase"] == "completed"
    program.settled()
    assert site.opens("api") == ["turn"]
    program.write(spec + 'prompt = "MARK-two EXIT:3"\n')
    print(program.apply(code=1))
    assert site.messages("api") == ["MARK-one", "MARK-two EXIT:3"]
    assert program.plan()["session.api"]["reason"] == "crashed"
    intact(site)


def test_a_changed_prompt_is_the_next_message_and_a_changed_environment_a_new_process(
    program: Program, site: Site
) -> None:
    program.write(session(prompt=quoted("MARK-one"), env='{ WORD = "a" }'))
    program.apply()
    (pid,) = site.pids("api")
    program.write(session(prompt=quoted("MARK-two"), env='{ WORD = "a" }'))
    assert program.plan()["session.api"]["verb"] == "update"
    program.apply()
    until("the message", lambda: site.messages("api") == ["MARK-one", "MARK-two"])
    assert site.pids("api") == [pid]
    program.write(session(prompt=quoted("MARK-two"), env='{ WORD = "b" }'))
    action = program.plan()["session.api"]
    assert action["verb"] == "restart"
    assert [change["field"] for change in action["changes"]] == ["env.WORD"]
    program.apply()
    program.settled()
    (new,) = site.pids("api")
    assert new != pid
    assert site.environ(new)["WORD"] == "b"
    assert site.messages("api") == ["MARK-one", "MARK-two"]
    assert site.opens("api") == ["start", "resume"]
    intact(site)


class Terminal:
    """A pseudo-terminal with the program on it."""

    def __init__(self, program: Program, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(100, 30)
        self.process = subprocess.Popen(
            program.argv(*arguments), stdin=slave, stdout=slave, stderr=slave, cwd=program.directory,
            env=program.environment(), start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self) -> None:
        """Take what has come."""
        with contextlib.suppress(OSError):
            while select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")

    def read_until(self, text: str) -> None:
        """Until it stands there."""

        def look() -> bool:
            self.read()
            return text in self.seen

        until(f"{text!r} on the terminal\n{self.seen}", look)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(program: Program) -> Iterator[Terminal]:
    program.write(session(prompt=quoted("MARK-one")))
    program.apply()
    made = Terminal(program, "attach", "api")
    yield made
    made.close()


def test_attaching_shows_the_session_takes_keys_and_detaching_leaves_it(site: Site, terminal: Terminal) -> None:
    (pid,) = site.pids("api")
    terminal.read_until("turns=1")
    terminal.type("typed by hand ü\r".encode())
    terminal.read_until("turns=2")
    assert site.messages("api") == ["MARK-one", "typed by hand ü"]
    assert site.tmux("list-clients", "-F", "#{session_name}").split() == ["api"]
    terminal.type(b"\x02d")
    assert terminal.process.wait(10) == 0
    assert site.pids("api") == [pid]
    assert site.tmux("list-clients") == ""


def test_an_attached_session_has_the_size_of_the_terminal_also_when_it_changes(site: Site, terminal: Terminal) -> None:
    def is_size(wanted: str) -> bool:
        return site.tmux("display-message", "-p", "-t", "=api:", "#{client_width}x#{window_width}").strip() == wanted

    terminal.read_until("turns=1")
    until("the size of the terminal", lambda: is_size("100x100"))
    terminal.resize(132, 40)
    os.kill(terminal.process.pid, 28)  # SIGWINCH, as the terminal would send it
    until("the new size", lambda: is_size("132x132"))


def test_a_terminal_that_vanishes_leaves_the_session_running(site: Site, terminal: Terminal) -> None:
    (pid,) = site.pids("api")
    terminal.read_until("turns=1")
    terminal.process.kill()
    until("nobody is attached", lambda: site.tmux("list-clients") == "")
    time.sleep(0.2)
    assert site.pids("api") == [pid]


def test_attach_without_a_terminal_refuses_and_says_what_else_there_is(program: Program) -> None:
    program.write(session())
    done = program.run("attach", "api")
    assert done.returncode == 64
    assert "reconciler logs api -f" in done.stderr


@pytest.fixture
def asking(program: Program) -> Iterator[Terminal]:
    program.write(session())
    made = Terminal(program, "apply")
    yield made
    made.close()


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("y", 8), ("", 8)])
def test_apply_asks_on_a_terminal_and_only_yes_is_yes(site: Site, asking: Terminal, answer: str, code: int) -> None:
    asking.read_until("Only `yes` is taken as yes")
    assert not site.state.exists()
    asking.type(answer.encode() + b"\r")
    asking.read_until("Nothing was done." if code else "Apply: 1 done.")
    asking.process.wait(10)
    assert asking.process.returncode == code, asking.seen
    assert (site.state / "sessions/api").exists() == (code == 0)


def test_apply_without_a_terminal_refuses_instead_of_hanging(program: Program, site: Site) -> None:
    program.write(session())
    done = program.run("apply")
    assert done.returncode == 64
    assert "--auto-approve" in done.stderr
    assert not site.state.exists()


def test_sessions_whose_terminal_server_was_killed_come_back_with_their_conversations(
    program: Program, site: Site
) -> None:
    program.write(session("a", prompt=quoted("MARK-one")) + session("b", prompt=quoted("MARK-one")))
    program.apply()
    site.tmux("kill-server")
    until("the end of the agents", lambda: not site.pids("a") and not site.pids("b"))
    assert {action["verb"] for action in program.plan().values()} == {"resume"}
    program.apply()
    program.settled()
    for name in ("a", "b"):
        assert site.opens(name) == ["start", "resume"]
        assert site.messages(name) == ["MARK-one"]
    intact(site)


@both
def test_an_agent_whose_wrapper_was_killed_is_never_doubled_and_can_be_stopped(
    program: Program, site: Site, strategy: str
) -> None:
    spec = session(strategy=quoted(strategy), prompt=quoted("MARK-one"))
    program.write(spec)
    program.apply()
    (pid,) = site.pids("api")
    wrapper = int((site.state / "sessions/api/process.1").read_text(encoding="ascii").split()[5])
    site.kill(wrapper)
    until("the wrapper is gone", lambda: wrapper not in [other for other, _ in site.host.processes()])
    program.apply()
    program.settled()
    assert len(site.pids("api")) == 1
    if strategy == "process":  # in tmux the terminal goes with it, and the agent with the terminal
        assert site.pids("api") == [pid]
    program.write(spec + 'state = "stopped"\n')
    program.apply()
    program.settled()
    assert site.pids("api") == []
    intact(site)


def connected(host: Host) -> bool:
    """Whether this machine has a connection to the sshd of a host."""
    number = socket.inet_aton(host.address)[::-1].hex().upper()
    return f" {number}:{host.port:04X} 01 " in Path("/proc/net/tcp").read_text(encoding="ascii")


def test_an_interrupt_while_it_still_looks_ends_it_without_a_trace_of_python(program: Program, gpu: Host) -> None:
    program.write(session())
    gpu.freeze()
    try:
        with program.start("apply", "--auto-approve") as process:
            until("it connects", lambda: connected(gpu))
            process.send_signal(2)
            output, _ = process.communicate(timeout=10)
    finally:
        gpu.thaw()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "bug" not in output
