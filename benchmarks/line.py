"""The line between the client and the simulated hosts: packets held back where root allows it, else a TCP relay.

with line(addresses=20) as way:
    way.delay(0.05)      # the round trip from now on, in seconds
    way.trip()           # what it takes, measured
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.figure import python

PORT, ECHO_PORT = 2222, 2223
_QUEUE = 20_000  # packets: that of an interface by default is too short for the answers of hundreds of hosts at once
_NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "--kill-child=KILL", "--fork", "--net", "--pid", "--mount",
               "--propagation", "private")  # fmt: skip
# PID 1 beyond the line: it reaps what daemonizes there.
_INIT = "mount -t proc proc /proc && ip link set lo up && echo up && while :; do wait; sleep 0.5; done"


class Line(ABC):
    """`inner` are the addresses that servers beyond the line bind to, at PORT and ECHO_PORT."""

    name: str  # as it stands in the table
    inner: list[str]

    @property
    def echoes(self) -> list[str]:
        """The addresses at which there is an echo too."""
        return self.inner

    @abstractmethod
    def outer(self, number: int, port: int = PORT) -> tuple[str, int]:
        """Where the client finds a server."""

    @abstractmethod
    def begin(self) -> None:
        """Connect both sides; servers beyond it may start before or after."""

    @abstractmethod
    def inside(self, *argv: str) -> list[str]:
        """The command line that runs a program beyond the line."""

    @abstractmethod
    def cpu(self) -> float | None:
        """Seconds of CPU that everything beyond has had; None where nobody can tell."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is left of it, nor of what runs beyond."""

    def delay(self, round_trip: float) -> None:
        """Hold everything back for half of it each way, from now on."""
        self._tell(f"{round_trip / 2}\n")

    def trip(self, runs: int = 9) -> float:
        """Median seconds of an exchange over an open TCP connection with the echo server."""
        with socket.create_connection(self.outer(0, ECHO_PORT), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found = []
            for _ in range(runs):
                begun = time.perf_counter()
                connection.sendall(b"x\n")
                connection.recv(16)
                found.append(time.perf_counter() - begun)
        return statistics.median(found)

    @abstractmethod
    def _tell(self, text: str) -> None:
        """A line to the process that delays."""


class PacketLine(Line):
    """Two TUN interfaces, one of them in namespaces of its own where the hosts are."""

    name = "every packet, by TUN interfaces"

    def __init__(self, addresses: int) -> None:
        self._init = subprocess.Popen(
            [*_NAMESPACES, "sh", "-c", _INIT],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "up\n":
            raise RuntimeError("no namespaces can be made here")
        self._pid = _child(self._init.pid)
        self._number = _free_number()
        self._near, self._far = f"rcb{self._number}", f"rcb{self._number}f"
        self.inner = [f"10.{self._number}.{1 + i // 250}.{1 + i % 250}" for i in range(addresses)]
        self._delayer = subprocess.Popen(
            python("-m", "benchmarks.packets", self._near, self._far),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._delayer.stdout is not None
        if self._delayer.stdout.readline() != "ready\n":
            raise RuntimeError("no TUN interfaces can be made here")

    def begin(self) -> None:
        """Addresses and routes."""
        prefix = f"10.{self._number}"
        _ip("link", "set", self._far, "netns", str(self._pid))
        _ip("addr", "add", f"{prefix}.0.1/32", "dev", self._near)
        _ip("link", "set", self._near, "txqueuelen", str(_QUEUE), "up")
        _ip("route", "add", f"{prefix}.0.0/16", "dev", self._near, "src", f"{prefix}.0.1")
        for words in (
            f"link set {self._far} txqueuelen {_QUEUE} up",
            f"addr add {prefix}.0.2/32 dev {self._far}",
            f"route add {prefix}.0.1/32 dev {self._far}",
            f"route add local {prefix}.0.0/17 dev lo",
        ):
            subprocess.run(self.inside("ip", *words.split()), check=True)

    def outer(self, number: int, port: int = PORT) -> tuple[str, int]:
        """The same address on both sides."""
        return self.inner[number], port

    def inside(self, *argv: str) -> list[str]:
        """Network, processes and mounts of the other side."""
        return ["nsenter", "--target", str(self._pid), "--net", "--pid", "--mount", "--", *argv]

    def cpu(self) -> float | None:
        """What lives there, and what was reaped there."""
        space, ticks = os.readlink(f"/proc/{self._pid}/ns/pid"), 0
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == space:
                    fields = Path(f"/proc/{entry}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                    ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def bytes(self) -> int:
        """Bytes of all packets so far, both ways, with their headers."""
        place = Path(f"/sys/class/net/{self._near}/statistics")
        return sum(int((place / name).read_text("ascii")) for name in ("rx_bytes", "tx_bytes"))

    def _tell(self, text: str) -> None:
        assert self._delayer.stdin is not None
        self._delayer.stdin.write(text)
        self._delayer.stdin.flush()

    def close(self) -> None:
        """PID 1 takes all others with it; interfaces go with the process that has them open."""
        for process in (self._init, self._delayer):
            process.kill()
            process.wait()
            for file in (process.stdin, process.stdout):
                if file is not None:
                    file.close()


class RelayLine(Line):
    """One loopback address for each host, and a relay in front of each."""

    name = "a TCP relay (no root, or no TUN)"

    def __init__(self, addresses: int) -> None:
        self.inner = [f"127.{100 + os.getpid() % 100}.{1 + i // 250}.{1 + i % 250}" for i in range(addresses)]
        self._outer: dict[tuple[int, int], int] = {}
        self._relay: subprocess.Popen[str] | None = None
        self._mark = tempfile.mkdtemp(prefix="reconciler-line-")

    def begin(self) -> None:
        """A port in front of every server."""
        wanted = [(number, PORT) for number in range(len(self.inner))] + [(0, ECHO_PORT)]
        targets = [f"{self.inner[number]}:{port}" for number, port in wanted]
        self._relay = subprocess.Popen(
            python("-m", "benchmarks.delay", *targets), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._relay.stdout is not None
        ports = map(int, self._relay.stdout.readline().split())
        self._outer = dict(zip(wanted, ports, strict=True))

    @property
    def echoes(self) -> list[str]:
        """One relay is as good as many."""
        return self.inner[:1]

    def outer(self, number: int, port: int = PORT) -> tuple[str, int]:
        """The port of its relay."""
        return "127.0.0.1", self._outer[number, port]

    def inside(self, *argv: str) -> list[str]:
        """The same machine; bears a mark, so that it is found at the end."""
        return ["env", f"RECONCILER_LINE={self._mark}", *argv]

    def cpu(self) -> float | None:
        """Hosts are not told apart from anything else here."""
        return None

    def _tell(self, text: str) -> None:
        assert self._relay is not None
        assert self._relay.stdin is not None
        self._relay.stdin.write(text)
        self._relay.stdin.flush()

    def close(self) -> None:
        """The relay; then what bears the mark."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            for file in (self._relay.stdin, self._relay.stdout):
                assert file is not None
                file.close()
        mark = f"RECONCILER_LINE={self._mark}".encode()
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    os.kill(int(entry), 9)
        shutil.rmtree(self._mark, ignore_errors=True)


def line(addresses: int) -> Line:
    """The better of the two that can be had here. RECONCILER_BENCH_LINE=relay asks for the other one."""
    tools = ("ip", "unshare", "nsenter", "setpriv")
    able = os.getuid() == 0 and Path("/dev/net/tun").exists() and all(shutil.which(tool) for tool in tools)
    if able and os.environ.get("RECONCILER_BENCH_LINE") != "relay":
        return PacketLine(addresses)
    return RelayLine(addresses)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _free_number() -> int:
    """A second part of 10.X.0.0/16 that no route of this machine has."""
    routes = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    routes += subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    return next(number for number in range(100 + os.getpid() % 50, 250) if f" 10.{number}." not in f" {routes}")


def _child(parent: int) -> int:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


# A line back for each line; for as many as come.
ECHO = """
import asyncio, sys
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.data_received = transport.write
async def main():
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Echo, a, int(sys.argv[1]), backlog=1000) for a in sys.argv[2:]]
    print("up", flush=True)
    await servers[0].serve_forever()
asyncio.run(main())
"""


def echo(way: Line) -> subprocess.Popen[str]:
    """The echo server beyond the line."""
    server = subprocess.Popen(
        way.inside(sys.executable, "-c", ECHO, str(ECHO_PORT), *way.echoes), stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert server.stdout is not None
    server.stdout.readline()
    return server
