"""What truly runs: the answer of one look at a host, parsed and checked. Unknown is a type.

A look prints lines `kind TAB name TAB json` and ends with `end TAB nonce TAB count`. Without that trailer the look
failed and the host is unknown. Everything in it is hostile until it is checked here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Literal, TypeGuard, cast

from reconciler.core import jsons
from reconciler.core.record import NUMBERS, Record, parse_record
from reconciler.errors import HostError

State = Literal["starting", "running", "exited", "lost", "stopped", "broken", "unknown"]
NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_PATH_LIMIT = 4096  # characters: more than any system takes
LOOK_LIMIT = 8_000_000  # bytes: more than any honest host has to say


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file of a conversation on a host: absolute path, bytes, mtime in seconds."""

    path: str
    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What an agent's probes found: hostile text until the agent has checked it."""

    texts: Mapping[str, str] = field(default_factory=dict)  # "file" and "tail" probes that found something
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    store: tuple[StoreFile, ...] | None = None  # None: nobody asked, (): asked and nothing there
    title: str = ""  # the terminal title, where the runtime has one
    event: str = ""  # the last line of the session's `events` file
    pid: int | None = None
    started: str = ""  # start time of the pid as the kernel gives it (Linux: /proc/PID/stat field 22)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as its pid file says and the kernel confirms or denies; `alive` None: cannot tell."""

    pid: int
    start: str
    incarnation: int
    group: int
    alive: bool | None
    boot: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """How the agent of one incarnation ended: code, time by the host's clock, our own error word and its detail."""

    code: int
    at: int
    incarnation: int
    error: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """One session on a reachable host. `incarnation` is the host's own count, which operations must name."""

    name: str
    state: State
    record: Record | None
    incarnation: int
    process: Process | None = None
    exit: Exit | None = None
    facts: Facts = Facts()
    attached: int = 0  # terminals attached to it
    trouble: str = ""  # why it is broken or unknown
    called: str = ""  # the older name that its record on the host still bears: a rename was cut off

    @property
    def live(self) -> bool:
        """Whether a process of it may exist: all but proven death counts."""
        return self.state in ("starting", "running", "unknown", "broken")


@dataclass(frozen=True, slots=True)
class Reached:
    """A host that answered in full."""

    name: str
    hostname: str
    user: str
    home: str
    system: str
    machine: str
    boot: str
    state_dir: str
    now: int
    fence: int
    path: str = ""
    tmux: str = ""
    shell: str = ""
    local: str = ""  # `machine-id host-name` of the machine that this fleet's host `local` is
    sessions: Mapping[str, SessionSeen] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)  # command -> absolute path, "" when not found
    directories: Mapping[str, str] = field(default_factory=dict)  # directory -> real path, "" when missing
    versions: Mapping[str, str] = field(default_factory=dict)  # what `command version_args` printed, when asked
    digests: Mapping[str, str] = field(default_factory=dict)  # `LENGTH PATH` -> SHA-256 of so many first bytes
    links: Mapping[str, str] = field(default_factory=dict)  # older names of sessions that were renamed
    forgotten: Mapping[str, str] = field(default_factory=dict)  # conversation that was let go of and goes on -> its pid
    foreign: tuple[str, ...] = ()  # names below sessions/ that are none of ours
    awaited: Mapping[str, str] = field(
        default_factory=dict
    )  # `NONCE TENTHS` of an operation -> "" unless it came after

    def at(self, now: int) -> Reached:
        """The same at another time."""
        made: Any = Reached  # a third of what `replace` takes, at each look
        return self if now == self.now else cast("Reached", made(*_BEFORE_NOW(self), now, *_AFTER_NOW(self)))

    def titled(self, panes: bytes) -> Reached:
        """The same with what tmux tells of titles and attached terminals, of which nothing else depends."""
        listed = parse_panes(panes)
        seen = {name: _titled(session, listed.get(name, {})) for name, session in self.sessions.items()}
        return replace(self, sessions=seen)


def _titled(session: SessionSeen, pane: Mapping[str, Any]) -> SessionSeen:
    title, attached = _of_pane(pane)
    if title == session.facts.title and attached == session.attached:
        return session
    return replace(session, facts=replace(session.facts, title=title), attached=attached)


_REACHED = [found.name for found in fields(Reached)]
_BEFORE_NOW = attrgetter(*_REACHED[: _REACHED.index("now")])
_AFTER_NOW = attrgetter(*_REACHED[_REACHED.index("now") + 1 :])


