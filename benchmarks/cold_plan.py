"""Cold `reconciler plan` over 20 hosts x 10 sessions, over a bare asyncssh connect and the same look, same run."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.figure import Figure, in_turn, process, python
from tests.e2e.fleet import Fleet

HOSTS, SESSIONS = 20, 10

# The floor: nothing but asyncssh and the very look that the program sends, at once to every host.
BARE = """
import asyncio, sys
import asyncssh
script = open(sys.argv[1]).read()
async def one(name):
    async with asyncssh.connect(name, config=[sys.argv[2]], known_hosts=sys.argv[3]) as connection:
        done = await connection.run("sh", input=script, check=True)
        assert "end\\tn\\t" in done.stdout, done.stdout
async def main():
    await asyncio.gather(*(one(name) for name in sys.argv[4:]))
asyncio.run(main())
"""


def specs() -> str:
    """A fleet of plain commands: what they are does not matter to a look."""
    lines = ['[fleet]\nname = "bench"\n[defaults.session]\nagent = "shell"\nargs = ["sleep", "3600"]\n']
    lines += [f"[hosts.h{i}]\n" for i in range(HOSTS)]
    lines += [f'[sessions.s{i}-{j}]\nhost = "h{i}"\n' for i in range(HOSTS) for j in range(SESSIONS)]
    return "\n".join(lines)


def measure() -> list[Figure]:
    """One figure: whole processes, no delay, hosts and client on the same machine."""
    from reconciler.runtimes.operations import look_call, look_definition

    with Fleet(namespaces=False) as fleet, tempfile.TemporaryDirectory() as folder:
        names = [fleet.host(f"h{i}").name for i in range(HOSTS)]
        Path(folder, "specs").mkdir()
        Path(folder, "specs/fleet.toml").write_text(specs(), encoding="utf-8")
        script = Path(folder, "look.sh")
        checks = [("command", "sleep"), ("directory", "~")]
        script.write_text(look_definition() + look_call("bench", "n", checks), encoding="utf-8")
        env = {**fleet.env, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        process(python("-m", "reconciler", "apply", "--auto-approve"), env, folder)
        bare = python("-c", BARE, str(script), str(fleet.ssh_config), str(fleet.known_hosts), *names)
        ours, floor = in_turn(
            lambda: process(python("-m", "reconciler", "plan"), env, folder),
            lambda: process(bare, env, folder),
            runs=7,
        )
        process(python("-c", STOP, str(fleet.root)), env, folder)
    note = f"{HOSTS} hosts x {SESSIONS} sessions, whole processes."
    return [Figure("cold plan over bare asyncssh and the same look", ours, floor, 1.3, note)]


# The tmux servers of the hosts go first; the fleet ends the rest by pid.
STOP = """
import pathlib, subprocess, sys
for socket in pathlib.Path(sys.argv[1]).glob("hosts/*/home/.local/state/reconciler/bench/tmux"):
    subprocess.run(["tmux", "-S", str(socket), "kill-server"], check=False)
"""
