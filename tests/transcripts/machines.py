"""A host whose home a test can reach, by the local transport or a real sshd, and conversations on it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from reconciler import drivers
from reconciler.core.observed import Facts, SessionSeen, StoreFile
from reconciler.core.record import Record
from reconciler.core.spec import Host as HostSpec
from reconciler.errors import HostError
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.sync import Item, PullResult, pull_many
from reconciler.transports import Transport, local, ssh
from tests.e2e.fleet import Fleet, Host

LINES = [b'{"n":%d,"timestamp":"2026-01-0%d"}\n' % (n, n) for n in range(1, 8)]
ONE, TWO, THREE = LINES[0], b"".join(LINES[:2]), b"".join(LINES[:3])
ID = "11111111-1111-4111-8111-{:012d}"
AGENT = drivers.built_in_agent("claude-code")


class Machine:
    """`home` as the test sees it, `inner` as programs there do."""

    def __init__(self, home: Path, inner: str, connection: Connection, own: Callable[[Path], None]) -> None:
        self.home = home
        self.inner = inner
        self.connection = connection
        self.own = own
        self.opened: list[int] = []

    def path(self, number: int = 0, folder: str = "-w") -> Path:
        """Where the transcript of a conversation lies."""
        return self.home / f".claude/projects/{folder}/{ID.format(number)}.jsonl"

    def write(self, data: bytes, number: int = 0, mtime: float | None = None) -> Path:
        """Its transcript, as it is from now on."""
        path = self.path(number)
        missing = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        for made in (*missing, path):
            self.own(made)
        return path

    def seen(self, number: int = 0, *more: Path) -> SessionSeen:
        """What a look says of the session: sizes and times in whole seconds."""
        found = []
        for path in (self.path(number), *more):
            if path.exists():
                stat = path.stat()
                inner = f"{self.inner}/{path.relative_to(self.home)}"
                found.append(StoreFile(inner, stat.st_size, float(int(stat.st_mtime))))
        record = Record("f", f"s{number}", "claude-code", "tmux", "d", conversation=ID.format(number))
        return SessionSeen(f"s{number}", "running", record, 1, facts=Facts(store=tuple(found)))

    async def pull(self, archive: Archive, number: int = 0, *more: Path) -> PullResult:
        """One sync of one session."""
        [result] = await self.pull_all(archive, {number: self.seen(number, *more)})
        return result

    async def pull_all(self, archive: Archive, seen: dict[int, SessionSeen]) -> list[PullResult]:
        """One sync of several."""
        return await pull_many(self.connection, [Item(f"s{n}", AGENT, s) for n, s in seen.items()], archive)


def local_machine(home: Path, path: str = "", **env: str) -> Machine:
    """This machine with another home; `path` goes before PATH."""
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]

    async def connect(name: str, _: HostSpec) -> Transport:
        return await local.connect(name, env={"HOME": str(home), "PATH": search, **env})

    return Machine(home, str(home), Connection("h", HostSpec(), connect), lambda _: None)


def ssh_machine(fleet: Fleet, host: Host) -> Machine:
    """A host of a fleet, by its sshd."""

    async def connect(name: str, _: HostSpec) -> Transport:
        options = ssh.SshOptions(host.name, ssh_config=str(fleet.ssh_config), connect_timeout=20.0)
        return await ssh.connect(name, options, env=fleet.env)

    return Machine(host.home, host.inner_home, Connection("h", HostSpec(), connect), host.own)


def archived(archive: Archive, number: int = 0, name: str = "") -> bytes:
    """What the archive holds of a conversation."""
    conversation = ID.format(number)
    if archive.get(f"s{number}", conversation) is None:
        return b""
    return b"".join(archive.read(f"s{number}", conversation, name or f"{conversation}.jsonl"))


def kept(root: Path, number: int = 0) -> list[bytes]:
    """All diverged copies that the archive keeps."""
    below = root / f"s{number}" / ID.format(number) / "diverged"
    return [path.read_bytes() for path in sorted(below.rglob("*.jsonl"))]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def no_connection(name: str, host: HostSpec) -> Transport:
    raise HostError(f"{name}: nobody may connect", code="refused")
