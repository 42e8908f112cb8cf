"""`reconciler why`: from the line in the specs over the evidence on the host to what would be done."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from reconciler.asking import controller_of
from reconciler.audit import reading
from reconciler.cli._completion import session_names
from reconciler.cli.common import AsJson, Specs, load, run
from reconciler.cli.render.audit import entry_json, line
from reconciler.cli.render.table import ago
from reconciler.core.audit import Entry
from reconciler.core.launching import Context, command_of
from reconciler.core.observed import Reached
from reconciler.core.printed import SYMBOLS, action_json, escaped
from reconciler.core.readiness import activity_of
from reconciler.core.selection import address
from reconciler.core.spec import Desired, name_of
from reconciler.core.status import status_of
from reconciler.errors import ReconcilerError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import journal_path, open_journal
from reconciler.reconcile import Pass, preview


def command(
    which: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="session.NAME, group_chat.NAME, or its bare name.", autocompletion=session_names
        ),
    ],
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Say why a session is as it is: what is written, what was seen and where, what follows."""
    desired = load(directory)
    wanted = address(desired, which)

    async def work() -> tuple[Pass, list[str], list[str]]:
        async with Hosts() as hosts:
            with open_journal(desired.fleet.name, write=False) as journal:
                done = await preview(desired, hosts, journal)
            return done, await _version(done, hosts, wanted), await _kept(desired, wanted)

    done, version, kept = run(work())
    chain = _chain(done, wanted)
    chain["seen"] += version
    chain["kept"] = kept
    last = _last(desired, wanted)
    if as_json:
        audit = entry_json(last) if last else None
        typer.echo(json.dumps({"format_version": "1.0", "address": wanted, **chain, "audit": audit}, indent=2))
        return
    chain["done last"] = [line(last).strip()] if last else []
    for key in ("written", "seen", "follows", "kept", "done last"):
        if not chain[key]:
            continue
        typer.echo(f"{key}:")
        for words in chain[key]:
            typer.echo(f"  {escaped(words)}")


def _last(desired: Desired, wanted: str) -> Entry | None:
    """The last entry of the audit log that is about it."""
    with reading(journal_path(desired.fleet.name)) as log:
        found = log.last(1, wanted) if log is not None else []
    return found[0] if found else None


def _chain(done: Pass, wanted: str) -> dict[str, Any]:
    entries = [entry for entry in done.diff.entries if entry.address == wanted]
    if not entries:
        raise UsageError(f"{wanted} is neither in the specs nor on a host", remedy="reconciler status")
    entry = entries[0]
    source = done.desired.locate(wanted, None)
    written = [f"{source.file}:{source.line}" if source else "nowhere: no spec declares it"]
    actions = [a for a in done.plan.actions if a.address == wanted]
    follows = [f"{SYMBOLS[a.verb]} {a.verb}: {a.message}" for a in actions] or ["nothing: it is as declared"]
    hold = done.plan.suspended.get(wanted)
    if hold is not None and not any(a.reason == "suspended" for a in actions):
        follows += [hold.message, f"remedy: {hold.remedy}"]
    follows += [f"remedy: {a.remedy}" for a in actions if a.remedy]
    follows += [f"{c.field}: {c.before} → {c.after}" for a in actions for c in a.changes]
    return {
        "written": written,
        "seen": _seen(done, entry),
        "follows": follows,
        "actions": [action_json(a) for a in actions],
    }


async def _version(done: Pass, hosts: Hosts, wanted: str) -> list[str]:
    """Which version of its agent the host has, and whether the driver knows it."""
    name = name_of(wanted)
    session = done.desired.sessions.get(name)
    if session is None or not isinstance(done.observed.hosts.get(session.host), Reached):
        return []
    agent = done.agents[session.agent]
    if not agent.version_args:
        return []
    command = command_of(Context(done.desired, done.agents, "", ""), name)
    asked = " ".join((command, *agent.version_args))
    connection = hosts.connection(session.host, done.desired.hosts[session.host])
    reached = await connection.look(done.desired.fleet.name, (("version", asked),))
    version = agent.parse_version(reached.versions.get(asked, ""))
    if version is None:
        return [f"agent: {session.agent}, of an unknown version"]
    known = agent.known_versions
    verified = f"the driver was verified with {known}" if known else "nobody has verified the driver with it"
    return [f"agent: {session.agent} {version}; {verified}"]


async def _kept(desired: Desired, wanted: str) -> list[str]:
    """What a running controller makes of it: its attempts, what it waits for, how old its last look is."""
    controller = await controller_of(desired.fleet.name)
    if controller is None:
        return []
    try:
        hello, answer = await controller.ask("hello"), await controller.ask("status")
    except ReconcilerError:
        return []
    finally:
        await controller.close()
    lines = [f"by reconciler run (pid {hello['pid']}), at {hello['revision'] or 'no revision yet'}"]
    for status in (status_of(found) for found in answer["statuses"]):
        if status.address != wanted:
            continue
        looked = answer["looked"].get(status.host)
        lines.append(f"looked at {status.host} {ago(int(time.time() - looked))} ago" if looked else "not looked at yet")
        lines += [f"{c.type} ({c.reason}): {c.message}" for c in status.conditions if c.status == "True" and c.message]
    return lines


def _seen(done: Pass, entry: Any) -> list[str]:
    host = done.observed.hosts.get(entry.host)
    if not isinstance(host, Reached):
        return [f"{entry.host} did not answer: {entry.message}"]
    seen = entry.seen
    if seen is None or seen.record is None:
        return [f"{host.name} answered; it has no record in {host.state_dir}/sessions/{entry.name}"]
    lines = [
        f"{host.name} answered at {host.now} by its clock, boot {host.boot}",
        f"record: {host.state_dir}/sessions/{entry.name}/record.json, incarnation {seen.incarnation}, "
        f"meant to be {seen.record.intent}, conversation {seen.record.conversation or 'none'}",
        f"state: {seen.state}" + (f" ({seen.trouble})" if seen.trouble else ""),
    ]
    if seen.process is not None:
        alive = {True: "alive", False: "proven gone", None: "nobody can tell"}[seen.process.alive]
        lines.append(f"process: pid {seen.process.pid}, started {seen.process.start}: {alive}")
    if seen.exit is not None:
        lines.append(f"exit: code {seen.exit.code}, {ago(host.now - seen.exit.at)} ago {seen.exit.error}".rstrip())
    agent = done.agents.get(seen.record.agent)
    if agent is not None and seen.state == "running":
        activity = activity_of(agent, seen)
        lines.append(f"activity: {activity.state} (source: {activity.source or 'none'}) {activity.detail}".rstrip())
    return lines
