"""OpenSSH's known_hosts files: which keys a host is known by, on which line, and how a new one is added."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One line: where it stands, its marker ("", "cert-authority", "revoked") and the key as `type base64`."""

    path: str
    line: int
    marker: str
    names: tuple[str, ...]
    key: str

    def matches(self, name: str) -> bool:
        """Whether the line speaks of `name`, which is `host` or `[host]:port`."""
        if self.names[0].startswith("|1|"):
            return _hashed(self.names[0], name)
        said = [pattern for pattern in self.names if fnmatch.fnmatchcase(name, _escape(pattern.lstrip("!")))]
        return bool(said) and not any(pattern.startswith("!") for pattern in said)


@dataclass(frozen=True)
class _File:
    plain: dict[str, tuple[Entry, ...]]
    others: tuple[Entry, ...]


# One parse per version of a file and process: a fleet's connections all ask the same few files.
_parsed: dict[str, tuple[tuple[int, int, int], _File]] = {}


def name_of(host: str, port: int) -> str:
    """How known_hosts calls a host: bare on port 22, else `[host]:port`."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def lookup(paths: Iterable[str], host: str, port: int) -> list[Entry]:
    """Every line about this host in the files that exist, in order."""
    name = name_of(host, port)
    return [entry for path in paths for entry in _entries(_load(path), name)]


def _entries(file: _File, name: str) -> list[Entry]:
    found = [*file.plain.get(name, ()), *(entry for entry in file.others if entry.matches(name))]
    return sorted(found, key=lambda entry: entry.line)


def _load(path: str) -> _File:
    try:
        stat = os.stat(path)
    except OSError:
        return _File({}, ())
    version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    known = _parsed.get(path)
    if known is None or known[0] != version:
        known = _parsed[path] = (version, _parse(path))
    return known[1]


def _parse(path: str) -> _File:
    plain: dict[str, list[Entry]] = {}
    others: list[Entry] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return _File({}, ())
    for number, line in enumerate(lines, 1):
        entry = _entry(path, number, line)
        if entry is None:
            continue
        if any(character in name for name in entry.names for character in "*?|!"):
            others.append(entry)
        else:
            for name in entry.names:
                plain.setdefault(name, []).append(entry)
    return _File({name: tuple(found) for name, found in plain.items()}, tuple(others))


def _entry(path: str, number: int, line: str) -> Entry | None:
    """Broken lines are passed over, as ssh does: one of them must not lock a fleet out."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0)[1:] if words[0].startswith("@") else ""
    if len(words) < 3 or marker not in ("", "cert-authority", "revoked"):
        return None
    names = tuple(name.lower() if not name.startswith("|") else name for name in words[0].split(",") if name)
    return Entry(path, number, marker, names, f"{words[1]} {words[2]}") if names else None


def _hashed(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        expected = base64.b64decode(digest)
        mac = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(mac, expected)


def _escape(pattern: str) -> str:
    # "[" belongs to `[host]:port` here and begins no character class.
    return pattern.replace("[", "[[]")


def add(path: str, host: str, port: int, key: str) -> None:
    """Append a line for `host` in OpenSSH's format; hashed where the file's newest line is. Raises OSError.

    A new directory is 0700, a new file 0600; what exists keeps its mode.
    """
    if any(entry.key == key and not entry.marker for entry in lookup([path], host, port)):
        return
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with open(handle, "r+b", buffering=0) as file:
        before = file.read() or b""
        newline = b"" if not before or before.endswith(b"\n") else b"\n"
        last = before.rstrip().rpartition(b"\n")[2]
        name = name_of(host, port)
        if last.startswith(b"|1|"):
            name = _hash(name)
        file.write(newline + f"{name} {key}\n".encode())


def _hash(name: str) -> str:
    salt = os.urandom(20)
    mac = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(mac).decode()}"
