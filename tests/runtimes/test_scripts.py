"""The shell texts under each shell that a host may call `sh`: look, locks, fences, leases, launch and stop."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import drivers
from reconciler.core.agent import Invocation, Probe
from reconciler.core.observed import Reached, SessionSeen, parse_look
from reconciler.core.record import Record
from reconciler.errors import HostError
from reconciler.runtimes.operations import (
    Credentials,
    Launch,
    forget_operation,
    launch_operation,
    lease_operation,
    look_call,
    look_definition,
    parse_answer,
    record_operation,
    release_operation,
    renew_operation,
    stop_operation,
)
from reconciler.transports.quoting import quote

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
SHELLS = {
    "dash": ("dash",),
    "bash": ("bash", "--posix"),
    "zsh": ("zsh", "--emulate", "sh"),
    "busybox": ("busybox", "sh"),
    "mksh": ("mksh",),
}
FLEET = "scripts"
OURS = Credentials(FLEET, "us@here:machine/boot:1:1:aa")
THEIRS = Credentials(FLEET, "them@there:other/boot:2:2:bb")


class Machine:
    """This machine as a host: a home of its own, and `sh` on the PATH is the shell under test."""

    def __init__(self, root: Path, shell: tuple[str, ...]) -> None:
        program = shutil.which(shell[0])
        if program is None:
            pytest.fail(f"{shell[0]} is missing: apt-get install {shell[0]}")
        self.home = root / "h"
        self.bin = root / "bin"
        self.home.mkdir()
        self.bin.mkdir()
        (self.bin / "sh").write_text(f'#!/bin/dash\nexec {quote([program, *shell[1:]])} "$@"\n')
        (self.bin / "sh").chmod(0o755)
        (self.home / ".profile").write_text(f"PATH={self.bin}:/usr/local/bin:/usr/bin:/bin\n")
        self.state = self.home / ".local/state/reconciler" / FLEET
        self.env = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), "SHELL": str(self.bin / "sh"),
            "LANG": "C.UTF-8",
        }  # fmt: skip

    def sh(self, script: str) -> bytes:
        """What a script prints; it must print nothing on stderr but what its programs say."""
        done = subprocess.run(
            ["sh"], input=script.encode(), env=self.env, cwd=self.home, capture_output=True, timeout=60, check=False
        )
        return done.stdout

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """A script that runs while other things happen."""
        process = subprocess.Popen(
            ["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.env,
            cwd=self.home, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(script.encode())
        process.stdin.close()
        process.stdin = None
        return process

    def do(self, make: Callable[[str], str]) -> dict[str, Any]:
        """The answer of one operation."""
        nonce = secrets.token_hex(8)
        return parse_answer("here", nonce, self.sh(make(nonce)))

    def lease(self, who: Credentials = OURS, dead: str = "") -> Credentials:
        """Acquired."""
        answer = self.do(lambda nonce: lease_operation(who, nonce, dead))
        assert answer["ok"], answer
        return replace(who, fence=answer["fence"])

    def look(self, *checks: tuple[str, str]) -> Reached:
        """What a look sees."""
        nonce = secrets.token_hex(8)
        return parse_look("here", nonce, self.sh(look_definition() + look_call(FLEET, nonce, checks)))

    def seen(self, name: str = "api") -> SessionSeen:
        """One session of it."""
        return self.look().sessions[name]

    def close(self) -> None:
        """No process of its sessions is left, nor its tmux server."""
        for path in self.state.glob("sessions/*/process.*"):
            fields = path.read_text().split()
            if len(fields) > 4 and int(fields[4]) > 1:
                _signal_group(int(fields[4]))
        subprocess.run(["tmux", "-S", str(self.state / "tmux"), "kill-server"], check=False, capture_output=True)


def _signal_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="rs") as root:  # short: a socket lies in it
        made = Machine(Path(root), SHELLS[request.param])
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def anywhere() -> Iterator[Machine]:
    """Under one shell, for what does not depend on it."""
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        made = Machine(Path(root), SHELLS["dash"])
        try:
            yield made
        finally:
            made.close()


def record(incarnation: int, strategy: str = "process", intent: Any = "running") -> Record:
    return Record(
        FLEET, "api", "shell", strategy, "sha256:0", intent=intent, incarnation=incarnation,
        labels={"quote": "it's \"this\"\\", "newline": "a\nb\u00fc"},
    )  # fmt: skip


def launch(
    machine: Machine,
    credentials: Credentials,
    argv: tuple[str, ...],
    incarnation: int = 1,
    *,
    op: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Launch `argv`."""
    strategy = more.pop("strategy", "process")
    wanted = Launch(
        "api", incarnation - 1, record(incarnation, strategy), argv[0], more.pop("invocation", Invocation(argv)),
        more.pop("workdir", "~"), **more,
    )  # fmt: skip
    op = op or secrets.token_hex(8)
    return machine.do(lambda nonce: launch_operation(drivers.runtime(strategy), credentials, op, nonce, wanted))


