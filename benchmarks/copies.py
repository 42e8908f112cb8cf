"""Give hosts 1 and on what the program has made on host 0: state files, and terminals in which the same runs.

`python -m benchmarks.copies ROOT HOSTS SESSIONS`, beyond the line. Names change (s0-1 becomes s7-1), and so do pids.
Options of terminals are copied too, in case the program keeps something there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from reconciler.runtimes.scripts import text

STATE = ".local/state/reconciler/bench"


def tmux(state: Path, *words: str, text: str | None = None) -> str:
    """What a tmux of one host prints; as commands from `text`, where given."""
    env = {"PATH": os.environ["PATH"], "HOME": str(state.parents[3]), "LANG": "C.UTF-8", "TERM": "xterm"}
    done = subprocess.run(
        ["tmux", "-S", str(state / "tmux"), *words], capture_output=True, text=True, env=env, input=text
    )
    if done.returncode:
        raise RuntimeError(f"tmux {words[:3]}: {done.stderr}")
    return done.stdout


def options(state: Path, *which: str) -> list[tuple[str, str]]:
    """Options that differ from the defaults of tmux or are a user's own, as they are written."""
    lines = tmux(state, "show-options", *which).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def start_of(pid: int) -> str:
    """When a process started, as `/proc` has it."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]


def wrapper() -> str:
    """A launch that has its agent already: what it does from the end of that on is what the program's own does."""
    launch, run = text("launch"), text("run")
    functions = launch[launch.index("ours() {") : launch.index("trap : TERM INT HUP")]
    begin = "dir=$1 incarnation=$2 end=$3\ntrap : TERM INT HUP\nsleep 36000\n"
    return text("common") + functions + begin + run[run.index("over $?") :]


def _launch_of(session: Path) -> tuple[str, str]:
    """Its incarnation, and the word that is this launch's alone."""
    found = re.search(r"^end='?([^'\n]+)'?$", (session / "launch").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return (session / "incarnation").read_text("utf-8").strip(), found[1]


def _child_of(pid: str) -> str:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(1000):
        if found := children.read_text("ascii").split():
            return found[0]
        time.sleep(0.01)
    raise RuntimeError(f"{pid} starts nothing")


def copy(root: Path, number: int, sessions: int, shared: list[tuple[str, str]], own: list[tuple[str, str]]) -> None:
    """One host."""
    source, target = root / "h/0" / STATE, root / f"h/{number}" / STATE
    for path in sorted(source.rglob("*")):
        there = target / str(path.relative_to(source)).replace("s0-", f"s{number}-")
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
            shutil.copymode(path, there)
        elif path.is_file() and path.name != "tmux":
            there.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8").replace("s0-", f"s{number}-")
            there.write_text(text.replace(f"{root}/h/0/", f"{root}/h/{number}/"), encoding="utf-8")
            shutil.copymode(path, there)
    names = [f"s{number}-{j}" for j in range(sessions)]
    commands = [f"set-option -g {name} {value}" for name, value in shared]
    for name in names:
        session = target / "sessions" / name
        words = ["exec", "sh", str(root / "wrapper.sh"), str(session), *_launch_of(session)]
        commands.append(f"new-session -d -s {name} -x 200 -y 50 {shlex.quote(shlex.join(words))}")
        commands += [f"set-option -t ={name}: {option} {value}" for option, value in own]
    tmux(target, "-f", "/dev/null", "start-server", ";", "set-option", "-g", "exit-empty", "off")
    tmux(target, "source-file", "-", text="\n".join(commands) + "\n")
    panes = tmux(target, "list-panes", "-a", "-F", "#{session_name} #{pane_pid}").splitlines()
    for line in panes:
        name, wrapper = line.split()
        agent = _child_of(wrapper)
        for note in (target / "sessions" / name).glob("process.*"):
            fields = note.read_text("utf-8").split()
            known = [agent, start_of(int(agent)), fields[2], fields[3], wrapper, wrapper, start_of(int(wrapper))]
            note.write_text(" ".join(known) + "\n", encoding="utf-8")


def main(root: Path, hosts: int, sessions: int) -> None:
    """All of them."""
    (root / "wrapper.sh").write_text(wrapper(), encoding="utf-8")
    source = root / "h/0" / STATE
    shared = [
        (name, value) for name, value in options(source, "-g") if name.startswith("@") or name == "remain-on-exit"
    ]
    own = options(source, "-t", "=s0-0:")
    for number in range(1, hosts):
        copy(root, number, sessions, shared, own)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
