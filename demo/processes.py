"""Which processes belong to an embedded host, and their end; nobody else's are touched."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    home: str  # of its environment, where that may be read
    argv: str


def kill_those_of(home: Path, started: Collection[int] = (), seconds: float = 10.0) -> None:
    """Kill every process of the host with this home, and return when none is left.

    A process belongs to it when its environment says so, when it is one of those `started` there, or when its
    parent belongs to it; where the system hides environments (macOS, of its own programs) also when it is the
    wrapper or the tmux of a session there.
    """
    end = time.monotonic() + seconds
    while found := processes_of(home, started):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise TimeoutError(f"processes {sorted(found)} of {home} do not end")
        time.sleep(0.01)


def processes_of(home: Path, started: Collection[int] = ()) -> set[int]:
    """The live processes that belong to the host with this home; never this one or its parents."""
    everything = _from_proc() if Path("/proc/self/environ").exists() else _from_ps()
    wrapper = re.compile(rf"(\S*/)?(sh|tmux)( -S)? '?{re.escape(str(home))}/")
    ours = {p.pid for p in everything if p.home == str(home) or (not p.home and wrapper.match(p.argv))}
    ours |= {p.pid for p in everything if p.pid in started}
    while more := {p.pid for p in everything if p.parent in ours} - ours:
        ours |= more
    parents = {p.pid: p.parent for p in everything}
    spared, at = {os.getpid(), os.getppid()}, os.getpid()
    while at in parents and parents[at] not in (0, 1):
        at = parents[at]
        spared.add(at)
    return ours - spared


def _from_proc() -> list[_Process]:
    """Our own processes that are not zombies, as Linux tells them."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            if entry.stat().st_uid != os.getuid():
                continue
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[0] in "ZX":
                continue
            words = (entry / "environ").read_bytes().split(b"\0")
            home = next((os.fsdecode(word[5:]) for word in words if word.startswith(b"HOME=")), "")
            argv = os.fsdecode((entry / "cmdline").read_bytes()).replace("\0", " ")
            found.append(_Process(int(entry.name), int(fields[1]), home, argv))
    return found


def _from_ps() -> list[_Process]:
    """The same by `ps`, whose `-E` shows environments on macOS."""
    listing = ["ps", "-AEww", "-o", "pid=,ppid=,uid=,stat=,command="]
    done = subprocess.run(listing, capture_output=True, text=True, errors="replace", check=True)
    found = []
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            pid, parent, uid, state, command = line.split(None, 4)
            if int(uid) == os.getuid() and not state.startswith("Z"):
                home = re.search(r" HOME=(.*?)(?= [A-Za-z_][A-Za-z0-9_]*=|\Z)", command)
                found.append(_Process(int(pid), int(parent), home[1] if home else "", command))
    return found