def stop(machine: Machine, credentials: Credentials, expect: int, strategy: str = "process") -> dict[str, Any]:
    """Stop it by TERM."""
    return machine.do(
        lambda nonce: stop_operation(
            drivers.runtime(strategy), credentials, secrets.token_hex(8), nonce, session="api", expect=expect, keys=(),
            signal="TERM", record=record(expect, strategy, "stopped"),
        )
    )  # fmt: skip


# -- under every shell -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "times", "starts"),
    [
        ("server exited unexpectedly", 3, True),
        ("server exited unexpectedly", 99, False),
        ("no space for new pane", 1, False),
    ],
)
def test_a_tmux_server_that_is_on_its_way_out_is_waited_for(
    anywhere: Machine, words: str, times: int, starts: bool
) -> None:
    count = anywhere.home / "count"
    count.write_text("")
    (anywhere.bin / "tmux").write_text(
        f'#!/bin/sh\ncase " $* " in *" new-session "*) [ "$(wc -c <{count})" -ge {times} ] || '
        f'{{ printf x >>{count}; echo "{words}" >&2; exit 1; }} ;; esac\nexec /usr/bin/tmux "$@"\n'
    )
    (anywhere.bin / "tmux").chmod(0o755)
    answer = launch(anywhere, anywhere.lease(), ("sleep", "1000"), strategy="tmux")
    assert answer["ok"] is starts
    assert starts or words in answer["message"]
    assert len(count.read_text()) == {3: 3, 99: 9, 1: 1}[times]


def test_a_tmux_server_that_is_full_is_named_before_it_fails(anywhere: Machine) -> None:
    ours = anywhere.lease()
    assert launch(anywhere, ours, ("sleep", "1000"), strategy="tmux")["ok"]
    assert stop(anywhere, ours, 1, "tmux")["ok"]
    sessions = anywhere.home / "sessions"
    (anywhere.bin / "tmux").write_text(
        f'#!/bin/sh\ncase " $* " in *" list-sessions "*) cat {sessions} ;; *) exec /usr/bin/tmux "$@" ;; esac\n'
    )
    (anywhere.bin / "tmux").chmod(0o755)
    sessions.write_text("".join(f"other{n}\n" for n in range(500)))
    socket = str(anywhere.state / "tmux")
    subprocess.run(["/usr/bin/tmux", "-S", socket, "new-session", "-d", "-s", "other0"], check=True, env=anywhere.env)
    answer = launch(anywhere, ours, ("sleep", "1000"), 2, strategy="tmux")
    assert (answer["ok"], answer["code"]) == (False, "too-many-terminals")
    assert "500 sessions" in answer["message"]
    assert (anywhere.state / "sessions/api/incarnation").read_text() == "1\n"
    sessions.write_text("".join(f"other{n}\n" for n in range(499)) + "api\n_ctl\n")
    assert launch(anywhere, ours, ("sleep", "1000"), 2, strategy="tmux")["ok"]


