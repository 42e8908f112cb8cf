"""All other doors: webhooks, control socket, SSH files and what ssh says, schedules, versions, URLs, globs, secrets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from fuzz.oracles import harmless, scratch, split, text_of
from reconciler.asking import socket_path
from reconciler.cli.suspend import parse_until
from reconciler.control import Control
from reconciler.core.holds import Suspension
from reconciler.core.location import looks_like_git, parse_location
from reconciler.core.notices import Told
from reconciler.core.parse import parse
from reconciler.core.printed import escaped
from reconciler.core.schedules import check as check_schedule
from reconciler.core.schedules import next_opening, open_until, zone
from reconciler.core.semver import highest, parse_range, parse_version
from reconciler.core.ssh_aliases import aliases, tables
from reconciler.core.webhook import accepts
from reconciler.core.wording import dotted
from reconciler.errors import ReconcilerError
from reconciler.journal import Happened, Journal
from reconciler.leases import proven_dead
from reconciler.redaction import _forms, _Known
from reconciler.serving import address_of, is_loopback
from reconciler.sources.ignore import compile_ignore
from reconciler.transports import _known_hosts
from reconciler.transports._failures import Attempt
from reconciler.transports._openssh_errors import hear, last_line, spoken, translated
from reconciler.transports._ssh_config import concerning
from reconciler.transports._ssh_options import SshOptions, checked

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@cache
def _folder() -> Path:
    return scratch()


def _webhook(data: bytes) -> None:
    """Headers, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    headers = {}
    for line in head.decode("latin-1").split("\n"):
        name, _, value = line.partition(":")
        headers[name.strip()] = value.strip()
    assert not accepts(headers, body, b"a secret that nobody knows"), "nobody proved the secret"
    accepts(headers, body, b"")


class _Quiet:
    """A loop that has seen nothing: what requests ask of one."""

    statuses = ()
    revision = None
    last = None
    beat = 0.0

    def statuses_now(self) -> tuple[()]:
        return ()

    def looked(self) -> dict[str, float]:
        return {}

    def under_way(self) -> frozenset[str]:
        return frozenset()

    def accept(self, revision: str) -> None:
        pass

    def reload(self) -> None:
        pass

    def give_back(self, names: list[str]) -> None:
        pass

    async def ask(self, addresses: list[str], restart: bool = False) -> None:
        pass

    async def thought(self) -> None:
        pass

    async def borrow(self, who: str, hosts: list[str]) -> dict[str, Any]:
        return {}


def _control(data: bytes) -> None:
    """Lines on the control socket."""
    asyncio.run(_asked(data))


async def _asked(data: bytes) -> None:
    said: list[bytes] = []
    reader = asyncio.StreamReader(limit=1 << 20)
    reader.feed_data(data)
    reader.feed_eof()
    control = Control(_Quiet(), socket_path("fuzz"))  # type: ignore[arg-type]
    await control._client(reader, _Out(said))  # type: ignore[arg-type]
    for line in b"".join(said).splitlines():
        assert isinstance(json.loads(line), dict)


class _Out:
    """Where the answers go."""

    def __init__(self, said: list[bytes]) -> None:
        self._said = said

    def write(self, data: bytes) -> None:
        self._said.append(data)

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


def _hosts_known(data: bytes) -> None:
    """A known_hosts file."""
    file = _folder() / "known_hosts"
    file.unlink(missing_ok=True)
    file.write_bytes(data)
    _known_hosts._parsed.clear()
    for host, port in (("gpu.example", 22), ("[::1]", 2222), ("10.0.0.1", 22)):
        _known_hosts.lookup([str(file)], host, port)
    _known_hosts.add(str(file), "gpu.example", 22, "ssh-ed25519 AAAA")
    _known_hosts._parsed.clear()
    assert any(e.key == "ssh-ed25519 AAAA" for e in _known_hosts.lookup([str(file)], "gpu.example", 22)), "it was lost"
    assert file.read_bytes().startswith(data), "what was there was changed"


def _ssh_config(data: bytes) -> None:
    """An SSH config: what concerns a host, and the names that `init --discover` takes from it."""
    import tomllib

    file = _folder() / "config"
    file.write_bytes(data + b"\n" + b"# \n" * 1400)
    for numbered in (True, False):
        concerning(str(file), "gpu.example", numbered=numbered)
    found = aliases(text_of(data).split("\n"))
    for text in tables(found, {}).values():
        tomllib.loads(text)
        harmless(text)


def _ssh_says(data: bytes) -> None:
    """What ssh logs and says on its way."""
    log, _, err = text_of(data).partition("\n----\n")
    at = Attempt("gpu", "gpu.example", 22, "me")
    hear(at, log)
    error = translated(at, log, err, 3.0)
    harmless(escaped(error.message), also="")
    harmless(last_line(data), also="")
    spoken(data)


