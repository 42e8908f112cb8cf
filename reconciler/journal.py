"""The local journal: intents with their outcomes, where each session was last seen, what a person put on hold.

The first two can be rebuilt by observing; suspensions, what was kept under a key, and the audit log go with the file.
What is done and what comes of it is written together with its entry in the audit log, or neither is.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from reconciler.audit import AuditLog, words
from reconciler.core.audit import Actor
from reconciler.core.holds import Suspension
from reconciler.errors import ReconcilerError
from reconciler.journal_tables import INTENTS, SCHEMA, Happened, Intent
from reconciler.redaction import redact

NOBODY = Actor()


def state_directory(fleet: str) -> Path:
    """Where this controller keeps its own state for a fleet."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "reconciler" / fleet / "controller"


class Journal:
    """One SQLite file per fleet, mode 0600. Every method raises ReconcilerError(journal) on a broken disk."""

    def __init__(self, path: Path | None, actor: Actor = NOBODY) -> None:
        """`path` None: an empty journal in memory, for what must not write anything. `actor` is who writes."""
        self.path = path
        with _translated(path):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
        self._audit = AuditLog(self._db, actor)

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is written inside is written, or none of it; nobody else writes meanwhile."""
        with _translated(self.path):
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._audit.begin(time.time())
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def begin(
        self,
        op: str,
        *,
        address: str,
        host: str,
        verb: str,
        precondition: str,
        fence: int,
        revision: str,
        evidence: str = "",
        run: str = "",
    ) -> None:
        """An intent, durable before the first side effect. A repeat of the same operation keeps the first time.

        `evidence` says in words what the decision rested on; `run` is the id of the run that it belongs to.
        """
        now = time.time()
        row = (op, address, host, verb, precondition, fence, revision, now)
        with self.together():
            self._db.execute(
                "INSERT INTO intents (op, address, host, verb, precondition, fence, revision, at)"
                " VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (op) DO UPDATE"
                " SET outcome = NULL, message = NULL, ended = NULL, fence = excluded.fence",
                row,
            )
            self._audit.append(
                "intent", now, op=op, address=address, host=host, verb=verb, precondition=precondition, fence=fence,
                revision=revision, evidence=words(evidence), run=run,
            )  # fmt: skip

    def finish(self, op: str, outcome: str, message: str) -> None:
        """What came of an intent."""
        self._end("outcome", op, outcome, message)

    def settle(self, op: str, message: str) -> None:
        """What a look says came of an intent that nobody ended. Where somebody has by now, that stays."""
        self._end("settled", op, "settled", message)

    def _end(self, kind: str, op: str, outcome: str, message: str) -> None:
        now, said = time.time(), words(message)
        with self.together():
            row = self._db.execute(
                "SELECT address, host, verb, precondition, fence, revision FROM intents"
                " WHERE op = ? AND (? OR outcome IS NULL)",
                (op, kind != "settled"),
            ).fetchone()
            if row is not None:
                address, host, verb, precondition, fence, revision = row
                self._db.execute(
                    "UPDATE intents SET outcome = ?, message = ?, ended = ? WHERE op = ?", (outcome, said, now, op)
                )
                self._audit.append(
                    kind, now, op=op, address=address, host=host, verb=verb, precondition=precondition, fence=fence,
                    revision=revision, outcome=outcome, message=said,
                )  # fmt: skip

    def record(
        self,
        kind: str,
        address: str,
        *,
        host: str = "",
        verb: str = "",
        revision: str = "",
        evidence: str = "",
        message: str = "",
    ) -> None:
        """Something that is no operation on a host: what a person permitted, or did at once (see docs/audit.md)."""
        with self.together():
            self._audit.append(
                kind, time.time(), address=address, host=host, verb=verb, revision=revision, evidence=words(evidence),
                message=words(message),
            )  # fmt: skip

    def head(self) -> tuple[int, str]:
        """The number and the hash of the last entry of the audit log."""
        with _translated(self.path):
            return self._audit.head()

    def comes_from(self, revision: str, commit: str, author: str) -> None:
        """Entries of the audit log about this revision of the specs name its commit and author from now on."""
        self._audit.comes_from(revision, commit, author)

    def open_intents(self) -> list[Intent]:
        """Intents without an outcome: a controller was killed in between."""
        return self._intents("WHERE i.outcome IS NULL ORDER BY i.at")

    def history(self, address: str | None = None, limit: int = 100) -> list[Intent]:
        """The last intents, newest first, with who had them and why; of one address where given."""
        if address is None:
            return self._intents("ORDER BY i.at DESC LIMIT ?", limit)
        return self._intents("WHERE i.address = ? ORDER BY i.at DESC LIMIT ?", address, limit)

    def _intents(self, where: str, *values: object) -> list[Intent]:
        with _translated(self.path):
            rows = self._db.execute(f"{INTENTS} {where}", values).fetchall()
        return [Intent(*row) for row in rows]

    def note(self, happened: Sequence[Happened]) -> None:
        """Write down what happened; their `id` is given here. Of very old ones only the last 100,000 are kept."""
        rows = [
            (e.at, e.address, e.host, e.type, e.before, e.after, e.reason, redact(e.message)[:2000]) for e in happened
        ]
        with self.together():
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

    def stamp(self) -> int:
        """Another number once another process has written."""
        with _translated(self.path):
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def places(self) -> dict[str, str]:
        """On which host each session was last seen."""
        with _translated(self.path):
            return dict(self._db.execute("SELECT session, host FROM places"))

    def remember(self, places: Mapping[str, str], gone: frozenset[str] = frozenset()) -> None:
        """Sessions seen now, and sessions that are proven to be nowhere any more."""
        now = time.time()
        with self.together():
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
        with self.together():
            self._db.execute("DELETE FROM suspensions WHERE until <= ?", (now,))
            self._db.execute(
                'INSERT OR REPLACE INTO suspensions (address, until, reason, "by", at) VALUES (?,?,?,?,?)', row
            )
            self.record("suspend", suspension.address, message=suspension.sentence())

    def unsuspend(self, address: str) -> bool:
        """Lift the suspension of an address; whether there was one."""
        with self.together():
            found = address in {suspension.address for suspension in self.suspensions()}
            self._db.execute("DELETE FROM suspensions WHERE address = ?", (address,))
            if found:
                self.record("unsuspend", address)
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
        with self.together():
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


def journal_path(fleet: str) -> Path:
    """Where the fleet's journal is, or will be."""
    return state_directory(fleet) / "journal.sqlite"


def open_journal(fleet: str, *, write: bool, actor: Actor = NOBODY) -> Journal:
    """The fleet's journal. Without `write` nothing is created: an absent one is empty. `actor` is who writes."""
    path = journal_path(fleet)
    return Journal(path if write or path.exists() else None, actor)


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
            remedy="is the disk full or read-only? With the journal suspensions, pins and the audit log are lost",
        ) from error


__all__ = ["NOBODY", "Happened", "Intent", "Journal", "journal_path", "open_journal", "state_directory"]
