"""The record: what is applied of one session, written on its host beside it. One JSON line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

from reconciler.core import jsons
from reconciler.core.host_spec import Strategy
from reconciler.core.values import is_name

VERSION = 1
NUMBERS = 2**53  # a whole number from a host is below: databases and clocks take no larger ones
# What the drivers give out and the look takes; nothing that an agent could read as an option.
_CONVERSATION = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Record:
    """What the program last did to a session. The host carries it; there is no other state.

    `digest` covers what a person wrote and what affects the launch; `written` holds those very keys, for the
    plan's before/after (values of env tables only as digests). `prompt` is the digest of the last prompt that
    was handed over. `restarts` are the times (host's clock, seconds) of resumes after a failure. `incarnation`
    counts launches. `intent` is what the session was last asked to be. `moves` counts the hosts it has moved to:
    where two hosts have a record of one session, the higher number has its conversation. `to` is the host that it
    went to from here. `protected` is what the specs said last; `protected_by` is who protected it by command, whatever
    the specs say, and `protected_at` since when (host's clock, seconds). `terminal` is the tmux socket and pane of a
    process that was adopted, in the user's own server; empty for what we launched.
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
    protected_by: str = ""
    protected_at: int = 0
    restarts: tuple[int, ...] = ()
    op: str = ""
    controller: str = ""
    revision: str = ""
    at: int = 0
    moves: int = 0
    to: str = ""
    terminal: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def is_protected(self) -> bool:
        """Whether the specs or a person keep it from being stopped, moved and restarted."""
        return self.protected or bool(self.protected_by)

    def to_json(self) -> str:
        """One line of ASCII JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


_STRATEGIES = get_args(Strategy)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "fleet": str, "name": str, "agent": str, "strategy": str, "digest": str, "intent": str, "lifecycle": str,
    "incarnation": int, "conversation": (str, type(None)), "workdir": str, "written": dict,
    "prompt": (str, type(None)), "labels": dict, "protected": bool, "protected_by": str, "protected_at": int,
    "restarts": list, "op": str,
    "controller": str, "revision": str, "at": int, "moves": int, "to": str, "terminal": list, "version": int,
}  # fmt: skip


def parse_record(text: str) -> Record:
    """Read a record as a host sent it. Raises ValueError saying what is wrong with it."""
    data = jsons.loads(text)
    if not isinstance(data, dict):
        raise ValueError("not a table")
    if data.get("version") != VERSION:
        raise ValueError(f"version {data.get('version')!r}, this program knows {VERSION}")
    values = {key: value for key, value in data.items() if key in _TYPES}
    for key, value in values.items():
        kind = _TYPES[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{key} is not what it should be")
        if isinstance(value, int) and abs(value) >= NUMBERS:
            raise ValueError(f"{key} is too large a number")
    if values.get("intent") not in ("running", "stopped") or values.get("lifecycle") not in ("service", "task"):
        raise ValueError("intent or lifecycle is not a known word")
    values |= {key: sys.intern(value) for key, value in values.items() if type(value) is str}
    values |= {key: _shared(values[key]) for key in ("written", "labels") if key in values}
    values["restarts"] = tuple(r for r in values.get("restarts", ()) if isinstance(r, int) and abs(r) < NUMBERS)
    values["terminal"] = tuple(values.get("terminal", ()))
    try:
        record = Record(**values)
    except TypeError as error:
        raise ValueError("keys are missing") from error
    _check(record)
    return record


_SHARED = 2000  # characters


def _shared(table: dict[str, Any]) -> dict[str, Any]:
    """The same for all whose text is the same: most sessions of a fleet were written alike, and all are kept."""
    text = json.dumps(table)
    return _table(text) if len(text) <= _SHARED else table


@lru_cache(maxsize=1024)
def _table(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def _check(record: Record) -> None:
    """Words that drivers are found by, and tables that are read key by key, are what they must be."""
    if not is_name(record.name) or not is_name(record.agent) or record.strategy not in _STRATEGIES:
        raise ValueError("name, agent or strategy is not a known word")
    if record.conversation is not None and not _CONVERSATION.fullmatch(record.conversation):
        raise ValueError("conversation is no id")
    if record.terminal and not _is_terminal(record.terminal):
        raise ValueError("terminal is no socket and pane")
    if not all(isinstance(value, str) for value in record.labels.values()):
        raise ValueError("labels are not texts")
    for key, value in record.written.items():
        if key.rpartition(".")[2] == "env" and not isinstance(value, dict):
            raise ValueError("an environment in it is no table")


def _is_terminal(words: tuple[object, ...]) -> bool:
    match words:
        case (str(socket), str(pane)):
            return socket.startswith("/") and socket.isprintable() and re.fullmatch(r"%[0-9]{1,9}", pane) is not None
    return False
