"""What is staged on a host is whole and verified, and only what is missing there travels."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from reconciler.errors import OperationError, ReconcilerError
from reconciler.transcripts.archive import EMPTY
from reconciler.transcripts.sync import Outgoing, stage
from reconciler.transports import Channel
from tests.e2e.fleet import Fleet
from tests.transcripts.machines import (
    ONE,
    THREE,
    TWO,
    Machine,
    sha,
    ssh_machine,
)


def staged_file(machine: Machine, number: int = 0) -> Path:
    return machine.home / f"state/sessions/s0/incoming/{number}"


def whole(data: bytes, name: str = "main.jsonl", path: str = "", beginning: int = 0) -> Outgoing:
    digest = sha(data[:beginning]) if beginning else ""
    return Outgoing(name, len(data), sha(data), lambda offset: [data[offset:]], path, beginning, digest)


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff'$\n" * 50_000, b"no newline"], ids=len)
async def test_what_is_staged_arrives_whole(machine: Machine, data: bytes) -> None:
    files = [whole(data), whole(TWO, "two.jsonl"), whole(b"", "empty")]
    staged = await stage(machine.connection, f"{machine.inner}/state", "s0", files)
    assert [(s.number, s.sha256, s.size, s.name) for s in staged] == [
        (0, sha(data), len(data), "main.jsonl"), (1, sha(TWO), len(TWO), "two.jsonl"), (2, EMPTY, 0, "empty"),
    ]  # fmt: skip
    assert [staged_file(machine, n).read_bytes() for n in range(3)] == [data, TWO, b""]
    assert {p.name for p in staged_file(machine).parent.iterdir()} == {"0", "1", "2"}
    assert staged_file(machine).stat().st_mode & 0o777 == 0o600


async def test_only_what_comes_after_a_verified_beginning_travels(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = b"x" * 300_000 + b"\n", b"y" * 100 + b"\n"
    machine.write(old)
    inner = f"{machine.inner}/{machine.path().relative_to(machine.home)}"
    sent = await count_bytes(machine, monkeypatch)
    await stage(machine.connection, f"{machine.inner}/state", "s0", [whole(old + new, path=inner, beginning=len(old))])
    assert staged_file(machine).read_bytes() == old + new
    assert sum(sent) < 1000


async def count_bytes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    transport = await machine.connection.transport()
    sent: list[int] = []
    real = transport.open

    async def open_counted(argv: tuple[str, ...]) -> Channel:
        channel = await real(argv)
        write = channel.write

        async def write_counted(data: bytes) -> None:
            sent.append(len(data))
            await write(data)

        monkeypatch.setattr(channel, "write", write_counted)
        return channel

    monkeypatch.setattr(transport, "open", open_counted)
    return sent


async def test_a_beginning_that_is_none_is_a_divergence_and_leaves_no_trace(machine: Machine) -> None:
    machine.write(ONE)
    inner = f"{machine.inner}/{machine.path().relative_to(machine.home)}"
    with pytest.raises(OperationError) as error:
        await stage(
            machine.connection, f"{machine.inner}/state", "s0", [whole(TWO[1:], path=inner, beginning=len(ONE))]
        )
    assert error.value.code == "diverged"
    assert machine.path().read_bytes() == ONE
    assert list(staged_file(machine).parent.iterdir()) == []


async def test_a_repeat_takes_the_place_of_what_was_staged_before(machine: Machine) -> None:
    state = f"{machine.inner}/state"
    await stage(machine.connection, state, "s0", [whole(ONE), whole(TWO)])
    await stage(machine.connection, state, "s0", [whole(THREE)])
    assert staged_file(machine).read_bytes() == THREE
    assert not staged_file(machine, 1).exists()


async def test_an_archive_that_lies_about_a_file_is_found_out(here: Machine) -> None:
    liar = Outgoing("main.jsonl", 5, sha(b"hello"), lambda offset: [b"HELLO"[offset:]])
    with pytest.raises(OperationError) as error:
        await stage(here.connection, f"{here.inner}/state", "s0", [liar])
    assert error.value.code == "sync-failed"
    short = Outgoing("main.jsonl", 5, sha(b"hello"), lambda offset: [b"hel"[offset:]])
    with pytest.raises(ReconcilerError) as broken:
        await stage(here.connection, f"{here.inner}/state", "s0", [short])
    assert broken.value.code == "archive-damaged"


async def test_a_full_and_a_read_only_disk_of_a_host_are_one_clear_error(fleet: Fleet) -> None:
    host = fleet.hosts.get("small") or fleet.host("small", home_size="4m")
    machine = ssh_machine(fleet, host)
    big = b"x" * 8_000_000
    state = f"{machine.inner}/state"
    with pytest.raises(OperationError) as error:
        await stage(machine.connection, state, "s0", [whole(big)])
    assert (error.value.code, error.value.remedy != "") == ("disk-full", True)
    await stage(machine.connection, state, "s0", [whole(ONE)])
    assert staged_file(machine).read_bytes() == ONE
    await asyncio.to_thread(subprocess.run, ["chown", "-R", "0:0", str(machine.home / "state")], check=True)
    with pytest.raises(OperationError) as error:
        await stage(machine.connection, state, "s0", [whole(ONE), whole(big)])
    assert error.value.code == "disk-full"
    await machine.connection.close()
