"""`reconciler simulate`: specs of users on simulated machines, with faults; and that nothing else is touched."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import typer

from reconciler.cli._completion import fault_words
from reconciler.core.parse import parse
from reconciler.core.spec import Desired
from reconciler.simulation.mishaps import parse_mishaps
from reconciler.simulation.outcome import PROMISES, Result, to_json
from reconciler.simulation.rehearsal import SECRET, VARIABLE, rehearse
from reconciler.simulation.simulate import Script, simulate, stage_of

FLEET = """
[hosts.gpu]
env = { NPM_TOKEN = "${cmd:touch $HOME/ran; echo token}" }
auth = { type = "key", path = "~/.ssh/id", passphrase = "${cmd:touch $HOME/ran; echo phrase}" }
[hosts.build]
[agents.housebot]
command = "housebot"
start = ["{command}", "--id", "{session_id}", "--say", "{prompt}"]
resume = ["{command}", "--continue", "{session_id}", "--say", "{prompt}"]
store = ["{home}/.housebot/*/{session_id}.json"]
ready_pattern = "ready"
[sessions.claude]
host = "gpu"
agent = "claude-code"
prompt = "It's \\"quoted\\" $HOME\\nand goes on"
[sessions.codex]
host = "gpu"
agent = "codex"
depends_on = ["claude"]
[sessions.opencode]
host = "build"
agent = "opencode"
ready = { pattern = "never on a simulated screen" }
[sessions.gemini]
host = "build"
agent = "gemini"
prompt = "p"
[sessions.house]
host = "build"
agent = "housebot"
prompt = "p"
[sessions.server]
host = "build"
agent = "shell"
args = ["python3", "-m", "http.server"]
strategy = "process"
[sessions.once]
host = "gpu"
agent = "claude-code"
lifecycle = "task"
prompt = "one turn"
[sessions.off]
host = "gpu"
agent = "codex"
state = "stopped"
[group_chats.talk]
moderator = { agent = "claude-code" }
participants = ["claude", "codex"]
"""
SMALL = '[hosts.gpu]\n[sessions.api]\nhost = "gpu"\nagent = "claude-code"\nprompt = "p"\n'


def desired(text: str = FLEET) -> Desired:
    return parse({"fleet.toml": text}, {})


def simulated(faults: str, text: str = FLEET, seconds: float = 1200.0, *, empty: bool = False) -> Result:
    specs = desired(text)
    mishaps = parse_mishaps(faults, stage_of(specs, seconds, 0))
    return simulate(rehearse(specs), Script(mishaps, seconds, empty))


def happened(result: Result, kind: str) -> list[str]:
    return [f"{entry.address} {entry.message}".strip() for entry in result.entries if entry.kind == kind]


def test_where_nothing_goes_wrong_nothing_happens() -> None:
    result = simulated("")
    assert result.entries == ()
    assert {(s.address, s.state) for s in result.sessions if s.state != "runs"} == {
        ("session.once", "complete"), ("session.off", "stopped"),
    }  # fmt: skip
    assert result.reached
    assert result.exit_code == 0
    assert set(result.promises.values()) == {"kept"}


def test_a_fleet_may_begin_empty() -> None:
    result = simulated("", empty=True)
    started = {words for words in happened(result, "did") if "start done" in words}
    assert len(started) == 8
    assert result.exit_code == 0


def test_every_agent_goes_on_after_its_host_has_died() -> None:
    result = simulated("power-cut all at 1m for 5m")
    healed = {o.address: (o.since, o.until) for o in result.outages}
    running = {s.address for s in result.sessions if s.state == "runs"}
    assert set(healed) == running
    assert all(since == 60 and until is not None and until < 420 for since, until in healed.values())
    again = [words for words in happened(result, "did") if " resume " in words]
    assert {words.partition(" ")[0] for words in again} >= {
        "session.claude", "session.opencode", "session.gemini", "session.house", "group_chat.talk",
    }  # fmt: skip
    assert result.exit_code == 0


def test_a_host_that_never_comes_back_is_no_fleet_as_declared() -> None:
    result = simulated("power-cut gpu at 2m for ever", SMALL)
    assert [(s.state, s.right) for s in result.sessions] == [("does not run", False)]
    [outage] = result.outages
    assert outage.until is None
    assert outage.cause == "power-cut gpu at 2m for ever"
    assert result.promises["I1"] == "not judged"
    assert not result.broken
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("fault", "seen", "dies"),
    [
        ("reboot gpu", "rebooted", True),
        ("cable gpu", "did not end within", False),
        ("hang gpu", "did not end within", False),
        ("half-answers gpu", "the shell that looks ended", False),
        ("kill-sshd gpu for 2m", "connection", False),
        ("kill-tmux gpu", "exit code 129", True),
        ("kill-agent api", "exit code 137", True),
        ("slow gpu", "", False),
        ("clock-jump gpu by -1h", "", False),
        ("disk-full gpu", "", False),
        ("kill-controller", "", False),
        ("second-controller", "", False),
    ],
)
def test_each_fault_is_seen_for_what_it_is_and_heals(fault: str, seen: str, dies: bool) -> None:
    result = simulated(f"{fault} at 2m", SMALL)
    assert len(happened(result, "fault")) == 1
    assert seen in "".join(happened(result, "saw") + happened(result, "does"))
    assert bool(happened(result, "does")) == dies
    assert bool(result.outages) == dies
    assert result.exit_code == 0


def test_a_session_that_dies_while_its_disk_is_full_comes_back_once_there_is_room() -> None:
    result = simulated("disk-full gpu at 1m for 4m; kill-agent api at 2m", SMALL)
    assert any("cannot write" in words for words in happened(result, "failed"))
    [outage] = result.outages
    assert outage.until is not None
    assert 300 <= outage.until < 600
    assert result.exit_code == 0


def test_a_controller_on_the_machine_that_dies_dies_with_it() -> None:
    result = simulated("reboot local at 1m for 3m", '[sessions.api]\nagent = "claude-code"\nprompt = "p"\n')
    [outage] = result.outages
    assert outage.until is not None
    assert 240 <= outage.until < 300
    assert not [entry for entry in result.entries if 60 < entry.at < 240]


def test_what_is_suspended_or_disabled_counts_as_the_specs_say() -> None:
    text = SMALL + '[hosts.off]\nenabled = false\n[sessions.b]\nhost = "off"\nagent = "codex"\n'
    result = simulated("kill-agent all at 1m", text)
    assert [s.state for s in result.sessions] == ["runs", "not acted on"]
    assert result.exit_code == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_at_random_every_promise_is_kept(seed: int) -> None:
    result = simulated(f"random seed {seed} count 8", seconds=1800.0)
    assert result.broken == {}
    assert result.exit_code == 0


def test_a_broken_promise_is_said_and_fails() -> None:
    from dataclasses import replace

    result = replace(simulated("", SMALL), broken={"I3": "I3: two live processes of session.api"})
    assert result.promises["I3"] == "broken"
    assert result.exit_code == 1
    document = to_json(result)
    assert [p["name"] for p in document["promises"]] == list(PROMISES)
    assert document["promises"][2]["message"] == "I3: two live processes of session.api"


def test_specs_are_simulated_without_what_they_refer_to() -> None:
    rehearsal = rehearse(desired())
    assert "touch" not in str(rehearsal.desired.hosts["gpu"].env)
    assert rehearsal.desired.hosts["gpu"].auth is None
    assert VARIABLE not in os.environ
    assert SECRET not in json.dumps(to_json(simulated("reboot gpu")))
    assert any("opencode" in note for note in rehearsal.notes)
    assert any("chats" in note for note in rehearsal.notes)


WATCHED = """
import os, sys
from pathlib import Path
found = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn", "os.fork",
                 "os.system", "os.exec"):
        found.append(f"{event} {arguments}")
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        # What is opened below a directory that is open already lies in the temporary one, or is seen below.
        path = os.fsdecode(arguments[0])
        if path.startswith("/") and not path.startswith((os.environ["TMPDIR"], "/dev/null")):
            found.append(f"writes {arguments[0]}")
