"""Compare what is desired with what was seen: for each session one entry that says what is the matter, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from reconciler.core.chats import written_of
from reconciler.core.known import NEVER_SEEN, HostKnown, Known, Place, different
from reconciler.core.observed import Observed, Reached, SessionSeen, Unreached
from reconciler.core.spec import Desired, Session, address_of, name_of

Kind = Literal["in-sync", "missing", "drifted", "orphaned", "unknown"]

# The keys that a launch depends on. Changing any other leaves the process alone.
LAUNCH_KEYS = ("agent", "workdir", "model", "permission_mode", "args", "env", "strategy", "lifecycle")
AGENT_KEYS = (
    "extends", "command", "args", "env", "model", "permission_mode", "start", "resume", "turn", "resume_turn",
    "prompt_via",
)  # fmt: skip
HOST_KEYS = ("env", "shell", "workdir", "strategy", "path_map")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. None stands for "not set"."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One session, desired or seen or both. `changes` need a new process, `live` changes do not."""

    name: str
    kind: Kind
    host: str
    reason: str
    message: str
    desired: Session | None = None
    seen: SessionSeen | None = None
    changes: tuple[Change, ...] = ()
    live: tuple[Change, ...] = ()
    origin: SessionSeen | None = None  # of a session that has to move: what is on the host where it is now
    origin_host: str = ""

    @property
    def address(self) -> str:
        """`session.NAME` or `group_chat.NAME`."""
        record = self.seen.record if self.seen else None
        return address_of(self.name, self.desired.agent if self.desired else record.agent if record else "")

    @property
    def is_chat(self) -> bool:
        """Whether the session is a group chat."""
        return self.address.startswith("group_chat.")


@dataclass(frozen=True, slots=True)
class Diff:
    """All entries, in the order of the specs, then the orphans by host and name."""

    entries: tuple[Entry, ...]


def fingerprint(text: str) -> str:
    """A short digest of a text, to compare and never to read back."""
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """A spec value as JSON data."""
    if isinstance(value, (str, int)):
        return value
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _environment(table: Mapping[str, str]) -> dict[str, str]:
    # Values of environments may be secrets, also when somebody wrote one down: only digests leave the spec.
    return {name: fingerprint(value) for name, value in table.items()}


