"""A host made of one unprivileged sshd on a loopback port with a home of its own, where there are no namespaces."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e._host import Host, prepare_sshd, sshd_program

_MARK = "RECONCILER_TEST_HOST"


class PlainHost(Host):
    """As a `NamespaceHost`, except: one boot id, one process table and one /tmp for all, its user is yours,

    and a power cut closes connections instead of leaving them silent.
    """

    def __init__(self, name: str, state: Path, *, key: Path) -> None:
        self.name, self.state, self.key = name, state, key
        self.user = getpass.getuser()
        self.address, self.port = "127.0.0.1", _free_port()
        self.home = state / "home"
        self.inner_home = str(self.home)
        self.home.mkdir(parents=True)
        self.mark = uuid.uuid4().hex
        self._sshd: subprocess.Popen[bytes] | None = None
        path = os.environ.get("PATH", os.defpath)
        # sshd enters the home that the user database names, so the shells are told to go on to ours.
        real = pwd.getpwnam(self.user).pw_dir
        for start in (".bashrc", ".zshenv"):
            (self.home / start).write_text(f'[ "$PWD" != "{real}" ] || cd "$HOME"\n', encoding="utf-8")
        environment = f'HOME="{self.home}" {_MARK}={self.mark} PATH="{path}" TMUX_TMPDIR="{self.home}"'
        authorized = key.with_suffix(".pub").read_text(encoding="utf-8")
        settings = {"Port": str(self.port), "ListenAddress": self.address, "SetEnv": environment}
        prepare_sshd(state, authorized, settings)

    def boot(self) -> None:
        """Start it; returns when sshd answers."""
        command = [sshd_program(), "-D", "-e", "-f", str(self.state / "sshd_config")]
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with open(self.state / "sshd.log", "ab") as log:
            self._sshd = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, _MARK: self.mark},
                start_new_session=True,
            )
        self.wait_for_sshd()

    def power_cut(self) -> None:
        """All its processes end at once."""
        if self._sshd is None:
            return
        # All at once, while it is still known who descends from it.
        self._signal(signal.SIGKILL)
        self._sshd.wait()
        self._sshd = None
        while self._processes():
            self._signal(signal.SIGKILL)
            time.sleep(0.01)

    def remove(self) -> None:
        """Nothing is left of it but its directory."""
        self.power_cut()

    def cable_out(self) -> None:
        """Its sshd stands still: the kernel takes connections, nothing answers. Other processes run on."""
        self._signal(signal.SIGSTOP, only_sshd=True)

    def cable_in(self) -> None:
        """Undo `cable_out`."""
        self._signal(signal.SIGCONT, only_sshd=True)

    def delay(self, milliseconds: float) -> bool:
        """Not to be had without a network of its own."""
        return False

    def exec(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a program with its home, not by way of SSH."""
        env = {**os.environ, "HOME": self.inner_home, _MARK: self.mark}
        return subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=env,
            cwd=self.home,
        )

    def processes(self) -> list[tuple[int, list[str]]]:
        """(pid, argv) of everything that runs there, sshd too."""
        return [(process.pid, process.argv) for process in self._processes()]

    def freeze(self) -> None:
        """Everything stands still."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal(signal.SIGCONT)

    def outside(self, path: str) -> Path:
        """Where the test finds a path of the host: it is the same machine."""
        return self.home / path.removeprefix("~/")

    def own(self, path: Path) -> None:
        """It is ours already."""

    def _processes(self) -> list[_Process]:
        """What bears the mark or has its home here, as agents do, and what descends from sshd, which wipes its
        environment."""
        everything = [process for process in _everything() if process.pid != os.getpid()]
        marked = {f"{_MARK}={self.mark}", f"HOME={self.inner_home}"}
        ours = {process.pid for process in everything if marked & {*process.env}}
        ours |= {self._sshd.pid} if self._sshd else set()
        while more := {process.pid for process in everything if process.parent in ours} - ours:
            ours |= more
        return [process for process in everything if process.pid in ours]

    def send_signal(self, number: signal.Signals, wanted: Callable[[list[str]], bool]) -> int:
        """Send a signal to each process there whose argv is wanted; how many there were."""
        found = 0
        for pid, argv in self.processes():
            if wanted(argv):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    found += 1
        return found

    def _signal(self, number: signal.Signals, *, only_sshd: bool = False) -> None:
        for pid, argv in self.processes():
            if not only_sshd or "sshd" in argv[0]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    argv: list[str]
    env: list[str]


def kill_those_of(root: Path) -> None:
    """End the processes of a dead run: those with a home in its directory, and sshds with their config there."""
    for process in _everything():
        home = any(word.startswith(f"HOME={root}/") for word in process.env)
        if home or ("sshd" in process.argv[0] and f"{root}/" in " ".join(process.argv)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def _everything() -> list[_Process]:
    """The processes that may be looked at."""
    if sys.platform == "linux":
        return _from_proc()
    command = ["ps", "-Aeww", "-o", "pid=,ppid=,command="]
    rows = (line.split() for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines())
    return [_Process(int(row[0]), int(row[1]), row[2:], row[2:]) for row in rows if len(row) > 2]


def _from_proc() -> list[_Process]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry)
            argv = _words(Path(f"/proc/{pid}/cmdline"))
            parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
            if argv:
                found.append(_Process(pid, int(parent.split()[1]), argv, _environment(pid)))
    return found


def _environment(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return _words(Path(f"/proc/{pid}/environ"))
    return []


def _words(path: Path) -> list[str]:
    return [word.decode("utf-8", "replace") for word in path.read_bytes().rstrip(b"\0").split(b"\0") if word]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert isinstance(port, int)
    return port
