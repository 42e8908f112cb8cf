# ruff: noqa: ASYNC230, ASYNC240
"""Copies from and to hosts: by digests, never by clocks; whatever a host does, the archive only grows or says so."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.observed import Facts, SessionSeen, StoreFile
from reconciler.core.record import Record
from reconciler.core.spec import Host as HostSpec
from reconciler.core.transcript import FILES_LIMIT
from reconciler.errors import HostError, OperationError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.transcripts import pieces, wire
from reconciler.transcripts.archive import EMPTY, EXPORT, Archive
from reconciler.transcripts.sync import Item, Outgoing, PullResult, outgoing, pull, pull_many, stage
from reconciler.transports import Channel, Transport
from tests.e2e.fleet import Fleet
from tests.transcripts.machines import AGENT, ID, Machine, archived, kept, local_machine, ssh_machine

LINES = [b'{"n":%d,"timestamp":"2026-01-0%d"}\n' % (n, n) for n in range(1, 8)]
ONE, TWO, THREE = LINES[0], b"".join(LINES[:2]), b"".join(LINES[:3])


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    try:
        made = Fleet()
    except FileNotFoundError as missing:
        pytest.fail(str(missing))
    with made:
        made.host("gpu")
        yield made


@pytest_asyncio.fixture(params=["local", "ssh"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    """A host with an empty home."""
    if request.param == "local":
        (tmp_path / "home").mkdir()
        made = local_machine(tmp_path / "home")
    else:
        fleet: Fleet = request.getfixturevalue("fleet")
        made = ssh_machine(fleet, fleet.hosts["gpu"])
        shutil.rmtree(made.home / ".claude", ignore_errors=True)
        shutil.rmtree(made.home / "state", ignore_errors=True)
    yield made
    await made.connection.close()


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Machine]:
    """This machine, for what does not depend on the way to it."""
    (tmp_path / "home").mkdir(exist_ok=True)
    made = local_machine(tmp_path / "home")
    yield made
    await made.connection.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def archive(root: Path) -> Archive:
    return Archive(root)


async def test_a_conversation_that_grows_is_followed(machine: Machine, archive: Archive) -> None:
    for data, outcome, new in (
        (ONE, "synced", len(ONE)),
        (THREE, "synced", len(THREE) - len(ONE)),
        (THREE, "unchanged", 0),
    ):
        machine.write(data)
        result = await machine.pull(archive)
        assert (result.outcome, result.new, result.error) == (outcome, new, None)
        assert archived(archive) == data
    assert result.archived is not None
    assert result.archived.host == "h"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no newline",
        b"a\r\nb\r\n",
        b"a\r\nb\r",
        b"\x00\xff\n",
        bytes(range(256)) * 300 + b"\n",
        b"\n\n\n",
        b'{"torn":',
    ],
    ids=range(8),
)
async def test_bytes_arrive_as_they_are_up_to_the_last_newline(machine: Machine, archive: Archive, data: bytes) -> None:
    machine.write(data)
    await machine.pull(archive)
    assert archived(archive) == data[: data.rfind(b"\n") + 1]
    machine.write(data + b"\nmore\n")
    await machine.pull(archive)
    assert archived(archive) == data + b"\nmore\n"


async def test_what_did_not_change_is_not_read_at_all(here: Machine, archive: Archive) -> None:
    here.write(TWO, mtime=1e9)
    await here.pull(archive)
    seen = here.seen()
    here.path().unlink()
    await here.connection.close()
    [result] = await pull_many(Connection("h", HostSpec(), no_connection), [Item("s0", AGENT, seen)], archive)
    assert result.outcome == "unchanged"


async def no_connection(name: str, host: HostSpec) -> Transport:
    raise HostError(f"{name}: nobody may connect", code="refused")


async def test_files_beside_the_transcript_come_along(machine: Machine, archive: Archive) -> None:
    machine.write(TWO)
    beside = machine.home / f".claude/projects/-w/{ID.format(0)}/tool-results/x.txt"
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(b"no newline at all")
    machine.own(beside)
    await machine.pull(archive, 0, beside)
    assert archived(archive, 0, f"{ID.format(0)}/tool-results/x.txt") == b"no newline at all"


async def test_files_of_others_beside_it_are_not_read(machine: Machine, archive: Archive) -> None:
    machine.write(TWO)
    credentials = machine.home / ".claude/.credentials.json"
    credentials.write_text("secret")
    machine.own(credentials)
    result = await machine.pull(archive, 0, credentials)
    assert result.archived is not None
    assert list(result.archived.files) == [f"{ID.format(0)}.jsonl"]


async def test_an_archive_that_is_ahead_stays_ahead(machine: Machine, archive: Archive) -> None:
    machine.write(THREE)
    await machine.pull(archive)
    for data in (ONE, b""):
        machine.write(data)
        result = await machine.pull(archive)
        assert (result.outcome, archived(archive)) == ("archive-ahead", THREE)
    machine.path().unlink()
    assert (await machine.pull(archive)).outcome == "archive-ahead"
    assert archived(archive) == THREE


async def test_two_continuations_are_both_kept_and_shown(machine: Machine, archive: Archive, root: Path) -> None:
    machine.write(TWO)
    await machine.pull(archive)
    theirs = ONE + LINES[4]
    machine.write(theirs)
    result = await machine.pull(archive)
    assert result.outcome == "diverged"
    [fork] = result.forks
    assert (fork.host.size, fork.host.last) == (len(theirs), "2026-01-05")
    assert (fork.host.sha256, fork.archive.sha256) == (sha(theirs), sha(TWO))
    assert archived(archive) == TWO
    assert kept(root) == [theirs]
    found = archive.heads()["s0"]
    assert found.diverged
    assert sha(theirs)[:12] in result.message
    assert sha(TWO)[:12] in result.message
    # It goes on: the kept copy follows; nothing new is kept, nothing of ours changes.
    machine.write(theirs + LINES[5], mtime=1e9)
    assert (await machine.pull(archive)).outcome == "diverged"
    assert (archived(archive), kept(root)) == (TWO, [theirs + LINES[5]])
    [again] = await pull_many(Connection("h", HostSpec(), no_connection), [Item("s0", AGENT, machine.seen())], archive)
    assert again.outcome == "diverged"


async def test_a_divergence_ends_when_the_copies_are_of_one_line_again(machine: Machine, archive: Archive) -> None:
    machine.write(TWO)
    await machine.pull(archive)
    machine.write(b"other\n")
    assert (await machine.pull(archive)).outcome == "diverged"
    machine.write(THREE)
    assert (await machine.pull(archive)).outcome == "synced"
    assert archive.heads()["s0"].diverged == ""
    machine.write(b"other\n")
    await machine.pull(archive)
    machine.write(ONE)
    assert (await machine.pull(archive)).outcome == "archive-ahead"
    assert archive.heads()["s0"].diverged == ""


async def test_a_shorter_host_copy_that_differs_is_a_divergence(machine: Machine, archive: Archive, root: Path) -> None:
    machine.write(THREE)
    await machine.pull(archive)
    machine.write(LINES[3])
    assert (await machine.pull(archive)).outcome == "diverged"
    assert (archived(archive), kept(root)) == (THREE, [LINES[3]])


async def test_a_host_that_moved_on_in_one_file_and_lost_part_of_another_is_a_divergence(
    here: Machine, archive: Archive
) -> None:
    here.write(ONE)
    beside = here.home / f".claude/projects/-w/{ID.format(0)}/subagents/agent-1.jsonl"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(TWO)
    await here.pull(archive, 0, beside)
    here.write(TWO)
    beside.write_bytes(ONE)
    assert (await here.pull(archive, 0, beside)).outcome == "diverged"
    assert archived(archive) == ONE
    assert archived(archive, 0, f"{ID.format(0)}/subagents/agent-1.jsonl") == TWO


async def test_a_file_that_the_look_did_not_list_is_no_loss(here: Machine, archive: Archive) -> None:
    here.write(ONE)
    beside = here.home / f".claude/projects/-w/{ID.format(0)}/tool-results/x.txt"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(b"x")
    await here.pull(archive, 0, beside)
    here.write(TWO)
    assert (await here.pull(archive)).outcome == "synced"
    beside.unlink()
    here.write(THREE)
    assert (await here.pull(archive)).outcome == "synced"
    assert archived(archive) == THREE


async def test_another_host_with_the_same_place_size_and_time_is_still_asked(
    here: Machine, archive: Archive, tmp_path: Path
) -> None:
    here.write(TWO, mtime=1e9)
    await here.pull(archive)
    here.write(TWO.replace(b"2", b"7"), mtime=1e9)
    assert (await here.pull(archive)).outcome == "unchanged"
    elsewhere = local_machine(here.home)
    elsewhere.connection.name = "other"
    assert (await elsewhere.pull(archive)).outcome == "diverged"
    await elsewhere.connection.close()


async def test_what_was_purged_does_not_come_back(here: Machine, archive: Archive) -> None:
    here.write(TWO)
    await here.pull(archive)
    archive.purge("s0", ID.format(0))
    assert (await here.pull(archive)).outcome == "purged"
    assert archive.heads() == {}


async def test_nothing_is_concluded_where_nobody_looked(here: Machine, archive: Archive) -> None:
    here.write(TWO)
    await here.pull(archive)
    seen = SessionSeen("s0", "running", here.seen().record, 1)
    [result] = await pull_many(here.connection, [Item("s0", AGENT, seen)], archive)
    assert result.outcome == "unknown"
    nameless = SessionSeen("s0", "running", None, 1)
    [result] = await pull_many(here.connection, [Item("s0", AGENT, nameless)], archive)
    assert result.outcome == "unknown"
    assert archived(archive) == TWO


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["append", "truncate", "rewrite", "restore", "remove", "pull", "pull", "other", "stage"]),
        st.integers(0, 6),
        st.sampled_from([0.0, 1.0, 1e9, 2e9, 4e9]),
    ),
    max_size=14,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(EVENTS)
async def test_whatever_happens_the_archive_only_grows_or_says_that_it_does_not(
    events: list[tuple[str, int, float]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        host, archive, saved = local_machine(home), Archive(Path(folder, "archive")), [b""]
        for what, number, mtime in events:
            before = archived(archive)
            now = host.path().read_bytes() if host.path().exists() else b""
            match what:
                case "append":
                    host.write(now + LINES[number][: 30 - number], mtime=mtime)
                case "truncate":
                    host.write(now[: len(now) * number // 7], mtime=mtime)
                case "rewrite":
                    host.write(bytes(reversed(now)) + LINES[number], mtime=mtime)
                case "restore":
                    host.write(saved[number % len(saved)], mtime=mtime)
                case "remove":
                    host.path().unlink(missing_ok=True)
                case "stage":
                    await stage_over(host, archive, mtime)
                case _:
                    host.connection.name = "h" if what == "pull" else "other"
                    result = await host.pull(archive)
                    agrees(result, before, now, archived(archive))
                    saved.append(now)
            assert archived(archive).startswith(before)
        await host.connection.close()


def agrees(result: PullResult, before: bytes, host: bytes, after: bytes) -> None:
    """The outcome is what the bytes say; a rewrite that kept size and time may pass as unchanged, changing nothing."""
    if result.outcome == "synced":
        assert host.startswith(after)
        assert host[len(after) :].count(b"\n") == 0
    elif result.outcome == "archive-ahead":
        assert before.startswith(host)
    elif result.outcome == "diverged":
        assert not before.startswith(host)
        assert not host.startswith(before)
    else:
        assert result.outcome == "unchanged", result.error
    if result.outcome != "synced":
        assert after == before


async def stage_over(host: Machine, archive: Archive, mtime: float) -> None:
    """To-remote: the host's file itself is never touched, and what is staged is the archive's or an error."""
    found = archive.get("s0", ID.format(0))
    if found is None:
        return
    now = host.path().read_bytes() if host.path().exists() else None
    store = {f"{ID.format(0)}.jsonl": file for file in host.seen().facts.store or ()}
    files = outgoing(archive, found, store, found.files)
    ours = archived(archive)
    state = str(host.home / "state")
    try:
        [staged] = await stage(host.connection, state, "s0", files)
    except OperationError as error:
        assert error.code == "diverged"  # noqa: PT017
        assert now is not None
        assert not ours.startswith(now)
    else:
        assert Path(state, "sessions/s0/incoming/0").read_bytes() == ours
        assert (staged.sha256, staged.size) == (sha(ours), len(ours))
    assert (host.path().read_bytes() if host.path().exists() else None) == now


async def test_a_file_that_grows_while_it_is_read_gives_a_beginning_of_it(machine: Machine, archive: Archive) -> None:
    path = machine.write(ONE)
    line = b'{"x":"' + b"y" * 5000 + b'"}\n'
    stop = asyncio.Event()

    async def writer() -> None:
        with open(path, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(line)
                await asyncio.sleep(0.001)

    task = asyncio.create_task(writer())
    for _ in range(6):
        result = await machine.pull(archive)
        assert result.outcome in ("synced", "unchanged"), result.error
        ours = archived(archive)
        assert path.read_bytes().startswith(ours)
        assert ours.endswith(b"\n")
    stop.set()
    await task
    await machine.pull(archive)
    assert archived(archive) == path.read_bytes()


async def test_two_hundred_conversations_cost_one_exec_and_only_what_is_new(
    here: Machine, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = random.Random(1)
    for number in range(200):
        here.write(b'{"x":"' + b"y" * sizes.randrange(1000, 200_000) + b'"}\n', number)
    opened = await count_opens(here, monkeypatch)
    begun = time.monotonic()
    results = await here.pull_all(archive, {n: here.seen(n) for n in range(200)})
    assert {r.outcome for r in results} == {"synced"}
    assert len(opened) == 1
    for number in range(5):
        with here.path(number).open("ab") as file:
            file.write(ONE)
    results = await here.pull_all(archive, {n: here.seen(n) for n in range(200)})
    assert [r.new for r in results] == [len(ONE)] * 5 + [0] * 195
    assert len(opened) == 2
    assert len(archive.heads()) == 200
    assert time.monotonic() - begun < 20
    assert all(archived(archive, n) == here.path(n).read_bytes() for n in range(200))


async def count_opens(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each channel that is opened from now on."""
    transport = await machine.connection.transport()
    opened: list[str] = []
    real = transport.open

    async def open_counted(argv: tuple[str, ...]) -> Channel:
        opened.append(argv[0])
        return await real(argv)

    monkeypatch.setattr(transport, "open", open_counted)
    return opened


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


