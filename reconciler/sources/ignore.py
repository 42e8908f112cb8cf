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
    """`segments` are the parts between slashes; None stands for `**`."""

    segments: tuple[re.Pattern[str] | None, ...]
    ignores: bool
    directories_only: bool

    def matches(self, names: list[str]) -> bool:
        """Whether it is about the path of these names. Part by part: no glob can take longer than their product."""
        reached = {0}  # how many of the names may be used up by the segments so far
        for segment in self.segments[:-1]:
            if segment is None:
                reached = set(range(min(reached), len(names)))
            else:
                reached = {at + 1 for at in reached if at < len(names) and segment.fullmatch(names[at])}
            if not reached:
                return False
        last = self.segments[-1]
        if last is None:
            return min(reached) < len(names)
        return len(names) - 1 in reached and last.fullmatch(names[-1]) is not None


def compile_ignore(text: str) -> Callable[[str, bool], bool]:
    """A predicate of (path below the directory with `/`, whether it is a directory): is it ignored?"""
    rules = [_rule(line.strip()) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    def ignored(path: str, is_directory: bool) -> bool:
        verdict, names = False, path.split("/")
        for rule in rules:
            if (is_directory or not rule.directories_only) and rule.matches(names):
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
    compiled = (None if segment == "**" else re.compile(_segment(segment)) for segment in segments)
    return _Rule(tuple(compiled), not negated, directories_only)


def _segment(glob: str) -> str:
    """What a segment matches. After the shortest way past a `*` no other one is tried: a longer one finds no more."""
    parts, at = [""], 0
    while at < len(glob):
        char = glob[at]
        end = glob.find("]", at + 2) if char == "[" else -1
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "."
        elif end > 0:
            parts[-1] += _class(glob[at + 1 : end])
            at = end
        else:
            parts[-1] += re.escape(char)
        at += 1
    first, *middle = parts
    if not middle:
        return f"(?s:{first})"
    return f"(?s:{first}{''.join(f'(?>.*?{part})' for part in middle[:-1] if part)}.*{middle[-1]})"


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
