"""Hosts that lie, stream for ever, fall silent, or hold what is no plain file: a named error, and nothing changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from reconciler.core.observed import Facts, SessionSeen, StoreFile
from reconciler.core.spec import Host as HostSpec
from reconciler.core.transcript import FILES_LIMIT
from reconciler.errors import OperationError
from reconciler.hosts import Connection
from reconciler.transcripts import pieces, wire
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.sync import Item, pull, pull_many
from reconciler.transports import Transport
from tests.transcripts.machines import (
    AGENT,
    ID,
    ONE,
    TWO,
    Machine,
    archived,
    local_machine,
    no_connection,
)

NAMES = ["a b", "q'uote", 'q"', "$(touch pwned)", "`id`", "-rf", "semi;colon", "back\\slash", "ünï", "*", "~", "#x"]


@pytest.mark.parametrize("folder", NAMES)
async def test_any_folder_name_on_a_host_is_only_a_name(machine: Machine, archive: Archive, folder: str) -> None:
    path = machine.path(0, folder)
    path.parent.mkdir(parents=True)
    path.write_bytes(TWO)
    machine.own(path)
    stat = path.stat()
    inner = f"{machine.inner}/{path.relative_to(machine.home)}"
    record = machine.seen().record
    seen = SessionSeen("s0", "running", record, 1, facts=Facts(store=(StoreFile(inner, stat.st_size, 1.0),)))
    result = await pull(machine.connection, AGENT, "s0", seen, archive)
    assert (result.outcome, archived(archive)) == ("synced", TWO)
    assert not list(machine.home.rglob("pwned"))


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "socket", "dangling"])
async def test_what_is_no_plain_file_is_refused(machine: Machine, archive: Archive, kind: str) -> None:
    machine.write(ONE, 1)
    path = machine.write(TWO)
    seen = machine.seen()
    path.unlink()
    match kind:
        case "link":
            secret = machine.home / "secret"
            secret.write_bytes(TWO)
            path.symlink_to(secret)
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            short = Path(tempfile.mkdtemp(dir="/tmp")) / "s"
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(short))
            try:
                short.rename(path)
            except OSError:
                path.mkdir()
            shutil.rmtree(short.parent)
        case _:
            path.symlink_to("/nowhere")
    with contextlib.suppress(OSError):
        os.lchown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
    odd, fine = await machine.pull_all(archive, {0: seen, 1: machine.seen(1)})
    assert odd.error is not None
    assert (odd.outcome, odd.error.code) == ("failed", "unsafe-name")
    assert fine.outcome == "synced"
    assert archived(archive) == b""


async def test_a_file_that_may_not_be_read_is_said(machine: Machine, archive: Archive) -> None:
    path = machine.write(TWO)
    path.chmod(0)
    if machine.home == Path(machine.inner) and os.geteuid() == 0:
        pytest.skip("root reads everything")
    with pytest.raises(OperationError, match="may not be read"):
        await pull(machine.connection, AGENT, "s0", machine.seen(), archive)


async def test_ten_thousand_entries_from_a_host_are_refused(here: Machine, archive: Archive) -> None:
    base = f"{here.inner}/.claude/projects/-w/{ID.format(0)}"
    entries = tuple(StoreFile(f"{base}/tool-results/{n}.txt", 1, 1.0) for n in range(10_000))
    seen = SessionSeen("s0", "running", here.seen().record, 1, facts=Facts(store=entries))
    [result] = await pull_many(here.connection, [Item("s0", AGENT, seen)], archive)
    assert result.error is not None
    assert result.error.code == "too-large"
    assert str(FILES_LIMIT) in result.message


async def test_a_file_beyond_the_limit_is_refused_and_costs_nothing(here: Machine, archive: Archive) -> None:
    here.write(ONE)
    os.truncate(here.path(), pieces.FILE_LIMIT + 1)
    [result] = await here.pull_all(archive, {0: here.seen()})
    assert result.error is not None
    assert result.error.code == "too-large"


class Liar:
    """A host that answers as a test wants; `{nonce}` in it is the nonce of the request."""

    def __init__(self, *answer: bytes, endless: bytes = b"") -> None:
        self.answer = answer
        self.endless = endless
        self.given = 0

    async def open(self, argv: tuple[str, ...]) -> Liar:
        del argv
        self.left = list(self.answer)
        return self

    async def write(self, data: bytes) -> None:
        found = re.search(rb"NONCE=([0-9a-f]+)", data)
        if found:
            self.left = [piece.replace(b"{nonce}", found[1]) for piece in self.left]

    async def read(self, limit: int = 65536) -> bytes:
        del limit
        await asyncio.sleep(0)
        data = self.left.pop(0) if self.left else self.endless
        self.given += len(data)
        return data

    async def close(self) -> None:
        pass


LIES = [
    b"",
    b"{nonce}\tbegin\n",
    b"{nonce}\tbegin\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t5\t1\t-\nabc",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t3\t1\t-\nabc{nonce}\t1\tsame\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t3\t1\t-\nabc\n{nonce}\t0\tsame\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t9\t3\t1\t-\n{nonce}\t0\tsame\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t1\t3\t1\t-\nab{nonce}\t0\tsame\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tother\t1\t3\t1\t-\nab{nonce}\t0\tsame\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t-3\t1\t-\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t99999999999999999\t1\t-\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t\xd9\xa3\t1\t-\n",
    b"{nonce}\tbegin\n{nonce}\t7\tahead\t0\t3\t1\t-\nabc{nonce}\t7\tsame\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t3\t1\t-\nab\n{nonce}\t0\tchanged\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\t\x1b[2J\t0\t3\t1\t\x1b[31m\n{nonce}\tend\n",
    b"{nonce}\tbegin\n" + b"x" * 100_000,
    b"x" * 100_000,
    b"deadbeef\tbegin\n",
]


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
async def test_an_answer_that_does_not_fit_changes_nothing_and_is_a_named_error(
    here: Machine, archive: Archive, lie: bytes
) -> None:
    liar = Liar(lie)
    here.write(TWO)
    [result] = await pull_many(lying(liar), [Item("s0", AGENT, here.seen())], archive)
    assert result.error is not None, result
    assert result.error.code in ("sync-failed", "too-large")
    assert "\x1b" not in result.message
    assert archive.heads() == {}


def lying(liar: Liar) -> Connection:
    async def connect(name: str, host: HostSpec) -> Transport:
        del name, host
        return liar  # type: ignore[return-value]

    return Connection("h", HostSpec(), connect)


@pytest.mark.parametrize(
    "begin", [b"", b"{nonce}\tbegin\n", b"{nonce}\tbegin\n{nonce}\t0\tahead\t0\t4096\t1\t-\n"], ids=range(3)
)
async def test_a_host_that_streams_for_ever_is_cut_off(here: Machine, archive: Archive, begin: bytes) -> None:
    liar = Liar(begin, endless=b"z" * 4096) if begin else Liar(endless=b"z" * 4096)
    here.write(TWO)
    [result] = await pull_many(lying(liar), [Item("s0", AGENT, here.seen())], archive)
    assert result.error is not None
    assert liar.given < 300_000


async def test_a_host_that_falls_silent_is_given_up(
    here: Machine, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE", 0.2)

    class Silent(Liar):
        async def read(self, limit: int = 65536) -> bytes:
            await asyncio.sleep(3600)
            return b""

    here.write(TWO)
    [result] = await pull_many(lying(Silent()), [Item("s0", AGENT, here.seen())], archive)
    assert result.error is not None
    assert result.error.code == "timed-out"


async def test_one_broken_answer_does_not_take_the_others_along(here: Machine, archive: Archive) -> None:
    """The middle file shrinks between its announcement and its bytes, as seen by a `head` that says less."""
    tools = here.home / "bin"
    tools.mkdir()
    real = shutil.which("head")
    (tools / "head").write_text(f'#!/bin/sh\n[ "$2" = 7 ] && exec {real} -c 3\nexec {real} "$@"\n')
    (tools / "head").chmod(0o755)
    machine = local_machine(here.home, str(tools))
    for number, data in enumerate((ONE, b"123456\n", TWO)):
        machine.write(data, number)
    results = await machine.pull_all(archive, {n: machine.seen(n) for n in range(3)})
    assert [r.outcome for r in results] == ["synced", "failed", "synced"]
    await machine.connection.close()


async def test_a_host_that_cannot_be_reached_is_an_error_of_each_session(here: Machine, archive: Archive) -> None:
    here.write(ONE)
    here.write(ONE, 1)
    items = [Item(f"s{n}", AGENT, here.seen(n)) for n in range(2)]
    results = await pull_many(Connection("h", HostSpec(), no_connection), items, archive)
    assert [r.error.code for r in results if r.error] == ["refused", "refused"]


async def test_a_full_archive_fails_the_session_and_nothing_else(here: Machine, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)], check=True)
    try:
        archive = Archive(disk / "a")
        here.write(b"x" * 400_000 + b"\n")
        here.write(ONE, 1)
        full, fine = await here.pull_all(archive, {0: here.seen(0), 1: here.seen(1)})
        assert full.error is not None
        assert (full.error.code, fine.outcome) == ("disk-full", "synced")
        assert list(archive.heads()) == ["s1"]
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(disk)], check=True)
