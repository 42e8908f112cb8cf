"""What a sync costs where 5 of 200 conversations grew: round trips, programs on the host, bytes up. All exact.

Round trips are counted as in `test_cost`; programs by a PATH on which each writes down that it ran.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.transcripts.archive import Archive
from reconciler.transports import Channel
from tests.e2e.fleet import Fleet
from tests.test_cost import counted
from tests.transcripts.machines import ONE, TWO, Machine, archived, local_machine

ALL, GROWN = 200, range(3, 200, 41)
PROGRAMS = ["date", "stat", "sha256sum", "tail", "head", "cut", "ls", "wc", "cat", "tr", "mkdir", "dd"]
OLD = 1e9  # a time that vouches for a file


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(namespaces=False) as made:
        made.host("far")
        yield made


def fill(machine: Machine, count: int = ALL) -> None:
    for number in range(count):
        machine.write(ONE, number, mtime=OLD)


def grow(machine: Machine, data: bytes = TWO, mtime: float = OLD + 1) -> None:
    for number in GROWN:
        machine.write(data, number, mtime=mtime)


async def sync(machine: Machine, archive: Archive, count: int = ALL) -> Counter[str]:
    results = await machine.pull_all(archive, {n: machine.seen(n) for n in range(count)})
    return Counter(result.outcome for result in results)


@pytest.mark.e2e
async def test_a_sync_on_a_warm_connection_takes_one_round_trip(fleet: Fleet, tmp_path: Path) -> None:
    host, archive, found = fleet.hosts["far"], Archive(tmp_path / "archive"), []
    async with counted(fleet) as (turns, connection):
        machine = Machine(host.home, host.inner_home, connection, host.own)
        fill(machine)
        await sync(machine, archive)
        for number in range(5):
            grow(machine, ONE * (number + 2), OLD + number)
            seen, before = {n: machine.seen(n) for n in range(ALL)}, turns.turns
            await machine.pull_all(archive, seen)
            found.append(turns.turns - before)
            assert all(archived(archive, n) == ONE * (number + 2) for n in GROWN)
    assert min(found) == 1


async def test_a_sync_runs_as_few_programs_as_files_have_grown(tmp_path: Path) -> None:
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    for name in PROGRAMS:
        (tools / name).write_text(f'#!/bin/sh\necho {name} >>{log}\nexec {shutil.which(name)} "$@"\n', "utf-8")
        (tools / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    machine, archive = local_machine(tmp_path / "home", str(tools)), Archive(tmp_path / "archive")
    fill(machine)
    assert await sync(machine, archive) == {"synced": ALL}
    log.write_text("")
    grow(machine)
    assert await sync(machine, archive) == {"synced": len(GROWN), "unchanged": ALL - len(GROWN)}
    assert Counter(log.read_text().split()) == {"date": 1, "stat": 1, "sha256sum": 1, "tail": len(GROWN), "dd": 1}
    log.write_text("")
    assert await sync(machine, archive) == {"unchanged": ALL}
    assert log.read_text() == ""
    await machine.connection.close()


async def test_only_what_grew_is_named_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    machine, archive = local_machine(tmp_path / "home"), Archive(tmp_path / "archive")
    fill(machine)
    await sync(machine, archive)
    transport = await machine.connection.transport()
    sent: list[bytes] = []
    real = transport.open

    async def open_heard(argv: tuple[str, ...]) -> Channel:
        channel = await real(argv)
        write = channel.write

        async def heard(data: bytes) -> None:
            sent.append(data)
            await write(data)

        monkeypatch.setattr(channel, "write", heard)
        return channel

    monkeypatch.setattr(transport, "open", open_heard)
    await machine.connection.kept.drop()
    for tail in (TWO, TWO + ONE):
        grow(machine, tail, OLD + len(tail))
        await sync(machine, archive)
    _, request = sent  # with the first one the shell was told how
    paths = [str(machine.path(n)).encode() for n in GROWN]
    assert [path in request for path in paths] == [True] * len(GROWN)
    assert request.count(b".jsonl") == len(GROWN)
    assert len(request) == 148 + sum(len(path) + len(f" {len(TWO)}") + 1 for path in paths)
    await machine.connection.close()
