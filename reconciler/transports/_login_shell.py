"""A command line that means the same argv to whatever shell a login happens to have: sh, bash, zsh, fish, csh."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reconciler.transports.quoting import quote

# Words that every shell reads alike, bare or in single quotes. A leading "=" or "%" means something to
# zsh or csh; backslashes inside quotes do to fish, "!" and newlines to csh.
_BARE = re.compile(r"[A-Za-z0-9_./:,+-][A-Za-z0-9_./:,+=@%-]*")
_QUOTED = re.compile(r"[ -~]*")
_HOSTILE = re.compile(rb"['\\!\x00-\x1f\x7f]")
_HOSTILE_OR_HIGH = re.compile(rb"['\\!\x00-\x1f\x7f-\xff]")
_DECODER = 'eval "exec $(printf %b "$@")"'
# Old csh refuses words longer than about a kilobyte.
_WORD = 900


def command_line(argv: Sequence[str]) -> str:
    """The line to send as an SSH exec request so that the program and arguments `argv` run, and nothing else.

    Raises ValueError for an empty argv or a NUL, which no argument of a process can hold.
    """
    if not argv:
        raise ValueError("an empty argv has no program")
    line = quote(argv)
    if "=" not in argv[0] and all(map(_alike, argv)):
        return f"exec {line}"
    words = " ".join(f"'{word}'" for word in _words(_encode(line)))
    return f"exec sh -c '{_DECODER}' sh {words}"


def _alike(arg: str) -> bool:
    if _BARE.fullmatch(arg):
        return True
    bare_to_quote = re.fullmatch(r"[\w@%+=:,./-]+", arg, re.ASCII)
    return not bare_to_quote and _QUOTED.fullmatch(arg) is not None and not re.search(r"['\\!]", arg)


def _encode(line: str) -> str:
    raw = line.encode("utf-8", "surrogateescape")
    try:
        raw.decode("utf-8")
        hostile = _HOSTILE
    except UnicodeDecodeError:
        hostile = _HOSTILE_OR_HIGH
    return hostile.sub(lambda found: b"\\0%03o" % found[0][0], raw).decode("utf-8")


def _words(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + _WORD
        # An escape is five characters long; it must not be cut in two.
        escape = text.rfind("\\", end - 4, end)
        if escape > start:
            end = escape
        yield text[start:end]
        start = end
