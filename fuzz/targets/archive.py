"""The archive: names that hosts give to files, manifests, frames of a sync, conversations in readable form.

Everything is written to a real folder, and what lies around that folder is looked at afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from fuzz.oracles import harmless, scratch, split, text_of, tree
from reconciler.core.transcript import safe_name
from reconciler.errors import ReconcilerError
from reconciler.transcripts.archive import EMPTY, Archive, Part
from reconciler.transcripts.manifest import parse_manifest
from reconciler.transcripts.pieces import last_time
from reconciler.transcripts.render import as_markdown, as_text, parse_export, parse_lines
from reconciler.transcripts.staging import _listen
from reconciler.transcripts.wire import Frames, read_frame

SESSION, CONVERSATION, NONCE = "api", "c-1", "c0ffee"


@cache
def _root() -> Path:
    """A folder with an archive in it, and something beside it that must stay as it is."""
    root = scratch()
    (root / "beside").mkdir()
    (root / "beside" / "kept").write_text("kept")
    return root


def _afresh() -> Archive:
    shutil.rmtree(_root() / "archive", ignore_errors=True)
    return Archive(_root() / "archive")


def _outside() -> dict[str, str]:
    """All that is not in the archive, and every link in it."""
    return {name: kind for name, kind in tree(_root()).items() if not name.startswith("archive/") or "link" in kind}


BESIDE = {"beside": "folder", "beside/kept": "file 4"}


def _names(data: bytes) -> None:
    """One name a line: of files, then as those of sessions and conversations."""
    for name in text_of(data).split("\n")[:10]:
        for way in _ways(_afresh(), name):
            with contextlib.suppress(ReconcilerError):
                way()
        _nothing_outside()
        if safe_name(name):
            assert not Path(name).is_absolute()
            assert ".." not in Path(name).parts
            harmless(name, also="")


def _ways(archive: Archive, name: str) -> Iterator[Callable[[], object]]:
    """All that a name can be given to."""
    yield lambda: archive.append(SESSION, CONVERSATION, name, 0, EMPTY, b"x\n")
    yield lambda: archive.append(SESSION, name, "a.jsonl", 0, EMPTY, b"x\n")
    yield lambda: archive.append(name, CONVERSATION, "a.jsonl", 0, EMPTY, b"x\n")
    part = Part(name, 0, EMPTY, b"x\n")
    yield lambda: archive.keep_diverged(SESSION, CONVERSATION, [part], agent="a", host="h", why="w")
    yield lambda: archive.replace_whole(SESSION, CONVERSATION, b"{}", name=name)
    yield lambda: b"".join(archive.read(SESSION, CONVERSATION, name))
    yield lambda: archive.purge(SESSION, name)


def _nothing_outside() -> None:
    found = {name: kind for name, kind in _outside().items() if name != "archive"}
    assert found == BESIDE, f"something was written outside: {found}"


def _manifest(data: bytes) -> None:
    """A manifest, alone and then as it lies in an archive; everything that is done to a conversation."""
    try:
        read = parse_manifest(data, SESSION, CONVERSATION)
    except ValueError:
        read = None
    if read is not None:
        again = parse_manifest(read.to_json(), SESSION, CONVERSATION)
        assert str(again) == str(read), "a manifest is another after it was written and read"
    archive = _afresh()
    folder = _root() / "archive" / SESSION / CONVERSATION
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "a.jsonl").write_bytes(b"{}\n")
    (folder / "diverged").symlink_to(_root() / "beside")
    (folder / "manifest.json").write_bytes(data)
    archive.scan()
    before = hashlib.sha256(b"{}\n").hexdigest()
    for way in (
        lambda: archive.append(SESSION, CONVERSATION, "a.jsonl", 3, before, b"{}\n"),
        lambda: archive.keep_diverged(SESSION, CONVERSATION, [Part("a.jsonl", 0, EMPTY, b"y\n")], agent="a", host="h",
                                      why="w"),
        lambda: archive.adopt(SESSION, CONVERSATION),
        lambda: archive.replace_whole(SESSION, CONVERSATION, b"[]"),
        lambda: archive.settle(SESSION, CONVERSATION),
        lambda: archive.purge(SESSION, CONVERSATION),
    ):  # fmt: skip
        with contextlib.suppress(ReconcilerError):
            way()
    _nothing_but_the_link()


def _nothing_but_the_link() -> None:
    found = {name: kind for name, kind in _outside().items() if name != "archive" and not name.startswith("archive/")}
    assert found == BESIDE, f"something was written outside: {found}"


class _Told:
    """A channel on which a host has said all that it will say."""

    def __init__(self, data: bytes) -> None:
        self._parts = [data[at : at + 1000] for at in range(0, len(data), 1000)]

    async def read(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    async def write(self, data: bytes) -> None:
        pass

    async def close(self) -> None:
        pass


def _frames(data: bytes) -> None:
    """What a host answers to a sync of three files."""
    asyncio.run(_read(data))


def _staged(data: bytes) -> None:
    """What a host answers to files that are brought to it."""
    asyncio.run(_listened(data))


async def _listened(data: bytes) -> None:
    frames = Frames("gpu", _Told(NONCE.encode() + b"\tbegin\n" + data), NONCE)  # type: ignore[arg-type]
    with contextlib.suppress(ReconcilerError):
        words = await _listen(frames, 3)
        assert set(words) <= {0, 1, 2}


async def _read(data: bytes) -> None:
    frames = Frames("gpu", _Told(NONCE.encode() + b"\tbegin\n" + data), NONCE)  # type: ignore[arg-type]
    spool = io.BytesIO()
    with contextlib.suppress(ReconcilerError):
        await frames.begin()
        for number in range(3):
            frame = await read_frame(frames, number, "x", spool)
            assert frame.at + max(0, frame.size - frame.base) <= len(data) or frame.word in ("short", "missing")


def _conversation(data: bytes) -> None:
    """A conversation's file, by `transcript` as text and as Markdown."""
    for rendered in (parse_lines([data[:5000], data[5000:]]), parse_export(data)):
        harmless(as_text(rendered))
        harmless(as_markdown(rendered))
        assert rendered.skipped >= 0
    harmless(last_time(io.BytesIO(data)), also="")


CASES = {
    "names": _names, "manifest": _manifest, "frames": _frames, "staged": _staged, "conversation": _conversation,
}  # fmt: skip


def check(data: bytes) -> None:
    """The first line says which reader the rest is for."""
    split(data, CASES)
