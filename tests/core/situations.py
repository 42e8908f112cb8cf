"""Fleets at a moment, for the tests of the core: specs as text, what was seen as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from reconciler import drivers
from reconciler.core.agent import Agent
from reconciler.core.diff import Diff, compare, fingerprint
from reconciler.core.holds import Gate, Hold, open_gate
from reconciler.core.launching import Context, record_for
from reconciler.core.observed import (
    Exit,
    Facts,
    HostSeen,
    Observed,
    Process,
    Reached,
    SessionSeen,
    State,
    StoreFile,
    Unreached,
)
from reconciler.core.parse import parse
from reconciler.core.plan import Action, Plan, make_plan
from reconciler.core.record import Record
from reconciler.core.spec import Desired
from reconciler.core.transcript import Archived, ArchivedFile, Relation

NOW = 1_800_000_000
BOOT = "boot-1"
CONVERSATION = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
TRANSCRIPT = StoreFile(f"/home/me/.claude/projects/-home-me/{CONVERSATION}.jsonl", 4096, 1.0)
AGENT = '[sessions.api]\nagent = "claude-code"\n'
ON_GPU = "[hosts.gpu]\n[defaults.session]\nhost = 'gpu'\n"


def specs(text: str, **files: str) -> Desired:
    return parse({"fleet.toml": text, **{f"{name}.toml": more for name, more in files.items()}}, {})


def agents_of(desired: Desired) -> Mapping[str, Agent]:
    return drivers.agents(desired, frozenset({"claude-code", "codex", "shell"}))


def applied(desired: Desired, name: str = "api", **changes: Any) -> Record:
    """The record that an apply of these specs leaves behind, prompt handed over."""
    context = Context(desired, agents_of(desired), "plan-0", "someone")
    agent = context.agent(name)
    conversation = CONVERSATION if agent.resumable else None
    record = record_for(context, name, None, conversation, NOW - 3600)
    prompt = desired.prompts.get(name)
    return replace(record, **{"prompt": fingerprint(prompt) if prompt else None, **changes})


def status_file(state: str = "idle", session: str = CONVERSATION, **more: object) -> str:
    import json

    return json.dumps({"pid": 100, "procStart": "7", "sessionId": session, "status": state, **more})


def running(record: Record, status: str | None = "idle", **changes: Any) -> SessionSeen:
    """A live session whose agent says what it does."""
    texts = {} if status is None else {"status": status if status.startswith("{") else status_file(status)}
    facts = Facts(texts=texts, store=(TRANSCRIPT,), pid=100, started="7")
    process = Process(100, "7", record.incarnation, 99, True, BOOT)
    seen = SessionSeen(record.name, "running", record, record.incarnation, process=process, facts=facts)
    return replace(seen, **changes)


def gone(record: Record, state: State, boot: str = BOOT, exit: Exit | None = None, **changes: Any) -> SessionSeen:
    """A session without a process: exited, lost or stopped."""
    process = Process(100, "7", record.incarnation, 99, False, boot)
    facts = Facts(store=(TRANSCRIPT,))
    trouble = "its record says it runs, its process is proven gone" if state == "lost" else ""
    seen = SessionSeen(
        record.name, state, record, record.incarnation, process=process, exit=exit, facts=facts, trouble=trouble
    )
    return replace(seen, **changes)


def ended(record: Record, code: int, error: str = "", detail: str = "") -> SessionSeen:
    return gone(record, "exited", exit=Exit(code, NOW - 60, record.incarnation, error, detail))


def archived(name: str = "api", size: int = 5000, **changes: Any) -> Archived:
    """What the archive has of a session's conversation: one transcript."""
    files = {"transcript.jsonl": ArchivedFile("transcript.jsonl", size, "0" * 64, TRANSCRIPT.path, size, 1.0)}
    return replace(Archived(name, CONVERSATION, "claude-code", "local", NOW - 60, files if size else {}), **changes)


def host(name: str, *sessions: SessionSeen, **changes: Any) -> Reached:
    reached = Reached(
        name=name, hostname=name, user="me", home="/home/me", system="Linux", machine="m", boot=BOOT,
        state_dir="/home/me/.local/state/reconciler/default", now=NOW, fence=1, path="/usr/bin", tmux="tmux 3.4",
        shell="/bin/bash", sessions={seen.name: seen for seen in sessions},
    )  # fmt: skip
    return replace(reached, **changes)


def silent(name: str, message: str = "gpu: connection refused") -> Unreached:
    return Unreached(name, "refused", message, f"start sshd on {name}")


def observed(*hosts: HostSeen) -> Observed:
    return Observed({seen.name: seen for seen in hosts})


def diff_of(desired: Desired, *hosts: HostSeen, last_seen: Mapping[str, str] | None = None) -> Diff:
    return compare(desired, observed(*hosts), last_seen)


def plan_of(
    desired: Desired,
    *hosts: HostSeen,
    last_seen: Mapping[str, str] | None = None,
    hold: Mapping[str, str | Hold | None] | None = None,
    gate: Gate = open_gate,
    restart: frozenset[str] = frozenset(),
    plan_id: str = "plan-1",
    archive: Iterable[Archived] = (),
    relations: Mapping[str, Relation] | None = None,
    taken: frozenset[str] = frozenset(),
) -> Plan:
    """Compare and plan, as a pass does."""
    seen = observed(*hosts)
    diff = compare(desired, seen, last_seen)
    return make_plan(
        diff, desired, seen, agents_of(desired), plan_id=plan_id, controller="me", hold=hold, gate=gate,
        restart=restart, archive={found.session: found for found in archive}, relations=relations, taken=taken,
    )  # fmt: skip


def action(plan: Plan, name: str = "api") -> Action:
    (found,) = [item for item in plan.actions if item.address == f"session.{name}"]
    return found
