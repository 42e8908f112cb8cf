"""The audit log as it is kept: a table of the journal that only grows, in one transaction with what it tells of.

Two triggers refuse what would change or delete an entry, a third one a gap. Whoever may write the file can drop them:
that shows in the chain (`core.audit`), and where all of the chain is made anew, against a head kept elsewhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.core.audit import FIELDS, GENESIS, Actor, Check, Entry, Kept, Verdict, entry_of, imported, link
from reconciler.errors import ReconcilerError
from reconciler.redaction import redact

_COLUMNS = ", ".join(f'"{name}"' for name in FIELDS)
_TYPES = {"seq": "INTEGER PRIMARY KEY", "fence": "INTEGER NOT NULL"}
_TABLE = ", ".join(f'"{name}" {_TYPES.get(name, "TEXT NOT NULL")}' for name in FIELDS)
_INSERT = f"INSERT INTO audit ({_COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))})"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS audit ({_TABLE});
CREATE INDEX IF NOT EXISTS audit_ops ON audit (op) WHERE op != '';
CREATE INDEX IF NOT EXISTS audit_addresses ON audit (address);
CREATE TRIGGER IF NOT EXISTS audit_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER IF NOT EXISTS audit_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER IF NOT EXISTS audit_order BEFORE INSERT ON audit
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit)
BEGIN SELECT RAISE(ABORT, 'the audit log only grows, at its end'); END;
"""
_NO_LOG = "an older version wrote it, and the next command that acts begins a log, or somebody took the log away"
_INTENTS = (
    "SELECT op, at, address, host, verb, precondition, revision, fence, outcome, coalesce(message, '') FROM intents"
)


def words(text: str, limit: int = 2000) -> str:
    """Text as it may be kept: no secret that is known, no half of a character, bounded."""
    return redact(text).encode("utf-8", "replace").decode("utf-8")[:limit]


def utc(at: object) -> str:
    """A moment (seconds since 1970) as entries have it; what is none, as it stands."""
    try:
        return datetime.fromtimestamp(float(at), UTC).isoformat(timespec="microseconds")[:26] + "Z"  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError, OSError):
        return str(at)


class AuditLog:
    """The end of the log, for one who writes. Every call is inside a transaction of the journal that holds its lock."""

    def __init__(self, db: sqlite3.Connection, actor: Actor) -> None:
        self._db = db
        self._actor = actor
        self._commits: dict[str, tuple[str, str]] = {}

    def comes_from(self, revision: str, commit: str, author: str) -> None:
        """Entries about this revision of the specs name its commit and author from now on."""
        # Of very many, the oldest is told less of: what is under way rests on the newest few.
        kept = list(self._commits.items())[-63:]
        self._commits = {**dict(kept), revision: (commit, words(author, 200))}

    def head(self) -> tuple[int, str]:
        """The number and the hash of the last entry; 0 where there is none."""
        last = self._db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(last[0]), str(last[1])) if last else (0, GENESIS)

    def append(self, kind: str, at: float, **fields: Any) -> None:
        """One more entry. Raises sqlite3.Error."""
        seq, previous = self.head()
        self._insert(self._entry(seq + 1, kind, at, **fields), previous)

    def begin(self, at: float) -> None:
        """The first entry, where there is none yet, before anything else is written: it says what the log was begun
        with. Where the journal is older than its log, an entry for each intent that was there follows."""
        if self.head()[0]:
            return
        rows = self._db.execute(f"{_INTENTS} ORDER BY at").fetchall()
        left = sum(row[8] is None for row in rows)
        what = (
            f"a journal without audit log, with {len(rows)} intents, {left} of them open" if rows else "a new journal"
        )
        seq, previous = 1, self._insert(self._entry(1, "begun", at, message=f"the log begins with {what}"), GENESIS)
        for op, begun, address, host, verb, precondition, revision, fence, outcome, message in rows:
            seq += 1
            found = self._entry(
                seq, "found", at, address=address, host=host, verb=verb, precondition=precondition, revision=revision,
                op=op, fence=fence, outcome=outcome or "", message=message, evidence=f"begun at {utc(begun)}",
            )  # fmt: skip
            previous = self._insert(replace(found, commit="", author=""), previous)

    def _entry(self, seq: int, kind: str, at: float, **fields: Any) -> Entry:
        commit, author = self._commits.get(fields.get("revision", ""), ("", ""))
        who = self._actor
        return Entry(
            seq, utc(at), kind, **fields, commit=commit, author=author, user=who.user, machine=who.machine,
            controller=who.controller, command=who.command,
        )  # fmt: skip

    def _insert(self, entry: Entry, previous: str) -> str:
        digest = link(previous, entry)
        self._db.execute(_INSERT, tuple({**vars(entry), "hash": digest}.values()))
        return digest