def _keys(model: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    said = model.model_fields_set
    for key in keys:
        if key in said and (value := getattr(model, key)) is not None:
            found[key] = _environment(value) if key == "env" else _plain(value)
    return found


def written(desired: Desired, name: str) -> dict[str, Any]:
    """What a person wrote that the launch of a session depends on, by key; never a default.

    Keys of the session stand as they are; those of its host and its agent's table are prefixed (`host.env`,
    `agent.model`).
    """
    if name in desired.group_chats:
        return written_of(desired, name)
    session = desired.sessions[name]
    result = _keys(session, LAUNCH_KEYS)
    host = desired.hosts[session.host]
    if not host.model_fields_set.isdisjoint(HOST_KEYS):
        for key, value in _keys(host, HOST_KEYS).items():
            if key not in ("workdir", "strategy") or key not in result:
                result[f"host.{key}"] = value
    if session.agent in host.agents:
        for key, value in _keys(host.agents[session.agent], ("command", "env")).items():
            result[f"host.agents.{key}"] = value
    if session.agent in desired.agents:
        for key, value in _keys(desired.agents[session.agent], AGENT_KEYS).items():
            result[f"agent.{key}"] = value
    return result


def digest(values: Mapping[str, Any]) -> str:
    """The digest of what `written` gave."""
    return fingerprint(_CANONICAL(values))


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The keys in which two tables differ; those inside environments one by one, without their values."""
    if before == after:
        return ()
    found: list[Change] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key.rpartition(".")[2] == "env":
            old, new = old or {}, new or {}
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name):
                    found.append(Change(f"{key}.{name}", _masked(old.get(name)), _masked(new.get(name), "changed")))
        else:
            found.append(Change(key, old, new))
    return tuple(found)


def _masked(value: object, word: str = "set") -> str | None:
    return None if value is None else f"({word})"


def compare(
    desired: Desired, observed: Observed, last_seen: Mapping[str, str] | None = None, known: Known | None = None
) -> Diff:
    """Find for each session what is the matter. Pure; the same arguments give the same entries.

    `last_seen` is what observation alone cannot tell: the host on which the journal last saw each session. `known` is
    what the last time left there, for the next: entries that rest on the same are the same objects.
    """
    if known is None:
        return _compared(desired, observed, last_seen or {})
    known.about(desired)
    known.recognise(observed)
    was: _Compared = known.compared or _Compared.nothing(desired)
    now = replace(was, hosts=known.hosts, last=dict(last_seen or {}), reached=observed.reached)
    known.anew["entries"] = anew = []
    changed = different(was.hosts, now.hosts)
    for name in desired.sessions if known.compared is None else _touched(desired, was, now, changed):
        host = known.hosts.get(desired.sessions[name].host, NEVER_SEEN)
        places, last = known.places.get(name, ()), now.last.get(name)
        basis = (host.facts, host.sessions.get(name), places, last, last in now.reached)
        if now.bases.get(name) != basis or name in now.renames:
            entry = _renamed(desired, observed, name, now.renames.get(name))
            now.declared[name] = entry or _declared(desired, observed, last, places, name)
            now.bases[name] = basis
            anew.append(name)
            now.renamed.pop(name, None)
            if entry is not None and entry.reason == "renamed" and entry.seen is not None:
                now.renamed[name] = entry.host, entry.seen.name
    now.hidden = frozenset(now.renamed.values())
    for at in changed if now.hidden == was.hidden else {*was.hosts, *now.hosts}:
        before = {entry.name: entry for entry in now.orphans.pop(at, ())}
        found = [_left(at, seen, before, anew) for seen in _of_no_spec(desired, known, at) if now.shows(at, seen)]
        if found:
            now.orphans[at] = found
    if known.compared is None or was.last != now.last:
        now.behind = _left_behind(desired, now.last)
    known.compared = now
    orphans = [entry for host in known.hosts for entry in now.orphans.get(host, ())] if now.orphans else []
    return Diff((*now.declared.values(), *orphans, *now.behind))


def _compared(desired: Desired, observed: Observed, last_seen: Mapping[str, str]) -> Diff:
    """The same of who keeps nothing for a next time."""
    places = _places(observed)
    renames = {name_of(m.to): name_of(m.from_) for m in desired.moved}
    entries = [
        _renamed(desired, observed, name, renames.get(name))
        or _declared(desired, observed, last_seen.get(name), places.get(name, ()), name)
        for name in desired.sessions
    ]
    renamed = {(e.host, e.seen.name) for e in entries if e.reason == "renamed" and e.seen is not None}
    for host, seen in observed.hosts.items():
        if isinstance(seen, Reached):
            entries += [
                _orphan(host, session)
                for name, session in sorted(seen.sessions.items())
                if name not in desired.sessions and _kept(session) and (host, name) not in renamed
            ]
    return Diff((*entries, *_left_behind(desired, last_seen)))


@dataclass(slots=True)
class _Compared:
    """The entries of the last time, and all that they rested on."""

    wanted: Mapping[str, list[str]]  # the sessions that each host is to have
    renames: Mapping[str, str]  # what these rest on is there under another name: they are always compared again
    declared: dict[str, Entry] = field(default_factory=dict)
    bases: dict[str, object] = field(default_factory=dict)
    orphans: dict[str, list[Entry]] = field(default_factory=dict)  # by host
    renamed: dict[str, tuple[str, str]] = field(default_factory=dict)  # where those are that are to be renamed, as what
    hidden: frozenset[tuple[str, str]] = frozenset()  # all of these: they are no orphans
    behind: list[Entry] = field(default_factory=list)
    hosts: Mapping[str, HostKnown] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)
    reached: frozenset[str] = frozenset()

    @staticmethod
    def nothing(desired: Desired) -> _Compared:
        """Before the first time."""
        wanted: dict[str, list[str]] = {}
        for name, session in desired.sessions.items():
            wanted.setdefault(session.host, []).append(name)
        return _Compared(wanted, {name_of(m.to): name_of(m.from_) for m in desired.moved})

    def shows(self, host: str, seen: SessionSeen) -> bool:
        """Whether a session that left the specs still has something to do."""
        return _kept(seen) and (host, seen.name) not in self.hidden


def _touched(desired: Desired, was: _Compared, now: _Compared, changed: Iterable[str]) -> Iterable[str]:
    """The declared sessions of which anything that their entry rests on may be another than it was."""
    if tuple(was.hosts) != tuple(now.hosts):
        return desired.sessions
    names = set(was.renames)
    for host in changed:
        names.update(was.wanted.get(host, ()), was.hosts[host].places, now.hosts[host].places)
    if was.last != now.last:
        names.update(n for n in was.last.keys() | now.last.keys() if was.last.get(n) != now.last.get(n))
    if turned := was.reached ^ now.reached:
        names.update(name for name, host in now.last.items() if host in turned)
    return [name for name in names if name in desired.sessions]


def _of_no_spec(desired: Desired, known: Known, host: str) -> list[SessionSeen]:
    here = known.hosts.get(host, NEVER_SEEN).sessions
    return [here[name] for name in sorted(name for name in here if name not in desired.sessions)]


def _left(host: str, seen: SessionSeen, before: Mapping[str, Entry], anew: list[Any]) -> Entry:
    entry = before.get(seen.name)
    if entry is None or entry.seen is not seen:
        entry = _orphan(host, seen)
        anew.append((host, seen.name))
    return entry


def _left_behind(desired: Desired, last_seen: Mapping[str, str]) -> list[Entry]:
    """Sessions that left the specs together with their host: nobody looks there any more, and that is said."""
    forgotten = {item.address for item in desired.removed}
    return [
        Entry(
            name, "unknown", host, "host-undeclared",
            f"it was last seen on {host}, which is not in the specs any more: declare the host again, "
            f"or let go of it: reconciler forget session.{name}",
        )
        for name, host in sorted(item for item in last_seen.items() if item[1] not in desired.hosts)
        if name not in desired.sessions and f"session.{name}" not in forgotten
    ]  # fmt: skip


def _kept(seen: SessionSeen) -> bool:
    """Whether a session that left the specs still has something to do: a record of one that was stopped has not."""
    return seen.live


def _places(observed: Observed) -> dict[str, tuple[Place, ...]]:
    """Where each session has a record."""
    found: dict[str, tuple[Place, ...]] = {}
    for host, seen in observed.hosts.items():
        if isinstance(seen, Reached):
            for name, session in seen.sessions.items():
                if session.record is not None or session.live:
                    found[name] = (*found.get(name, ()), (host, session))
    return found


def _declared(
    desired: Desired,
    observed: Observed,
    last: str | None,
    places: tuple[Place, ...],
    name: str,
) -> Entry:
    session = desired.sessions[name]
    if not desired.hosts[session.host].enabled:
        return Entry(name, "in-sync", session.host, "suspended", f"host.{session.host} is not enabled", session)
    host = observed.hosts.get(session.host)
    if host is None or isinstance(host, Unreached):
        code, why = (host.code, host.message) if host else ("not-observed", f"{session.host} was not observed")
        return Entry(name, "unknown", session.host, code, why, session)
    seen = host.sessions.get(name)
    silent = last and last != session.host and not isinstance(observed.hosts.get(last), Reached)
    if silent and not any(other.live for _, other in places):
        # Old records elsewhere prove nothing: it may live over there.
        return Entry(
            name, "unknown", session.host, "last-seen-elsewhere",
            f"it was last seen on {last}, which was not observed", session, seen,
        )  # fmt: skip
    alive = [place for place, other in places if other.live]
    if len(alive) > 1:
        return Entry(
            name, "drifted", session.host, "twice",
            f"it may run on {' and '.join(alive)} at once: which one is meant, only you can tell", session, seen,
        )  # fmt: skip
    owner = _owner(places, session.host)
    if owner is not None and owner[0] != session.host:
        return _elsewhere(name, session, host.sessions.get(name), *owner)
    if seen is None or (seen.record is None and not seen.live):
        return Entry(name, "missing", session.host, "new", "not on the host yet", session, seen)
    return _present(desired, name, session, seen, host)


def _renamed(desired: Desired, observed: Observed, name: str, old: str | None) -> Entry | None:
    """A session that a `[[moved]]` names, as long as its host knows it by its old name only, or its record does."""
    session = desired.sessions[name]
    host = observed.hosts.get(session.host)
    if not isinstance(host, Reached):
        return None
    now = host.sessions.get(name)
    if now is not None and now.called and now.state not in ("broken", "unknown", "starting"):
        return Entry(name, "drifted", session.host, "renamed", f"its record still calls it session.{now.called}",
                     session, now)  # fmt: skip
    if old is None or old in desired.sessions:
        return None
    before = host.sessions.get(old)
    if before is None or before.record is None or (now is not None and (now.record is not None or now.live)):
        return None
    if before.state in ("broken", "unknown", "starting"):
        kind: Kind = "unknown" if before.state == "unknown" else "drifted"
        return Entry(name, kind, session.host, before.state, f"as session.{old}: {before.trouble}", session, before)
    return Entry(name, "drifted", session.host, "renamed", f"it is session.{old} there", session, before)


def _owner(places: tuple[Place, ...], wanted: str) -> Place | None:
    """The place that has the conversation: where it lives, else where it moved to last, else where it is wanted."""

    def rank(place: Place) -> tuple[bool, int, bool]:
        host, seen = place
        return seen.live, seen.record.moves if seen.record else -1, host == wanted

    return places[0] if len(places) == 1 else max(places, key=rank, default=None)


def owners(desired: Desired, observed: Observed) -> dict[str, str]:
    """On which of the hosts that answered the conversation of each session is; other records of it are old ones."""
    found = {}
    for name, places in _places(observed).items():
        declared = desired.sessions.get(name)
        owner = _owner(places, declared.host if declared else "")
        assert owner is not None
        found[name] = owner[0]
    return found


def announced(observed: Observed) -> dict[str, str]:
    """Where sessions went, as the hosts say that they left, though nobody saw them there: that host is silent."""
    reached = (host for host in observed.hosts.values() if isinstance(host, Reached))
    if not any(seen.record is not None and seen.record.to for host in reached for seen in host.sessions.values()):
        return {}
    return {
        name: owner[1].record.to
        for name, places in _places(observed).items()
        if (owner := _owner(places, "")) is not None and not owner[1].live and owner[1].record is not None
        if owner[1].record.to and not isinstance(observed.hosts.get(owner[1].record.to), Reached)
    }


def _elsewhere(name: str, session: Session, seen: SessionSeen | None, place: str, origin: SessionSeen) -> Entry:
    """It is on another host than the specs say. A session that is to be stopped is stopped where it is."""
    change = Change("host", place, session.host)
    if origin.state == "unknown":
        return Entry(name, "unknown", place, "unknown", origin.trouble, session, origin)
    if origin.state in ("broken", "starting") or origin.record is None:
        return Entry(name, "drifted", place, origin.state, f"on {place}: {origin.trouble}", session, origin)
    if session.state == "stopped" and origin.state == "running":
        return Entry(name, "drifted", place, "stop-declared", 'state = "stopped"', session, origin)
    if session.state == "stopped":
        return Entry(name, "in-sync", place, "stopped", f"it was stopped on {place}", session, origin)
    return Entry(
        name, "drifted", session.host, "moved", f"its conversation is on {place}", session, seen, (change,),
        origin=origin, origin_host=place,
    )  # fmt: skip


def _present(desired: Desired, name: str, session: Session, seen: SessionSeen, host: Reached) -> Entry:
    if seen.state == "unknown":
        return Entry(name, "unknown", session.host, "unknown", seen.trouble, session, seen)
    if seen.state in ("broken", "starting") or seen.record is None:
        return Entry(name, "drifted", session.host, seen.state, seen.trouble, session, seen)
    changes = changes_between(seen.record.written, written(desired, name))
    changes = tuple(c for c in changes if c.field.partition(".")[0] not in session.ignore)
    live = _live(desired, name, session, seen)
    if name in desired.group_chats:
        # Its process reads them again as they change; only values of environments it has from its launch.
        live = (*live, *(c for c in changes if c.field.partition(".")[0] != "env" or c.after is None))
        changes = tuple(c for c in changes if c not in live)
    if seen.state != "running":
        reason, message = _why_gone(seen, host)
        kind: Kind = "in-sync" if session.state == "stopped" else "drifted"
        return Entry(name, kind, session.host, reason, message, session, seen, changes, live)
    if session.state == "stopped":
        return Entry(name, "drifted", session.host, "stop-declared", 'state = "stopped"', session, seen)
    if changes or live:
        fields = ", ".join(change.field for change in (*changes, *live))
        return Entry(name, "drifted", session.host, "changed", f"changed: {fields}", session, seen, changes, live)
    return Entry(name, "in-sync", session.host, "in-sync", "as declared", session, seen)


def seen_again(desired: Desired, entry: Entry, host: Reached) -> Entry | None:
    """What becomes of an entry by one more look at its host alone.

    None where more than that host decides, where it says less than before, and where nothing is different.
    """
    before, seen, session = entry.seen, host.sessions.get(entry.name), entry.desired
    if session is None or before is None or seen is None or seen.record is None or seen == before:
        return None
    if entry.kind == "unknown" or entry.reason in ("twice", "renamed", "suspended") or seen.called or entry.origin:
        return None
    if not entry.host == session.host == host.name or seen.state in ("unknown", "broken", "starting"):
        return None
    if seen.state == before.state != "running":
        return None  # whether it waits for something is decided, not seen
    return _present(desired, entry.name, session, seen, host)


def _why_gone(seen: SessionSeen, host: Reached) -> tuple[str, str]:
    if seen.state == "stopped":
        return "stopped", "it was stopped; its record is kept"
    if seen.exit is not None and seen.state == "exited":
        if seen.exit.error:
            return seen.exit.error, f"its last launch failed: {seen.exit.error} ({seen.exit.detail})"
        if seen.exit.code == 0:
            return "clean-exit", "its agent exited with 0"
        return "crashed", f"its agent ended with exit code {seen.exit.code}"
    if seen.process is not None and seen.process.boot != host.boot:
        return "rebooted", f"{host.name} was rebooted since: its process is proven gone"
    return "lost", seen.trouble


def _live(desired: Desired, name: str, session: Session, seen: SessionSeen) -> tuple[Change, ...]:
    """What can change without a new process: labels, protection, the prompt."""
    record = seen.record
    assert record is not None
    found = []
    if record.labels != session.labels:
        found.append(Change("labels", dict(record.labels), dict(session.labels)))
    if record.protected != session.protect:
        found.append(Change("protect", record.protected, session.protect))
    prompt = desired.prompts.get(name)
    if prompt is not None and session.on_prompt_change != "ignore" and record.prompt != fingerprint(prompt):
        found.append(Change("prompt", record.prompt, fingerprint(prompt)))
    return tuple(change for change in found if change.field not in session.ignore)


def _orphan(host: str, seen: SessionSeen) -> Entry:
    if seen.state == "unknown":
        return Entry(seen.name, "unknown", host, "unknown", seen.trouble, None, seen)
    if seen.state in ("broken", "starting"):
        return Entry(seen.name, "orphaned", host, seen.state, seen.trouble, None, seen)
    return Entry(seen.name, "orphaned", host, "left-specs", "no spec declares it any more", None, seen)
