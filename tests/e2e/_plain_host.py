"""A host made of one unprivileged sshd on a loopback port with a home of its own, where there are no namespaces."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
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
        environment = f'HOME="{self.home}" {_MARK}={self.mark} PATH="{path}" TMUX_TMPDIR="{self.home}"'
        authorized = key.with_suffix(".pub").read_text(encoding="utf-8")
        settings = {"Port": str(self.port), "ListenAddress": self.address, "SetEnv": environment}
        prepare_sshd(state, authorized, settings)

    def boot(self) -> None:
        """Start it; returns when sshd answers."""
        command = [sshd_program(), "-D", "-e", "-f", str(self.state / "sshd_config")]
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
        self._sshd.kill()
        self._sshd.wait()
        self._sshd = None
        while pids := self._pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
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
        return [(pid, argv) for pid, argv, _ in _everything() if pid in set(self._pids())]

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

    def _pids(self) -> list[int]:
        marked = f"{_MARK}={self.mark}"
        return [pid for pid, _, env in _everything() if marked in env and pid != os.getpid()]

    def _signal(self, number: signal.Signals, *, only_sshd: bool = False) -> None:
        for pid, argv in self.processes():
            if not only_sshd or "sshd" in argv[0]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def _everything() -> list[tuple[int, list[str], list[str]]]:
    """(pid, argv, environment) of the processes that may be looked at."""
    if sys.platform == "linux":
        return _from_proc()
    done = subprocess.run(["ps", "-Aeww", "-o", "pid=,command="], capture_output=True, text=True, check=False)
    rows = (line.split() for line in done.stdout.splitlines())
    return [(int(row[0]), row[1:], row[1:]) for row in rows if row and row[0].isdigit()]


def _from_proc() -> list[tuple[int, list[str], list[str]]]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry)
            argv = _words(Path(f"/proc/{pid}/cmdline"))
            if argv:
                found.append((pid, argv, _words(Path(f"/proc/{pid}/environ"))))
    return found


def _words(path: Path) -> list[str]:
    return [word.decode("utf-8", "replace") for word in path.read_bytes().rstrip(b"\0").split(b"\0") if word]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert isinstance(port, int)
    return port
