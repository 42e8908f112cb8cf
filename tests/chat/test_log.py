"""The log on disk: one writer, whole entries or none, in any crash, on a full disk; and what lies in the folder."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.chat import log
from reconciler.chat.entries import LINE_LIMIT, Entry
from reconciler.chat.log import MESSAGE_LIMIT, Log, read, received, replace_file, send, state
from reconciler.errors import LeaseHeldError, OperationError


def said(text: str) -> Entry:
    return Entry(0, "user", "ann", text=text)


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Log]:
    opened = Log(tmp_path)
    yield opened
    with contextlib.suppress(OSError):
        opened.close()


def content(folder: Path) -> bytes:
    return (folder / log.LOG).read_bytes()


def test_entries_are_numbered_and_read_again(tmp_path: Path, chat: Log) -> None:
    first, second = chat.append(said("one\n"), 1.23456), chat.append(said("zwei ü"), 2)
    assert (first.seq, first.at, second.seq) == (1, 1.235, 2)
    assert read(tmp_path) == [first, second] == chat.entries
    chat.close()
    again = Log(tmp_path)
    assert again.entries == [first, second]
    assert again.append(said("three"), 3).seq == 3
    again.close()
    assert (tmp_path / log.LOG).stat().st_mode & 0o777 == 0o600


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=30), name=st.text(st.characters(codec=None), max_size=5))
def test_what_is_known_of_an_entry_is_what_will_be_read_again(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    folder = tmp_path_factory.mktemp("log")
    opened = Log(folder)
    opened.append(Entry(0, "moderator", name, (name,), text, data={"messages": {name: text}, "n": (1, 2)}), 1)
    opened.close()
    assert read(folder) == opened.entries


@pytest.mark.parametrize("torn", [b"{", b'{"seq":2,"from', b"\x00" * 4096, "ü".encode()[:1], b"x" * 100_000])
def test_a_torn_last_line_goes(tmp_path: Path, chat: Log, torn: bytes) -> None:
    chat.append(said("one"), 1)
    chat.close()
    whole = content(tmp_path)
    with (tmp_path / log.LOG).open("ab") as file:
        file.write(torn)
    assert [entry.text for entry in read(tmp_path)] == ["one"]
    again = Log(tmp_path)
    assert content(tmp_path) == whole
    again.append(said("two"), 2)
    again.close()
    assert [entry.text for entry in read(tmp_path)] == ["one", "two"]


def test_a_crash_at_any_byte_leaves_all_entries_before_it(tmp_path: Path, chat: Log) -> None:
    for text in ("one", "zwei ü", "three"):
        chat.append(said(text), 1)
    chat.close()
    whole = content(tmp_path)
    for size in range(len(whole) + 1):
        (tmp_path / log.LOG).write_bytes(whole[:size])
        again = Log(tmp_path)
        assert len(again.entries) == whole[:size].count(b"\n")
        again.close()


WRITER = """
import sys
from pathlib import Path
from reconciler.chat.log import Log
from reconciler.errors import LeaseHeldError
try:
    log = Log(Path(sys.argv[1]))
except LeaseHeldError as error:
    sys.exit(error.message)
