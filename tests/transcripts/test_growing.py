"""What comes unseen because it may have grown: it is proven here, and whatever does not fit is asked for with care."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import shells
from reconciler.errors import HostError
from reconciler.shells import KeptShell
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.sync import Item, pull_many
from reconciler.transports import Transport
from tests.transcripts.machines import AGENT, LINES, ONE, THREE, TWO, Machine, archived, kept, local_machine
from tests.transcripts.test_hostile import Liar, lying

NEWS = TWO[len(ONE) :]
RIGHT = hashlib.sha256(TWO).hexdigest().encode()
HEAD = b"{nonce}\tbegin\n{nonce}\t0\tgrown\t%d\t%d\t1\t-\n" % (len(ONE), len(TWO))
END = b"{nonce}\tsums\n{nonce}\tend\n"
LIES = [
    b"{nonce}\tbegin\n{nonce}\tsums\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tagain\t0\t0\t0\t-\n" + END,
    HEAD + NEWS + END,
    HEAD + NEWS + b"{nonce}\tsum\t" + b"0" * 64 + b"\n" + END,
    HEAD + NEWS.upper() + b"{nonce}\tsum\t" + RIGHT + b"\n" + END,
    HEAD + NEWS[:-4] + b"{nonce}\tsum\t" + RIGHT + b"\n" + END,
    HEAD + NEWS + b"{nonce}\tsum\t" + RIGHT + b"\n{nonce}\tsum\t" + RIGHT + b"\n" + END,
    HEAD.replace(b"\t0\tgrown", b"\t1\tgrown") + NEWS + b"{nonce}\tsum\t" + RIGHT + b"\n" + END,
    HEAD.replace(b"grown", b"ahead") + NEWS + b"{nonce}\t0\tsame\n{nonce}\tend\n",
    b"{nonce}\tbegin\n{nonce}\t0\tgrown\t0\t%d\t1\t-\n" % len(TWO) + TWO + b"{nonce}\tsum\t" + RIGHT + b"\n" + END,
    b"{nonce}\tbegin\n{nonce}\t0\tgrown\t%d\t%d\t1\t-\n" % (len(ONE), 1 << 40),
    b"{nonce}\tbegin\n" + b"x" * 100_000,
    b"",
]


async def grown(here: Machine, archive: Archive) -> Item:
    """A conversation of which the archive has the first of two lines."""
    here.write(ONE)
    await here.pull(archive)
    here.write(TWO)
    return Item("s0", AGENT, here.seen())


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
async def test_what_does_not_prove_that_a_file_has_grown_changes_nothing(
    here: Machine, archive: Archive, lie: bytes
) -> None:
    item = await grown(here, archive)
    [result] = await pull_many(lying(Liar(lie)), [item], archive)
    assert result.error is not None, result
    assert result.error.code in ("sync-failed", "too-large")
    assert archived(archive) == ONE


async def test_what_is_proven_is_taken(here: Machine, archive: Archive) -> None:
    item = await grown(here, archive)
    true = HEAD + NEWS + b"{nonce}\tsum\t" + RIGHT + b"\n" + END
    [result] = await pull_many(lying(Liar(true)), [item], archive)
    assert (result.outcome, result.new, archived(archive)) == ("synced", len(NEWS), TWO)


async def test_one_that_was_rewritten_does_not_slow_down_or_spoil_the_others(
    machine: Machine, archive: Archive, root: Path
) -> None:
    for number in range(4):
        machine.write(ONE, number)
    await machine.pull_all(archive, {n: machine.seen(n) for n in range(4)})
    theirs = LINES[4] + LINES[5]
    for number, data in enumerate((TWO, theirs, TWO, ONE)):
        machine.write(data, number)
    machine.path(2).unlink()
    seen = {n: machine.seen(n) for n in (0, 1, 3)}
    results = await machine.pull_all(archive, seen)
    assert [result.outcome for result in results] == ["synced", "diverged", "unchanged"]
    assert (archived(archive, 0), archived(archive, 1), kept(root, 1)) == (TWO, ONE, [theirs])


@pytest.mark.parametrize("kind", ["gone", "link", "fifo", "shorter"])
async def test_what_is_no_plain_longer_file_any_more_is_asked_for_with_care(
    machine: Machine, archive: Archive, kind: str
) -> None:
    for number in range(2):
        machine.write(TWO, number)
    await machine.pull_all(archive, {n: machine.seen(n) for n in range(2)})
    for number in range(2):
        machine.write(THREE, number)
    seen = {n: machine.seen(n) for n in range(2)}
    path = machine.path(0)
    path.unlink()
    if kind == "link":
        path.symlink_to(machine.path(1))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "shorter":
        machine.write(ONE)
    first, second = await machine.pull_all(archive, seen)
    assert first.outcome == {"gone": "unchanged", "shorter": "archive-ahead"}.get(kind, "failed")
    assert (second.outcome, archived(archive, 0), archived(archive, 1)) == ("synced", TWO, THREE)


async def test_a_file_that_grows_between_its_bytes_and_its_digest_comes_whole(tmp_path: Path) -> None:
    """A `sha256sum` that comes late, by a line that a running agent has written meanwhile."""
    tools, home = tmp_path / "tools", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    machine, archive = local_machine(home, str(tools)), Archive(tmp_path / "archive")
    machine.write(ONE)
    await machine.pull(archive)
    machine.write(TWO)
    real = shutil.which("sha256sum")
    late = f'[ $# = 1 ] && [ ! -e {tools}/once ] && : >{tools}/once && sleep 0.3 && cat {tools}/line >>"$1"'
    (tools / "line").write_bytes(LINES[2])
    (tools / "sha256sum").write_text(f'#!/bin/sh\n{late}\nexec {real} "$@"\n', "utf-8")
    (tools / "sha256sum").chmod(0o755)
    assert (await machine.pull(archive)).outcome == "synced"
    assert archived(archive) == THREE
    await machine.connection.close()


async def test_a_kept_shell_that_ended_is_replaced_unseen(here: Machine, archive: Archive) -> None:
    item = await grown(here, archive)
    [pid] = child_shells()
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    [result] = await pull_many(here.connection, [item], archive)
    assert (result.outcome, archived(archive)) == ("synced", TWO)


def child_shells() -> list[int]:
    """Each plain `sh` that this process started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and (process / "cmdline").read_bytes() == b"sh\0":
                found.append(int(process.name))
    return found


