"""200 transcripts of which 5 grew by 4 kB, over ssh at 50 ms: bytes, round trips and wall, over rsync in the same run.

Ours is a warm connection, as the program has it: one listing on a long-lived shell in place of the look, then one
exec, then the archive on disk, synced. rsync lists by itself, and starts ssh anew, or over a ControlMaster.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.delay import Relay
from benchmarks.figure import Figure, process
from reconciler import drivers
from reconciler.core.observed import Facts, SessionSeen, StoreFile
from reconciler.core.record import Record
from reconciler.core.spec import Host as HostSpec
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.sync import Item, pull_many
from reconciler.transports import Channel, Transport, ssh
from tests.e2e.fleet import Fleet

FILES, GROWN, NEW, RUNS = 200, 5, 4096, 5
ROUND_TRIP = 0.05
_ID = "11111111-1111-4111-8111-{:012d}"


class Amount(Figure):
    """A figure in bytes."""

    def __str__(self) -> str:
        verdict = "ok" if self.ratio <= self.gate else "MISSED"
        return (
            f"{self.name}: {self.ratio:.2f}x (gate {self.gate:g}x, {verdict}); "
            f"ours {self.ours:.0f} bytes, floor {self.floor:.0f} bytes. {self.note}"
        )


class Store:
    """Transcripts on the host, for one of the two."""

    def __init__(self, home: Path, inner: str, name: str) -> None:
        self.folder = home / name / "projects/-w"
        self.inner = f"{inner}/{name}/projects/-w"
        self.folder.mkdir(parents=True)
        self._random = random.Random(1)
        for number in range(FILES):
            line = b'{"x":"' + b"y" * int(20_000 * 200 ** self._random.random()) + b'"}\n'
            path = self.folder / f"{_ID.format(number)}.jsonl"
            path.write_bytes(line)
            os.utime(path, (1e9, 1e9))

    def grow(self, *, young: bool = False) -> None:
        """Five of them get four kilobytes that do not compress to nothing, some seconds ago.

        What changed within the very second of a sync is asked for once more; that is measured as bytes only.
        """
        for number in self._random.sample(range(FILES), GROWN):
            path = self.folder / f"{_ID.format(number)}.jsonl"
            with path.open("ab") as file:
                file.write(b'{"x":"' + secrets.token_hex(NEW // 2 - 5).encode() + b'"}\n\n')
            if not young:
                then = time.time() - 5
                os.utime(path, (then, then))


class Ours:
    """The program's side: a warm connection and a long-lived shell."""

    def __init__(self, store: Store, archive: Archive, connection: Connection) -> None:
        self.store, self.archive, self.connection = store, archive, connection
        self._agent = drivers.built_in_agent("claude-code")
        self._shell: Channel | None = None

    async def sync(self) -> float:
        """One listing, one pull; the seconds of both."""
        begun = time.perf_counter()
        await self.pull(await self.listing())
        return time.perf_counter() - begun

    async def listing(self) -> list[Item]:
        if self._shell is None:
            self._shell = await (await self.connection.transport()).open(("sh",))
        await self._shell.write(f"stat -c '%n %s %Y' {self.store.inner}/*; echo end\n".encode())
        text = b""
        while not text.endswith(b"end\n"):
            text += await self._shell.read()
        return [self._item(line) for line in text.decode().splitlines()[:-1]]

    def _item(self, line: str) -> Item:
        path, size, mtime = line.split(" ")
        conversation = path.rpartition("/")[2].removesuffix(".jsonl")
        name = f"s{int(conversation[-12:])}"
        record = Record("bench", name, "claude-code", "tmux", "d", conversation=conversation)
        facts = Facts(store=(StoreFile(path, int(size), float(mtime)),))
        return Item(name, self._agent, SessionSeen(name, "running", record, 1, facts=facts))

    async def pull(self, items: list[Item]) -> int:
        """The new bytes; any failure is one of the benchmark."""
        results = await pull_many(self.connection, items, self.archive)
        failed = [result.message for result in results if result.outcome not in ("synced", "unchanged")]
        if failed:
            raise RuntimeError(failed[0])
        return sum(result.new for result in results)


