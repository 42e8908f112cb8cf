"""What is remembered of a source between two runs of the program: a small file beside what was fetched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path


def place_of(source: str) -> Path:
    """The directory on this machine for what belongs to one source: mirror, notes."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = hashlib.sha256((source if "://" in source else os.path.abspath(source)).encode()).hexdigest()[:16]
    return Path(base).expanduser() / "reconciler" / "sources" / name


class Notes:
    """Texts by key, in one JSON file that is replaced whole. What cannot be read is taken for empty."""

    def __init__(self, place: Path) -> None:
        self._path = place / "notes.json"

    def recall(self, key: str) -> str | None:
        """What was kept under a key."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text(encoding="utf-8")).get(key)
            return found if isinstance(found, str) else None
        return None

    def keep(self, key: str, value: str) -> None:
        """Keep it. A full disk loses the note and nothing else."""
        found: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            found = dict(json.loads(self._path.read_text(encoding="utf-8")))
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = self._path.with_suffix(".tmp")
            beside.write_text(json.dumps({**found, key: value}), encoding="utf-8")
            beside.replace(self._path)
