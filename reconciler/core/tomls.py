"""TOML that comes from outside, nested no deeper than anything of ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import tomli

from reconciler.core.jsons import DEPTH, is_shallow

_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEPTH}}}")
_DEEP = "nested too deeply"


def loads(text: str, *, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """The values. Raises tomli.TOMLDecodeError for what is no TOML.

    Another ValueError for what is, and cannot be read: nesting without end, a number of thousands of digits.
    """
    # tomli takes the square of the length of a dotted key; one of so many parts is none of ours.
    if any(line.count(".") >= DEPTH and _LONG_KEY.search(line) for line in text.split("\n")):
        raise ValueError(_DEEP)
    try:
        found = tomli.loads(text, parse_float=parse_float)
    except RecursionError:
        raise ValueError(_DEEP) from None
    if not is_shallow(found):
        raise ValueError(_DEEP)
    return found
