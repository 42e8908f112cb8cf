"""The program under test, run as a user runs it; and what is true on a host, read without the program."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.e2e.fleet import Fleet, Host

REPOSITORY = Path(__file__).parents[2]
SCRIPT_AGENT = REPOSITORY / "tests" / "support" / "script_agent.py"
# An agent by templates; and one whose activity the driver of Claude Code reads.
AGENTS = """
[agents.script]
start = ["script-agent", "start", "{session_id}", "{prompt}"]
resume = ["script-agent", "resume", "{session_id}", "{prompt}"]
turn = ["script-agent", "turn", "{session_id}", "{prompt}"]
resume_turn = ["script-agent", "turn", "{session_id}", "{prompt}"]
store = ["{home}/.script-agent/{session_id}.jsonl"]
command = "script-agent"

[agents.telling]
extends = "claude-code"
command = "script-agent"
start = ["script-agent", "start", "{session_id}", "{prompt}"]
resume = ["script-agent", "resume", "{session_id}", "{prompt}"]
store = ["{home}/.script-agent/{session_id}.jsonl"]
stop_keys = []
"""
# A broken line is noticed within seconds, so that tests need not wait for minutes.
PATIENCE = 'connection_timeout = "3s"\nkeepalive_interval = "1s"\nkeepalive_count = 2\n'
T = TypeVar("T")


def until(what: str, look: Callable[[], T | None], patience: float = 20.0) -> T:
    """The first answer of `look` that is true; fails with `what` when none comes."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if answer := look():
            return answer
        time.sleep(0.03)
    raise AssertionError(f"{what}: not within {patience:g} s")


def install_script_agent(host: Host) -> None:
    """The script agent below the home, on the PATH of login shells only."""
    if shutil.which("python3", path="/usr/bin:/usr/local/bin") is None:
        raise AssertionError("the hosts of a test need python3 in /usr/bin: apt-get install python3-minimal")
    if shutil.which("tmux") is None:
        raise AssertionError("the hosts of a test need tmux: apt-get install tmux (Debian), brew install tmux (macOS)")
    host.write("~/bin/script-agent", SCRIPT_AGENT.read_text(encoding="utf-8"), mode=0o755)
    host.write("~/.profile", 'PATH="$HOME/bin:$PATH"\n')


