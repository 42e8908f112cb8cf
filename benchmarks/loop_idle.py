"""What `reconciler run` costs its own machine while nothing happens: CPU for each host and look, memory for each host.

Whole programs: the controller is `reconciler run`, the hosts are machines behind one SSH server in another process
(`ssh_hosts`). Only the controller's process is measured. The floor is bare asyncssh on as many warm connections, which
sends a line to a shell on each and reads it back, as often and as evenly spread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figure import Figure, process, python
from tests.e2e._host import new_key

# Hosts, seconds between two looks, and seconds for which it is measured: whole minutes, since leases are renewed then.
SIZES = ((100, 5, 60), (500, 10, 60))
SESSIONS = 3  # on each host

# The floor: one connection and one shell for each host; exchanges at even distances, like the looks.
BARE = """
import asyncio, gc, json, resource, sys, time
import asyncssh
interval, cycles, port, known_hosts, key, hosts = sys.argv[1:]
gate = asyncio.Semaphore(64)
async def begin(name):
    async with gate:
        connection = await asyncssh.connect(
            "127.0.0.1", int(port), username=name, config=[], known_hosts=known_hosts, client_keys=[key]
        )
        shell = await connection.create_process("exec sh", encoding=None)
    await exchange(shell, 0)
    return connection, shell
async def exchange(shell, number):
    mark = b"%032x\\n" % number
    shell.stdin.write(b"echo " + mark)
    answer = b""
    while not answer.endswith(mark):
        answer += await shell.stdout.read(65536)
async def keep(shell, offset):
    await asyncio.sleep(offset)
    for number in range(int(cycles)):
        await exchange(shell, number)
        await asyncio.sleep(float(interval))
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
async def main():
    made = await asyncio.gather(*(begin(f"h{i}") for i in range(int(hosts))))
    begun = cpu()
    step = float(interval) / len(made)
    await asyncio.gather(*(keep(shell, step * number) for number, (_, shell) in enumerate(made)))
    resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    print(json.dumps([(cpu() - begun) / (len(made) * int(cycles)), resident]))
    for connection, _ in made:
        connection.abort()
asyncio.run(main())
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU for one exchange with one host, and bytes of the whole process."""

    cpu: float
    resident: int
    rate: float = 0.0  # seconds between two looks at a host, as it came out
    took: float = 0.0  # median seconds of a look


class Place:
    """A home for the controller, and the server that its hosts are behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        dot_ssh = folder / ".ssh"
        dot_ssh.mkdir(mode=0o700)
        self.key = new_key(dot_ssh / "id_ed25519")
        host_key = new_key(folder / "host_key")
        self._server = subprocess.Popen(
            python("-m", "benchmarks.ssh_hosts", str(host_key)), stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self._server.stdout is not None
        self.port = int(self._server.stdout.readline())
        self.known_hosts = dot_ssh / "known_hosts"
        public = " ".join((folder / "host_key.pub").read_text(encoding="ascii").split()[:2])
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n", encoding="ascii")
        path = os.pathsep.join(path for path in sys.path if path)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "PYTHONPATH": path}

    def specs(self, hosts: int) -> None:
        """Sessions in terminals; what they are does not matter to a look."""
        lines = ['[fleet]\nname = "bench"\n[defaults.session]\nagent = "shell"\nargs = ["sleep", "36000"]\n']
        for i in range(hosts):
            lines.append(f'[hosts.h{i}]\naddress = "127.0.0.1"\nport = {self.port}\nuser = "h{i}"\n')
            lines += [f'[sessions.s{i}-{j}]\nhost = "h{i}"\n' for j in range(SESSIONS)]
        (self.folder / "specs").mkdir()
        (self.folder / "specs/fleet.toml").write_text("\n".join(lines), encoding="utf-8")

    def close(self) -> None:
        """The server ends."""
        assert self._server.stdout is not None
        self._server.kill()
        self._server.wait()
        self._server.stdout.close()


def used(pid: int) -> float:
    """Seconds of CPU that a process has had, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of a process in memory, shared ones too."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def controller(place: Place, interval: int) -> Iterator[tuple[int, Path]]:
    """`run`; its pid, and the file in which it logs every look."""
    log = place.folder / "log"
    argv = python("-m", "reconciler", "-v", "run", "--interval", f"{interval}s")
    with log.open("wb") as errors:
        kept = subprocess.Popen(argv, cwd=place.folder, env=place.env, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            yield kept.pid, log
        finally:
            kept.terminate()
            kept.wait(120)


def looks(log: Path) -> list[float]:
    """Milliseconds of each look so far."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [float(line.split(" looked in ")[1].split(" ms")[0]) for line in lines if " looked in " in line]


def idle(place: Place, hosts: int, interval: int, seconds: int) -> Cost:
    """A fleet that runs already is taken over, and three intervals pass before it counts."""
    process(python("-m", "reconciler", "apply", "--auto-approve"), place.env, str(place.folder))
    with controller(place, interval) as (pid, log):
        while len(looks(log)) < 2 * hosts:
            time.sleep(0.5)
        time.sleep(3 * interval)
        before, cpu, at = len(looks(log)), used(pid), time.monotonic()
        time.sleep(seconds)
        cpu, passed, found = used(pid) - cpu, time.monotonic() - at, looks(log)[before:]
        size = resident(pid)
    return Cost(cpu / len(found), size, passed * hosts / len(found), sorted(found)[len(found) // 2] / 1000)


def bare(place: Place, hosts: int, interval: int, seconds: int) -> Cost:
    """The floor."""
    options = (interval, seconds // interval, place.port, place.known_hosts, place.key, hosts)
    argv = python("-c", BARE, *map(str, options))
    done = subprocess.run(argv, env=place.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return Cost(*json.loads(done.stdout))


def measure() -> list[Figure]:
    """CPU for each look and size; memory for each host from the difference of the sizes."""
    found: list[Figure] = []
    ours: list[Cost] = []
    floors: list[Cost] = []
    for hosts, interval, seconds in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder))
            try:
                place.specs(hosts)
                ours.append(idle(place, hosts, interval, seconds))
                floors.append(bare(place, hosts, interval, seconds))
            finally:
                place.close()
    for (hosts, interval, _), cost, floor in zip(SIZES, ours, floors, strict=True):
        share = 100 * cost.cpu * hosts / cost.rate
        note = (
            f"{hosts} hosts x {SESSIONS} sessions, a look every {interval} s (every {cost.rate:.1f} s as it came out; "
            f"it took {cost.took * 1000:.0f} ms): {share:.1f} % of a core; leases, plans, log included."
        )
        name = f"CPU of run for each host and look, {hosts} idle hosts, over bare asyncssh echo"
        found.append(Figure(name, cost.cpu, floor.cpu, 5.0, note))
    more = SIZES[-1][0] - SIZES[0][0]
    mine, others = (round((costs[-1].resident - costs[0].resident) / more) for costs in (ours, floors))
    sizes = ", ".join(
        f"{cost.resident / 1e6:.0f} MB at {hosts}" for (hosts, _, _), cost in zip(SIZES, ours, strict=True)
    )
    found.append(Figure("resident memory of run for each host more", mine, others, 2.0, f"In all {sizes} hosts.", "kB"))
    return found