@dataclass(frozen=True, slots=True)
class Known:
    """Sessions as they were parsed, and a digest of the words in which each was told of."""

    digests: Mapping[str, bytes] = field(default_factory=dict)
    sessions: Mapping[str, SessionSeen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unreached:
    """A host that did not answer, or not in full: nothing is known of it, and nothing is done there."""

    name: str
    code: str
    message: str
    remedy: str = ""


HostSeen = Reached | Unreached


@dataclass(frozen=True, slots=True)
class Observed:
    """The fleet at one moment."""

    hosts: Mapping[str, HostSeen]

    @property
    def reached(self) -> frozenset[str]:
        """The hosts that answered."""
        return frozenset(name for name, host in self.hosts.items() if isinstance(host, Reached))


def _bad(name: str, why: str, code: str = "look-failed") -> HostError:
    return HostError(f"{name}: {why}", code=code, remedy=f"reconciler exec {name} -- true")


def clean(text: object, limit: int = 4096) -> str:
    """Text of a host as it may be shown: no control characters, bounded."""
    words = str(text)[:limit]
    # Nearly always there is nothing to take out, and a look has dozens of these.
    return words if words.isprintable() else "".join(c for c in words if c.isprintable())


_NOTHING: Mapping[str, Any] = {}  # one for all: every host and session has several


@dataclass(slots=True)
class _Raw:
    """The lines of one session, sorted by kind."""

    values: dict[str, Any] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    store: list[StoreFile] | None = None
    incarnation: int | None = None

    def facts(self, **more: Any) -> Facts:
        """What the probes found."""
        names = {key: tuple(found) for key, found in self.names.items()}
        store = None if self.store is None else tuple(self.store)
        return Facts(self.texts or _NOTHING, names or _NOTHING, store, **more)


def parse_look(host: str, nonce: str, answer: bytes, panes: bytes | None = None) -> Reached:
    """Turn the answer of a look into facts. Raises HostError (look-truncated, look-failed).

    `panes` is what tmux told us itself; it stands for what the answer says of panes.
    """
    return parse_again(host, nonce, answer, panes)[0]


def parse_again(
    host: str, nonce: str, answer: bytes, panes: bytes | None = None, known: Known | None = None
) -> tuple[Reached, Known]:
    """As parse_look; sessions that are told of in the very words of last time are those of last time."""
    facts: dict[str, Any] | None = None
    said: dict[str, list[str]] = {}
    kinds = ("command", "directory", "version", "digest", "link", "forgotten", "after")
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    lists: dict[str, list[str]] = {"panes": [], "foreign": []}
    for line in _lines(host, nonce, answer):
        kind, _, rest = line.partition("\t")
        name, tab, text = rest.partition("\t")
        if not tab:
            raise _bad(host, "the answer to the look has a line that is none")
        if kind == "host":
            facts = _table(host, text)
        elif kind == "check" and name in found:
            data = _table(host, text)
            found[name][str(data.get("value"))] = clean(data.get("found", ""))
        elif kind in lists:
            lists[kind].append(text)
        elif name in said:
            said[name].append(line)
        elif NAME.fullmatch(name):
            said[sys.intern(name)] = [line]
    if facts is None:
        raise _bad(host, "the answer to the look does not say whose it is")
    listed = "\n".join(lists["panes"]).encode() or None if panes is None else panes
    now_known = _sessions(said, listed, found["link"], known or Known())
    foreign = tuple(clean(text, 80) for text in lists["foreign"])
    return _reached(host, facts, now_known.sessions, found, foreign), now_known


def _lines(host: str, nonce: str, answer: bytes) -> list[str]:
    """All but the trailer, which says that these are all."""
    if len(answer) > LOOK_LIMIT:
        raise _bad(host, "the answer to the look is too long")
    lines = [line for line in answer.decode("utf-8", "replace").split("\n") if line]
    trailer = lines[-1].split("\t", 2) if lines else []
    if trailer[:2] != ["end", nonce] or trailer[-1] != str(len(lines) - 1):
        raise _bad(host, "the answer to the look was cut short", "look-truncated")
    return lines[:-1]


def _sessions(said: Mapping[str, list[str]], panes: bytes | None, links: Mapping[str, str], known: Known) -> Known:
    listed = None if panes is None else parse_panes(panes)
    digests: dict[str, bytes] = {}
    seen: dict[str, SessionSeen] = {}
    for name, lines in said.items():
        pane = None if listed is None else listed.get(name, {})
        # What a record of another name means depends on the links too; no line has a break in it.
        words = "\n".join([*lines, "", repr((pane, links))])
        digest = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=16).digest()
        before = known.sessions.get(name) if digest == known.digests.get(name) else None
        session = before or _parsed(name, lines, pane, links)
        if session is not None:
            digests[name], seen[name] = digest, session
    return Known(digests, seen)


def _parsed(name: str, lines: list[str], pane: dict[str, Any] | None, links: Mapping[str, str]) -> SessionSeen | None:
    raw = _Raw()
    for line in lines:
        kind, _, text = line.split("\t", 2)
        _take(raw, kind, text)
    if pane is not None:
        raw.values.pop("pane", None)
        raw.values |= {"pane": pane} if pane else {}
    return _session(name, raw, links) if _there(raw) else None


