"""The archive: it only grows, says what it cannot use, and is whole after any failure."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.transcript import FILES_LIMIT, safe_name
from reconciler.errors import ReconcilerError
from reconciler.transcripts.archive import EMPTY, EXPORT, KEPT_EXPORTS, Archive, Part, default_place
from reconciler.transcripts.remote import Remote
from reconciler.transcripts.storage import Folder, open_storage

NAME = "main.jsonl"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["folder", "file", "memory", "remote-file"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    """Archives in every kind of place; the last one is plain files by way of fsspec."""
    if request.param == "memory":
        return Archive(f"memory://{uuid.uuid4().hex}")
    made = Archive(f"file://{tmp_path}/a" if request.param == "file" else tmp_path / "a")
    if request.param == "remote-file":
        made.storage = Remote(f"file://{tmp_path}/a")
    return made


@pytest.fixture
def plain(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "a")


def grow(archive: Archive, tail: bytes, name: str = NAME, session: str = "s", conversation: str = "c") -> None:
    """Append to whatever is there."""
    found = archive.get(session, conversation)
    file = found.files.get(name) if found else None
    size, digest = (file.size, file.sha256) if file else (0, EMPTY)
    archive.append(session, conversation, name, size, digest, tail, agent="claude-code", host="gpu")


def content(archive: Archive, name: str = NAME) -> bytes:
    return b"".join(archive.read("s", "c", name))


def test_what_is_appended_is_read_back_and_described(archive: Archive) -> None:
    grow(archive, b'{"a":1}\n')
    grow(archive, b'{"b":2}\n')
    head = archive.heads()["s"]
    assert (head.conversation, head.agent, head.host, head.diverged) == ("c", "claude-code", "gpu", "")
    assert content(archive) == b'{"a":1}\n{"b":2}\n'
    assert (head.files[NAME].size, head.files[NAME].sha256) == (16, sha(content(archive)))
    assert b"".join(archive.read("s", "c", NAME, 9)) == b'"b":2}\n'


def test_nothing_is_archived_before_anything_was(archive: Archive) -> None:
    assert archive.heads() == {}
    assert archive.get("s", "c") is None
    assert not archive.purged("s", "c")
    with pytest.raises(ReconcilerError) as error:
        list(archive.read("s", "c", NAME))
    assert error.value.code == "not-archived"


@pytest.mark.parametrize("base", [(0, EMPTY), (3, sha(b"{}\n")[::-1]), (4, sha(b"{}\n")), (2, sha(b"{}"))])
def test_only_the_very_base_can_be_continued(archive: Archive, base: tuple[int, str]) -> None:
    grow(archive, b"{}\n")
    with pytest.raises(ReconcilerError) as error:
        archive.append("s", "c", NAME, *base, b"x\n")
    assert (error.value.code, error.value.retry) == ("sync-failed", True)
    assert content(archive) == b"{}\n"


def test_a_torn_last_line_waits_for_its_end(archive: Archive) -> None:
    grow(archive, b'{"a":1}\n{"b"')
    assert content(archive) == b'{"a":1}\n'
    grow(archive, b'{"b"')
    assert content(archive) == b'{"a":1}\n'
    grow(archive, b'{"b":2}\r\n{"c')
    assert content(archive) == b'{"a":1}\n{"b":2}\r\n'


@pytest.mark.parametrize("tail", [b"", b"no newline", b"\r\n", b"\xff\x00\n", b"x" * 70000 + b"\n" + b"y" * 70000])
def test_of_jsonl_whole_lines_count_and_of_the_rest_all(archive: Archive, tail: bytes) -> None:
    grow(archive, tail)
    grow(archive, tail, "beside/one.txt")
    assert content(archive) == tail[: tail.rfind(b"\n") + 1]
    assert content(archive, "beside/one.txt") == tail


def test_a_tail_may_be_a_file(archive: Archive) -> None:
    archive.append("s", "c", NAME, 0, EMPTY, io.BytesIO(b"{}\n{"))
    assert content(archive) == b"{}\n"


def test_the_digest_of_a_beginning_is_of_what_counts(archive: Archive) -> None:
    grow(archive, b"0123456\n")
    assert archive.prefix_digest("s", "c", NAME, 3) == sha(b"012")
    assert archive.prefix_digest("s", "c", NAME, 8) == sha(b"0123456\n")
    with pytest.raises(ValueError, match="8 bytes"):
        archive.prefix_digest("s", "c", NAME, 9)


def test_the_present_conversation_is_the_one_written_last(archive: Archive) -> None:
    grow(archive, b"{}\n", conversation="old")
    grow(archive, b"{}\n", conversation="new")
    assert archive.heads()["s"].conversation == "new"
    grow(archive, b"{}\n", conversation="old")
    assert archive.heads()["s"].conversation == "old"


def test_a_forgotten_session_keeps_its_files(archive: Archive) -> None:
    grow(archive, b"{}\n")
    archive.forget("s")
    assert archive.heads() == {}
    assert content(archive) == b"{}\n"


def test_newer_exports_take_the_place_of_older_ones_which_are_kept(archive: Archive) -> None:
    for number in range(10):
        archive.replace_whole("s", "c", b'{"n":%d}' % number, agent="opencode", host="gpu")
        archive.replace_whole("s", "c", b'{"n":%d}' % number, agent="opencode", host="gpu")
    found = archive.heads()["s"].files
    assert sorted(found) == [EXPORT, *(f"{EXPORT}.{n}" for n in range(1, KEPT_EXPORTS + 1))]
    assert [content(archive, name) for name in sorted(found)] == [b'{"n":%d}' % n for n in range(9, 3, -1)]


def fork(archive: Archive, tail: bytes, base: bytes = b"", host: str = "gpu") -> None:
    part = Part(NAME, len(base), sha(base), tail, "/p", len(base) + len(tail), 7.0)
    archive.keep_diverged("s", "c", [part], agent="claude-code", host=host, why="they differ")


def test_a_divergence_keeps_both_heads_and_is_said(archive: Archive) -> None:
    grow(archive, b"ours\n")
    fork(archive, b'{"timestamp":"2026-01-01T00:00:00Z"}\n')
    manifest = archive.manifest("s", "c")
    assert manifest is not None
    assert archive.heads()["s"].diverged == "they differ"
    assert manifest.others[NAME].head.last == "2026-01-01T00:00:00Z"
    assert content(archive) == b"ours\n"


def test_a_diverged_copy_goes_on_where_it_was_and_another_one_is_kept_beside_it(plain: Archive, tmp_path: Path) -> None:
    grow(plain, b"ours\n")
    fork(plain, b"a\n")
    fork(plain, b"b\n", b"a\n")
    fork(plain, b"other\n")
    below = tmp_path / "a/s/c/diverged"
    assert {p.relative_to(below).as_posix(): p.read_bytes() for p in below.rglob("*.jsonl")} == {
        f"gpu.0/{NAME}": b"a\nb\n",
        f"gpu.1/{NAME}": b"other\n",
    }


def test_the_hosts_copy_can_be_taken_and_ours_is_kept(archive: Archive) -> None:
    grow(archive, b"ours\n")
    fork(archive, b"theirs\ntorn")
    taken = archive.adopt("s", "c")
    assert (content(archive), taken.diverged) == (b"theirs\n", "")
    assert b"".join(archive.storage.chunks(f"s/c/diverged/archive.0/{NAME}")) == b"ours\n"
    with pytest.raises(ReconcilerError, match="nothing to take"):
        archive.adopt("s", "c")


def test_ours_can_be_taken_and_theirs_is_kept(archive: Archive) -> None:
    grow(archive, b"ours\n")
    fork(archive, b"theirs\n")
    archive.settle("s", "c")
    assert (content(archive), archive.heads()["s"].diverged) == (b"ours\n", "")
    assert b"".join(archive.storage.chunks(f"s/c/diverged/gpu.0/{NAME}")) == b"theirs\n"


def test_a_purge_leaves_a_tombstone_and_nothing_else_of_the_conversation(archive: Archive) -> None:
    grow(archive, b"{}\n")
    grow(archive, b"{}\n", conversation="other")
    grow(archive, b"{}\n")
    archive.purge("s", "c")
    assert archive.purged("s", "c")
    assert archive.get("s", "c") is None
    assert archive.heads() == {}
    assert archive.get("s", "other") is not None
    archive.purge("s", "never-there")
    assert archive.purged("s", "never-there")


HOSTILE = [
    "..", "../x", "a/../../x", "/etc/passwd", "", ".", "a//b", "a/", "a\nb", "a\x1b[31m", "a\0b", "a\\b", "~/x", "-rf",
    "é.jsonl", "a" * 401, "/".join("abcdefghijk"), "a/./b", "$(id)", "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_wherever_it_stands(archive: Archive, name: str) -> None:
    for call in (
        lambda: archive.append("s", "c", name, 0, EMPTY, b"x\n"),
        lambda: archive.keep_diverged("s", "c", [Part(name, 0, EMPTY, b"x\n")], agent="", host="h", why=""),
        lambda: archive.replace_whole("s", "c", b"x", name=name),
        lambda: archive.append(name, "c", NAME, 0, EMPTY, b"x\n"),
        lambda: archive.append("s", name, NAME, 0, EMPTY, b"x\n"),
        lambda: archive.purge("s", name),
    ):
        with pytest.raises(ReconcilerError) as error:
            call()
        assert error.value.code == "unsafe-name"
        assert "\x1b" not in error.value.message


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=30))
def test_no_name_leaves_the_folder_of_its_conversation(plain: Archive, name: str) -> None:
    if not safe_name(name):
        with pytest.raises(ReconcilerError):
            plain.append("s", "c", name, 0, EMPTY, b"x\n")
        return
    root = Path(str(plain)).resolve()
    conversation = f"c{uuid.uuid4().hex}"
    plain.append("s", conversation, name, 0, EMPTY, b"x\n")
    assert (root / "s" / conversation / "files" / name).resolve().is_relative_to(root / "s" / conversation / "files")


def test_ten_thousand_files_are_refused_by_name(archive: Archive) -> None:
    parts = [Part(f"f{n}", 0, EMPTY, b"") for n in range(FILES_LIMIT + 1)]
    if isinstance(archive.storage, Remote):
        parts = parts[: FILES_LIMIT + 1]
    with pytest.raises(ReconcilerError) as error:
        archive.extend("s", "c", parts, agent="", host="")
    assert error.value.code == "too-large"
    assert archive.heads() == {}


def links(root: Path) -> Iterator[Path]:
    """Every place of a small archive where a link could stand."""
    yield from (root / "s", root / "s/c", root / "s/c/files", root / "s/c/files" / NAME, root / "s/c/manifest.json")
    yield root / "s/.head"


@pytest.mark.parametrize("number", range(6))
def test_a_link_inside_the_archive_is_never_followed(tmp_path: Path, number: int) -> None:
    archive = Archive(tmp_path / "a")
    grow(archive, b"{}\n")
    place = list(links(tmp_path / "a"))[number]
    outside = tmp_path / "outside"
    place.rename(outside)
    before = sorted((p.relative_to(tmp_path), p.read_bytes()) for p in [outside, *outside.rglob("*")] if p.is_file())
    place.symlink_to(outside)
    with contextlib.suppress(ReconcilerError):
        grow(archive, b"more\n")
    after = sorted((p.relative_to(tmp_path), p.read_bytes()) for p in [outside, *outside.rglob("*")] if p.is_file())
    assert before == after


def test_a_fifo_in_place_of_a_file_is_no_reason_to_wait(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    grow(archive, b"{}\n")
    (tmp_path / "a/s/c/files" / NAME).unlink()
    os.mkfifo(tmp_path / "a/s/c/files" / NAME)
    with pytest.raises(ReconcilerError):
        content(archive)


def test_only_the_owner_can_read_it(plain: Archive, tmp_path: Path) -> None:
    os.umask(os.umask(0o022))
    grow(plain, b"{}\n")
    for path in (tmp_path / "a").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


FOREIGN = [b"", b"{", b"[]", b"null", b'{"version": 2}', b"\xff", b"[" * 100_000, b'{"version": 1, "session": "s"}']


@pytest.mark.parametrize("text", FOREIGN, ids=range(len(FOREIGN)))
def test_what_cannot_be_read_is_told_and_left_and_hides_nothing_else(tmp_path: Path, text: bytes) -> None:
    archive = Archive(tmp_path / "a")
    grow(archive, b"{}\n")
    grow(archive, b"{}\n", session="fine")
    broken = tmp_path / "a/s/c/manifest.json"
    broken.write_bytes(text)
    (tmp_path / "a/Not Ours").write_text("x")
    (tmp_path / "a/stray").write_text("x")
    scan = archive.scan()
    assert list(scan.heads) == ["fine"]
    assert sum("manifest.json" in problem for problem in scan.problems) == 1
    assert any("Not Ours" in problem for problem in scan.problems)
    assert broken.read_bytes() == text
    with pytest.raises(ReconcilerError) as error:
        grow(archive, b"more\n")
    assert error.value.code == "archive-damaged"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    key=st.sampled_from(["files", "others", "pending", "at", "host", "agent", "diverged", "conversation", "version"]),
    value=st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(
        st.text(max_size=5), x, max_size=3), max_leaves=5),
)  # fmt: skip
def test_a_manifest_that_somebody_changed_is_an_error_or_harmless(plain: Archive, key: str, value: object) -> None:
    grow(plain, b"{}\n", conversation=(conversation := f"c{uuid.uuid4().hex}"))
    path = Path(str(plain)) / "s" / conversation / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, key: value}))
    try:
        found = plain.get("s", conversation)
    except ReconcilerError as error:
        assert error.code == "archive-damaged"  # noqa: PT017
    else:
        assert found is not None
        assert all(safe_name(name) for name in found.files)


def test_a_session_without_a_pointer_is_found_by_its_conversation(plain: Archive, tmp_path: Path) -> None:
    grow(plain, b"{}\n")
    (tmp_path / "a/s/.head").unlink()
    assert plain.heads()["s"].conversation == "c"


def test_a_copy_that_rotted_is_never_continued(plain: Archive, tmp_path: Path) -> None:
    grow(plain, b"{}\n")
    (tmp_path / "a/s/c/files" / NAME).write_bytes(b"[]\n")
    with pytest.raises(ReconcilerError) as error:
        grow(plain, b"more\n")
    assert error.value.code == "archive-damaged"
    assert (tmp_path / "a/s/c/files" / NAME).read_bytes() == b"[]\n"


def test_a_copy_that_rotted_as_soon_as_it_was_written_is_never_continued(plain: Archive, tmp_path: Path) -> None:
    grow(plain, b"{}\n")
    grow(plain, b"{}\n")
    with open(tmp_path / "a/s/c/files" / NAME, "r+b") as file:
        file.write(b"[")
    with pytest.raises(ReconcilerError) as error:
        grow(plain, b"more\n")
    assert error.value.code == "archive-damaged"


def test_a_copy_grows_in_place_and_is_not_read_again(
    plain: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(plain, b"one\n")
    path = tmp_path / "a/s/c/files" / NAME
    before, read = path.stat().st_ino, []
    real = plain.storage.chunks

    def chunks(path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        read.append(path)
        return real(path, offset, length)

    monkeypatch.setattr(plain.storage, "chunks", chunks)
    grow(plain, b"two\n")
    grow(plain, b"three\n")
    assert read == ["s/.head", "s/.head"]
    assert (path.stat().st_ino, path.read_bytes()) == (before, b"one\ntwo\nthree\n")
    assert plain.manifest("s", "c") == Archive(tmp_path / "a").manifest("s", "c")


def test_a_copy_with_another_name_is_replaced_and_the_other_stays(plain: Archive, tmp_path: Path) -> None:
    grow(plain, b"one\n")
    os.link(tmp_path / "a/s/c/files" / NAME, tmp_path / "kept")
    grow(plain, b"two\n")
    assert (content(plain), (tmp_path / "kept").read_bytes()) == (b"one\ntwo\n", b"one\n")


def test_what_a_cut_left_behind_a_copy_does_not_count_and_goes(plain: Archive, tmp_path: Path) -> None:
    grow(plain, b"one\n")
    path = tmp_path / "a/s/c/files" / NAME
    path.write_bytes(b"one\nhalf of a line that is longer than what comes")
    assert content(plain) == b"one\n"
    grow(plain, b"two\n")
    assert (content(plain), path.read_bytes()) == (b"one\ntwo\n", b"one\ntwo\n")


def test_what_another_controller_wrote_or_purged_is_seen(plain: Archive, tmp_path: Path) -> None:
    other = Archive(tmp_path / "a")
    for number in range(6):
        grow(other if number % 2 else plain, b"%d\n" % number)
    assert content(plain) == content(other) == b"0\n1\n2\n3\n4\n5\n"
    other.purge("s", "c")
    assert (plain.get("s", "c"), plain.purged("s", "c"), plain.anything_purged()) == (None, True, True)


class Cut(Exception):
    """The power went away."""


def cut_at(archive: Archive, count: int) -> None:
    """The n-th write from now does not happen, nor any after it."""
    left = [count]

    def cutting(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: object) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return real(*arguments)

        return write

    archive.storage.replace = cutting(archive.storage.replace)  # type: ignore[method-assign]
    archive.storage.append = cutting(archive.storage.append)  # type: ignore[method-assign]


@pytest.mark.parametrize("writes", range(12))
def test_a_cut_at_any_write_loses_nothing_and_is_mended_by_a_repeat(tmp_path: Path, writes: int) -> None:
    for job in (
        lambda a: grow(a, b"more\n"),
        lambda a: a.replace_whole("s", "c", b'{"n":2}'),
        lambda a: a.adopt("s", "c"),
    ):
        root = tmp_path / uuid.uuid4().hex
        archive = Archive(root)
        grow(archive, b"ours\n")
        archive.replace_whole("s", "c", b'{"n":1}')
        fork(archive, b"theirs\n")
        cut_at(archive, writes)
        try:
            job(archive)
        except Cut:
            everything = [p.read_bytes() for p in root.rglob("*") if p.is_file()]
            assert any(b"ours\n" in data for data in everything)
            assert b"theirs\n" in everything
            assert b'{"n":1}' in everything
        again = Archive(root)
        assert again.heads()["s"].conversation == "c"
        try:
            job(again)
        except ReconcilerError as error:
            assert "nothing to take" in error.message  # noqa: PT017
        for name, file in again.heads()["s"].files.items():
            assert sha(content(again, name)) == file.sha256


def small_disk(path: Path) -> None:
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(path)]).returncode:
        pytest.fail("this test needs to mount a tmpfs: run it as root on Linux")


@pytest.mark.skipif(sys.platform != "linux", reason="a small tmpfs")
def test_a_full_disk_is_one_error_and_the_old_state_stays_valid(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    small_disk(disk)
    try:
        archive = Archive(disk / "a")
        grow(archive, b"{}\n")
        with pytest.raises(ReconcilerError) as error:
            grow(archive, b"x" * 400_000 + b"\n")
        assert (error.value.code, error.value.remedy != "") == ("disk-full", True)
        assert content(archive) == b"{}\n"
        assert not list(disk.rglob(".new-*"))
        grow(archive, b"small\n")
        assert content(archive) == b"{}\nsmall\n"
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ReconcilerError) as error:
            grow(archive, b"more\n")
        assert error.value.code == "read-only"
        assert content(archive) == b"{}\nsmall\n"
        assert list(archive.heads()) == ["s"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom tests.transcripts.test_archive import *\n"
        "archive = Archive(sys.argv[1])\n"
        "for n in range(40):\n    while True:\n        try:\n            grow(archive, b'x\\n')\n            break\n"
        "        except ReconcilerError as error:\n            assert error.retry, error\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "a")]
    running = [subprocess.Popen(argv, cwd=Path(__file__).parents[2]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert content(Archive(tmp_path / "a")) == b"x\n" * 120


def test_the_place_is_below_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_place("fleet") == tmp_path / "reconciler/fleet/archive"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(default_place("fleet")) == "/home/me/.local/share/reconciler/fleet/archive"


def test_a_url_that_nothing_opens_is_one_error() -> None:
    for url in ("nosuch://x", "s3://bucket/x"):
        with pytest.raises(ReconcilerError) as error:
            Archive(url)
        assert error.value.code == "archive"


def test_fsspec_is_not_loaded_for_a_plain_folder(tmp_path: Path) -> None:
    script = f"import sys; from reconciler.transcripts.archive import Archive; Archive({str(tmp_path)!r}).heads(); "
    script += "sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_plain_folders_are_told_from_urls(tmp_path: Path) -> None:
    assert isinstance(open_storage(tmp_path), Folder)
    assert isinstance(open_storage(f"file://{tmp_path}"), Folder)
    assert isinstance(open_storage("memory://x"), Remote)