class Shells:
    """A transport that opens shells that do nothing."""

    def __init__(self) -> None:
        self.opened: list[Shells.Shell] = []

    class Shell:
        def __init__(self) -> None:
            self.closed = False

        async def close(self) -> None:
            self.closed = True

    async def open(self, argv: tuple[str, ...]) -> Shell:
        self.opened.append(Shells.Shell())
        return self.opened[-1]

    @property
    def left(self) -> list[int]:
        return [number for number, shell in enumerate(self.opened) if not shell.closed]


async def lend(kept: KeptShell, transport: Shells, *, whole: bool = True, do: Callable[[], object] = int) -> bool:
    """One exchange; whether the shell was new."""
    async with kept.lent(as_transport(transport)) as shell:
        do()
        shell.whole = whole
        return shell.new


def as_transport(transport: Shells) -> Transport:
    return transport  # type: ignore[return-value]


async def test_a_shell_is_kept_after_a_whole_answer_only() -> None:
    kept_shell, transport = KeptShell(), Shells()
    assert [await lend(kept_shell, transport) for _ in range(3)] == [True, False, False]
    await lend(kept_shell, transport, whole=False)
    assert transport.left == []
    with pytest.raises(HostError):
        async with kept_shell.lent(as_transport(transport)) as shell:
            raise HostError("h: gone", code="dropped")
    assert (shell.new, transport.left) == (True, [])
    await kept_shell.drop()


async def test_who_finds_it_in_use_gets_another_and_one_is_kept() -> None:
    kept_shell, transport = KeptShell(), Shells()
    async with kept_shell.lent(as_transport(transport)) as first:
        assert await lend(kept_shell, transport)
        first.whole = True
    assert transport.left == [1]
    await kept_shell.drop()
    assert transport.left == []


async def test_it_gives_way_for_as_long_as_the_connection_lives() -> None:
    kept_shell, transport = KeptShell(), Shells()
    assert not await kept_shell.give_way()
    await kept_shell.drop()
    await lend(kept_shell, transport)
    assert await kept_shell.give_way()
    assert [await lend(kept_shell, transport) for _ in range(2)] == [True, True]
    assert transport.left == []


async def test_what_an_earlier_connection_opened_is_not_kept() -> None:
    kept_shell, transport = KeptShell(), Shells()
    async with kept_shell.lent(as_transport(transport)) as shell:
        await kept_shell.drop()
        shell.whole = True
    assert transport.left == []


async def test_a_shell_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "KEPT", 0.01)
    kept_shell, transport = KeptShell(), Shells()
    await lend(kept_shell, transport)
    await asyncio.sleep(0.1)
    assert transport.left == []
    assert await lend(kept_shell, transport)
    await kept_shell.drop()