print("has it", flush=True)
sys.stdin.readline()
"""


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path, chat: Log) -> None:
    argv = [sys.executable, "-c", WRITER, str(tmp_path)]
    refused = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "another process runs this chat" in refused.stderr
    chat.append(said("one"), 1)
    chat.close()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(LeaseHeldError):
            Log(tmp_path)
        other.kill()
    Log(tmp_path).close()


def test_whoever_reads_along_is_not_in_the_way(tmp_path: Path, chat: Log) -> None:
    """Ten thousand looks while entries are written: each is a beginning of the log."""
    ended = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not ended.is_set():
            seen.append(len(read(tmp_path)))

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(30):
        chat.append(said("x" * 3000 + str(number)), number)
    ended.set()
    looking.join()
    assert seen == sorted(seen)
    assert len(read(tmp_path)) == 30


BROKEN = ["nonsense", "[]", '{"seq":2,"from":"a","kind":"user"}', '{"seq":1,"from":"a","kind":"root"}', "", "\xff"]


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_log_is_named_with_its_line_and_can_be_opened_once_it_is_put_right(tmp_path: Path, line: str) -> None:
    good = Entry(1, "user", "ann").to_json().encode()
    (tmp_path / log.LOG).write_bytes(line.encode("latin-1") + b"\n" + good + b"\ntorn")
    before = content(tmp_path)
    for look in (Log, read):
        with pytest.raises(OperationError, match=r"log\.jsonl:1: ") as caught:
            look(tmp_path)
        assert (caught.value.code, bool(caught.value.remedy)) == ("log-broken", True)
    assert content(tmp_path) == before, "nothing is cut off a log that is not understood"
    (tmp_path / log.LOG).write_bytes(good + b"\n")
    Log(tmp_path).close()


def test_no_log_is_no_entries_and_no_folder_is_said(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    with pytest.raises(OperationError, match="No such file"):
        Log(tmp_path / "none")


def test_an_entry_that_no_log_can_take_is_refused_and_nothing_is_written(tmp_path: Path, chat: Log) -> None:
    chat.append(said("one"), 1)
    with pytest.raises(OperationError) as caught:
        chat.append(said("x" * LINE_LIMIT), 2)
    assert caught.value.code == "too-long"
    with pytest.raises(ValueError):
        chat.append(Entry(0, "user", "ann", usage={"cost": float("nan")}), 2)
    assert chat.append(said("two"), 2).seq == 2
    assert [entry.text for entry in read(tmp_path)] == ["one", "two"]


FULL = """
import resource, sys
from pathlib import Path
from reconciler.chat.entries import Entry
from reconciler.chat.log import Log, replace_file, send
from reconciler.errors import OperationError
folder = Path(sys.argv[1])
log = Log(folder)
log.append(Entry(0, "user", "ann", text="one"), 1)
whole = (folder / "log.jsonl").read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, resource.RLIM_INFINITY))
for attempt in (lambda: log.append(Entry(0, "user", "ann", text="x" * 1000), 2),
                lambda: replace_file(folder / "kept", "y" * 5000), lambda: send(folder, "y" * 5000, "ann")):
    try:
        attempt()
    except OperationError as error:
        print(error.code, error.retry)
    assert (folder / "log.jsonl").read_bytes() == whole
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(log.append(Entry(0, "user", "ann", text="two"), 3).seq)
"""


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("before")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("disk-full True\n" * 3 + "2\n", "")
    assert [entry.text for entry in read(tmp_path)] == ["one", "two"]
    assert (tmp_path / "kept").read_text() == "before"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inbox", "kept", "log.jsonl"]


def test_what_a_failed_write_left_behind_goes_before_the_next(tmp_path: Path, chat: Log) -> None:
    chat.append(said("one"), 1)
    with (tmp_path / log.LOG).open("ab") as file:
        file.write(b'{"seq":2,"to')
    chat.append(said("two"), 2)
    assert [entry.text for entry in read(tmp_path)] == ["one", "two"]


# -- the inbox ---------------------------------------------------------------------------------------------------------


def test_messages_come_in_the_order_of_sending(tmp_path: Path) -> None:
    sent = [send(tmp_path, f"m{number}", "ann") for number in range(20)]
    found = received(tmp_path)
    assert [identity for identity, _, _ in found] == sent == sorted(sent)
    assert [message for _, _, message in found] == [{"text": f"m{n}", "from": "ann"} for n in range(20)]
    assert (tmp_path / log.INBOX).stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for _, path, _ in found)


def test_a_clock_that_was_set_back_changes_no_order(tmp_path: Path) -> None:
    (tmp_path / log.INBOX).mkdir()
    ahead = f"{time.time_ns() + 10**15:020d}-00000000"
    (tmp_path / log.INBOX / f"{ahead}.json").write_text('{"text": "first", "from": "ann"}')
    send(tmp_path, "second", "ann")
    send(tmp_path, "third", "ann")
    assert [message["text"] for _, _, message in received(tmp_path)] == ["first", "second", "third"]


@pytest.mark.parametrize("text", ["\x01" * MESSAGE_LIMIT, "\U0001f600" * (MESSAGE_LIMIT // 4), "\ud800", "ü\n\0"])
def test_any_message_up_to_the_limit_arrives(tmp_path: Path, text: str) -> None:
    send(tmp_path, text, "ann")
    assert [message["text"] for _, _, message in received(tmp_path)] == [text]


def test_what_is_no_message_is_passed_over(tmp_path: Path) -> None:
    inbox = tmp_path / log.INBOX
    inbox.mkdir()
    hostile: dict[str, bytes] = {
        "1-torn.json": b'{"text": "x', "2-list.json": b"[]", "3-none.json": b"", "4-bytes.json": b"\xff\xfe",
        "5-deep.json": b"[" * 100_000, "6-number.json": b'{"text": 3}', "7-big.json": b" " * (8 * MESSAGE_LIMIT),
        "8-from.json": b'{"text": "x", "from": ["y"]}', "9-more.txt": b'{"text": "x"}', ".10-x.json.ab": b"{}",
        "x-name.json": b'{"text": "x"}',
    }  # fmt: skip
    for name, raw in hostile.items():
        (inbox / name).write_bytes(raw)
    (inbox / "11-directory.json").mkdir()
    (inbox / "12-nowhere.json").symlink_to(tmp_path / "none")
    (inbox / "13-endless.json").symlink_to("/dev/zero")
    os.mkfifo(inbox / "14-pipe.json")
    (inbox / "15-closed.json").write_text('{"text": "x"}')
    (inbox / "16-good.json").write_text('{"text": "good"}')
    found = [message["text"] for _, _, message in received(tmp_path)]
    assert found == ["x", "good"]
    assert received(tmp_path / "none") == []


def test_an_inbox_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / log.INBOX).write_text("")
    with pytest.raises(OperationError):
        send(tmp_path, "x", "ann")
    assert received(tmp_path) == []


def test_the_state_is_what_was_written_last_or_nothing(tmp_path: Path) -> None:
    assert state(tmp_path) == {}
    replace_file(tmp_path / log.STATE, json.dumps({"pid": 3}))
    assert state(tmp_path) == {"pid": 3}
    for text in ("[]", "{", "[" * 100_000, ""):
        (tmp_path / log.STATE).write_text(text)
        assert state(tmp_path) == {}
    (tmp_path / log.STATE).unlink()
    os.mkfifo(tmp_path / log.STATE)
    assert state(tmp_path) == {}


def test_this_machine_can_play_a_full_disk() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