def rsync(store: Store, config: Path, to: Path, *options: str) -> float:
    """One `rsync -az` of the same files."""
    remote = f"ssh -F {config} {' '.join(options)}".strip()
    return process(["rsync", "-az", "-e", remote, f"bench:{store.inner}/", f"{to}/"])


def measure() -> list[Figure]:
    """Three figures, all over the same relay."""
    if shutil.which("rsync") is None:
        raise RuntimeError("rsync is missing: apt-get install rsync")
    with Fleet(namespaces=False) as fleet:
        host = fleet.host("far")
        with Relay(host.address, host.port) as relay:
            config = fleet.root / "relayed"
            known = fleet.root / "relayed-hosts"
            known.write_text(f"[127.0.0.1]:{relay.port} {host.public_host_key}\n", encoding="utf-8")
            block = fleet.ssh_config.read_text(encoding="utf-8").replace(f"Host {host.name}", "Host bench")
            block = block.replace(f"Port {host.port}", f"Port {relay.port}")
            config.write_text(block.replace(str(fleet.known_hosts), str(known)), encoding="utf-8")

            async def connect(name: str, _: HostSpec) -> Transport:
                return await ssh.connect(name, ssh.SshOptions("bench", ssh_config=str(config)), env=fleet.env)

            stores = [Store(host.home, host.inner_home, name) for name in ("ours", "theirs")]
            ours = Ours(stores[0], Archive(fleet.root / "archive"), Connection("bench", HostSpec(), connect))
            return asyncio.run(_figures(ours, stores[1], config, relay, fleet.root))


async def _figures(ours: Ours, theirs: Store, config: Path, relay: Relay, root: Path) -> list[Figure]:
    to = root / "copy"
    await ours.sync()
    rsync(theirs, config, to)
    new, wire, again = await _bytes(ours, relay)
    near = await _median(ours.sync, ours.store.grow)
    relay.delay = ROUND_TRIP / 2
    master = (f"-o ControlPath={root}/cm", "-o ControlMaster=auto", "-o ControlPersist=60")

    async def cold() -> float:
        return await asyncio.to_thread(rsync, theirs, config, to)

    async def warm() -> float:
        return await asyncio.to_thread(rsync, theirs, config, to, *master)

    await warm()
    far = await _median(ours.sync, ours.store.grow)
    peer, peer_warm = await _median(cold, theirs.grow), await _median(warm, theirs.grow)
    await asyncio.to_thread(process, ["ssh", "-F", str(config), *master, "-O", "exit", "bench"])
    await ours.connection.close()
    trips = f"{FILES} files, {GROWN} grew; {(far - near) / ROUND_TRIP:.1f} round trips; 50 ms by a TCP relay."
    return [
        Amount("sync: bytes on the wire over the new ones and one digest round", wire, new + again, 1.2, f"{new} new."),
        Figure("sync over rsync -az, ssh anew", far, peer, 0.5, trips),
        Figure("sync over rsync -az on a ControlMaster", far, peer_warm, 0.8, trips),
    ]


async def _bytes(ours: Ours, relay: Relay) -> tuple[int, int, int]:
    """New bytes, bytes on the wire for them, and those of asking for the same files when nothing is new."""
    ours.store.grow(young=True)
    items = await ours.listing()
    before = relay.bytes
    new = await ours.pull(items)
    wire = relay.bytes - before
    items, before = await ours.listing(), relay.bytes
    await ours.pull(items)  # files of this very second are asked for once more
    return new, wire, relay.bytes - before


async def _median(work: Callable[[], Coroutine[Any, Any, float]], grow: Callable[[], None]) -> float:
    found = []
    for _ in range(RUNS):
        grow()
        found.append(await work())
    return statistics.median(found)