def parse_panes(listed: bytes) -> dict[str, dict[str, Any]]:
    """What tmux lists of panes by the names of their sessions; what makes no sense in it is left out."""
    found: dict[str, dict[str, Any]] = {}
    for line in listed.decode("utf-8", "replace").split("\n"):
        name, *rest = line.split("\t", 4)
        if NAME.fullmatch(name) and len(rest) == 4 and all(map(_is_digits, rest[:3])):
            title = rest[3].replace('"', "").replace("\\", "")
            found[name] = {"pid": int(rest[0]), "dead": int(rest[1]), "attached": int(rest[2]), "title": title}
    return found


def _is_digits(text: str) -> bool:
    return text.isdecimal() and len(text) < 16


def panes_told(answer: bytes) -> dict[str, tuple[object, object]]:
    """Which panes an answer speaks of: pid and whether it is dead, by session."""
    found: dict[str, tuple[object, object]] = {}
    for line in answer.split(b"\n"):
        if line.startswith(b"panes\t"):
            listed = line.split(b"\t", 2)[2]
            found |= {name: (pane["pid"], pane["dead"]) for name, pane in parse_panes(listed).items()}
        elif line.startswith(b"pane\t"):
            _, name, text = line.decode("utf-8", "replace").split("\t", 2)
            data = _table(name, text)
            found[name] = (data.get("pid"), data.get("dead"))
    return found


def _table(host: str, text: str) -> dict[str, Any]:
    try:
        data = jsons.loads(text)
    except ValueError as error:
        raise _bad(host, f"the answer to the look is not what it should be: {error}") from None
    if not isinstance(data, dict):
        raise _bad(host, "the answer to the look is not what it should be")
    return data


def parse_strays(host: str, nonce: str, answer: bytes) -> dict[int, tuple[Process, Facts]]:
    """What a host told of processes that are none of ours, by pid. Raises HostError (look-truncated)."""
    lines = answer.decode("utf-8", "replace").partition(f"begin\t{nonce}\n")[2].splitlines()
    if not lines or lines[-1] != f"end\t{nonce}":
        raise _bad(host, "what it told of its processes was cut short", "look-truncated")
    raws: dict[str, _Raw] = {}
    for line in lines[:-1]:
        kind, _, rest = line.partition("\t")
        name, _, text = rest.partition("\t")
        _take(raws.setdefault(name, _Raw()), kind, text)
    found = {}
    for raw in raws.values():
        if len(raw.processes) == 1:
            process = raw.processes[0]
            facts = raw.facts(pid=process.pid, started=process.start)
            found[process.pid] = (process, facts)
    return found


_WORDS = ("hostname", "user", "system", "machine", "boot", "tmux", "shell", "local")


def _reached(
    host: str,
    facts: Mapping[str, Any],
    sessions: Mapping[str, SessionSeen],
    found: Mapping[str, dict[str, str]],
    foreign: tuple[str, ...],
) -> Reached:
    now, fence = facts.get("now"), facts.get("fence")
    home, state = facts.get("home"), facts.get("state")
    if not _is_count(now) or not _is_count(fence) or not facts.get("boot"):
        raise _bad(host, "the host does not say its time, fence or boot id")
    if not all(isinstance(p, str) and p.startswith("/") and clean(p) == p for p in (home, state)):
        raise _bad(host, "the host's home or state directory is no absolute path")
    # All views are kept, and most hosts have much in common.
    words = {key: sys.intern(clean(facts.get(key, ""))) for key in _WORDS}
    tables = {key: table or _NOTHING for key, table in found.items()}
    return Reached(
        name=host, home=sys.intern(str(home)), state_dir=sys.intern(str(state)), now=now, fence=fence,
        path=sys.intern(clean(facts.get("path", ""), 16384)), sessions=sessions,
        commands=tables["command"], directories=tables["directory"],
        versions=tables["version"], digests=tables["digest"], links=tables["link"],
        forgotten=tables["forgotten"], awaited=tables["after"], foreign=foreign, **words,
    )  # fmt: skip


def _take(raw: _Raw, kind: str, text: str) -> None:
    """Sort one line of a session; a line that makes no sense is kept as trouble, never as absence."""
    if kind in ("record", "event"):
        raw.values[kind] = text
        return
    try:
        data = jsons.loads(text)
        if not isinstance(data, dict):
            raise ValueError("not a table")
        _take_table(raw, kind, data)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raw.values["trouble"] = f"its {clean(kind, 20)} on the host cannot be read: {clean(error, 200)}"


