"""The scripts on a machine without /proc, `timeout`, `setsid` and GNU `stat`, as macOS is: its tools stand in PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.agent import Invocation, Probe
from reconciler.core.observed import Reached, parse_look
from reconciler.core.record import Record
from reconciler.runtimes import Runtime
from reconciler.runtimes.operations import (
    Credentials,
    Launch,
    launch_operation,
    lease_operation,
    look_call,
    look_definition,
    parse_answer,
    stop_operation,
)
from reconciler.runtimes.process import RUNTIME as PROCESS
from reconciler.runtimes.tmux import RUNTIME as TMUX

# What the scripts may use on any machine: POSIX utilities, and tmux.
_TOOLS = re.findall(
    r"\S+",
    "awk base64 bash cat chmod cut date env find grep head id kill ln ls mkdir mkfifo mktemp mv printf ps rm sed sh "
    "sleep sort sync tail tmux touch tr uname wc",
)
_STANDINS = {
    "sysctl": "case $2 in kern.bootsessionuuid) echo BOOT-1 ;; kern.uuid) echo MACHINE-1 ;; *) exit 1 ;; esac\n",
    # BSD stat: -f with a format of its own, no -c.
    "stat": '[ "$1" = -f ] || { echo "stat: illegal option" >&2; exit 1; }\nexec /usr/bin/stat -c "%s %Y" "$3"\n',
}


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of that machine."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in _TOOLS:
        found = shutil.which(name)
        assert found, f"{name} is missing here: scripts/install-test-deps.sh"
        (tools / name).symlink_to(found)
    for name, body in _STANDINS.items():
        (tools / name).write_text("#!/bin/sh\n" + body, encoding="utf-8")
        (tools / name).chmod(0o755)
    home = tmp_path / "h"
    home.mkdir()
    # Login shells read /etc/profile, which sets PATH anew.
    (home / ".bash_profile").write_text(f"PATH={tools}\n", encoding="utf-8")
    return {"HOME": str(home), "PATH": str(tools), "SHELL": str(tools / "bash"), "TERM": "dumb"}


def _run(script: str, env: dict[str, str]) -> bytes:
    text = script.replace("/proc/", "/no-such-proc/").replace("/etc/machine-id", "/no-such-machine-id")
    return subprocess.run(["bash", "--posix"], input=text.encode(), env=env, capture_output=True, timeout=60).stdout


def _look(env: dict[str, str]) -> Reached:
    return parse_look("mac", "n", _run(look_definition() + look_call("f", "n", [("command", "sleep")]), env))


@pytest.mark.parametrize("runtime", [TMUX, PROCESS], ids=lambda r: r.name)
def test_a_session_is_launched_seen_and_stopped_without_proc_and_gnu_tools(
    runtime: Runtime, machine: dict[str, str]
) -> None:
    answer = parse_answer("mac", "n", _run(lease_operation(Credentials("f", "me"), "n"), machine))
    ours = Credentials("f", "me", fence=int(answer["fence"]))
    record = Record("f", "s", "shell", runtime.name, "d", incarnation=1)
    launch = Launch(
        "s", 0, record, "sh", Invocation(("sh", "-c", 'echo "$A" >out; exec sleep 60')), "~",
        (Probe("store", "store", "{home}/out"),), {"A": "it's\nso"},
    )  # fmt: skip
    try:
        started = parse_answer("mac", "n", _run(launch_operation(runtime, ours, "o1", "n", launch), machine))
        assert started["ok"], started
        seen = _look(machine).sessions["s"]
        assert (seen.state, seen.process and seen.process.pid) == ("running", started["pid"])
        again = replace(launch, expect=1, record=replace(record, incarnation=2))
        refused = parse_answer("mac", "n", _run(launch_operation(runtime, ours, "o2", "n", again), machine))
        assert refused["code"] == "already-running"
        assert Path(machine["HOME"], "out").read_text(encoding="utf-8") == "it's\nso\n"
        assert seen.facts.store is not None
        assert [file.size for file in seen.facts.store] == [8]
        stop = stop_operation(
            runtime, ours, "o3", "n", session="s", expect=1, keys=(), signal="TERM",
            record=replace(record, intent="stopped"),
        )  # fmt: skip
        assert parse_answer("mac", "n", _run(stop, machine))["ok"]
        with pytest.raises(ProcessLookupError):
            os.kill(started["pid"], 0)
        assert _look(machine).sessions["s"].state == "stopped"
    finally:
        socket = Path(machine["HOME"], ".local/state/reconciler/f/tmux")
        subprocess.run(["tmux", "-S", str(socket), "kill-server"], capture_output=True, check=False)


def test_a_look_on_such_a_machine_knows_its_boot_and_its_machine(machine: dict[str, str]) -> None:
    reached = _look(machine)
    assert (reached.boot, reached.machine) == ("BOOT-1", "MACHINE-1")
    assert reached.commands["sleep"].endswith("/sleep")
