"""Hundreds of real hosts for benchmarks: sshd, tmux and sessions with their state, each host with a home of its own.

One sshd serves sixteen addresses, and the address decides which home a login gets. The sessions of the first host are
started by the program; the others' are copies of what that left there, with processes and terminals of their own, since
launching thousands would take longer than all that is measured.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.figure import process, python
from benchmarks.line import PORT, Line, PacketLine, echo, line
from reconciler.core.parse import parse
from reconciler.core.spec import Desired
from tests.e2e._host import new_key, sshd_program
from tests.e2e._plain_host import kill_those_of

SESSIONS = 10
STATE = ".local/state/reconciler/bench"
_LISTENERS = 16  # addresses that one sshd listens to: it takes no more
_PREFIX = "rcf-"
_SSHD = """
Port {port}
HostKey {root}/host_key
AuthorizedKeysFile {root}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
LogLevel ERROR
MaxStartups 1000
"""


class Farm:
    """`with Farm(200) as farm:` so many hosts, h0 and on, known to whoever runs with `farm.env`."""

    def __init__(self, hosts: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("hosts die with the thread that made them: make them in the main thread")
        sweep()
        self.root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.root.chmod(0o755)
        self.names = [f"h{number}" for number in range(hosts)]
        self.line: Line = line(hosts)
        self._servers: list[subprocess.Popen[str]] = []
        self._home = os.environ.get("HOME")
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def controller(self) -> Path:
        """The home of whoever is measured."""
        return self.root / "me"

    @property
    def ssh_config(self) -> Path:
        """Names, keys and known hosts, for the program and for peers."""
        return self.controller / ".ssh/config"

    @property
    def env(self) -> dict[str, str]:
        """For processes that are measured: no SSH agent, no language, a home of its own."""
        path = os.pathsep.join(part for part in sys.path if part)
        return {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.controller), "LANG": "C.UTF-8",
            "TERM": "xterm-256color", "PYTHONPATH": path or os.getcwd(),
        }  # fmt: skip

    def home(self, number: int) -> Path:
        """Of a host's user."""
        return self.root / "h" / str(number)

    def kill(self, host: int, session: int) -> float:
        """The present process of a session ends at once; when it still lived, by the wall clock."""
        notes = (self.home(host) / STATE / f"sessions/s{host}-{session}").glob("process.*")
        newest = max(notes, key=lambda note: int(note.suffix[1:]))
        return float(self.inside(f"date +%s.%N; kill -9 {newest.read_text('ascii').split()[0]}"))

    def specs(self, hosts: int, first: int = 0) -> str:
        """The first of them, with all their sessions; as they run."""
        lines = ['[fleet]\nname = "bench"\n[defaults.session]\nagent = "shell"\nargs = ["sleep", "36000"]\n']
        for number in range(first, first + hosts):
            address, port = self.line.outer(number)
            lines.append(f'[hosts.h{number}]\naddress = "{address}"\nport = {port}\n')
            lines += [f'[sessions.s{number}-{j}]\nhost = "h{number}"\n' for j in range(SESSIONS)]
        return "\n".join(lines)

    def desired(self, hosts: int) -> Desired:
        """The same, parsed."""
        return parse({"fleet.toml": self.specs(hosts)}, {})

    def folder(self, hosts: int) -> str:
        """A directory with these specs, to run the program in."""
        folder = self.root / f"fleet-{hosts}"
        if not folder.exists():
            (folder / "specs").mkdir(parents=True)
            (folder / "specs/fleet.toml").write_text(self.specs(hosts), encoding="utf-8")
        return str(folder)

    def inside(self, script: str, *arguments: str) -> str:
        """What a shell prints beyond the line."""
        done = subprocess.run(
            self.line.inside("sh", "-c", script, "sh", *arguments), capture_output=True, text=True, check=True
        )  # fmt: skip
        return done.stdout

    # -- making it -----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        (self.controller / ".ssh").mkdir(parents=True, mode=0o700)
        key = new_key(self.controller / ".ssh/id_ed25519")
        new_key(self.root / "host_key")
        shutil.copy(key.with_suffix(".pub"), self.root / "authorized_keys")
        for number in range(len(self.names)):
            home = self.home(number)
            home.mkdir(parents=True)
            (home / ".bashrc").write_text('cd "$HOME"\n', encoding="utf-8")  # sshd enters another one
            (home / ".zshenv").write_text('cd "$HOME"\n', encoding="utf-8")
        for first in range(0, len(self.names), _LISTENERS):
            self._serve(range(first, min(first + _LISTENERS, len(self.names))))
        self.line.begin()
        self._servers.append(echo(self.line))
        self._introduce()
        os.environ["HOME"] = str(self.controller)  # the program's parts, used in this process, look there
        self._wait()
        process(python("-m", "reconciler", "apply", "--auto-approve"), self.env, self.folder(1))
        copies = [str(self.root), str(len(self.names)), str(SESSIONS)]
        process(self.line.inside(*python("-m", "benchmarks.copies", *copies)), self.env)

    def _serve(self, numbers: range) -> None:
        text = _SSHD.format(port=PORT, root=self.root)
        text += "".join(f"ListenAddress {self.line.inner[number]}\n" for number in numbers)
        path = os.environ.get("PATH", os.defpath)
        for number in numbers:
            home = self.home(number)
            text += f"Match LocalAddress {self.line.inner[number]}\n"
            text += f'SetEnv HOME="{home}" TMUX_TMPDIR="{home}" PATH="{path}"\n'
        config = self.root / f"sshd-{numbers.start}"
        config.write_text(text, encoding="utf-8")
        # Addresses beyond the line exist only once it is begun.
        script = 'while :; do "$0" -D -e -f "$1"; sleep 0.1; done'
        command = ["setpriv", "--pdeathsig", "KILL", *self.line.inside("sh", "-c", script, sshd_program(), str(config))]
        with (self.root / "sshd.log").open("ab") as log:
            self._servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True))

    def _introduce(self) -> None:
        host_key = " ".join((self.root / "host_key.pub").read_text(encoding="ascii").split()[:2])
        known, blocks = [], []
        for number, name in enumerate(self.names):
            address, port = self.line.outer(number)
            known.append(f"[{address}]:{port} {host_key}\n")
            blocks.append(f"Host {name}\n    HostName {address}\n    Port {port}\n")
        common = {
            "IdentityFile": self.controller / ".ssh/id_ed25519", "IdentitiesOnly": "yes", "BatchMode": "yes",
            "UserKnownHostsFile": self.controller / ".ssh/known_hosts",
        }  # fmt: skip
        blocks.append("Host *\n" + "".join(f"    {key} {value}\n" for key, value in common.items()))
        (self.controller / ".ssh/known_hosts").write_text("".join(known), encoding="ascii")
        self.ssh_config.write_text("".join(blocks), encoding="utf-8")

    def _wait(self) -> None:
        """Until the last of the servers lets somebody in."""
        for number in range(0, len(self.names), _LISTENERS):
            for _ in range(200):
                done = subprocess.run(
                    ["ssh", "-F", str(self.ssh_config), f"h{number}", "true"], env=self.env, capture_output=True,
                    check=False,
                )  # fmt: skip
                if done.returncode == 0:
                    break
                time.sleep(0.1)
            else:
                raise RuntimeError(f"no sshd: {done.stderr.decode()} {(self.root / 'sshd.log').read_text('utf-8')}")

    def close(self) -> None:
        """Nothing is left."""
        if self._home is not None:
            os.environ["HOME"] = self._home
        for server in self._servers:
            server.kill()
        self.line.close()
        for server in self._servers:
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
        if not isinstance(self.line, PacketLine):
            kill_those_of(self.root)
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep() -> None:
    """Directories of runs that were killed: their processes and interfaces went with them."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and left.stat().st_uid == os.getuid():
            kill_those_of(left)
            shutil.rmtree(left, ignore_errors=True)


_shared: list[Farm] = []
size = 1  # hosts that the benchmarks of this run want at the most


def shared(hosts: int) -> Farm:
    """The farm of this run of benchmarks; made when first asked for, again only where it is too small."""
    if _shared and len(_shared[0].names) < hosts:
        _shared.pop().close()
    if not _shared:
        begun, hosts = time.perf_counter(), max(hosts, size)
        _shared.append(Farm(hosts))
        print(f"({hosts} hosts in {time.perf_counter() - begun:.0f} s)", file=sys.stderr)
    return _shared[0]


def end() -> None:
    """Close it."""
    while _shared:
        _shared.pop().close()


atexit.register(end)


def line_of_shared() -> str | None:
    """How packets are delayed in this run; None where no hosts were needed."""
    return _shared[0].line.name if _shared else None


def measured_trip(wanted: float) -> float:
    """Seconds of an exchange over the line where it is to take so long."""
    line = _shared[0].line
    line.delay(wanted)
    found = line.trip()
    line.delay(0)
    return found


def look_like_ours(state: str = STATE) -> str:
    """A shell text that prints what a look tells: sessions in terminals, and their state files."""
    quoted = shlex.quote(state)
    return (
        f"cd {quoted} && date +%s && tmux -S tmux list-panes -a "
        "-F '#{session_name} #{pane_pid} #{pane_dead} #{session_attached} #{pane_title}' && "
        "cat fence sessions/*/record.json sessions/*/incarnation sessions/*/process.*"
    )
