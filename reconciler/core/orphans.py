"""What runs on hosts that no spec declares: our sessions that left the specs, and agents that are nobody's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reconciler.core.diff import Diff, Entry
from reconciler.core.observed import Observed, Reached, Unreached, clean
from reconciler.core.spec import Desired
from reconciler.core.strays import Stray, name_for


@dataclass(frozen=True)
class Orphan:
    """One of them. `kind`: a `session` of this fleet, or a `process`. `take` is the command that takes it over or lets
    it go, `end` the one that ends it; empty where there is none. `since` is by the host's clock."""

    host: str
    kind: Literal["session", "process"]
    what: str
    pid: int | None
    since: int | None
    conversation: str | None
    take: str
    end: str
    note: str = ""
    directory: str = ""
    tmux: tuple[str, str] | None = None  # socket and pane


def orphans(
    desired: Desired, observed: Observed, diff: Diff, strays: Mapping[str, Sequence[Stray]]
) -> tuple[Orphan, ...]:
    """By host, the sessions first. `strays` are those of each host that answered."""
    found = [_session(desired, observed, entry) for entry in diff.entries if entry.desired is None]
    for host, seen in observed.hosts.items():
        if isinstance(seen, Reached):
            found += _processes(desired, seen, strays.get(host, ()))
    return tuple(sorted(found, key=lambda orphan: (orphan.host, orphan.kind == "process")))


def _session(desired: Desired, observed: Observed, entry: Entry) -> Orphan:
    seen, host = entry.seen, observed.hosts.get(entry.host)
    record = seen.record if seen else None
    process = seen.process if seen and seen.process and seen.process.alive else None
    # Nothing ends it while it is broken, and nobody gets to a host that the specs do not name.
    ends = desired.fleet.prune and isinstance(host, Reached) and record is not None
    end = f"reconciler apply --target {entry.address}" if ends else ""
    return Orphan(
        entry.host, "session", entry.address, process.pid if process else None, record.at if record else None,
        record.conversation if record else None, f"reconciler forget {entry.address}", end, entry.message,
        clean(record.workdir, 300) if record else "",
    )  # fmt: skip


def _processes(desired: Desired, host: Reached, strays: Iterable[Stray]) -> list[Orphan]:
    taken = frozenset(desired.sessions)
    wanted = _not_there(desired, host)
    found = []
    for stray in strays:
        agent = stray.agents[0]
        name = next((name for name, of in wanted.items() if of in stray.agents), "")
        if name:
            del wanted[name]
        name = name or name_for(stray, taken)
        taken |= {name}
        take = f"reconciler adopt {name} --host {host.name} --pid {stray.pid}"
        note = _where(stray)
        if stray.conversation is None:
            take, note = "", f"{note}; which conversation it works on cannot be told"
        since = host.now - stray.seconds if stray.seconds is not None else None
        found.append(Orphan(
            host.name, "process", agent, stray.pid, since, stray.conversation, take,
            f"reconciler exec {host.name} -- kill {stray.pid}", note, stray.directory,
            (stray.pane.socket, stray.pane.id) if stray.pane else None,
        ))  # fmt: skip
    return found


def _not_there(desired: Desired, host: Reached) -> dict[str, str]:
    """Sessions that are declared for a host and have never been on it, with their agents: one of them may be meant."""
    return {
        name: session.agent
        for name, session in desired.sessions.items()
        if session.host == host.name and name not in host.sessions and name not in desired.group_chats
    }


def _where(stray: Stray) -> str:
    was = stray.was.partition("/forgotten/")
    forgotten = f"let go of as session.{was[2].rpartition('-')[0]} of the fleet {was[0]}, " if was[1] else ""
    terminal = f"in the tmux session {stray.pane.session}" if stray.pane else "outside of tmux"
    return forgotten + terminal


def orphans_json(found: Sequence[Orphan], observed: Observed) -> dict[str, Any]:
    """The document that `orphans --json` prints, format 1.0."""
    return {
        "format_version": "1.0",
        "orphans": [
            {
                "host": o.host, "kind": o.kind, "what": o.what, "pid": o.pid, "since": o.since,
                "conversation_id": o.conversation, "directory": o.directory or None,
                "tmux": {"socket": o.tmux[0], "pane": o.tmux[1]} if o.tmux else None,
                "note": o.note, "take": o.take or None, "end": o.end or None,
            }
            for o in found
        ],
        "hosts": [
            {"name": name, "reachable": isinstance(host, Reached),
             "error": host.message if isinstance(host, Unreached) else None}
            for name, host in observed.hosts.items()
        ],
    }  # fmt: skip