class Program:
    """`reconciler` in a directory of its own on the controller, for a fleet by the name `name`."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name
        self.directory = fleet.controller_home / name
        self.specs = self.directory / "specs"
        self.specs.mkdir(parents=True)
        self.env: dict[str, str] = {}

    def write(self, text: str, *, fleet: str = "") -> None:
        """The specs, all of them: hosts by their names, the agents above, and `text`."""
        names = [name for name in self.fleet.hosts if f"[hosts.{name}]" not in text]
        hosts = "".join(f"[hosts.{name}]\n{PATIENCE}" for name in names)
        self.raw(f'[fleet]\nname = "{self.name}"\n{fleet}\n{hosts}{AGENTS}\n{text}\n')

    def raw(self, text: str) -> None:
        """The specs as they stand."""
        (self.specs / "fleet.toml").write_text(text, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """Scrubbed; our code is found by PYTHONPATH, and nothing else of whoever runs the tests is."""
        return {**self.fleet.env, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error", **self.env}

    def argv(self, *arguments: str) -> list[str]:
        """How a shell would start it."""
        return [sys.executable, "-m", "reconciler", *arguments]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
        """To its end, without a terminal."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            self.argv(*arguments), cwd=self.directory, env=self.environment(), capture_output=True, text=True,
            timeout=timeout, check=False, **given,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begun, to be signalled; its output and errors in one stream."""
        return subprocess.Popen(
            self.argv(*arguments), cwd=self.directory, env={**self.environment(), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def apply(self, *options: str, code: int = 0) -> str:
        """`apply --auto-approve`, which must end with `code`; what it printed, errors included."""
        done = self.run("apply", "--auto-approve", *options)
        assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def settled(self) -> None:
        """A second apply of the same specs has no action."""
        assert "No changes. The fleet matches the specs." in self.apply()

    def plan(self, *options: str) -> dict[str, dict[str, Any]]:
        """The actions of `plan --json`, by address."""
        done = self.run("plan", "--json", *options)
        assert done.returncode in (0, 2, 4), done.stderr
        return {action["address"]: action for action in json.loads(done.stdout)["actions"]}

    def status(self) -> dict[str, dict[str, Any]]:
        """The resources of `status --json`, by address."""
        done = self.run("status", "--json")
        assert done.returncode in (0, 4), done.stderr
        return {resource["address"]: resource for resource in json.loads(done.stdout)["resources"]}

    @property
    def journal(self) -> Path:
        """The journal of this fleet on the controller."""
        return self.fleet.controller_home / ".local/state/reconciler" / self.name / "controller/journal.sqlite"


class Site:
    """What one fleet has on one host, read from its files and processes."""

    def __init__(self, host: Host, fleet: str) -> None:
        self.host = host
        self.state = host.home / ".local/state/reconciler" / fleet
        self.inner_state = f"{host.inner_home}/.local/state/reconciler/{fleet}"

    def record(self, session: str) -> dict[str, Any]:
        """Its record."""
        data = json.loads((self.state / "sessions" / session / "record.json").read_text(encoding="utf-8"))
        assert isinstance(data, dict)
        return data

    def conversation(self, session: str) -> list[dict[str, Any]]:
        """All that happened in the conversation that its record names."""
        path = self.host.home / ".script-agent" / f"{self.record(session)['conversation']}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def messages(self, session: str) -> list[str]:
        """What the agent was told, in all its lives."""
        return [str(entry["text"]) for entry in self.conversation(session) if entry["kind"] == "user"]

    def opens(self, session: str) -> list[str]:
        """How each process opened the conversation: "start", "resume", ..."""
        return [str(entry["verb"]) for entry in self.conversation(session) if entry["kind"] == "open"]

    def pids(self, session: str) -> list[int]:
        """The agent's live processes on the conversation of the record, by `ps`."""
        name = self.record(session)["conversation"]
        return [pid for pid, argv in self.host.processes() if name in argv and "script-agent" in " ".join(argv[:2])]

    def environ(self, pid: int) -> Mapping[str, str]:
        """The environment of a process, from the kernel."""
        pairs = self.host.exec(["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
        return dict(pair.partition("=")[::2] for pair in pairs if "=" in pair)

    def kill(self, pid: int, signal: str = "KILL") -> None:
        """A signal from somebody on the host."""
        assert self.host.exec(["kill", f"-{signal}", str(pid)]).returncode == 0

    def at_work(self) -> bool:
        """Whether an operation runs on the host: one lives on when its controller dies."""
        return any(argv == ["sh"] for _, argv in self.host.processes())

    def fence(self) -> int:
        """The highest fence that the host has seen."""
        return int((self.state / "fence").read_text(encoding="ascii"))

    def lease(self) -> tuple[int, str]:
        """Until when, and by whom."""
        until_when, _, holder = (self.state / "lease").read_text(encoding="ascii").strip().partition(" ")
        return int(until_when), holder

    def tmux(self, *words: str) -> str:
        """The answer of the fleet's own tmux server."""
        done = self.host.exec(["tmux", "-S", f"{self.inner_state}/tmux", *words])
        assert done.returncode == 0, done.stderr
        return done.stdout


def intact(*sites: Site) -> None:
    """No conversation on any host was ever started twice, nor ever open in two processes."""
    for site in sites:
        for path in (site.host.home / ".script-agent").glob("*.jsonl"):
            opened = [e for e in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if e["kind"] == "open"]
            assert [e["verb"] for e in opened].count("start") <= 1, f"{path.name} was started twice: {opened}"
            assert all(e["alone"] for e in opened), f"{path.name} was open in two processes: {opened}"


@contextlib.contextmanager
def fleet_of(*names: str, **options: Any) -> Iterator[Fleet]:
    """A fleet of hosts that have the script agent; fails, rather than skips, where one cannot be made."""
    try:
        made = Fleet()
    except FileNotFoundError as missing:
        pytest.fail(str(missing))
    with made:
        if not made.namespaces:
            pytest.fail("these tests need hosts with namespaces of their own: run them as root on Linux")
        for name in names:
            install_script_agent(made.host(name, **options))
        yield made