class AuditReader:
    """The log for one who reads, while others write: all that one reader gives is of one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.execute("BEGIN")
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self._log, self._intents = "audit" in tables, "intents" in tables

    def entries(self, since: str = "") -> Iterator[Entry]:
        """All from the first one of that time on. Raises ReconcilerError(audit-entry) for a row that is none."""
        before = self.before(since)[0]
        rows = (
            self._db.execute(f"SELECT {_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq", (before,)) if self._log else ()
        )
        yield from map(_row, rows)

    def last(self, limit: int, address: str | None = None, since: str = "") -> list[Entry]:
        """The newest ones, oldest first; of one address where given."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE (? IS NULL OR address = ?) AND at >= ? ORDER BY seq DESC LIMIT ?",
            (address, address, since, limit),
        ).fetchall() if self._log else []  # fmt: skip
        return [_row(row) for row in reversed(rows)]

    def before(self, since: str) -> tuple[int, str]:
        """The number and the hash of the last entry that is older than the first one of that time."""
        if not since or not self._log:
            return 0, GENESIS
        found = self._db.execute(
            "SELECT seq, hash FROM audit WHERE seq < (SELECT coalesce(min(seq), 1 << 62) FROM audit WHERE at >= ?)"
            " ORDER BY seq DESC LIMIT 1",
            (since,),
        ).fetchone()
        return (int(found[0]), str(found[1])) if found else (0, GENESIS)

    def kept(self) -> Iterator[Kept]:
        """The intents of the journal."""
        for op, at, *rest in self._db.execute(_INTENTS) if self._intents else ():
            yield Kept(op, utc(at), *rest)

    def verify(self, since: str = "", head: str | None = None) -> Verdict:
        """Check the chain, or its part from a time on, and the table of intents against it."""
        before, previous = self.before(since)
        check = Check(previous, before, head)
        try:
            whole = all(check.take(entry) for entry in self.entries(since))
        except ReconcilerError as error:
            check.broken.append((check.before + 1, error.message))
            whole = False
        if whole and check.before == 0 and (left := sum(1 for _ in self.kept())):
            check.broken.append((0, f"the journal has {left} intents and no audit log: {_NO_LOG}"))
        elif whole:
            check.compare(self.kept(), since)
        return check.verdict()

    def close(self) -> None:
        """Let go of the moment."""
        self._db.close()


@contextmanager
def reading(path: Path) -> Iterator[AuditReader | None]:
    """The log in a journal's file, which is not changed by that; None where there is no file.

    Raises ReconcilerError(journal) for a file that cannot be read.
    """
    if not path.exists():
        yield None
        return
    db = None
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        yield AuditReader(db)
    except sqlite3.Error as error:
        raise ReconcilerError(f"the journal {path} cannot be read: {error}", code="journal") from error
    finally:
        if db is not None:
            db.close()


def verify_export(path: Path, since: str = "", head: str | None = None) -> Verdict:
    """Check an export, on any machine. A file that begins later than the log is checked from there on.

    Raises ReconcilerError(audit-file) where it cannot be read.
    """
    check: Check | None = None
    try:
        with path.open(encoding="ascii") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    previous, entry = imported(line)
                except ReconcilerError as error:
                    check = check or Check(head=head)
                    check.broken.append((check.before + 1, f"line {number}: {error.message}"))
                    break
                if check is None and entry.at < since:
                    continue
                check = check or (Check(previous, entry.seq - 1, head) if entry.seq > 1 else Check(head=head))
                if not check.take(entry, previous):
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise ReconcilerError(f"{path} cannot be read: {error}", code="audit-file") from None
    return (check or Check(head=head)).verdict()


def _row(row: tuple[Any, ...]) -> Entry:
    return entry_of(dict(zip(FIELDS, row, strict=True)))
