"""The globs of a `.reconcilerignore`: the well-understood part of .gitignore, and nothing more.

Supported: `#` comments, empty lines, `*`, `?`, `[abc]`, `[!abc]`, `**` as a whole path segment, a leading `/` or a `/`
in the middle (relative to the spec directory), a trailing `/` (directories only), `!` (take back; the last match wins).
Not supported: backslash escapes, trailing spaces as part of a name, further ignore files in subdirectories. What lies
below an ignored directory cannot be taken back, as in git.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    ignores: bool
    directories_only: bool


def compile_ignore(text: str) -> Callable[[str, bool], bool]:
    """A predicate of (path below the directory with `/`, whether it is a directory): is it ignored?"""
    rules = [_rule(line.strip()) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    def ignored(path: str, is_directory: bool) -> bool:
        verdict = False
        for rule in rules:
            if (is_directory or not rule.directories_only) and rule.pattern.fullmatch(path):
                verdict = rule.ignores
        return verdict

    return ignored


def _rule(line: str) -> _Rule:
    negated = line.startswith("!")
    glob = line[negated:]
    directories_only = glob.endswith("/")
    glob = glob.rstrip("/")
    anchored = "/" in glob
    segments = glob.lstrip("/").split("/")
    if not anchored:
        segments.insert(0, "**")
    return _Rule(re.compile(_expression(segments)), not negated, directories_only)


def _expression(segments: list[str]) -> str:
    parts = []
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "**":
            parts.append(".+" if last else "(?:.+/)?")
        else:
            parts.append(_segment(segment) + ("" if last else "/"))
    return "(?s:" + "".join(parts) + ")"


def _segment(glob: str) -> str:
    out, at = "", 0
    while at < len(glob):
        char = glob[at]
        end = glob.find("]", at + 2) if char == "[" else -1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif end > 0:
            out += _class(glob[at + 1 : end])
            at = end
        else:
            out += re.escape(char)
        at += 1
    return out


def _class(inner: str) -> str:
    """`[abc]`, `[a-z]` or `[!abc]`; a range that runs backwards holds nothing."""
    negated = inner.startswith("!")
    chars, members = inner[negated:], ""
    while chars:
        if len(chars) > 2 and chars[1] == "-":
            members += f"{re.escape(chars[0])}-{re.escape(chars[2])}" if chars[0] <= chars[2] else ""
            chars = chars[3:]
        else:
            members += re.escape(chars[0])
            chars = chars[1:]
    if not members:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{members}]"