def _take_table(raw: _Raw, kind: str, data: dict[str, Any]) -> None:
    match kind:
        case "process":
            alive = data["alive"]
            if not (alive is None or isinstance(alive, bool)):
                raise ValueError("alive is neither true, false nor null")
            pid, incarnation, group = (_whole(data[key]) for key in ("pid", "incarnation", "group"))
            boot = sys.intern(str(data["boot"]))
            raw.processes.append(Process(pid, str(data["start"]), incarnation, group, alive, boot))
        case "exit":
            raw.exits.append(
                Exit(
                    _whole(data["code"]), _whole(data["at"]), _whole(data["incarnation"]),
                    clean(data.get("error", ""), 40), clean(data.get("detail", "")),
                )
            )  # fmt: skip
        case "fact":
            raw.texts[str(data["key"])] = _decode(str(data["data"]))
        case "names":
            found = raw.names.setdefault(str(data["key"]), [])
            found += [str(data["base"])] if "base" in data else []
        case "store":
            raw.store = [] if raw.store is None else raw.store
            if "path" in data:
                raw.store.append(StoreFile(_path(data["path"]), _whole(data["size"]), float(data["mtime"])))
        case "session":
            if not _is_count(data["incarnation"]):
                raise ValueError("incarnation is no number")
            raw.incarnation = data["incarnation"]
        case _:
            raw.values[kind] = data


def _is_count(value: object) -> TypeGuard[int]:
    """Whether it is a whole number that can be reckoned with, and written down anywhere."""
    return type(value) is int and 0 <= value < NUMBERS


def _whole(value: Any) -> int:
    number = int(value)
    if not -NUMBERS < number < NUMBERS:
        raise ValueError("a number in it is none")
    return number


def _path(text: object) -> str:
    """A path as it may stand in an argv: no NUL or other control character, nothing that is no UTF-8, and bounded."""
    if not isinstance(text, str) or len(text) > _PATH_LIMIT:
        raise ValueError("a path in it is none")
    if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("a path in it is none")
    return text


def _decode(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8", "replace")
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _there(raw: _Raw) -> bool:
    """Whether the host keeps files of the session: a terminal of that name alone is none of ours."""
    return raw.incarnation is not None or "trouble" in raw.values


def _pane(raw: _Raw) -> dict[str, Any] | None:
    """Its terminal: where it was adopted one in the user's own server, else the one that has its name in ours."""
    found: dict[str, Any] | None = raw.values.get("terminal", raw.values.get("pane"))
    return found


def _of_pane(pane: Mapping[str, Any]) -> tuple[str, int]:
    """The title of a terminal, and how many are attached to it."""
    attached = pane.get("attached", 0)
    return sys.intern(clean(pane.get("title", ""), 200)), attached if isinstance(attached, int) else 0


def _session(name: str, raw: _Raw, links: Mapping[str, str]) -> SessionSeen:
    incarnation = raw.incarnation or 0
    record, trouble, called = None, str(raw.values.get("trouble", "")), ""
    if "record" in raw.values:
        try:
            record = parse_record(raw.values["record"])
            if record.name != name and links.get(record.name) == name:
                called, record = record.name, replace(record, name=name)
            elif record.name != name:
                record = None
                raise ValueError("it is the record of another session")
        except ValueError as error:
            trouble = f"its record on the host cannot be read: {clean(error, 200)}"
    process = max(raw.processes, key=lambda p: (p.alive is True, p.alive is None, p.incarnation), default=None)
    ended = max((e for e in raw.exits if e.incarnation == incarnation), key=lambda e: e.at, default=None)
    title, attached = _of_pane(_pane(raw) or {})
    alive = process is not None and process.alive is True
    facts = raw.facts(
        event=raw.values.get("event", ""),
        title=title,
        pid=process.pid if process and alive else None, started=process.start if process and alive else "",
    )  # fmt: skip
    state, why = _state(raw, record, process, ended)
    return SessionSeen(
        name=name, state=state, record=record, incarnation=incarnation, process=process, exit=ended,
        facts=facts, attached=attached, trouble=trouble or why, called=called,
    )  # fmt: skip


def _state(raw: _Raw, record: Record | None, process: Process | None, ended: Exit | None) -> tuple[State, str]:
    if "trouble" in raw.values or ("record" in raw.values and record is None):
        return "broken", "its files on the host cannot be read"
    if process is not None and process.alive is None:
        return "unknown", f"nobody can tell whether pid {process.pid} lives"
    if process is not None and process.alive:
        return ("running", "") if record else ("broken", "a process runs without a record")
    if "lock" in raw.values:
        return "starting", "an operation is at work on it"
    if record is None:
        return "stopped", "no record was written"
    if record.intent == "stopped":
        return "stopped", ""
    if ended is not None:
        return "exited", ""
    pane = _pane(raw)
    if pane is not None and not pane.get("dead"):
        return "starting", "its terminal is there, its agent not yet"
    return "lost", "its record says it runs, its process is proven gone"
