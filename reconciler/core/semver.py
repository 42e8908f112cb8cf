"""Versions and ranges of them, as in semver.org 2.0.0 and the ranges that npm and Flux take. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_VERSION = re.compile(
    r"v?(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_TERM = re.compile(
    r"(>=|<=|>|<|=|\^|~)?\s*v?(\d{1,9}|[xX*])(?:\.(\d{1,9}|[xX*]))?(?:\.(\d{1,9}|[xX*]))?(?:-([0-9A-Za-z.-]+))?"
)


@dataclass(frozen=True, order=True)
class Version:
    """A version in the order of precedence; `pre` sorts a prerelease before its release."""

    numbers: tuple[int, int, int]
    pre: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)

    @property
    def prerelease(self) -> bool:
        """Whether it is one."""
        return self.pre != ((2, 0, ""),)


def parse_version(text: str) -> Version | None:
    """A version, with or without `v`; None for what is none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    return Version((int(match[1]), int(match[2]), int(match[3])), _pre(match[4]))


def _pre(text: str | None) -> tuple[tuple[int, int, str], ...]:
    if not text:
        return ((2, 0, ""),)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in text.split("."))


@dataclass(frozen=True)
class _Bound:
    low: Version | None
    low_open: bool
    high: Version | None  # never included
    exact_pre: bool

    def holds(self, version: Version) -> bool:
        if version.prerelease and not self.exact_pre:
            return False
        if self.low is not None and (version < self.low or (self.low_open and version == self.low)):
            return False
        return self.high is None or version < self.high


def parse_range(text: str) -> tuple[tuple[_Bound, ...], ...] | None:
    """A range such as `>=1.2 <2`, `^1.2`, `~1.2.3`, `1.x`, `1.0.0 || >=2`; None for what is none."""
    choices = []
    for choice in text.split("||"):
        terms = [t for t in re.split(r"[\s,]+(?=[><=^~vVxX*\d])", re.sub(r"([><=^~])\s+", r"\1", choice.strip())) if t]
        bounds = [_bound(term) for term in terms]
        if not bounds or None in bounds:
            return None
        pre = any(bound.exact_pre for bound in bounds if bound)
        choices.append(tuple(_Bound(b.low, b.low_open, b.high, pre) for b in bounds if b))
    return tuple(choices)


def _bound(term: str) -> _Bound | None:
    match = _TERM.fullmatch(term)
    if match is None:
        return None
    sign = match[1] or ""
    given = [int(part) if part and part.isdigit() else None for part in match.group(2, 3, 4)]
    known = given.index(None) if None in given else 3
    numbers = tuple(number or 0 for number in given[:known]) + (0,) * (3 - known)
    low = Version((numbers[0], numbers[1], numbers[2]), _pre(match[5]))
    after = _next(numbers, known)
    exact_pre = match[5] is not None
    if known == 0:
        return _Bound(None, False, None, False)
    match sign:
        case ">":
            return _Bound(low, True, None, exact_pre) if known == 3 else _Bound(after, False, None, False)
        case ">=":
            return _Bound(low, False, None, exact_pre)
        case "<":
            return _Bound(None, False, low, exact_pre)
        case "<=":
            return _Bound(None, False, after, exact_pre)
        case "^":
            first = next((i for i in range(known) if numbers[i]), known - 1)
            return _Bound(low, False, _next(numbers, first + 1), exact_pre)
        case "~":
            return _Bound(low, False, _next(numbers, min(known, 2)), exact_pre)
    if known == 3:
        return _Bound(low, False, Version(low.numbers, (*low.pre, (0, 0, ""))), True)
    return _Bound(low, False, after, False)


def _next(numbers: tuple[int, ...], known: int) -> Version | None:
    """The first version after all that begin with so many of these numbers."""
    if known == 0:
        return None
    raised = [*numbers[: known - 1], numbers[known - 1] + 1, 0, 0, 0][:3]
    return Version((raised[0], raised[1], raised[2]), ((0, 0, ""),))


def highest(tags: Iterable[str], text: str) -> str | None:
    """The tag with the highest version in a range; of equal ones the first in the order of names."""
    choices = parse_range(text)
    if choices is None:
        return None
    found = [(version, tag) for tag in sorted(tags, reverse=True) if (version := parse_version(tag)) is not None]
    fitting = [(v, tag) for v, tag in found if any(all(bound.holds(v) for bound in bounds) for bounds in choices)]
    return max(fitting, key=lambda item: item[0])[1] if fitting else None