@pytest.mark.parametrize("strategy", ["process", "tmux"])
def test_a_session_is_launched_looked_at_and_stopped(machine: Machine, strategy: str) -> None:
    ours = machine.lease()
    environment = {"WORD": 'it\'s\n"$(x)" \\ %s\u00fc', "EMPTY": ""}
    argv = ("sleep", "1000")
    probes = (Probe("store", "store", "{home}/.profile"), Probe("first", "file", "{home}/.profile"),
              Probe("names", "names", "{home}/.prof*"))  # fmt: skip
    answer = launch(machine, ours, argv, strategy=strategy, environment=environment, probes=probes)
    assert answer["ok"], answer
    seen = machine.seen()
    assert (seen.state, seen.incarnation) == ("running", 1)
    assert seen.process is not None
    assert seen.process.pid == answer["pid"]
    environ = Path(f"/proc/{answer['pid']}/environ").read_bytes().split(b"\0")
    assert {f"{k}={v}".encode() for k, v in environment.items()} <= set(environ)
    assert seen.record == record(1, strategy)
    assert seen.facts.texts["first"].startswith("PATH=")
    assert [file.path for file in seen.facts.store or ()] == [str(machine.home / ".profile")]
    assert seen.facts.names["names"] == (".profile",)
    assert stop(machine, ours, 1, strategy)["ok"]
    assert not Path(f"/proc/{answer['pid']}/environ").exists() or not _environ(answer["pid"])
    assert machine.seen().state == "stopped"


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def test_arguments_and_input_of_any_kind_arrive_byte_for_byte(machine: Machine) -> None:
    nasty = "-n 'a' \"b\" $(touch no) `touch no` \\n %s *\n\n\tend\u00fc\U0001f701 '\"'\"' EOF\n"
    long = (nasty * 4000)[:300_000]
    program = "import sys,json; json.dump([sys.argv[1:], sys.stdin.buffer.read().decode()], open('got','w'))"
    argv = ("python3", "-c", program, nasty, "", "-", "*", "x" * 90_000)
    answer = launch(machine, machine.lease(), argv, invocation=Invocation(argv, stdin=long))
    assert answer["ok"], answer
    end = time.monotonic() + 10
    while not list(machine.state.glob("sessions/api/exit.1")) and time.monotonic() < end:
        time.sleep(0.02)
    arguments, given = json.loads((machine.home / "got").read_text())
    assert arguments == list(argv[3:])
    assert given == long
    assert not (machine.home / "no").exists()
    ended = machine.seen().exit
    assert ended is not None
    assert ended.code == 0


def test_a_look_finds_programs_directories_and_says_who_it_is(machine: Machine) -> None:
    tool = machine.bin / "a tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (machine.home / "it's here").mkdir()
    checks = (("command", "a tool"), ("command", "false"), ("command", "nowhere"), ("directory", "~/it's here"),
              ("directory", "~/not"), ("command", "~/none"))  # fmt: skip
    seen = machine.look(*checks)
    assert seen.commands["a tool"] == str(tool)
    assert Path(seen.commands["false"]).name == "false"
    assert (seen.commands["nowhere"], seen.commands["~/none"]) == ("", "")
    assert seen.directories["~/it's here"] == str(machine.home.resolve() / "it's here")
    assert seen.directories["~/not"] == ""
    assert seen.home == str(machine.home)
    assert seen.path.split(":")[0] == str(machine.bin)
    assert not machine.state.exists(), "a look changes nothing"


@pytest.mark.parametrize(("workdir", "command", "word"), [
    ("~/gone", "sleep", "workdir-missing"), ("~", "no-such-program", "agent-missing"),
])  # fmt: skip
def test_what_is_missing_at_the_launch_is_named(machine: Machine, workdir: str, command: str, word: str) -> None:
    answer = launch(machine, machine.lease(), (command, "1000"), workdir=workdir)
    assert not answer["ok"]
    assert answer["exit"]["error"] == word
    seen = machine.seen()
    assert (seen.state, seen.exit and seen.exit.error) == ("exited", word)


