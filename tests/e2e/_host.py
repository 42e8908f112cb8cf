"""What every host of a test fleet can do, whatever it is made of."""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BOOT_TIMEOUT = 15.0
_FILLER = ".filler"


class Host(abc.ABC):
    """A machine with a real sshd. `home` is its user's home as seen from the test; `address` and `port` reach it."""

    name: str
    address: str
    port: int
    user: str
    home: Path
    inner_home: str
    key: Path
    state: Path

    @abc.abstractmethod
    def boot(self) -> None:
        """Start it; returns when sshd answers. Its boot id is a new one."""

    @abc.abstractmethod
    def power_cut(self) -> None:
        """All its processes vanish at once."""

    @abc.abstractmethod
    def remove(self) -> None:
        """Power cut, and nothing is left of it but its directory."""

    @abc.abstractmethod
    def cable_out(self) -> None:
        """Nothing gets to it and nothing comes from it; it runs on."""

    @abc.abstractmethod
    def cable_in(self) -> None:
        """Undo `cable_out`."""

    @abc.abstractmethod
    def delay(self, milliseconds: float) -> bool:
        """Make every round trip this much longer; False where the machine cannot do that."""

    @abc.abstractmethod
    def exec(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a program inside as its user, in the home, not by way of SSH."""

    @abc.abstractmethod
    def processes(self) -> list[tuple[int, list[str]]]:
        """(pid as seen inside, argv) of everything that runs there."""

    @abc.abstractmethod
    def freeze(self) -> None:
        """The machine hangs: connections are taken by the kernel, nothing answers."""

    @abc.abstractmethod
    def thaw(self) -> None:
        """Undo `freeze`."""

    @abc.abstractmethod
    def send_signal(self, number: signal.Signals, wanted: Callable[[list[str]], bool]) -> int:
        """Send a signal to each process there whose argv is wanted, whoever it belongs to; how many there were."""

    @abc.abstractmethod
    def outside(self, path: str) -> Path:
        """Where the test finds a path of the host; `~/` is its home."""

    def reboot(self) -> None:
        """Power cut, then boot."""
        self.power_cut()
        self.boot()

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Put a file there, owned by its user; `~/x` and `x` lie in its home. Returns where the test sees it."""
        target = self.outside(path)
        missing = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)
        for made in (*missing, target):
            self.own(made)
        return target

    @abc.abstractmethod
    def own(self, path: Path) -> None:
        """Give a file to the user of the host."""

    def fill_disk(self) -> None:
        """No byte fits into the home any more. Ask for a small one: `fleet.host(name, home_size="8m")`."""
        if os.statvfs(self.home).f_blocks * os.statvfs(self.home).f_frsize > 1 << 30:
            raise RuntimeError(f'{self.name} has no disk of its own: fleet.host({self.name!r}, home_size="8m")')
        with contextlib.suppress(OSError), open(self.home / _FILLER, "ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        (self.home / _FILLER).unlink(missing_ok=True)

    def testinfra(self) -> Any:
        """A pytest-testinfra host that looks at it by way of SSH."""
        import testinfra

        return testinfra.get_host(
            f"ssh://{self.user}@{self.address}:{self.port}",
            ssh_identity_file=str(self.key),
            ssh_extra_args="-F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        )

    @property
    def log(self) -> str:
        """What its sshd logged."""
        with contextlib.suppress(OSError):
            return (self.state / "sshd.log").read_text(encoding="utf-8", errors="replace")
        return ""

    @property
    def public_host_key(self) -> str:
        """Its host key as `type base64`."""
        return " ".join((self.state / "host_key.pub").read_text(encoding="utf-8").split()[:2])

    def wait_for_sshd(self) -> None:
        """Until the banner comes; fails with the log of sshd."""
        end = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.address, self.port), timeout=0.1) as connection,
            ):
                if connection.recv(4) == b"SSH-":
                    return
            time.sleep(0.01)
        raise RuntimeError(f"{self.name}: no sshd within {BOOT_TIMEOUT:g} s\n{self.log}\n{self.boot_log}")

    @property
    def boot_log(self) -> str:
        """What the host said while it started."""
        with contextlib.suppress(OSError):
            return (self.state / "boot.log").read_text(encoding="utf-8", errors="replace")
        return ""


def sshd_program() -> str:
    """The sshd to run, by absolute path; raises FileNotFoundError with the command that installs it."""
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise FileNotFoundError(
            "sshd is missing: apt-get install openssh-server (Debian), brew install openssh (macOS)"
        )
    return os.path.realpath(found)


def prepare_sshd(state: Path, authorized: str, settings: Mapping[str, str]) -> Path:
    """Host key, authorized keys and sshd_config in `state`; the path of the config."""
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "host_key").exists():
        new_key(state / "host_key")
    (state / "authorized_keys").write_text(authorized, encoding="utf-8")
    # Readable for the user that sshd becomes before it looks.
    (state / "authorized_keys").chmod(0o644)
    everywhere = {
        "HostKey": str(state / "host_key"),
        "AuthorizedKeysFile": str(state / "authorized_keys"),
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PrintMotd": "no",
        "UseDNS": "no",
        "LogLevel": "VERBOSE",
        "Subsystem": "sftp internal-sftp",
    }
    lines = [f"{key} {value}\n" for key, value in {**everywhere, **settings}.items()]
    config = state / "sshd_config"
    config.write_text("".join(lines), encoding="utf-8")
    return config


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair at `path` and `path`.pub."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return path
