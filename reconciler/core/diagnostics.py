"""What is wrong with the specs and where, as data, as text for people, and as JSON. Pure.

Text of users is shown with every control character escaped, and literal secrets masked.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reconciler.core.positions import Span

_LONGEST = 20_000  # characters of a line of which something is shown
_WINDOW = 160  # characters of a long line that are shown
_SECRET = re.compile(
    r"""(?i)(?:pass(?:word|phrase)|secret|token|api_?key|credential)[\w-]*["']?\s*=\s*"""
    r"""(?:"((?:[^"\\]|\\.)*)("|$)|'([^']*)('|$))"""
)


@dataclass(frozen=True)
class Diagnostic:
    """One finding. Lines and columns count from 1 in characters; 0 means that the whole file is meant.

    `summary` is one sentence, `detail` what to do about it, `snippet` the line, made harmless; `underline` is where
    in the snippet the finding is: cells of a terminal before it, and under it.
    """

    severity: Literal["error", "warning"]
    summary: str
    detail: str = ""
    address: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    end_line: int = 0
    end_column: int = 0
    snippet: str = ""
    code: str = "invalid-spec"
    underline: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return render(self)

    def to_json(self) -> dict[str, Any]:
        """The finding as `validate --json` prints it; `range` is null where no file is meant."""
        span = {
            "filename": self.file,
            "start": {"line": self.line or 1, "column": self.column or 1},
            "end": {"line": self.end_line or 1, "column": self.end_column or 1},
        }
        return {
            "severity": self.severity,
            "summary": self.summary,
            "detail": self.detail,
            "code": self.code,
            "address": self.address,
            "range": span if self.file else None,
            "snippet": self.snippet,
        }


def locate(diagnostic: Diagnostic, file: str, line: str, span: Span) -> Diagnostic:
    """The same finding at a place in a file, where `line` is the text of the first line of it."""
    end = span.end_column if span.end_line == span.line else len(line) + 1
    snippet, underline = excerpt(line, span.column - 1, max(end - 1, span.column))
    return Diagnostic(
        diagnostic.severity,
        diagnostic.summary,
        diagnostic.detail,
        diagnostic.address,
        file,
        span.line,
        span.column,
        span.end_line,
        span.end_column,
        snippet,
        diagnostic.code,
        underline,
    )


def excerpt(line: str, start: int, end: int) -> tuple[str, tuple[int, int]]:
    """The line made harmless, and the cells before and under the characters `start` to `end` of it."""
    if len(line) > _LONGEST:  # to look for secrets in all of it, for each finding, would take for ever
        return f"… (a line of {len(line)} characters)", (0, 1)
    line = _mask_secrets(line)
    first = max(0, start - _WINDOW // 2) if len(line) > _WINDOW else 0
    last = min(len(line), first + _WINDOW)
    lead, tail = "…" * (first > 0), "…" * (last < len(line))
    before = lead + escape(line[first:start])
    under = escape(line[start : min(end, last)])
    snippet = before + under + escape(line[min(max(end, start), last) : last]) + tail
    return snippet, (_cells(before), max(1, _cells(under)))


def escape(text: str) -> str:
    """`text` with a tab as four spaces and every other control or invisible formatting character spelled out."""
    return "".join("    " if c == "\t" else _spell(c) for c in text)


def _spell(char: str) -> str:
    if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    return char.encode("unicode_escape", "surrogatepass").decode()


def _cells(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _mask_secrets(line: str) -> str:
    def mask(match: re.Match[str]) -> str:
        secret = match[1] if match[1] is not None else match[3]
        if not secret or secret.startswith("${"):
            return match[0]
        end = match[0].rindex(secret)
        return match[0][:end] + "*" * len(secret) + match[0][end + len(secret) :]

    return _SECRET.sub(mask, line)


def render(diagnostic: Diagnostic) -> str:
    """The finding as text: sentence, place, the line with the spot underlined, what to do."""
    lines = [f"{diagnostic.severity}: {escape(diagnostic.summary)}"]
    if diagnostic.file:
        at = f":{diagnostic.line}:{diagnostic.column}" if diagnostic.line else ""
        lines.append(f"  --> {escape(diagnostic.file)}{at}")
    if diagnostic.line:
        number = str(diagnostic.line)
        gutter = " " * len(number)
        before, under = diagnostic.underline
        lines.append(f"{gutter} |")
        lines.append(f"{number} | {diagnostic.snippet}".rstrip())
        lines.append(f"{gutter} | {' ' * before}{'^' * under}")
    if diagnostic.detail:
        lines.append(f"help: {escape(diagnostic.detail)}")
    return "\n".join(lines)


def render_all(diagnostics: Sequence[Diagnostic]) -> str:
    """Every finding, an empty line between two, and how many there are."""
    count = sum(d.severity == "error" for d in diagnostics)
    return "\n\n".join([*map(render, diagnostics), f"{count} error{'s' * (count != 1)}."])


def suggest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was probably meant to be, or the empty string."""
    words = sorted(set(known))
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.65)
    if not close:
        close = [w for w in words if len(word) > 2 and w.lower() == word.lower().replace("-", "_")]
    return close[0] if close else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean `x`?"`, or the empty string: to be appended to a sentence."""
    match = suggest(word, known)
    return f"; did you mean `{match}`?" if match else ""


Report = Callable[[Diagnostic], None]
