"""A fleet of real OpenSSH hosts for tests, and the home that the program under test has on the controlling machine.

    with Fleet() as fleet:
        gpu = fleet.host("gpu")
        subprocess.run(["ssh", "-F", fleet.ssh_config, "gpu", "true"], env=fleet.env)
        gpu.power_cut()

As root on Linux each host has namespaces of its own (`fleet.namespaces` is true); elsewhere it is an unprivileged
sshd on a loopback port. Make it in the main thread: its hosts die with the thread that started them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.e2e._host import Host, new_key, sshd_program
from tests.e2e._namespace_host import NamespaceHost, unmount_below
from tests.e2e._plain_host import PlainHost, kill_those_of

__all__ = ["Fleet", "Host", "sweep"]

_PREFIX = "reconciler-fleet-"


class Fleet:
    """Hosts by name in `hosts`. `controller_home` and `env` are what the program under test is run with."""

    def __init__(self, *, namespaces: bool | None = None) -> None:
        sshd_program()
        self.namespaces = _can_have_namespaces() if namespaces is None else namespaces
        sweep()
        self.root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{_started(os.getpid())}-"))
        # Users inside the hosts reach what lies below by bind mounts only; outside, tmux and ssh want it passable.
        self.root.chmod(0o755)
        self.hosts: dict[str, Host] = {}
        self.controller_home = self.root / "controller"
        dot_ssh = self.controller_home / ".ssh"
        dot_ssh.mkdir(parents=True, mode=0o700)
        self.key = new_key(dot_ssh / "id_ed25519")
        self.known_hosts = dot_ssh / "known_hosts"
        self.ssh_config = dot_ssh / "config"
        self.ssh_config.touch(mode=0o600)
        self.network = _take_network(self.root) if self.namespaces else 0

    @property
    def env(self) -> dict[str, str]:
        """The scrubbed environment of the program under test: no agent, no language, a home of its own."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.controller_home),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
        }

    @property
    def controller_address(self) -> str:
        """Where hosts reach a server that a test runs on this machine; bind it to this, or to 0.0.0.0."""
        return f"10.77.{self.network}.1" if self.namespaces else "127.0.0.1"

    def host(
        self,
        name: str,
        *,
        shell: str = "/bin/bash",
        user: str = "dev",
        home_size: str | None = None,
        binds: Sequence[str] = (),
        boot: bool = True,
    ) -> Host:
        """A new host, booted, and known to the controller by its name.

        `home_size` ("8m") gives it a small disk; `binds` are paths below /tmp, /run or /home of this machine
        that it should see too; `user` may be "root". Only hosts made of namespaces take these and `shell`.
        """
        state = self.root / "hosts" / name
        host: NamespaceHost | PlainHost
        if self.namespaces:
            host = NamespaceHost(
                name,
                state,
                place=(self.network, 10 + len(self.hosts)),
                key=self.key,
                shell=shell,
                user=user,
                home_size=home_size,
                binds=binds,
            )
        elif home_size is not None or shell != "/bin/bash" or user != "dev":
            raise RuntimeError("home_size, shell and user need namespaces: run the tests as root on Linux")
        else:
            host = PlainHost(name, state, key=self.key)
        self.hosts[name] = host
        self._introduce(host)
        if boot:
            host.boot()
        return host

    def _introduce(self, host: Host) -> None:
        """A `Host` block and a known key, as after a first `ssh NAME`."""
        block = {
            "HostName": host.address,
            "Port": host.port,
            "User": host.user,
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.known_hosts,
        }
        with open(self.ssh_config, "a", encoding="utf-8") as file:
            file.write(f"Host {host.name}\n" + "".join(f"    {key} {value}\n" for key, value in block.items()) + "\n")
        where = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
        with open(self.known_hosts, "a", encoding="utf-8") as file:
            file.write(f"{where} {host.public_host_key}\n")
        self.known_hosts.chmod(0o600)

    def delay(self, milliseconds: float) -> bool:
        """Make every round trip to every host this much longer; False where that cannot be had."""
        delayed = [host.delay(milliseconds) for host in self.hosts.values()]
        return all(delayed)

    def close(self) -> None:
        """Nothing is left: no process, no interface, no mount, no directory."""
        for host in self.hosts.values():
            host.remove()
        self.hosts.clear()
        if self.network:
            subprocess.run(["ip", "link", "del", f"rct{self.network}"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep() -> None:
    """Take away what dead test runs left behind; what lives is left alone."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid, _, rest = left.name.removeprefix(_PREFIX).partition("-")
        if not pid.isdigit() or _started(int(pid)) == rest.partition("-")[0] or left.stat().st_uid != os.getuid():
            continue
        kill_those_of(left)
        if os.getuid() == 0 and sys.platform == "linux":
            unmount_below(left)
        with contextlib.suppress(OSError):
            network = (left / "network").read_text(encoding="ascii")
            subprocess.run(["ip", "link", "del", f"rct{network}"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(left, ignore_errors=True)


def _can_have_namespaces() -> bool:
    tools = ("ip", "unshare", "nsenter", "setpriv")
    return sys.platform == "linux" and os.getuid() == 0 and all(shutil.which(tool) for tool in tools)


def _take_network(root: Path) -> int:
    """A bridge 10.77.N.1/24 of our own. That it can be made is the lock: no two runs get the same N."""
    start = os.getpid() % 250
    for number in (1 + (start + offset) % 250 for offset in range(250)):
        bridge = f"rct{number}"
        made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, check=False)
        if made.returncode == 0:
            (root / "network").write_text(str(number), encoding="ascii")
            for command in (["addr", "add", f"10.77.{number}.1/24", "dev", bridge], ["link", "set", bridge, "up"]):
                subprocess.run(["ip", *command], check=True)
            return number
    raise RuntimeError("no network can be made: does `ip link add type bridge` work here?")


def _started(pid: int) -> str:
    """When a process started, in a form that tells two users of one pid apart; "" for none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, IndexError):
            return (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            )
        return ""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "".join(done.stdout.split())
