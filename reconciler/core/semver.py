"""Semantic versions and ranges of them, as far as a range of tags needs it. Pure.

A range is alternatives (`||`) of comparators that all hold (space or comma): `1.2.3`, `=1.2`, `!=1.2.3`, `>1`, `>=1.2`,
`<2`, `<=1.4`, `^1.2`, `~1.2`, `1.x`, `*`. A `v` may stand before any version. A version without its last parts stands
for all that begin so. Prereleases match only where an alternative names one, and `<2` never means a prerelease of 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import total_ordering

_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_TAIL = r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
_VERSION = re.compile(rf"[vV]?(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER}){_TAIL}")
_PART = rf"(?:{_NUMBER}|[xX*])"
_COMPARATOR = re.compile(
    rf"(?P<op>\^|~|>=|<=|==|!=|=|>|<)?\s*[vV]?(?P<major>{_PART})(?:\.(?P<minor>{_PART}))?(?:\.(?P<patch>{_PART}))?{_TAIL}"
)
_MAX_LENGTH = 256


@total_ordering
@dataclass(frozen=True)
class Version:
    """One version; build metadata says nothing about the order and is left out."""

    major: int
    minor: int = 0
    patch: int = 0
    prerelease: tuple[str, ...] = ()

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[object, ...]:
        numbers = (self.major, self.minor, self.patch)
        # Numbers are below words, and any prerelease below its release.
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.prerelease)
        return (*numbers, 0 if parts else 1, parts)


Check = Callable[[Version], bool]


@dataclass(frozen=True)
class Range:
    """What versions are wanted: alternatives, each with its checks and whether prereleases take part."""

    text: str
    alternatives: tuple[tuple[tuple[Check, ...], bool], ...]

    def __contains__(self, version: Version) -> bool:
        return any(
            (named or not version.prerelease) and all(check(version) for check in checks)
            for checks, named in self.alternatives
        )


def parse_version(text: str) -> Version | None:
    """The version that a tag names, with or without `v`; None for any other tag, also for `v1` and `v1.2`."""
    found = _VERSION.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if found is None:
        return None
    prerelease = tuple(found["pre"].split(".")) if found["pre"] else ()
    return Version(int(found["major"]), int(found["minor"]), int(found["patch"]), prerelease)


def parse_range(text: str) -> Range:
    """Raises ValueError with a sentence where `text` is no range."""
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"a range has at most {_MAX_LENGTH} characters")
    return Range(text, tuple(_alternative(part) for part in text.split("||")))


def highest(tags: Iterable[str], wanted: Range) -> str | None:
    """The tag with the highest version in the range; of two for one version, the longer, then the last by name."""
    found = [(version, len(tag), tag) for tag in tags if (version := parse_version(tag)) and version in wanted]
    return max(found)[2] if found else None


def _alternative(text: str) -> tuple[tuple[Check, ...], bool]:
    checks: list[Check] = []
    named, at, text = False, 0, text.strip()
    while at < len(text):
        found = _COMPARATOR.match(text, at)
        end = found.end() if found else at
        if found is None or (end < len(text) and text[end] not in " ,\t"):
            raise ValueError(f"`{text[at:]}` is no comparator: write for example `>=1.2 <2`, `^1.2`, `~1.2` or `1.x`")
        checks.append(_check(found))
        named = named or found["pre"] is not None
        at = len(text) - len(text[end:].lstrip(" ,\t"))
    if not checks:
        raise ValueError("a range is empty: write `*` for every version")
    return tuple(checks), named


def _check(found: re.Match[str]) -> Check:
    """One comparator as an interval, or for `!=` as what is outside of one."""
    numbers = [int(part) for part in _given(found)]
    if found["pre"] and len(numbers) < 3:
        raise ValueError(f"`{found[0]}` names a prerelease of no whole version")
    low = _version(numbers, tuple(found["pre"].split(".")) if found["pre"] else ())
    past = _past(numbers, len(numbers)) if len(numbers) < 3 else None  # the first that does not begin so
    operator = found["op"] or "="
    if operator in ("^", "~"):
        return _between(low, _past(numbers, _fixed(numbers, operator)))
    if operator in ("=", "=="):
        return _between(low, past) if past or not numbers else lambda version: version == low
    if operator == "!=":
        inside = _between(low, past) if past or not numbers else None
        return (lambda version: not inside(version)) if inside else lambda version: version != low
    return _ordered(operator, low, past, bool(numbers))


def _given(found: re.Match[str]) -> list[str]:
    """The numbers before the first wildcard."""
    given: list[str] = []
    for part in (found["major"], found["minor"], found["patch"]):
        if part is None or part in "xX*":
            break
        given.append(part)
    return given


def _fixed(numbers: list[int], operator: str) -> int:
    """How many of the leading numbers may not change: `^` up to the first that is not 0, `~` the minor."""
    if operator == "~":
        return min(len(numbers), 2)
    return next((at + 1 for at, number in enumerate(numbers) if number), len(numbers))


def _past(numbers: list[int], fixed: int) -> Version | None:
    """The lowest version with higher leading numbers; None where none are given."""
    if not fixed:
        return None
    return _version([*numbers[: fixed - 1], numbers[fixed - 1] + 1])


def _version(numbers: list[int], prerelease: tuple[str, ...] = ()) -> Version:
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return Version(major, minor, patch, prerelease)


def _below(version: Version, bound: Version) -> bool:
    """Below `bound`, and no prerelease of it where it is a release: `<2` is not meant to bring 2.0.0-rc.1."""
    if not bound.prerelease and version.prerelease:
        return (version.major, version.minor, version.patch) < (bound.major, bound.minor, bound.patch)
    return version < bound


def _between(low: Version, past: Version | None) -> Check:
    return lambda version: version >= low and (past is None or _below(version, past))


def _ordered(operator: str, low: Version, past: Version | None, numbered: bool) -> Check:
    if not numbered:  # `>=*` is everything, `>*` and `<*` are nothing
        return lambda _: "=" in operator
    if operator == ">=":
        return lambda version: version >= low
    if operator == "<":
        return lambda version: _below(version, low)
    if operator == ">":
        return (lambda version: version >= past) if past else lambda version: version > low
    return (lambda version: _below(version, past)) if past else lambda version: version <= low