SHELLS = ["dash", "bash", "zsh", "busybox"]
DIGESTS = ["sha256sum", "shasum", "openssl"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("sums", DIGESTS)
async def test_any_shell_and_any_digest_tool_gives_the_same(
    tmp_path: Path, archive: Archive, root: Path, shell: str, sums: str
) -> None:
    machine = local_machine(tmp_path / "home", PATH=str(toolbox(tmp_path, shell, sums)))
    machine.write(TWO)
    await machine.pull(archive)
    machine.write(THREE)
    assert (await machine.pull(archive)).outcome == "synced"
    machine.write(ONE)
    assert (await machine.pull(archive)).outcome == "archive-ahead"
    await stage_over(machine, archive, 0.0)
    machine.write(LINES[4])
    assert (await machine.pull(archive)).outcome == "diverged"
    assert (archived(archive), kept(root)) == (THREE, [LINES[4]])
    await machine.connection.close()


def toolbox(tmp_path: Path, shell: str, sums: str) -> Path:
    """A PATH of one shell, one digest tool and POSIX utilities: busybox's own, or with the `stat` of macOS."""
    (tmp_path / "home").mkdir(exist_ok=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    found = shutil.which(shell)
    assert found, f"{shell} is missing here: scripts/install-test-deps.sh"
    (tools / "sh").symlink_to(found)
    for name in ["cat", "cut", "head", "tail", "ls", "mkdir", "mv", "rm", "sync", "tr", "wc", "printf"]:
        target = found if shell == "busybox" and name != "sync" else shutil.which(name)
        assert target
        (tools / name).symlink_to(target)
    real = shutil.which("sha256sum")
    scripts = {
        "stat": '[ "$1" = -f ] || exit 1\nexec /usr/bin/stat -c "%s %Y" "$3"\n',
        "sha256sum": f"exec {real}\n",
        "shasum": f'[ "$*" = "-a 256" ] && exec {real}\n',
        "openssl": f'[ "$*" = "dgst -sha256 -r" ] && exec {real}\n',
    }
    for name in ("stat", sums):
        (tools / name).write_text(f"#!/bin/sh\n{scripts[name]}")
        (tools / name).chmod(0o755)
    return tools


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


OPENCODE = """#!/bin/sh
[ "$1" = export ] || exit 1
echo "words for people" >&2
[ "$KEY" = 'se"cr$et' ] || exit 3
printf '{"id":"%s","directory":"%s","messages":%s}' "$2" "$(pwd)" "$(cat "$HOME/messages")"
"""


class Exporting:
    """A host with a program that exports, on the PATH of login shells only."""

    def __init__(self, machine: Machine) -> None:
        from reconciler import drivers

        self.machine = machine
        self.agent = drivers.built_in_agent("opencode")
        program = machine.home / "bin/opencode"
        program.parent.mkdir(exist_ok=True)
        program.write_text(OPENCODE)
        program.chmod(0o755)
        (machine.home / ".profile").write_text('echo noise\nPATH="$HOME/bin:$PATH"\nKEY=other\n')
        work = machine.home / "work dir"
        work.mkdir(exist_ok=True)
        for path in (program.parent, program, machine.home / ".profile", work):
            machine.own(path)
        self.messages("[1]")

    def messages(self, text: str) -> None:
        path = self.machine.home / "messages"
        path.write_text(text)
        self.machine.own(path)

    async def pull(self, archive: Archive, **changes: str) -> PullResult:
        record = Record("f", "s0", "opencode", "tmux", "d", conversation="ses_0123456789", workdir="~/work dir")
        seen = SessionSeen("s0", "running", record, 1)
        item = Item("s0", self.agent, seen, environment={"KEY": 'se"cr$et'}, shell="/bin/sh", **changes)
        [result] = await pull_many(self.machine.connection, [item], archive)
        return result


async def test_an_export_runs_in_the_sessions_own_environment_and_is_kept_whole(
    machine: Machine, archive: Archive
) -> None:
    exporting = Exporting(machine)
    assert (await exporting.pull(archive)).outcome == "synced"
    data = json.loads(b"".join(archive.read("s0", "ses_0123456789", EXPORT)))
    assert data == {"id": "ses_0123456789", "directory": f"{machine.inner}/work dir", "messages": [1]}
    assert (await exporting.pull(archive)).outcome == "unchanged"
    exporting.messages("[1,2]")
    assert (await exporting.pull(archive)).outcome == "synced"
    assert sorted(archive.heads()["s0"].files) == [EXPORT, f"{EXPORT}.1"]
    left = [p.name for p in machine.home.rglob("*") if "export" in p.name]
    assert left == []


async def test_an_export_with_less_in_it_takes_nobodys_place(machine: Machine, archive: Archive) -> None:
    exporting = Exporting(machine)
    exporting.messages("[1,2,3]")
    await exporting.pull(archive)
    exporting.messages("[]")
    for _ in range(2):
        assert (await exporting.pull(archive)).outcome == "diverged"
        assert b"[1,2,3]" in b"".join(archive.read("s0", "ses_0123456789", EXPORT))


@pytest.mark.parametrize(("text", "code"), [("[1", "sync-failed"), ("[1]'\nexit 1 #", "sync-failed")])
async def test_an_export_that_is_not_whole_is_refused(machine: Machine, archive: Archive, text: str, code: str) -> None:
    exporting = Exporting(machine)
    exporting.messages(text)
    result = await exporting.pull(archive)
    assert result.error is not None
    assert result.error.code == code
    assert archive.heads() == {}


async def test_an_agent_that_is_not_there_is_said(machine: Machine, archive: Archive) -> None:
    result = await Exporting(machine).pull(archive, command="nosuch-agent")
    assert result.error is not None
    assert result.error.code == "agent-missing"
    assert "nosuch-agent" in result.message
