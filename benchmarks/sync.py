"""G8: 200 transcripts of which 5 grew by 4 kB, at 50 ms: bytes, round trips and wall, over rsync in the same run.

Ours is a warm connection, as the program has it: one listing on a long-lived shell in place of the look, then one
exec, then the archive on disk, synced. rsync lists by itself, and starts ssh anew, or over a ControlMaster.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import time
from pathlib import Path

from benchmarks import farm, noop, peers
from benchmarks.figure import Figure, Sample, against, alternately, least, process
from benchmarks.line import PacketLine
from reconciler import drivers
from reconciler.core.observed import Facts, SessionSeen, StoreFile
from reconciler.core.record import Record
from reconciler.core.spec import Host as HostSpec
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.sync import Item, pull_many
from reconciler.transports import Channel

FILES, GROWN, NEW, RUNS = 200, 5, 4096, 5
ROUND_TRIP = 0.05
_ID = "11111111-1111-4111-8111-{:012d}"


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

    async def close(self) -> None:
        """Shell and connection."""
        if self._shell is not None:
            await self._shell.close()
        await self.connection.close()

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
    return process(["rsync", "-az", "-e", remote, f"h0:{store.inner}/", f"{to}/"])


def measure(full: bool = False) -> list[Figure]:
    """Four figures over one line; three where its bytes cannot be counted."""
    peers.program("rsync")
    place = farm.shared(1)
    home = place.home(0) / f"sync-{secrets.token_hex(4)}"
    stores = [Store(home, str(home), name) for name in ("ours", "theirs")]
    address, port = place.line.outer(0)
    host = HostSpec(address=address, port=port)
    try:
        ours = Ours(stores[0], Archive(home / "archive"), Connection("h0", host))
        return asyncio.run(_figures(ours, stores[1], place, 3 * RUNS if full else RUNS))
    finally:
        shutil.rmtree(home)


async def _figures(ours: Ours, theirs: Store, place: farm.Farm, runs: int) -> list[Figure]:
    to, config, line = theirs.folder.parent / "copy", place.ssh_config, place.line
    await ours.sync()
    rsync(theirs, config, to)
    found: list[Figure] = []
    if isinstance(line, PacketLine):
        new, wire, again = await _bytes(ours, line)
        name = "sync: bytes on the wire over the new ones and one digest round"
        note = f"{new} bytes new; packets with their headers."
        found.append(Figure(name, wire, new + again, 1.2, note, "kB"))
    master = (f"-o ControlPath={place.root}/cs", "-o ControlMaster=auto", "-o ControlPersist=60")

    async def ours_once() -> Sample:
        ours.store.grow()
        cpu = time.process_time()
        return Sample(await ours.sync(), time.process_time() - cpu)

    async def rsync_once(*options: str) -> Sample:
        theirs.grow()
        return Sample(await asyncio.to_thread(rsync, theirs, config, to, *options))

    (near,) = await alternately((ours_once,), runs)
    with noop.delayed(line, ROUND_TRIP):
        works = (ours_once, rsync_once, lambda: rsync_once(*master))
        far, cold, warm = await alternately(works, runs)
    await asyncio.to_thread(process, ["ssh", "-F", str(config), *master, "-O", "exit", "h0"])
    await ours.close()
    trips = (least(far) - least(near)) / ROUND_TRIP
    note = f"{FILES} files, {GROWN} grew, {ROUND_TRIP * 1000:g} ms."
    walls = [one.wall for one in far]
    apart = (max(walls) - min(walls)) / 2 / ROUND_TRIP / trips
    slope = f"{note} From {least(near) * 1000:.0f} ms without a delay to {least(far) * 1000:.0f}, at the least."
    return [
        *found,
        Figure("sync: round trips", trips, 1.0, 2.0, slope, "", "G8", apart),
        against("sync over rsync -az on a ControlMaster", far, warm, 0.2, note, target="G8"),
        against("sync over rsync -az, ssh anew", far, cold, 0.5, note),
    ]


async def _bytes(ours: Ours, line: PacketLine) -> tuple[int, int, int]:
    """New bytes, bytes on the wire for them, and those of asking for the same files when nothing is new."""
    ours.store.grow(young=True)
    items = await ours.listing()
    before = line.bytes()
    new = await ours.pull(items)
    wire = line.bytes() - before
    items, before = await ours.listing(), line.bytes()
    await ours.pull(items)  # files of this very second are asked for once more
    return new, wire, line.bytes() - before
