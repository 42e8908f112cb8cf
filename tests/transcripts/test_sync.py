# ruff: noqa: ASYNC230, ASYNC240
"""Copies from hosts: by digests, never by clocks; whatever a host does, the archive only grows or says so."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.observed import SessionSeen
from reconciler.core.spec import Host as HostSpec
from reconciler.errors import OperationError
from reconciler.hosts import Connection
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.sync import Item, PullResult, outgoing, pull_many, stage
from reconciler.transports import Channel
from tests.transcripts.machines import (
    AGENT,
    ID,
    LINES,
    ONE,
    THREE,
    TWO,
    Machine,
    archived,
    kept,
    local_machine,
    no_connection,
    sha,
)


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


async def test_two_hundred_conversations_cost_one_shell_and_only_what_is_new(
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
    assert len(opened) == 1
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
    # Each of them tells what proves that a file has grown; what is asked for with more care needs `head`.
    head = (tmp_path / "tools/head").readlink()
    (tmp_path / "tools/head").unlink()
    assert (await machine.pull(archive)).outcome == "synced"
    (tmp_path / "tools/head").symlink_to(head)
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
    for name in ["cat", "cut", "date", "dd", "head", "tail", "ls", "mkdir", "mv", "rm", "sync", "tr", "wc", "printf"]:
        target = found if shell == "busybox" and name != "sync" else shutil.which(name)
        assert target
        (tools / name).symlink_to(target)
    real = shutil.which("sha256sum")
    scripts = {
        "stat": '[ "$1" = -f ] || exit 1\nshift 2\nexec /usr/bin/stat -c "%s %Y" "$@"\n',
        "sha256sum": f'exec {real} "$@"\n',
        "shasum": f'[ "$1 $2" = "-a 256" ] && shift 2 && exec {real} "$@"\n',
        "openssl": f'[ "$1 $2 $3" = "dgst -sha256 -r" ] && shift 3 && exec {real} "$@"\n',
    }
    for name in ("stat", sums):
        (tools / name).write_text(f"#!/bin/sh\n{scripts[name]}")
        (tools / name).chmod(0o755)
    return tools
