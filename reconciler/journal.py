"""The local journal: intents with their outcomes, where each session was last seen, what a person put on hold.

The first two can be rebuilt by observing; suspensions and what was kept under a key go with the file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from reconciler.core.holds import Suspension
from reconciler.errors import ReconcilerError
from reconciler.redaction import redact

_SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
  op TEXT PRIMARY KEY, address TEXT NOT NULL, host TEXT NOT NULL, verb TEXT NOT NULL, precondition TEXT NOT NULL,
  fence INTEGER NOT NULL, revision TEXT NOT NULL, at REAL NOT NULL,
  outcome TEXT, message TEXT, ended REAL
);
CREATE INDEX IF NOT EXISTS open_intents ON intents (outcome) WHERE outcome IS NULL;
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, address TEXT NOT NULL, host TEXT NOT NULL,
  type TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS places (session TEXT PRIMARY KEY, host TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS suspensions (
  address TEXT PRIMARY KEY, until REAL, reason TEXT NOT NULL, "by" TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Intent:
    """Something that was about to be done. `outcome` None: nobody has said yet what came of it."""

    op: str
    address: str
    host: str
    verb: str
    at: float
    outcome: str | None
    message: str


@dataclass(frozen=True)
class Happened:
    """Something that the loop saw change. `id` counts up; `at` is the wall clock's."""

    id: int
    at: float
    address: str
    host: str
    type: str
    before: str
    after: str
    reason: str
    message: str


