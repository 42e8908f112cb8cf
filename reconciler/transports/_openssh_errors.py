"""What the system's `ssh` says on its way to a host, as what we know of the try and as one of our errors.

By the texts of OpenSSH 7.6 to 9.9 (ssh.c, sshconnect*.c, mux.c, authfile.c).
"""

from __future__ import annotations

import re

from reconciler.errors import HostError
from reconciler.transports import _failures as failures
from reconciler.transports._failures import Attempt
from reconciler.transports._known_hosts import lookup

__all__ = ["crowded", "hear", "last_line", "spoken", "translated"]

_OFFERED = re.compile(r"^debug1: Offering public key: (.+?) [A-Z0-9-]+ SHA256:\S+(.*)$", re.MULTILINE)
_HOST_KEY = re.compile(r"^debug1: Server host key: \S+ (SHA256:\S+)", re.MULTILINE)
_BANNER = re.compile(r"^debug1: (?:kex_exchange_identification: banner line 0|ssh_exchange_identification): (.*)", re.M)
_TOO_OPEN = re.compile(r"^Permissions (\d+) for '(.+)' are too open\.", re.MULTILINE)
_NO_FORWARD = re.compile(r"open failed: (.*)")
# What a client of a shared connection says where the host opens no further session on it; it then connects by itself.
_REFUSED = re.compile(rb"\Amux_client_request_session: session request failed: Session open refused by peer\r?\n")
_DISABLED = re.compile(rb"\AControlSocket .* already exists, disabling multiplexing\r?\n")


def hear(at: Attempt, log: str) -> None:
    """How far a try got, by what ssh logged of it (`LogLevel=DEBUG1`)."""
    at.connected = "debug1: Connection established." in log
    at.greeted = "debug1: Remote protocol version" in log
    found = _BANNER.search(log)
    at.said = failures.printable(found[1]) if found else ""
    found = _HOST_KEY.search(log)
    at.offered_key = failures.printable(found[1]) if found else ""
    at.tried = [
        failures.printable(name) + (" from the agent" if " agent" in more and " explicit" not in more else "")
        for name, more in _OFFERED.findall(log)
    ]
    at.taken = "debug1: Server accepts key:" in log
    at.too_open = [(failures.printable(path), mode) for mode, path in _TOO_OPEN.findall(log)]


def translated(at: Attempt, log: str, err: str, seconds: float) -> HostError:
    """The error of a try that failed; `err` is what its jump host or ProxyCommand said."""
    said = "\n".join(line for line in log.splitlines() if not line.startswith("debug"))
    last = last_line(said.encode())
    if "Host key verification failed" in said:
        at.known = lookup([at.known_hosts], at.host, at.port)
        at.verdict = "changed" if "IDENTIFICATION HAS CHANGED" in said else "unknown"
        return failures.key_refused(at)
    if "Permission denied" in said or "Too many authentication failures" in said:
        return failures.auth_denied(at, f" ({last})")
    way = _of_the_way(at, said, seconds) or (None if at.connected else _of_the_jump(at, err, seconds))
    if way is not None:
        return way
    if "Connection closed by" in said or "Connection reset by" in said or "kex_exchange_identification" in said:
        return failures.lost(at, last)
    return failures.broken(at, last or last_line(err.encode()) or "ssh ended without a word")


def _of_the_way(at: Attempt, said: str, seconds: float) -> HostError | None:
    if "Could not resolve hostname" in said:
        message = f"{at.name}: the name {at.host} does not resolve"
        return HostError(message, code="name-not-resolved", remedy=at.command("getent", "hosts", at.host))
    if "Connection refused" in said:
        return failures.refused(at)
    if any(words in said for words in ("No route to host", "is unreachable", "Permission denied (network)")):
        return failures.no_route(at)
    return failures.timed_out(at, seconds) if "timed out" in said else None


def _of_the_jump(at: Attempt, err: str, seconds: float) -> HostError | None:
    found = _NO_FORWARD.search(err)
    if found is not None:
        return failures.from_jump(at, found[1])
    if "Permission denied" in err:
        return failures.auth_denied(at, f" ({last_line(_but_the_end(err))})")
    if "Host key verification failed" in err:
        return failures.broken(at, "the host key of its jump host is not the one to trust")
    if "Exceeded MaxStartups" in err:
        at.said = "Exceeded MaxStartups"
        return failures.too_many_connections(at)
    return _of_the_way(at, err, seconds)


def _but_the_end(err: str) -> bytes:
    lines = [line for line in err.splitlines() if "UNKNOWN port" not in line]
    return "\n".join(lines).encode()


def crowded(err: bytes) -> bool:
    """Whether the host opened no further session on the shared connection."""
    return _REFUSED.match(err) is not None


def spoken(err: bytes) -> bytes:
    """What the program said on stderr, without what ssh says of connecting by itself."""
    return _DISABLED.sub(b"", _REFUSED.sub(b"", err))


def last_line(said: bytes) -> str:
    """The last line that is not blank, harmless."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return failures.printable(lines[-1]) if lines else ""
