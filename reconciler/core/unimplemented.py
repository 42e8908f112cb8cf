"""What the spec language promises and this version does not do yet: a named error each, never silence. Pure.

To implement one, delete its line here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reconciler.core.merge import Entry, Raw, Table
from reconciler.core.positions import Path
from reconciler.core.spec import Desired, Session, Sync

TABLES = ("playbooks",)
DEFAULTS_TABLES: tuple[str, ...] = ()
STRATEGIES = ("tmate", "remote_control", "node")
TRANSPORTS: tuple[str, ...] = ()
HOST_KEYS = ("node",)
SESSION_KEYS = ("workspace",)
AUTH_TYPES: tuple[str, ...] = ()
SYNC_KEYS = ("history",)  # other values than the default
ADDRESS_KINDS = ("host", "agent", "group_chat", "playbook")  # of [[moved]] and [[removed]]

CODE = "not-implemented"


def check_implemented(raw: Raw, desired: Desired) -> None:
    """Adds a finding for everything that is specified but not implemented."""
    for file, document in raw.documents.items():
        _check_tables(raw, file, document)
    for name, host in desired.hosts.items():
        if name in raw.entries["hosts"]:
            _check_host(raw, raw.entries["hosts"][name], host)
    for name, session in desired.sessions.items():
        _check_session(raw, raw.entries["sessions"][name], session)


def _check_tables(raw: Raw, file: str, document: Table) -> None:
    for table in (t for t in TABLES if t in document):
        _not_yet(raw, (file, (table,)), table)
    defaults = document.get("defaults")
    for table in (t for t in DEFAULTS_TABLES if isinstance(defaults, dict) and t in defaults):
        _not_yet(raw, (file, ("defaults", table)), f"defaults.{table}")
    for key in ("moved", "removed"):
        _check_addresses(raw, file, key, document.get(key))


def _check_session(raw: Raw, entry: Entry, session: Session) -> None:
    if session.strategy in STRATEGIES:
        _not_yet_in(raw, entry, ("strategy",), f'strategy = "{session.strategy}"')
    _check_keys(raw, entry, session, SESSION_KEYS)
    if "sync" in session.model_fields_set:
        _check_sync(raw, entry, session.sync)


def _check_host(raw: Raw, entry: Entry, host: Any) -> None:
    if host.strategy in STRATEGIES:
        _not_yet_in(raw, entry, ("strategy",), f'strategy = "{host.strategy}"')
    if host.transport in TRANSPORTS:
        _not_yet_in(raw, entry, ("transport",), f'transport = "{host.transport}"')
    if host.auth is not None and host.auth.type in AUTH_TYPES:
        _not_yet_in(raw, entry, ("auth", "type"), f'auth.type = "{host.auth.type}"')
    _check_keys(raw, entry, host, HOST_KEYS)


def _check_keys(raw: Raw, entry: Entry, model: Any, keys: Iterable[str]) -> None:
    for key in keys:
        if key in model.model_fields_set and getattr(model, key) not in (None, {}):
            _not_yet_in(raw, entry, (key,), key)


def _check_sync(raw: Raw, entry: Entry, sync: Sync) -> None:
    standard = Sync()
    for key in SYNC_KEYS:
        if getattr(sync, key) != getattr(standard, key):
            _not_yet_in(raw, entry, ("sync", key), f"sync.{key}")


def _check_addresses(raw: Raw, file: str, key: str, items: Any) -> None:
    fields = ("from",) if key == "moved" else ("address",)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        for field in fields:
            address = item.get(field) if isinstance(item, dict) else None
            if isinstance(address, str) and address.partition(".")[0] in ADDRESS_KINDS:
                _not_yet(raw, (file, (key, index, field)), f"{key} of a {address.partition('.')[0]}")


def _not_yet_in(raw: Raw, entry: Entry, path: Path, what: str) -> None:
    raw.findings.about(entry, path, _sentence(what), code=CODE)


def _not_yet(raw: Raw, at: tuple[str, Path], what: str) -> None:
    raw.findings.error(at, _sentence(what), part="key", code=CODE)


def _sentence(what: str) -> str:
    return f"`{what}` is specified but not implemented yet"