def state_directory(fleet: str) -> Path:
    """Where this controller keeps its own state for a fleet."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "reconciler" / fleet / "controller"


class Journal:
    """One SQLite file per fleet, mode 0600. Every method raises ReconcilerError(journal) on a broken disk."""

    def __init__(self, path: Path | None) -> None:
        """`path` None: an empty journal in memory, for what must not write anything."""
        self.path = path
        with _translated(path):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def begin(
        self, op: str, *, address: str, host: str, verb: str, precondition: str, fence: int, revision: str
    ) -> None:
        """An intent, durable before the first side effect. A repeat of the same operation keeps the first time."""
        row = (op, address, host, verb, precondition, fence, revision, time.time())
        with _translated(self.path):
            self._db.execute(
                "INSERT INTO intents (op, address, host, verb, precondition, fence, revision, at)"
                " VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (op) DO UPDATE SET outcome = NULL, fence = excluded.fence",
                row,
            )

    def finish(self, op: str, outcome: str, message: str) -> None:
        """What came of an intent."""
        with _translated(self.path):
            self._db.execute(
                "UPDATE intents SET outcome = ?, message = ?, ended = ? WHERE op = ?",
                (outcome, redact(message)[:2000], time.time(), op),
            )

    def open_intents(self) -> list[Intent]:
        """Intents without an outcome: a controller was killed in between."""
        return self._intents("WHERE outcome IS NULL ORDER BY at")

    def history(self, address: str | None = None, limit: int = 100) -> list[Intent]:
        """The last intents, newest first; of one address where given."""
        if address is None:
            return self._intents("ORDER BY at DESC LIMIT ?", limit)
        return self._intents("WHERE address = ? ORDER BY at DESC LIMIT ?", address, limit)

    def _intents(self, where: str, *values: object) -> list[Intent]:
        with _translated(self.path):
            rows = self._db.execute(
                f"SELECT op, address, host, verb, at, outcome, message FROM intents {where}", values
            ).fetchall()
        return [
            Intent(op, address, host, verb, at, outcome, message or "")
            for op, address, host, verb, at, outcome, message in rows
        ]

    def note(self, happened: Sequence[Happened]) -> None:
        """Write down what happened; their `id` is given here. Of very old ones only the last 100,000 are kept."""
        rows = [
            (e.at, e.address, e.host, e.type, e.before, e.after, e.reason, redact(e.message)[:2000]) for e in happened
        ]
        with _translated(self.path), self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO events (at, address, host, type, before, after, reason, message) VALUES (?,?,?,?,?,?,?,?)",
                rows,
            )
            self._db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - 100000")

    def events(self, address: str | None = None, after: int = 0, limit: int = 100) -> list[Happened]:
        """The last that happened after the event `after`, oldest first; of one address where given."""
        with _translated(self.path):
            rows = self._db.execute(
                "SELECT id, at, address, host, type, before, after, reason, message FROM events"
                " WHERE id > ? AND (? IS NULL OR address = ?) ORDER BY id DESC LIMIT ?",
                (after, address, address, limit),
            ).fetchall()
        return [Happened(*row) for row in reversed(rows)]

    def places(self) -> dict[str, str]:
        """On which host each session was last seen."""
        with _translated(self.path):
            return dict(self._db.execute("SELECT session, host FROM places"))

    def remember(self, places: Mapping[str, str], gone: frozenset[str] = frozenset()) -> None:
        """Sessions seen now, and sessions that are proven to be nowhere any more."""
        now = time.time()
        with _translated(self.path), self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO places (session, host, at) VALUES (?,?,?)"
                " ON CONFLICT (session) DO UPDATE SET host = excluded.host, at = excluded.at",
                [(session, host, now) for session, host in places.items()],
            )
            self._db.executemany("DELETE FROM places WHERE session = ?", [(session,) for session in gone])

    def suspend(self, suspension: Suspension) -> None:
        """Nothing is done at its address from now on; takes the place of an older one. Drops what has expired."""
        until = suspension.until.timestamp() if suspension.until else None
        now = time.time()
        row = (suspension.address, until, redact(suspension.reason)[:2000], suspension.by[:200], now)
        with _translated(self.path), self._db:
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM suspensions WHERE until <= ?", (now,))
            self._db.execute(
                'INSERT OR REPLACE INTO suspensions (address, until, reason, "by", at) VALUES (?,?,?,?,?)', row
            )

    def unsuspend(self, address: str) -> bool:
        """Lift the suspension of an address; whether there was one."""
        with _translated(self.path):
            found = address in {suspension.address for suspension in self.suspensions()}
            self._db.execute("DELETE FROM suspensions WHERE address = ?", (address,))
        return found

    def suspensions(self, now: float | None = None) -> tuple[Suspension, ...]:
        """All that hold at `now` (the clock's), by address, with times of the local zone. Changes nothing."""
        with _translated(self.path):
            rows = self._db.execute(
                'SELECT address, until, reason, "by", at FROM suspensions WHERE until IS NULL OR until > ?'
                " ORDER BY address",
                (time.time() if now is None else now,),
            ).fetchall()
        return tuple(
            Suspension(address, _local(until) if until is not None else None, reason, by, _local(at))
            for address, until, reason, by, at in rows
        )

    def recall(self, key: str) -> str | None:
        """What was kept under a key, None where nothing was."""
        with _translated(self.path):
            row = self._db.execute("SELECT value FROM memory WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def keep(self, key: str, value: str | None) -> None:
        """Keep a value under a key, in place of what was there; None forgets it."""
        with _translated(self.path):
            if value is None:
                self._db.execute("DELETE FROM memory WHERE key = ?", (key,))
            else:
                self._db.execute("INSERT OR REPLACE INTO memory (key, value) VALUES (?,?)", (key, value))

    def kept(self, prefix: str) -> dict[str, str]:
        """All that is kept under keys that begin so."""
        with _translated(self.path):
            return dict(
                self._db.execute("SELECT key, value FROM memory WHERE substr(key, 1, ?) = ?", (len(prefix), prefix))
            )

    def outcomes(self, ops: Iterable[str]) -> dict[str, str | None]:
        """What came of these operations; those that were never begun are missing."""
        with _translated(self.path):
            rows = [
                row for op in ops for row in self._db.execute("SELECT op, outcome FROM intents WHERE op = ?", (op,))
            ]
        return dict(rows)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_journal(fleet: str, *, write: bool) -> Journal:
    """The fleet's journal. Without `write` nothing is created: an absent one is empty."""
    path = state_directory(fleet) / "journal.sqlite"
    return Journal(path if write or path.exists() else None)


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


@contextmanager
def _translated(path: Path | None) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise ReconcilerError(
            f"the journal {path} cannot be used: {error}",
            code="journal",
            remedy="is the disk full or read-only? The journal may be deleted: only suspensions and pins are lost",
        ) from error
