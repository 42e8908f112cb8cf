"""What the SSH config says of a host, read once per version of its files."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import asyncssh

from reconciler.transports._ssh_config import concerning
from reconciler.transports._ssh_options import SshOptions

__all__ = ["Resolved", "resolve", "saying"]

Resolved = asyncssh.SSHClientConnectionOptions
_Mark = tuple[str, int, int, int]  # a file: path, mtime, size, inode; zeros where there is none
_DEEPEST = 16  # files that include each other, as ssh
_MOST = 8192  # answers kept: several for each host of the largest fleet
_HEAD = re.compile(r"\s*(include|match)(?:\s|=)\s*=?\s*(.*)", re.IGNORECASE)
_CRITERIA = frozenset(("all", "host", "originalhost", "user", "localuser", "canonical", "final"))

# A line that means the same for every host: nothing is asked, nothing is filled in, no other file is read.
_FOR_ALL = re.compile(
    r"\s*(?:#.*|host\s+\*\s*|(?!host(?:name)?\b|match\b|include\b)[a-z0-9]+[\s=][^%]*)?", re.IGNORECASE
)

_answers: dict[tuple[object, ...], tuple[tuple[_Mark, ...], Resolved]] = {}
_for_all: dict[tuple[object, ...], Resolved | None] = {}
_read: dict[str, tuple[_Mark, tuple[str, ...], bool]] = {}


async def resolve(
    options: SshOptions, home: str, renamed: Callable[[Resolved, str], Resolved] | None = None
) -> Resolved:
    """The library's options for this host, with our own words on top of the config's; not to be changed.

    `renamed` gives the options for a host of which the config says just what it says of another: then it is parsed
    once for all of them. Raises asyncssh.ConfigParseError, ValueError or OSError where the config cannot be used.
    """
    path, said = _path(options, home), options.ssh_options
    marks, steady = _marks(path, 0) if path else ((), True)
    if not (
        steady and all(key.lower() not in ("include", "match") and "${" not in value for key, value in said)
    ):  # it asks programs or the environment, each time anew; that may take long
        return await asyncio.to_thread(_parse, options, path)
    question = (
        path, options.address, options.user, options.port, said, os.environ.get("HOME"), os.environ.get("USER"),
    )  # fmt: skip
    known = _answers.get(question)
    if known is None or known[0] != marks:
        if len(_answers) >= _MOST:
            _answers.clear()
        known = _answers[question] = (marks, _shared(options, path, question, renamed))
    return known[1]


def saying(error: Exception, options: SshOptions) -> str:
    """The library's words with the config's own path, also where it read a shorter copy."""
    path = options.ssh_config if isinstance(options.ssh_config, str) else "~/.ssh/config"
    return re.sub(r"\S*/reconciler\.\S*\.config", path, str(error))


def _path(options: SshOptions, home: str) -> str:
    """The config to read; "" for none."""
    said = options.ssh_config
    if isinstance(said, str):
        return os.path.join(home, said[2:]) if said.startswith("~/") else said
    path = os.path.join(home, ".ssh", "config")
    return path if said is not False and os.access(path, os.R_OK) else ""


def _marks(path: str, depth: int) -> tuple[tuple[_Mark, ...], bool]:
    """The versions of a config and all it includes, and whether its meaning depends on nothing else."""
    try:
        stat = os.stat(path)
    except OSError:
        return ((path, 0, 0, 0),), True
    mark = (path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
    if path not in _read or _read[path][0] != mark:
        _read[path] = (mark, *_scan(path))
    _, includes, steady = _read[path]
    marks = [mark]
    for pattern in includes if depth < _DEEPEST else ():
        for included in glob.glob(pattern):
            more, as_steady = _marks(included, depth + 1)
            marks += more
            steady = steady and as_steady
    return tuple(marks), steady


def _scan(path: str) -> tuple[tuple[str, ...], bool]:
    """The patterns of what a config includes, wherever in it; and whether it asks nothing but files."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return (), True
    includes: list[str] = []
    steady = "${" not in text
    for head in filter(None, map(_HEAD.match, text.splitlines())):
        words = head[2].replace('"', "").split()
        if head[1].lower() == "include":
            includes += (os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(word)) for word in words)
        else:
            steady = steady and {word.lower().lstrip("!") for word in _criteria(words)} <= _CRITERIA
    return tuple(includes), steady


def _criteria(words: list[str]) -> Iterator[str]:
    """The criteria of a `Match` line, without their arguments."""
    rest = iter(words)
    for word in rest:
        name, _, argument = word.partition("=")
        yield name
        if not argument and name.lower().lstrip("!") not in ("all", "canonical", "final"):
            next(rest, None)


def _shared(
    options: SshOptions, path: str, question: tuple[object, ...], renamed: Callable[[Resolved, str], Resolved] | None
) -> Resolved:
    text = concerning(path, options.address, numbered=False) if path else ""
    if renamed is None or text is None:
        return _parse(options, path)
    same = (text, *question[2:])  # all but the config's name and the host's
    if same not in _for_all:
        if len(_for_all) >= _MOST:
            _for_all.clear()
        own = "".join(f"{key} {value}\n" for key, value in options.ssh_options)
        shared = all(map(_FOR_ALL.fullmatch, (own + text).splitlines()))
        found = _parse(options, path)
        _for_all[same] = found if shared and not found.canonicalize_hostname else None
        return found
    known = _for_all[same]
    return renamed(known, options.address) if known is not None else _parse(options, path)


def _parse(options: SshOptions, path: str) -> Resolved:
    own: dict[str, Any] = {}
    if options.user is not None:
        own["username"] = options.user
    if options.port is not None:
        own["port"] = options.port
    own |= {"host": options.address, "client_keys": None, "known_hosts": None, "agent_path": None}
    try:
        with _config_files(options, path, numbered=False) as paths:
            return Resolved(config=paths, **own)
    except (asyncssh.ConfigParseError, ValueError):  # once more, for the number of the line
        with _config_files(options, path, numbered=True) as paths:
            return Resolved(config=paths, **own)


@contextlib.contextmanager
def _config_files(options: SshOptions, path: str, *, numbered: bool) -> Iterator[list[str]]:
    less = concerning(path, options.address, numbered=numbered) if path else None
    own = "".join(f"{key} {value}\n" for key, value in options.ssh_options)
    with contextlib.ExitStack() as files:
        paths = [files.enter_context(_text_file(text)) for text in (own, less) if text]
        yield paths if less is not None or not path else [*paths, path]


@contextlib.contextmanager
def _text_file(text: str) -> Iterator[str]:
    """The name of a private file with this text, which the library takes in no other form."""
    with tempfile.NamedTemporaryFile("w", prefix="reconciler.", suffix=".config", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield file.name
