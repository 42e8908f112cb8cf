"""Secret values that this process knows, and what is said without them: `***` stands where one would.

Every resolved value is put down here; every door to people, logs, files and other processes takes its words through
`redact`. Only what is said goes through it, never what a host is told.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

__all__ = ["MASK", "conceal", "redact", "redact_json", "redact_streams"]

MASK = "***"
_SHORTEST = 4  # characters: a shorter one stands everywhere by chance
_LONG = 1000  # characters of a value that is looked for by itself
_SHORTEST_LINE = 8  # of a value of several lines


class _Known:
    """The values so far, the longest first: most as one pattern, very long ones by themselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: set[str] = set()
        self._long: tuple[str, ...] = ()
        self._pattern: re.Pattern[str] | None = None

    def add(self, forms: Iterable[str]) -> None:
        with self._lock:
            if not self._forms.issuperset(found := set(forms)):
                self._forms |= found
                ordered = sorted(self._forms, key=len, reverse=True)
                # `re` takes the square of the length of what several alternatives have in common.
                self._long = tuple(form for form in ordered if len(form) > _LONG)
                self._pattern = re.compile("|".join(map(re.escape, ordered[len(self._long) :])) or "(?!)")

    def masked(self, text: str) -> str:
        """`text` without them."""
        for form in self._long:
            text = text.replace(form, MASK)
        return text if self._pattern is None else self._pattern.sub(MASK, text)


_known = _Known()


def conceal(value: str) -> None:
    """Never show this value from now on, nor any line of it."""
    _known.add(_forms(value))


def redact(text: str) -> str:
    """`text` with `***` in place of every value that is concealed."""
    return _known.masked(text)


def redact_json(found: Any) -> Any:
    """The same for all texts of a JSON-like value; keys stay."""
    if isinstance(found, str):
        return redact(found)
    if isinstance(found, dict):
        return {key: redact_json(value) for key, value in found.items()}
    return [redact_json(value) for value in found] if isinstance(found, list | tuple) else found


def _forms(value: str) -> Iterator[str]:
    """The value as it may stand in a text: as it is, made harmless for a terminal, as JSON."""
    lines = [line.strip() for line in value.splitlines()]
    parts = [value, value.strip(), *(line for line in lines if len(line) >= _SHORTEST_LINE)]
    for part in parts:
        harmless = "".join(character for character in part if character.isprintable())
        shapes = (
            part, _escaped(part), harmless, " ".join(part.split()), json.dumps(part)[1:-1],
            json.dumps(part, ensure_ascii=False)[1:-1], json.dumps(_escaped(part))[1:-1],
        )  # fmt: skip
        yield from (shape for shape in shapes if len(shape) >= _SHORTEST)


class _Discreet:
    """A text stream that takes what is written through `redact`. Bytes (`buffer`) are data, and go as they are."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _escaped(text: str) -> str:
    """As `core.printed` shows it; that is not to be loaded before a command is known."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def redact_streams() -> None:
    """From now on, stdout and stderr of this process say no value that is concealed; tracebacks and logs neither."""
    sys.stdout = cast("TextIO", _Discreet(sys.stdout))
    sys.stderr = cast("TextIO", _Discreet(sys.stderr))