def test_secrets_never_stand_in_a_command_line(machine: Machine) -> None:
    trace = machine.home / "argv.log"
    real = {name: shutil.which(name) for name in ("printf", "cat", "sync", "mv", "sed", "tr")}
    for name, path in real.items():
        (machine.bin / name).write_text(f'#!/bin/dash\n{{ echo {name} "$@"; }} >>{trace}\nexec {path} "$@"\n')
        (machine.bin / name).chmod(0o755)
    answer = launch(machine, machine.lease(), ("sleep", "1000"), environment={"KEY": "the-s3cret"})
    assert answer["ok"], answer
    assert b"KEY=the-s3cret" in _environ(answer["pid"])
    assert "the-s3cret" not in trace.read_text()
    files = [path for path in machine.home.rglob("*") if path.is_file()]
    assert not [path for path in files if b"the-s3cret" in path.read_bytes()]


# -- the guard -------------------------------------------------------------------------------------------------------


def test_each_lease_and_its_end_raise_the_fence_and_the_fence_of_before_is_refused(machine: Machine) -> None:
    ours = machine.lease()
    assert machine.do(lambda nonce: release_operation(ours, nonce))["ok"]
    theirs = machine.lease(THEIRS)
    assert theirs.fence == ours.fence + 2
    assert machine.do(lambda nonce: release_operation(theirs, nonce))["ok"]
    refused = launch(machine, ours, ("sleep", "1000"))
    assert (refused["ok"], refused["code"]) == (False, "fence-stale")
    assert not (machine.state / "sessions/api/record.json").exists()
    assert machine.do(lambda nonce: renew_operation(ours, nonce))["code"] == "fence-stale"


def test_a_lease_that_is_held_is_refused_by_name_until_it_expires(machine: Machine) -> None:
    ours = machine.lease()
    refused = machine.do(lambda nonce: lease_operation(THEIRS, nonce))
    assert (refused["ok"], refused["code"]) == (False, "lease-held")
    assert OURS.holder in refused["message"]
    assert machine.lease().fence == ours.fence + 1, "the holder may take it again"
    (machine.state / "lease").write_text(f"{int(time.time()) - 1} {OURS.holder}\n")
    assert machine.lease(THEIRS).fence == ours.fence + 3, "an end that never came counts with the next lease"


def test_the_lease_of_one_who_is_proven_dead_is_taken_over_and_of_nobody_else(machine: Machine) -> None:
    machine.lease()
    assert machine.do(lambda nonce: lease_operation(THEIRS, nonce, "somebody else"))["code"] == "lease-held"
    assert machine.lease(THEIRS, OURS.holder).fence == 3


def test_the_same_operation_again_does_nothing_and_gives_the_same_answer(machine: Machine) -> None:
    ours = machine.lease()
    argv = ("sh", "-c", "echo once >>count; exec sleep 1000")
    first = launch(machine, ours, argv, op="the-same")
    again = launch(machine, ours, argv, op="the-same")
    assert first == again
    assert first["ok"]
    assert (machine.home / "count").read_text() == "once\n"


def test_an_operation_for_another_incarnation_is_refused(machine: Machine) -> None:
    ours = machine.lease()
    assert launch(machine, ours, ("sleep", "1000"))["ok"]
    assert launch(machine, ours, ("sleep", "1000"))["code"] == "stale"
    assert launch(machine, ours, ("sleep", "1000"), incarnation=3)["code"] == "stale"
    assert stop(machine, ours, 7)["code"] == "stale"
    other = machine.do(lambda nonce: record_operation(ours, secrets.token_hex(8), nonce, record(5), 5))
    assert other["code"] == "stale"
    assert machine.seen().state == "running"


def test_a_live_agent_is_never_doubled_by_the_next_incarnation(machine: Machine) -> None:
    ours = machine.lease()
    first = launch(machine, ours, ("sleep", "1000"))
    assert launch(machine, ours, ("sleep", "1000"), incarnation=2)["code"] == "already-running"
    seen = machine.seen()
    assert (seen.state, seen.incarnation, seen.process and seen.process.pid) == ("running", 1, first["pid"])


def _locks(machine: Machine, name: str) -> list[str]:
    return sorted(path.name for path in machine.state.glob(f"locks/{name}.[0-9]*"))


