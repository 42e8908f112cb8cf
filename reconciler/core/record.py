"""The record: what is applied of one session, written on its host beside it. One JSON line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

VERSION = 1


@dataclass(frozen=True)
class Record:
    """What the program last did to a session. The host carries it; there is no other state.

    `digest` covers what a person wrote and what affects the launch; `written` holds those very keys, for the
    plan's before/after (values of env tables only as digests). `prompt` is the digest of the last prompt that
    was handed over. `restarts` are the times (host's clock, seconds) of resumes after a failure. `incarnation`
    counts launches. `intent` is what the session was last asked to be.
    """

    fleet: str
    name: str
    agent: str
    strategy: str
    digest: str
    intent: Literal["running", "stopped"] = "running"
    lifecycle: Literal["service", "task"] = "service"
    incarnation: int = 0
    conversation: str | None = None
    workdir: str = "~"
    written: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    protected: bool = False
    restarts: tuple[int, ...] = ()
    op: str = ""
    controller: str = ""
    revision: str = ""
    at: int = 0
    version: int = VERSION

    def to_json(self) -> str:
        """One line of ASCII JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


_TYPES: dict[str, type | tuple[type, ...]] = {
    "fleet": str, "name": str, "agent": str, "strategy": str, "digest": str, "intent": str, "lifecycle": str,
    "incarnation": int, "conversation": (str, type(None)), "workdir": str, "written": dict,
    "prompt": (str, type(None)), "labels": dict, "protected": bool, "restarts": list, "op": str,
    "controller": str, "revision": str, "at": int, "version": int,
}  # fmt: skip


def parse_record(text: str) -> Record:
    """Read a record as a host sent it. Raises ValueError saying what is wrong with it."""
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("not a table")
    if data.get("version") != VERSION:
        raise ValueError(f"version {data.get('version')!r}, this program knows {VERSION}")
    known = {f.name for f in fields(Record)}
    values = {key: value for key, value in data.items() if key in known}
    for key, value in values.items():
        if not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and _TYPES[key] is int):
            raise ValueError(f"{key} is not what it should be")
    if values.get("intent") not in ("running", "stopped") or values.get("lifecycle") not in ("service", "task"):
        raise ValueError("intent or lifecycle is not a known word")
    values["restarts"] = tuple(r for r in values.get("restarts", ()) if isinstance(r, int))
    try:
        return Record(**values)
    except TypeError as error:
        raise ValueError("keys are missing") from error