sys.addaudithook(hook)
from reconciler.cli import run
code = run(["simulate", "specs", "-f", "reboot gpu at 1m; second-controller at 2m", "--for", "10m", "--json"])
assert not found, found
sys.exit(code)
"""


class Machine:
    """A home directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.home, self.tmp = directory / "home", directory / "tmp"
        (self.home / "specs").mkdir(parents=True)
        self.tmp.mkdir()
        (self.home / "specs" / "fleet.toml").write_text(FLEET)

    def run(self, *words: str, code: int = 0, hashes: str = "0", **more: str) -> str:
        env = {"HOME": str(self.home), "TMPDIR": str(self.tmp), "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": hashes}
        done = subprocess.run(
            [sys.executable, *words], cwd=self.home, env={**env, "PYTHONDONTWRITEBYTECODE": "1", **more},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done.stderr if code == 64 else done.stdout

    def simulate(self, *words: str, code: int = 0, hashes: str = "0") -> str:
        return self.run("-m", "reconciler", "simulate", *words, code=code, hashes=hashes)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_of_the_network_or_of_the_users_machine_is_touched(machine: Machine) -> None:
    document = json.loads(machine.run("-c", WATCHED))
    assert document["reached"] is True
    assert [path.relative_to(machine.home).as_posix() for path in machine.home.rglob("*")] == [
        "specs", "specs/fleet.toml",
    ]  # fmt: skip
    assert not list(machine.tmp.iterdir())


def test_the_same_seed_gives_the_same_output(machine: Machine) -> None:
    (machine.home / "specs" / "fleet.toml").write_text(SMALL + '[sessions.b]\nagent = "codex"\n[hosts.c]\n')
    words = ("--random", "6", "--seed", "5", "--for", "15m")
    one, again = (machine.simulate(*words, hashes=hashes) for hashes in ("1", "2"))
    assert one == again
    assert "I9  kept" in one
    assert machine.simulate("--random", "6", "--seed", "6", "--for", "15m") != one


def test_a_fault_that_makes_no_sense_is_shown_with_its_place(machine: Machine) -> None:
    shown = machine.simulate("-f", "power-cut gpv at 5m", code=64)
    assert "1 | power-cut gpv at 5m\n  |           ^^^\n" in shown
    (machine.home / "faults").write_text("reboot gpu\nwhat gpu\n")
    assert "--> faults:2:1\n" in machine.simulate("-f", "@faults", code=64)
    assert "no duration" in machine.simulate("--for", "soon", code=64)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("power", ["power-cut"]),
        ("kill-agent o", ["kill-agent opencode", "kill-agent once", "kill-agent off"]),
        ("reboot gpu; slow b", ["reboot gpu; slow build"]),
        ("reboot gpu ", ["reboot gpu at", "reboot gpu for"]),
    ],
)
def test_the_shell_completes_kinds_and_whom_they_hit(machine: Machine, typed: str, offered: list[str]) -> None:
    context = SimpleNamespace(params={"directory": str(machine.home / "specs")})
    assert fault_words(cast("typer.Context", context), typed) == offered


def test_what_the_documentation_shows_is_what_it_prints() -> None:
    root = Path(__file__).parents[2]
    shown = (root / "docs" / "simulating.md").read_text().partition("```\n$ reconciler ")[2].partition("```")[0]
    line, _, printed = shown.partition("\n")
    env = {**os.environ, "NO_COLOR": "1"}
    words = [sys.executable, "-m", "reconciler", *shlex.split(line)]
    assert subprocess.run(words, cwd=root, env=env, capture_output=True, text=True, check=True).stdout == printed