def test_of_two_takers_at_once_one_waits_for_the_other(machine: Machine) -> None:
    ours = machine.lease()
    note = "printf '%s begin\\n' $$ >>trace; sleep 0.3; printf '%s end\\n' $$ >>trace; finish '{\"ok\":true}'"

    def script() -> str:
        made = forget_operation(drivers.runtime("process"), ours, secrets.token_hex(8), secrets.token_hex(8), "api", 0)
        head, found, tail = made.rpartition("\nop_forget\n")
        assert found
        return f"{head}\n{note}\n{tail}"

    takers = [machine.start(script()) for _ in range(5)]
    for taker in takers:
        taker.communicate(timeout=60)
    lines = [line.split() for line in (machine.home / "trace").read_text().splitlines()]
    assert len(lines) == 10
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert (begin[1], end[1]) == ("begin", "end")
        assert begin[0] == end[0], lines
    assert len(_locks(machine, "session-api")) == 1


def _held_by(machine: Machine, pid: object, start: object, boot: str) -> None:
    machine.lease()
    (machine.state / "locks/session-api.41").write_text(f"{pid} {start} {boot}\n")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


@pytest.mark.parametrize(("pid", "start", "boot"), [
    ("4194305", "1", ""), (str(os.getpid()), "1", ""), (str(os.getpid()), "", "another-boot"),
], ids=["a dead holder", "a recycled pid", "an earlier boot"])  # fmt: skip
def test_the_lock_of_the_dead_is_taken_over(machine: Machine, pid: str, start: str, boot: str) -> None:
    _held_by(machine, pid, start or _start_of(os.getpid()), boot or _boot())
    assert launch(machine, replace(OURS, fence=1), ("sleep", "1000"))["ok"]
    assert _locks(machine, "session-api") == ["session-api.42"]
    assert (machine.state / "locks/session-api.42").read_text() == "free\n"


def test_the_lock_of_the_living_is_respected_and_shows_in_the_look(anywhere: Machine) -> None:
    _held_by(anywhere, os.getpid(), _start_of(os.getpid()), _boot())
    (anywhere.state / "sessions/api").mkdir()
    assert anywhere.seen().state == "starting"
    wanted = Launch("api", 0, record(1), "sleep", Invocation(("sleep", "1000")), "~")
    waiting = anywhere.start(launch_operation(drivers.runtime("process"), replace(OURS, fence=1), "x", "n", wanted))
    time.sleep(1)
    assert waiting.poll() is None
    assert not (anywhere.state / "sessions/api/record.json").exists()
    (anywhere.state / "locks/session-api.41").write_text("free\n")
    output, _ = waiting.communicate(timeout=30)
    assert parse_answer("here", "n", output)["ok"]


# -- deaths ----------------------------------------------------------------------------------------------------------


def test_dead_is_said_only_with_proof(anywhere: Machine) -> None:
    ours = anywhere.lease()
    pid = launch(anywhere, ours, ("sleep", "1000"))["pid"]
    noted = anywhere.state / "sessions/api/process.1"
    real = noted.read_text()
    fields = real.split()
    noted.write_text(real.replace(fields[1], "1", 1))
    assert anywhere.seen().state == "lost", "the pid belongs to another start"
    noted.write_text(real.replace(fields[2], "11111111-2222", 1))
    assert anywhere.seen().state == "lost", "an earlier boot"
    noted.write_text(f"{pid}\n")
    assert anywhere.seen().state == "unknown", "half a note proves nothing"
    noted.write_text(real)
    assert anywhere.seen().state == "running"


def test_a_look_that_is_cut_off_anywhere_is_no_answer(anywhere: Machine) -> None:
    launch(anywhere, anywhere.lease(), ("sleep", "1000"))
    nonce = secrets.token_hex(8)
    whole = anywhere.sh(look_definition() + look_call(FLEET, nonce))
    assert parse_look("here", nonce, whole).sessions["api"].state == "running"
    lines = whole.splitlines(keepends=True)
    for number in range(len(lines) - 1):
        with pytest.raises(HostError):
            parse_look("here", nonce, b"".join([*lines[:number], *lines[number + 1 :]]))
    for size in range(0, len(whole) - 1, 7):
        with pytest.raises(HostError):
            parse_look("here", nonce, whole[:size])