def _ssh_options(data: bytes) -> None:
    """Address, user, key, config, known hosts, then names and values of options, one a line."""
    words = [*text_of(data).split("\n"), "", "", "", "", ""]
    pairs = tuple(zip(words[5::2], words[6::2], strict=False))
    made = SshOptions(words[0], words[1] or None, identity=words[2] or None, ssh_config=words[3] or True,
                      known_hosts_path=words[4] or "x", ssh_options=pairs)  # fmt: skip
    try:
        found = checked("gpu", made)
    except ReconcilerError as error:
        harmless(error.message)
        return
    for word in (found.address, found.user or "x"):
        assert word[0] != "-"
        assert not set(word) & set("'`\"$\\;&<>|(){} \t\n")


def _schedule(data: bytes) -> None:
    """A cron expression, a time zone, a duration."""
    words = [*text_of(data).split("\n"), "", ""]
    with contextlib.suppress(ValueError):
        check_schedule(words[0])
        where = zone(words[1] or "UTC")
        seconds = min(float(words[2] or 3600), 366 * 86400.0)
        if seconds > 0:
            end = open_until(words[0], where, seconds, NOW)
            assert end is None or end > NOW
            next_opening(words[0], where, NOW)
    with contextlib.suppress(ReconcilerError):
        parse_until(words[0], NOW)


def _semver(data: bytes) -> None:
    """A range, then tags."""
    first, *tags = text_of(data).split("\n")
    for tag in tags:
        parse_version(tag)
    with contextlib.suppress(ValueError):
        best = highest(tags, parse_range(first))
        assert best is None or best in tags


def _url(data: bytes) -> None:
    text = text_of(data)
    looks_like_git(text)
    try:
        found = parse_location(text)
    except ReconcilerError as error:
        harmless(escaped(error.message))
        return
    harmless(found.name, also="")
    assert not found.url.startswith("-")
    assert not found.password or found.password not in found.url.partition("://")[2].partition("/")[0]
    assert ".." not in (found.path or "").split("/")


def _ignore(data: bytes) -> None:
    """Globs; behind a line of dashes, paths."""
    globs, _, paths = text_of(data).partition("\n----\n")
    ignored = compile_ignore(globs[:20_000])
    for path in paths.split("\n")[:50]:
        ignored(path[:4096], path.endswith("x"))


def _secret(data: bytes) -> None:
    """A secret, then behind a line of dashes a text."""
    secret, _, text = text_of(data).partition("\n----\n")
    known = _Known()
    known.add(_forms(secret))
    for shown in (secret, escaped(secret), json.dumps(secret), text + secret + text):
        assert len(secret) < 4 or secret not in known.masked(shown) or secret in "***", "a secret was said"


def _journal(data: bytes) -> None:
    """Words that find their way into the journal."""
    words = [*text_of(data).split("\n")[:40], "", ""]
    with Journal(None) as journal:
        with contextlib.suppress(ReconcilerError):
            journal.note([Happened(0, 1.0, words[0], words[1], "t", "a", "b", "r", word) for word in words])
            journal.keep(words[0], words[1])
            journal.suspend(Suspension(words[0], None, words[1], words[2], NOW))
        journal.events()
        journal.suspensions()
    Told.from_json(words[0])


def _listen(data: bytes) -> None:
    text = text_of(data)
    with contextlib.suppress(ReconcilerError):
        host, port = address_of(text)
        assert 0 <= port < 65536
        is_loopback(host)
    proven_dead(text)
    dotted(tuple(text.split(".")))


def _moved(data: bytes) -> None:
    """Chains and rings of renames: pairs of names, one a line."""
    out = io.StringIO()
    for line in text_of(data).split("\n")[:200]:
        before, _, name = line.partition(" ")
        out.write(f"[[moved]]\nfrom = {json.dumps('session.' + before)}\nto = {json.dumps('session.' + name)}\n")
    sessions = "".join(f'[sessions.{name}]\nagent = "shell"\nargs = ["x"]\n' for name in "abc")
    with contextlib.suppress(ReconcilerError):
        parse({"a.toml": sessions + out.getvalue()}, {})


CASES = {
    "webhook": _webhook, "control": _control, "known_hosts": _hosts_known, "ssh_config": _ssh_config,
    "ssh_says": _ssh_says, "ssh_options": _ssh_options, "schedule": _schedule, "semver": _semver, "url": _url,
    "ignore": _ignore, "secret": _secret, "journal": _journal, "listen": _listen, "moved": _moved,
}  # fmt: skip


def check(data: bytes) -> None:
    """The first line says which reader the rest is for."""
    split(data, CASES)
