"""The manifest of an archived conversation: what of its files counts. Read with distrust, written after the data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from reconciler.core import jsons
from reconciler.core.transcript import FILES_LIMIT, Archived, ArchivedFile, safe_name

VERSION = 1
LIMIT = 8_000_000  # bytes of a manifest
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Head:
    """One end of a conversation that has two: bytes, digest, and the time that its last line tells, if any."""

    size: int
    sha256: str
    last: str = ""


@dataclass(frozen=True)
class Other:
    """A host's copy that is no continuation of ours, kept under `kept`, as it was at the last sync."""

    host: str
    kept: str
    head: Head
    host_path: str = ""
    host_size: int = -1
    host_mtime: float = -1.0


@dataclass(frozen=True)
class Manifest:
    """What is known of one conversation. `pending` names digests that a replacement was about to bring."""

    archived: Archived
    others: Mapping[str, Other] = field(default_factory=dict)
    pending: Mapping[str, Head] = field(default_factory=dict)

    def with_files(self, files: Mapping[str, ArchivedFile], **changes: Any) -> Manifest:
        """The same with some files as they are now."""
        return replace(self, archived=replace(self.archived, files={**self.archived.files, **files}, **changes))

    def to_json(self) -> bytes:
        """As it is written."""
        archived = {**asdict(self.archived), "files": {k: asdict(f) for k, f in self.archived.files.items()}}
        data = {
            "version": VERSION,
            **archived,
            "others": {name: asdict(other) for name, other in self.others.items()},
            "pending": {name: asdict(head) for name, head in self.pending.items()},
        }
        return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def parse_manifest(text: bytes, session: str, conversation: str) -> Manifest:
    """Read a manifest. Raises ValueError saying what is wrong with it."""
    data = jsons.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"no manifest of version {VERSION}")
    if (data.get("session"), data.get("conversation")) != (session, conversation):
        raise ValueError("it is the manifest of another conversation")
    try:
        archived = Archived(
            session=session, conversation=conversation, agent=_text(data["agent"]), host=_text(data["host"]),
            at=float(data["at"]), diverged=_text(data.get("diverged", "")),
            files={name: ArchivedFile(**_file(name, entry)) for name, entry in _table(data["files"])},
        )  # fmt: skip
        others = {name: _other(entry) for name, entry in _table(data.get("others", {}))}
        pending = {name: _head(entry) for name, entry in _table(data.get("pending", {}))}
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"something is missing in it: {error}") from None
    return Manifest(archived, others, pending)


def _table(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or len(value) > FILES_LIMIT:
        raise ValueError("its files are no table, or too many")
    for name in value:
        if not safe_name(name):
            raise ValueError("a name in it is not safe")
    return list(value.items())


def _file(name: str, entry: Any) -> dict[str, Any]:
    if entry["name"] != name:
        raise ValueError("a file in it has two names")
    head = _head(entry)
    return {
        "name": name, "size": head.size, "sha256": head.sha256, "host_path": _text(entry["host_path"]),
        "host_size": _number(entry["host_size"]), "host_mtime": float(entry["host_mtime"]),
    }  # fmt: skip


def _head(entry: Any) -> Head:
    digest = _text(entry["sha256"])
    if _number(entry["size"]) < 0 or not _DIGEST.fullmatch(digest):
        raise ValueError("a size or digest in it is none")
    return Head(entry["size"], digest, _text(entry.get("last", "")))


def _other(entry: Any) -> Other:
    kept = _text(entry["kept"])
    if not safe_name(kept):
        raise ValueError("a name in it is not safe")
    return Other(
        _text(entry["host"]), kept, _head(entry["head"]), _text(entry["host_path"]),
        _number(entry["host_size"]), float(entry["host_mtime"]),
    )  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text in it is none")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("a number in it is none")
    return value
