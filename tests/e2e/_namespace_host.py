"""A host made of Linux namespaces: its own network, processes, mounts, name and boot id, and a real sshd."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.e2e._host import Host, prepare_sshd, sshd_program

UID = 1000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# PID 1 of the host. It adopts and reaps what daemonizes there, and stays when sshd is killed.
_INIT = r"""
set -e
state=$1 name=$2 home=$3 uid=$4 sshd=$5; shift 5
hostname "$name"
mount -t proc proc /proc
mkdir -p "$state/mnt/etc" "$state/mnt/home"
mount -t tmpfs -o mode=755 tmpfs "$state/mnt/etc"
cp -a /etc/. "$state/mnt/etc/"
for file in passwd group shadow machine-id hostname hosts resolv.conf; do
    cp --remove-destination "$state/$file" "$state/mnt/etc/"
done
chmod 600 "$state/mnt/etc/shadow"
mount --bind "$state/mnt/etc" /etc
mount --bind "$state/boot_id" /proc/sys/kernel/random/boot_id
mount -t tmpfs -o mode=755 tmpfs "$state/mnt/home"
mkdir -p "$state/mnt$home"
mount --bind "$state/home" "$state/mnt$home"
mkdir -p "$state/mnt/run" && mount -t tmpfs -o mode=755 tmpfs "$state/mnt/run"
mkdir -p "$state/mnt/run/sshd" "$state/mnt/run/lock" && mkdir -m 700 -p "$state/mnt/run/user/$uid"
chown "$uid" "$state/mnt/run/user/$uid"
mkdir -p "$state/mnt/run/state"
mount --bind "$state" "$state/mnt/run/state"
mkdir -p "$state/mnt/tmp" && mount -t tmpfs -o mode=1777 tmpfs "$state/mnt/tmp"
for path; do
    if [ -d "$path" ]; then mkdir -p "$state/mnt$path" 2>/dev/null || :
    else mkdir -p "$(dirname "$state/mnt$path")" && : >>"$state/mnt$path"; fi
    case $path in /tmp/* | /run/* | /home/*) mount --rbind "$path" "$state/mnt$path" ;; esac
done
mount --rbind "$state/mnt/home" /home
mount --rbind "$state/mnt/run" /run
# Last: it hides the directory that `state` lies in.
mount --rbind "$state/mnt/tmp" /tmp
cd /
ip link set lo up
while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done
. /run/state/network
"$sshd" -D -f /run/state/sshd_config -E /run/state/sshd.log </dev/null >/dev/null 2>&1 &
while :; do wait; sleep 0.2; done
"""


class NamespaceHost(Host):
    """One host; `network` is its fleet's number, `number` its own, both parts of 10.77.NETWORK.NUMBER."""

    def __init__(
        self,
        name: str,
        state: Path,
        *,
        place: tuple[int, int],
        key: Path,
        shell: str = "/bin/bash",
        user: str = "dev",
        home_size: str | None = None,
        binds: Sequence[str] = (),
    ) -> None:
        self.name, self.state, self.user, self.key = name, state, user, key
        self.network, self.number = place
        self.address, self.port = f"10.77.{self.network}.{self.number}", 22
        self.bridge, self.link = f"rct{self.network}", f"rct{self.network}-{self.number}"
        self.uid = 0 if user == "root" else UID
        self.home, self.inner_home = state / "home", f"/home/{user}"
        self._binds = tuple(binds)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._delay = 0.0
        self._prepare(shell, home_size)

    def _prepare(self, shell: str, home_size: str | None) -> None:
        self.home.mkdir(parents=True)
        self.state.chmod(0o755)
        if home_size is not None:
            _sh("mount", "-t", "tmpfs", "-o", f"size={home_size},mode=0750", "tmpfs", str(self.home))
        os.chown(self.home, self.uid, self.uid)
        prepare_sshd(
            self.state,
            self.key.with_suffix(".pub").read_text(encoding="utf-8"),
            {"HostKey": "/run/state/host_key", "AuthorizedKeysFile": "/run/state/authorized_keys"},
        )
        others = "daemon:x:1:1::/:/usr/sbin/nologin\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
        others += "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
        me = f"{self.user}:x:{self.uid}:{self.uid}::{self.inner_home}:{shell}\n"
        root = "" if self.user == "root" else "root:x:0:0::/root:/bin/bash\n"
        self._state("passwd", root + me + others)
        self._state("group", f"root:x:0:\ndaemon:x:1:\ntty:x:5:\n{self.user}:x:{UID}:\nnogroup:x:65534:\n")
        # "*" is no password and not "locked": sshd lets keys in.
        self._state("shadow", "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in (root + me).split()))
        self._state("init", _INIT)
        self._state("machine-id", uuid.uuid4().hex + "\n")
        self._state("hostname", self.name + "\n")
        self._state("hosts", f"127.0.0.1 localhost {self.name}\n10.77.{self.network}.1 controller\n")
        # Nobody answers there, so a look-up of a name fails at once instead of timing out.
        self._state("resolv.conf", "nameserver 127.0.0.1\n")
        gateway = f"ip route add default via 10.77.{self.network}.1"
        self._state("network", f"ip addr add {self.address}/24 dev eth0\nip link set eth0 up\n{gateway}\n")

    def _state(self, name: str, text: str) -> None:
        (self.state / name).write_text(text, encoding="utf-8")

    def boot(self) -> None:
        """Start it; returns when sshd answers. Its boot id is a new one."""
        if self._supervisor is not None:
            raise RuntimeError(f"{self.name} is already running")
        self._state("boot_id", f"{uuid.uuid4()}\n")
        # Dies with the thread that started it, and its PID 1 with it: nothing outlives a killed test run.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--kill-child=KILL", "--fork"]
        command += ["--net", "--pid", "--mount", "--uts", "--ipc", "--propagation", "private"]
        command += ["sh", str(self.state / "init"), str(self.state), self.name, self.inner_home, str(self.uid)]
        with open(self.state / "boot.log", "ab") as log:
            self._supervisor = subprocess.Popen(
                [*command, sshd_program(), *self._binds],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": _PATH, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        self._init = _child_of(self._supervisor)
        self._plug_in()
        self.wait_for_sshd()

    def _plug_in(self) -> None:
        mac = f"02:77:00:00:{self.network:02x}:{self.number:02x}"
        _sh("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(self._init))
        self._nsenter("ip", "link", "set", "eth0", "address", mac)
        _sh("ip", "link", "set", self.link, "master", self.bridge, "up")
        # With a fixed neighbour a silent host is silent, not "no route" after three seconds of ARP.
        _sh("ip", "neigh", "replace", self.address, "lladdr", mac, "dev", self.bridge, "nud", "permanent")
        if self._delay:
            self.delay(self._delay)

    def power_cut(self) -> None:
        """All its processes vanish at once; connections to it just go silent."""
        if self._supervisor is None:
            return
        # The cable first: else the dying kernel would say goodbye to its peers.
        subprocess.run(["ip", "link", "del", self.link], check=False, stderr=subprocess.DEVNULL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        # It reaps PID 1 and ends with it.
        self._supervisor.wait()
        self._supervisor = None

    def remove(self) -> None:
        """Power cut, and nothing is left of it but its directory."""
        self.power_cut()
        unmount_below(self.state)
        subprocess.run(["ip", "neigh", "del", self.address, "dev", self.bridge], check=False, stderr=subprocess.DEVNULL)

    def cable_out(self) -> None:
        """Nothing gets to it and nothing comes from it; it runs on."""
        _sh("ip", "link", "set", self.link, "down")

    def cable_in(self) -> None:
        """Undo `cable_out`."""
        _sh("ip", "link", "set", self.link, "up")

    def delay(self, milliseconds: float) -> bool:
        """Make every round trip this much longer; False where the kernel has no netem."""
        command = ["tc", "qdisc", "replace", "dev", self.link, "root", "netem", "delay", f"{milliseconds:g}ms"]
        if shutil.which("tc") is None or subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            return False
        self._delay = milliseconds
        return True

    def exec(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a program inside as its user, in the home, not by way of SSH."""
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        scrubbed = ["env", "-i", "-C", self.inner_home, f"HOME={self.inner_home}", f"USER={self.user}"]
        command = [*become, *scrubbed, f"PATH={_PATH}", "LANG=C.UTF-8", *argv]
        return subprocess.run(
            self._enter(*command), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    def _enter(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self._init), "--all", "--", *argv]

    def _nsenter(self, *argv: str) -> None:
        _sh("nsenter", "--target", str(self._init), "--net", "--", *argv)

    def outside(self, path: str) -> Path:
        """Where the test finds a path of the host; other places than the home only while it runs."""
        inside = os.path.join(self.inner_home, path.removeprefix("~/"))
        if inside == self.inner_home or inside.startswith(self.inner_home + "/"):
            return self.home / inside[len(self.inner_home) + 1 :]
        return Path(f"/proc/{self._init}/root{inside}")

    def own(self, path: Path) -> None:
        """Give a file to the user of the host."""
        os.chown(path, self.uid, self.uid)

    def _pids(self) -> list[int]:
        """Pids as seen from the test."""
        space = os.readlink(f"/proc/{self._init}/ns/pid")
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == space:
                    found.append(int(entry))
        return found

    def processes(self) -> list[tuple[int, list[str]]]:
        """(pid as seen inside, argv) of everything that runs there; not its PID 1, not the dead."""
        found = []
        for pid in self._pids():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                inside = int(status.split("NSpid:")[1].splitlines()[0].split()[-1])
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if argv != [b""] and inside != 1:
                    found.append((inside, [arg.decode("utf-8", "replace") for arg in argv]))
        return sorted(found)

    def freeze(self) -> None:
        """The machine hangs: its kernel still takes connections, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals, wanted: Callable[[list[str]], bool]) -> int:
        """Send a signal to each process there whose argv is wanted, not to its PID 1; how many there were."""
        found = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace").split("\0")
                if pid != self._init and wanted(argv):
                    os.kill(pid, number)
                    found += 1
        return found

    def _signal(self, number: signal.Signals) -> None:
        done: set[int] = set()
        while todo := set(self._pids()) - done:
            for pid in todo:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            done |= todo


def unmount_below(root: Path) -> None:
    """Take away every mount at or below `root`, innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for mount in reversed(mounts):
        if mount == str(root) or mount.startswith(f"{root}/"):
            subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)


def _child_of(process: subprocess.Popen[bytes]) -> int:
    """PID 1 of the new namespace as seen from here, once it is in its own namespaces."""
    end = time.monotonic() + 5.0
    while time.monotonic() < end and process.poll() is None:
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                stat = Path(f"/proc/{int(entry)}/stat").read_text(encoding="utf-8", errors="replace")
                if int(stat.rpartition(")")[2].split()[1]) == process.pid:
                    return int(entry)
        time.sleep(0.005)
    raise RuntimeError("the host's namespaces could not be made; are namespaces allowed here?")


def _sh(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
