"""What headless turns print, read without trust: cut anywhere, of the wrong shape, or megabytes of anything."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.core import jsons
from reconciler.core.agent import Reply
from reconciler.core.observed import clean

# Colours, cursor moves and titles go as a whole: without its first character the rest would stay as litter.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[@-Z\\^_]")
_CONTROLS = {code: None for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\n\t"}
_DECODER = json.JSONDecoder(strict=False)
_TRIES = 8  # how many places from either end may be the start of a document
_TAIL = 20_000  # where a last line is looked for
_SENTENCE = 300


def readable(text: str) -> str:
    """All of it, but for control characters other than newline and tab, and for halves of characters."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.translate(_CONTROLS).encode("utf-8", "ignore").decode()


def sentence(text: str) -> str:
    """On one line, and short enough for a message."""
    words = clean(" ".join(readable(text[: 4 * _SENTENCE]).split())).strip()
    return words if len(words) <= _SENTENCE else words[: _SENTENCE - 1] + "…"


def last_line(text: str) -> str:
    """Where programs say what went wrong."""
    lines = [line for line in readable(text[-_TAIL:]).split("\n") if line.strip()]
    return lines[-1] if lines else ""


def said(err: str, pattern: str) -> str:
    """What a program said on a line of its own; "" where it did not."""
    found = re.search(rf"^(?:{pattern}).*", readable(err[:_TAIL] + "\n" + err[-_TAIL:]), re.MULTILINE)
    return found[0] if found else ""


def events(out: str) -> Iterator[dict[str, Any] | None]:
    """JSON lines. None stands for a line that was one and is broken; other text is passed over."""
    for line in out.split("\n"):
        line = line.strip()
        if line[:2] == '{"' and line[-1:] == "}":
            value = _value(line)
            yield value if isinstance(value, dict) else None
        elif line[:1] == "{" or line[-1:] == "}":
            yield None


def document(text: str, *keys: str) -> dict[str, Any]:
    """The last JSON object with one of these keys that begins a line, behind and before whatever; {} for none."""
    found: dict[str, Any] = {}
    end = 0
    for start in _starts(text):
        if start < end:
            continue
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if not jsons.is_shallow(value):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and any(key in item for key in keys):
                found = item
    return found


def own_words(message: object) -> str:
    """A message, out of the JSON that APIs wrap around it."""
    for _ in range(4):
        if isinstance(message, str):
            inner = _value(message.strip()) if message.lstrip()[:1] == "{" else None
            if not isinstance(inner, dict):
                return message
            message = inner
        if not isinstance(message, dict):
            return ""
        message = next((message[key] for key in ("error", "data", "message", "name") if message.get(key)), "")
    return message if isinstance(message, str) else ""


def dictionary(value: object) -> Mapping[str, Any]:
    """`value` where it is one, else an empty one."""
    return value if isinstance(value, dict) else {}


def count(*values: object) -> int | None:
    """The sum of those that are counts; None where none is."""
    counts = [value for value in values if type(value) is int and 0 <= value < 10**15]
    return sum(counts) if counts else None


def dollars(value: object) -> float | None:
    """An amount of money."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 1e9 else None


def matching(pattern: re.Pattern[str], value: object) -> str | None:
    """`value` where it is an id of that form."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def made(agent: str, exit: int, out: str, err: str, text: str, error: str, **told: Any) -> Reply:
    """A reply that holds an answer, or says why there is none."""
    text, error = readable(text).strip(), sentence(error)
    if exit and not error:
        error = sentence(last_line(err)) or f"{agent} ended with exit code {exit}"
    if not text and not error:
        error = f"{agent} printed no answer that can be read" if out.strip() else f"{agent} printed nothing"
    return Reply(text, error=error, **told)


def plain(agent: str, exit: int, out: str, err: str) -> Reply:
    """Of a program that prints its answer and nothing else."""
    return made(agent, exit, out, err, out, "")


def _value(text: str) -> object:
    try:
        return jsons.loads(text, strict=False)
    except ValueError:
        return None


def _starts(text: str) -> list[int]:
    """Where lines begin with a bracket: the first few and the last few, in order."""
    first: list[int] = [0] if text[:1] in ("{", "[") else []
    at = 0
    while len(first) < _TRIES and (at := _next(text, at)) >= 0:
        first.append(at)
    last: list[int] = []
    at = len(text)
    while len(last) < _TRIES and (at := max(text.rfind("\n{", 0, at), text.rfind("\n[", 0, at))) >= 0:
        last.append(at + 1)
    return sorted({*first, *last})


def _next(text: str, at: int) -> int:
    found = [place for place in (text.find("\n{", at), text.find("\n[", at)) if place >= 0]
    return min(found) + 1 if found else -1
