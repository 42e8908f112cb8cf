"""What can go wrong on the way to a host, each as one error with its code and a remedy to copy."""

from __future__ import annotations

import errno
import re
import shlex
import socket
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.errors import HostError
from reconciler.transports._known_hosts import Entry, name_of

_LONGEST = 200
# sshd.c: since 8.5; since 9.8 for penalties.
_BUSY = re.compile(r"Exceeded MaxStartups|Not allowed at this time")
_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN}


def printable(text: str) -> str:
    """Words of a host as one harmless line of bounded length: no control, format or bidi characters."""
    kept = "".join(" " if c.isspace() else c for c in text[: _LONGEST * 8] if c.isspace() or _visible(c))
    line = " ".join(kept.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _visible(character: str) -> bool:
    return not unicodedata.category(character).startswith("C")


@dataclass
class Attempt:
    """What is known of one try to connect, filled in as it goes on."""

    name: str
    host: str
    port: int
    user: str
    connected: bool = False
    heard: bool = False  # whether it has said anything
    greeted: bool = False
    banner: str = ""
    tried: list[str] = field(default_factory=list)
    offered_key: str = ""
    known: list[Entry] = field(default_factory=list)
    verdict: str = ""
    known_hosts: str = ""
    pin: str = ""
    said: str = ""  # what it said before it spoke SSH, or in place of it
    too_open: list[tuple[str, str]] = field(default_factory=list)  # key files passed over, each with its mode
    taken: bool = False  # whether the host would take one of the keys, if only we could use it
    busy: HostError | None = None  # that it takes nobody more, from a try before this one

    @property
    def where(self) -> str:
        """`NAME (USER@HOST:PORT)`, for messages."""
        return f"{self.name} ({self.user}@{self.host}:{self.port})"

    def command(self, *words: str) -> str:
        """A line to copy into a shell."""
        return shlex.join(words)


def key_refused(at: Attempt) -> HostError:
    """The host's key is not the one to trust: unknown, changed, revoked, or not the pinned one."""
    known = name_of(at.host, at.port)
    lines = ", ".join(f"{entry.path}:{entry.line}" for entry in at.known)
    offered = f"it offers {at.offered_key}" if at.offered_key else "it offers another"
    if at.verdict == "mismatch":
        return _never("host-key-mismatch", f"{at.where}: the host key is not the pinned {at.pin}; {offered}", _scan(at))
    if at.verdict == "revoked":
        return _never("host-key-mismatch", f"{at.where}: its host key is revoked at {lines}; {offered}", _scan(at))
    if at.verdict == "changed":
        path = next((entry.path for entry in at.known), at.known_hosts)
        remedy = f"if the change is expected: {at.command('ssh-keygen', '-R', known, '-f', path)}"
        return _never(
            "host-key-changed", f"{at.where}: the host key differs from the one at {lines}; {offered}", remedy
        )
    remedy = f"compare the fingerprint, then: {_scan(at)} >> {shlex.quote(at.known_hosts)}"
    return _never("host-key-unknown", f"{at.where}: the host key is not in {at.known_hosts}; {offered}", remedy)


def _scan(at: Attempt) -> str:
    return at.command("ssh-keyscan", "-p", str(at.port), at.host)


def _trace(at: Attempt) -> str:
    return at.command("ssh", "-v", "-p", str(at.port), f"{at.user}@{at.host}", "true")


def auth_denied(at: Attempt, more: str = "") -> HostError:
    """No key, or none that the host takes."""
    tried = f"tried {', '.join(at.tried)}" if at.tried else "there was no key to try"
    said = f'; the host says: "{at.banner}"' if at.banner else ""
    path = next((name for name in at.tried if name.startswith(("/", "~"))), "")
    key = ("-i", path) if path else ()
    remedy = at.command("ssh-copy-id", *key, "-p", str(at.port), f"{at.user}@{at.host}")
    if not at.tried:
        remedy = f"ssh-add, or ssh-keygen -t ed25519; then {remedy}"
    passed = "".join(f"; {path} was passed over, since others may read it ({mode})" for path, mode in at.too_open)
    if at.too_open:
        remedy = at.command("chmod", "600", *(path for path, _ in at.too_open))
    return _never("auth-denied", f"{at.where}: permission denied ({tried}){passed}{more}{said}", remedy)


def key_too_open(name: str, path: str, mode: str) -> HostError:
    """An explicitly named key file that others may read: ssh does not use such a key."""
    message = f"{name}: the permissions {mode} of the key {path} are too open: others may read it"
    return _never("key-too-open", message, f"chmod 600 {shlex.quote(path)}")


def passphrase_needed(name: str, path: str, why: str = "is encrypted") -> HostError:
    """An explicitly named key file that cannot be used without its passphrase."""
    return _never("passphrase-needed", f"{name}: the key {path} {why}", f"ssh-add {shlex.quote(path)}")


def timed_out(at: Attempt, seconds: float) -> HostError:
    """The way was not open in time; says how far it got."""
    if at.busy is not None:
        return at.busy
    if at.greeted:
        how = f"began to speak SSH but did not let us in within {seconds:g} s"
    elif at.connected:
        how = f"accepts connections but did not speak SSH within {seconds:g} s"
    else:
        how = f"did not answer within {seconds:g} s"
    return HostError(f"{at.where} {how}", code="timed-out", remedy=_trace(at))


def from_os_error(at: Attempt, error: OSError, seconds: float) -> HostError:
    """Errors of the socket and of the resolver."""
    if isinstance(error, socket.gaierror):
        message = f"{at.name}: the name {at.host} does not resolve ({printable(str(error.strerror))})"
        return HostError(message, code="name-not-resolved", remedy=at.command("getent", "hosts", at.host))
    number = error.errno or _first_errno(str(error))
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return timed_out(at, seconds)
    if number == errno.ECONNREFUSED:
        return refused(at)
    if number in _ROUTE:
        return no_route(at)
    if number in (errno.EMFILE, errno.ENFILE):
        return too_many_files(at, "reached")
    return lost(at, str(error.strerror or error))


def too_many_files(at: Attempt, limit: str) -> HostError:
    """This process has as many files open as it may."""
    message = f"{at.where}: this process may open no more connections (its limit of open files is {limit})"
    return HostError(message, code="too-many-files", remedy="ulimit -n 65536 (LimitNOFILE= in a systemd unit)")


def no_route(at: Attempt) -> HostError:
    """No way to its address."""
    return HostError(f"{at.where}: no route to it", code="no-route", remedy=at.command("ip", "route", "get", at.host))


def from_jump(at: Attempt, reason: str) -> HostError:
    """A jump host could not open the way further; `reason` is its own words."""
    lower = reason.lower()
    if "prohibited" in lower:
        return _never("refused", f"{at.where}: the jump host forbids forwarding", "AllowTcpForwarding yes, on it")
    if any(word in lower for word in ("name or service", "resolve", "resolution", "unknown host")):
        message = f"{at.name}: the jump host cannot resolve {at.host}"
        return HostError(message, code="name-not-resolved", remedy="use a name or address that the jump host knows")
    if "route" in lower or "unreachable" in lower:
        return HostError(f"{at.where}: no route from the jump host", code="no-route", remedy=_trace(at))
    if "timed out" in lower:
        return HostError(f"{at.where} did not answer the jump host", code="timed-out", remedy=_trace(at))
    return refused(at, f"from the jump host: {printable(reason)}")


def refused(at: Attempt, more: str = "nothing listens there, or a firewall says no") -> HostError:
    """Connection refused."""
    remedy = f"on {at.host}: sudo systemctl start ssh"
    return HostError(f"{at.where} refuses the connection ({more})", code="refused", remedy=remedy)


def lost(at: Attempt, reason: str) -> HostError:
    """The connection ended while it was being made."""
    if at.connected and not at.greeted:
        if _BUSY.search(at.said):
            return too_many_connections(at)
        why = f'it says: "{at.said}"' if at.said else "no SSH server, or one that is too busy (MaxStartups)"
        message = f"{at.where} hung up without speaking SSH: {why}"
        remedy = at.command("ssh-keyscan", "-p", str(at.port), at.host)
        return HostError(message, code="protocol", remedy=remedy)
    return HostError(f"{at.where} dropped the connection ({printable(reason)})", code="dropped", remedy=_trace(at))


def too_many_connections(at: Attempt) -> HostError:
    """Its sshd lets nobody more in at the moment, and says so."""
    return HostError(
        f'{at.where} is there, and takes no further connection now: "{at.said}"', code="too-many-connections",
        remedy="in its sshd_config: MaxStartups 100:30:200 (and PerSourcePenalties, where it has that)",
    )  # fmt: skip


def broken(at: Attempt, reason: str) -> HostError:
    """What came is not SSH as we can speak it."""
    return _never("protocol", f"{at.where}: {printable(reason)}", _trace(at))


def dropped(name: str, reason: str = "") -> HostError:
    """An open connection ended."""
    why = f" ({printable(reason)})" if reason else ""
    return HostError(f"{name}: the connection was lost{why}", code="dropped")


def too_many_sessions(name: str, reason: str) -> HostError:
    """The host opens no further channel on this connection."""
    message = f"{name}: the host opens no further session on this connection ({printable(reason)})"
    return HostError(message, code="too-many-sessions", remedy="in its sshd_config: MaxSessions 10")


def no_commands(name: str, reason: str) -> HostError:
    """The host lets us in and then runs nothing."""
    message = f"{name}: the host does not let us run commands ({printable(reason)})"
    remedy = "look for ForceCommand, restrict or no-pty in its sshd_config and authorized_keys"
    return HostError(message, code="protocol", remedy=remedy, retry=False)


def no_answer(name: str, argv: Sequence[str], seconds: float) -> HostError:
    """A command did not end in time."""
    message = f"{name}: {argv[0]} did not end within {seconds:g} s and was ended"
    return HostError(message, code="timed-out", remedy="see what it waits for, or allow it more time")


def overrun(name: str, argv: Sequence[str], limit: int) -> HostError:
    """A command said more than it may."""
    message = f"{name}: {argv[0]} gave more than {limit} bytes and was cut off"
    return HostError(message, code="protocol", retry=False)


def _never(code: str, message: str, remedy: str) -> HostError:
    return HostError(message, code=code, remedy=remedy, retry=False)


def _first_errno(text: str) -> int:
    """asyncio folds the failures of several addresses into one text."""
    found = re.search(r"\[Errno (\d+)\]", text)
    return int(found[1]) if found else 0
