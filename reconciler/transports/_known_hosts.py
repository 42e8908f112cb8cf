"""OpenSSH's known_hosts files: which keys a host is known by, on which line, and how a new one is added."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Entry:
    """One line: where it stands, its marker ("", "cert-authority", "revoked") and the key as `type base64`."""

    path: str
    line: int
    marker: str
    names: tuple[str, ...]
    key: str

    def matches(self, name: str) -> bool:
        """Whether the line, which is not hashed, speaks of `name`, which is `host` or `[host]:port`."""
        said = [pattern for pattern in self.names if fnmatch.fnmatchcase(name, _escape(pattern.lstrip("!")))]
        return bool(said) and not any(pattern.startswith("!") for pattern in said)


_Version = tuple[int, int, int]
# The two keys of an HMAC as they go before the text, and what it has to come to.
_Hashed = tuple[bytes, bytes, bytes, Entry]
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


@dataclass(frozen=True)
class _File:
    """One version of a file: lines by plain name, lines with hashed names, lines with patterns; and answers given."""

    lines: int = 0
    plain: dict[str, list[Entry]] = field(default_factory=dict)
    hashed: list[_Hashed] = field(default_factory=list)
    patterns: list[Entry] = field(default_factory=list)
    answers: dict[str, list[Entry]] = field(default_factory=dict)

    def about(self, name: str) -> list[Entry]:
        """Every line about `name`, in order; looked for once a name."""
        if name not in self.answers:
            found = [*self.plain.get(name, ()), *self._hashes(name)]
            found += [entry for entry in self.patterns if entry.matches(name)]
            self.answers[name] = sorted(found, key=lambda entry: entry.line)
        return self.answers[name]

    def _hashes(self, name: str) -> list[Entry]:
        text = name.encode()
        # HMAC spelt out: of thousands of lines, hmac.digest would take twice as long.
        return [at for inner, outer, said, at in self.hashed if _sha1(outer + _sha1(inner + text)) == said]

    def take(self, entry: Entry) -> None:
        """One more line."""
        if entry.names[0].startswith("|1|"):
            if (hashed := _hashed(entry)) is not None:
                self.hashed.append(hashed)
        elif any(character in name for name in entry.names for character in "*?|!"):
            self.patterns.append(entry)
        else:
            for name in entry.names:
                self.plain.setdefault(name, []).append(entry)


# One parse per version of a file and process: a fleet's connections all ask the same few files.
_parsed: dict[str, tuple[_Version, _File]] = {}


def name_of(host: str, port: int) -> str:
    """How known_hosts calls a host: bare on port 22, else `[host]:port`."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def lookup(paths: Iterable[str], host: str, port: int) -> list[Entry]:
    """Every line about this host in the files that exist, in order."""
    name = name_of(host, port)
    return [entry for path in paths for entry in _load(path).about(name)]


def _version(stat: os.stat_result) -> _Version:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _load(path: str) -> _File:
    try:
        version = _version(os.stat(path))
    except OSError:
        return _File()
    known = _parsed.get(path)
    if known is None or known[0] != version:
        known = _parsed[path] = (version, _parse(path))
    return known[1]


def _parse(path: str) -> _File:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return _File()
    found = _File(len(lines))
    for number, line in enumerate(lines, 1):
        if (entry := _entry(path, number, line)) is not None:
            found.take(entry)
    return found


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


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()


def _hashed(entry: Entry) -> _Hashed | None:
    try:
        _, _, salt, digest = entry.names[0].split("|")
        key, said = base64.b64decode(salt), base64.b64decode(digest)
    except (ValueError, binascii.Error):
        return None
    if len(key) > 64:  # as HMAC has it; ssh writes 20
        key = _sha1(key)
    key = key.ljust(64, b"\0")
    return key.translate(_INNER), key.translate(_OUTER), said, entry


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
        version = _version(os.fstat(handle))
        before = file.read() or b""
        newline = b"" if not before or before.endswith(b"\n") else b"\n"
        last = before.rstrip().rpartition(b"\n")[2]
        name = name_of(host, port)
        shown = _hash(name) if last.startswith(b"|1|") else name
        line = newline + f"{shown} {key}\n".encode()
        file.write(line)
        _remember(path, name, line, version, _version(os.fstat(handle)))


def _remember(path: str, name: str, line: bytes, before: _Version, after: _Version) -> None:
    """Take our own line into what is parsed, so that a fleet seen for the first time is not parsed once a host."""
    known = _parsed.get(path)
    alone = after[1] == before[1] + len(line) and after[2] == before[2]
    if known is None or known[0] != before or not alone or line.startswith(b"\n"):
        return  # somebody else wrote too: it is read again
    number = known[1].lines + 1
    entry = _entry(path, number, line.decode())
    if entry is not None:
        grown = replace(known[1], lines=number)
        grown.take(entry)
        grown.answers.pop(name, None)
        _parsed[path] = (after, grown)


def _hash(name: str) -> str:
    salt = os.urandom(20)
    mac = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(mac).decode()}"
