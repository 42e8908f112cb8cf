"""Versions and ranges: the highest that fits, prereleases only where they are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.semver import highest, parse_range, parse_version

TAGS = ["v0.9.0", "v1.0.0", "1.2.0", "v1.2.3", "v1.10.0", "v2.0.0-rc.1", "v2.0.0", "v2.1.0-beta", "nightly", "v3"]
NUMBER = st.integers(0, 30)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (">=1.0.0", "v2.0.0"), (">=1.2 <2", "v1.10.0"), ("^1.2", "v1.10.0"), ("~1.2", "v1.2.3"), ("1.x", "v1.10.0"),
        ("1.2.*", "v1.2.3"), ("*", "v2.0.0"), ("=1.0.0", "v1.0.0"), ("v1.2.3", "v1.2.3"), ("<1.0.0", "v0.9.0"),
        ("<=1.2", "v1.2.3"), (">1.2", "v2.0.0"), (">= 1.2, < 1.9", "v1.2.3"), ("^0.9", "v0.9.0"), ("^4", None),
        (">=2.1.0-alpha", "v2.1.0-beta"), ("0.9.x || ~1.2", "v1.2.3"), ("2.0.0-rc.1", "v2.0.0-rc.1"),
    ],
)  # fmt: skip
def test_the_highest_tag_in_the_range_is_taken(text: str, tag: str | None) -> None:
    assert highest(TAGS, text) == tag


@pytest.mark.parametrize("text", ["", "one", ">", "^^1", "1.2.3.4", "main", ">=1 ||"])
def test_what_is_no_range_fits_nothing(text: str) -> None:
    assert parse_range(text) is None
    assert highest(TAGS, text) is None


def test_precedence_is_that_of_semver_org() -> None:
    rising = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
              "1.0.0-rc.1", "1.0.0", "1.0.1", "1.1.0", "2.0.0"]  # fmt: skip
    versions = [parse_version(text) for text in rising]
    assert None not in versions
    assert sorted(versions, key=lambda v: v) == versions  # type: ignore[return-value, arg-type]


@given(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
def test_a_caret_holds_what_does_not_raise_the_first_number_that_counts(
    a: int, b: int, c: int, x: int, y: int, z: int
) -> None:
    tag = f"{x}.{y}.{z}"
    same = {True: x == a, False: x == 0 and y == b if b else (x, y, z) == (0, 0, c)}[a > 0]
    assert (highest([tag], f"^{a}.{b}.{c}") == tag) == (same and (x, y, z) >= (a, b, c))


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_a_repository_calls_its_tags_nothing_breaks(tag: str, text: str) -> None:
    assert highest([tag], text) in (tag, None)
