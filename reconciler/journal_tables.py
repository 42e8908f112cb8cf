"""The tables of the journal, and what their rows are."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.audit import SCHEMA as AUDIT_SCHEMA

SCHEMA = f"""
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
{AUDIT_SCHEMA}
"""
# The last entry that begins an operation: who, and why. One that was found is nobody's.
INTENTS = """
SELECT i.op, i.address, i.host, i.verb, i.at, i.outcome, coalesce(i.message, ''), i.revision, i.precondition, i.fence,
  i.ended, coalesce(a.evidence, ''), coalesce(a."user", ''), coalesce(a.machine, ''), coalesce(a.controller, ''),
  coalesce(a.command, ''), coalesce(a."commit", ''), coalesce(a.author, ''), coalesce(a.run, '')
FROM intents i LEFT JOIN audit a
  ON a.seq = (SELECT max(seq) FROM audit WHERE op = i.op AND op != '' AND kind = 'intent')
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
    revision: str = ""
    precondition: str = ""
    fence: int = 0
    ended: float | None = None
    evidence: str = ""  # from here on: what the audit log says of it, as far as it was asked
    user: str = ""
    machine: str = ""
    controller: str = ""
    command: str = ""
    commit: str = ""
    author: str = ""
    run: str = ""


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
