"""JSON that comes from outside, nested no deeper than anything of ours. Pure.

`json.loads` goes as deep as the stack allows; whoever then prints, copies or compares what it gave stands deeper in the
stack than it did, and fails where nobody looks for it.
"""

from __future__ import annotations

import json
from typing import Any

DEPTH = 100  # of lists and tables; agents' transcripts stay below 20


def loads(text: str | bytes, *, strict: bool = True) -> Any:
    """The value. Raises ValueError for what is no JSON, or nested too deeply; `strict` as of json.loads."""
    try:
        # With any keyword the standard library makes a decoder each time, which takes longer than most of our texts.
        value = json.loads(text) if strict else json.loads(text, strict=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not is_shallow(value, brackets=_brackets(text)):
        raise ValueError("nested too deeply")
    return value


def _brackets(text: str | bytes) -> int:
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")


def is_shallow(value: Any, *, brackets: int = DEPTH + 1) -> bool:
    """Whether it is nested no deeper than DEPTH; `brackets`, where they are known, mostly say so at once."""
    if brackets <= DEPTH:
        return True
    level = [value]
    for _ in range(DEPTH + 1):
        level = [item for found in level for item in _items(found)]
        if not level:
            return True
    return False


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [item for item in value.values() if isinstance(item, dict | list)]
    return [item for item in value if isinstance(item, dict | list)] if isinstance(value, list) else []