def test_half_written_and_foreign_files_are_reported_and_left_alone(anywhere: Machine) -> None:
    launch(anywhere, anywhere.lease(), ("sleep", "1000"))
    (anywhere.state / "sessions/api/record.json").write_text('{"version":1,"na')
    (anywhere.state / "sessions/Not Ours").mkdir()
    seen = anywhere.look()
    assert seen.sessions["api"].state == "broken"
    assert "cannot be read" in seen.sessions["api"].trouble
    assert [name.strip('"') for name in seen.foreign] == ["Not Ours"]
    assert (anywhere.state / "sessions/api/record.json").read_text() == '{"version":1,"na'


def test_an_agent_that_ignores_every_signal_is_ended_all_the_same(anywhere: Machine) -> None:
    ours = anywhere.lease()
    program = (
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nopen('up', 'w')\ntime.sleep(99)"
    )
    pid = launch(anywhere, ours, ("python3", "-c", program))["pid"]
    while not (anywhere.home / "up").exists():
        time.sleep(0.02)
    answer = stop(anywhere, ours, 1)
    assert (answer["ok"], answer["how"]) == (True, "KILL")
    assert _environ(pid) == b""


def test_a_launch_whose_guard_is_killed_starts_nothing_and_hangs_nowhere(anywhere: Machine) -> None:
    (anywhere.home / ".profile").write_text(f"sleep 0.5\nPATH={anywhere.env['PATH']}\n")
    ours = anywhere.lease()
    wanted = Launch("api", 0, record(1), "sleep", Invocation(("sleep", "1000")), "~", environment={"A": "b"})
    guard = anywhere.start(launch_operation(drivers.runtime("process"), ours, "x", "n", wanted))
    while not (anywhere.state / "sessions/api/record.json").exists():
        time.sleep(0.005)
    os.kill(guard.pid, signal.SIGKILL)
    guard.communicate(timeout=30)
    end = time.monotonic() + 20
    while anywhere.seen().state == "starting" and time.monotonic() < end:
        time.sleep(0.1)
    state = anywhere.seen().state
    assert state in ("lost", "exited", "running")
    again = launch(anywhere, ours, ("sleep", "1000"), incarnation=2)
    assert again["ok"] == (state != "running"), again
    live = [
        path for path in anywhere.state.glob("sessions/api/process.*") if _environ(int(path.read_text().split()[0]))
    ]
    assert len(live) == 1


def test_an_end_that_is_just_being_noted_is_not_taken_for_a_loss(anywhere: Machine) -> None:
    pid = launch(anywhere, anywhere.lease(), ("sleep", "1000"))["pid"]
    wrapper = int((anywhere.state / "sessions/api/process.1").read_text().split()[5])
    os.kill(wrapper, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    later = threading.Timer(0.4, os.kill, (wrapper, signal.SIGCONT))
    later.start()
    seen = anywhere.seen()
    later.join()
    assert (seen.state, seen.exit and seen.exit.code) == ("exited", 137)


def test_how_an_agent_ended_is_noted_before_it_is_told_and_the_terminal_waits_for_neither(machine: Machine) -> None:
    ours = machine.lease()
    told = machine.home / "told"
    place = machine.state / "sessions/api"
    (machine.bin / "tmux").write_text(
        f'#!/bin/dash\ncase " $* " in *" rename-window "*) [ -e {place}/exit.1 ] && echo noted >{told}; sleep 2; '
        f'echo over >>{told} ;; *) exec /usr/bin/tmux "$@" ;; esac\n'
    )
    (machine.bin / "tmux").chmod(0o755)
    assert launch(machine, ours, ("sh", "-c", "sleep 0.5; exit 7"), strategy="tmux")["ok"]
    until(told.exists)
    panes = ["/usr/bin/tmux", "-S", str(machine.state / "tmux"), "list-panes", "-a", "-F", "#{pane_dead}"]
    until(lambda: subprocess.run(panes, capture_output=True, check=True).stdout == b"1\n")
    assert told.read_text() == "noted\n", "who waits for tmux keeps its terminal open as long"
    seen = machine.seen()
    assert seen.exit is not None
    assert (seen.state, seen.exit.code) == ("exited", 7)
    until(lambda: told.read_text() == "noted\nover\n")


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)
