"""Ranges of versions: which tag is the newest that is wanted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.semver import Version, highest, parse_range, parse_version

NUMBERS = st.integers(0, 30)
PRERELEASES = st.lists(st.from_regex(r"[0-9A-Za-z-]{1,4}", fullmatch=True), max_size=3).map(tuple)
RELEASES = st.builds(Version, NUMBERS, NUMBERS, NUMBERS)
VERSIONS = st.builds(Version, NUMBERS, NUMBERS, NUMBERS, PRERELEASES)


def written(version: Version) -> str:
    tail = "-" + ".".join(version.prerelease) if version.prerelease else ""
    return f"{version.major}.{version.minor}.{version.patch}{tail}"


def matches(wanted: str, text: str) -> bool:
    version = parse_version(text)
    assert version is not None
    return version in parse_range(wanted)


class TestVersions:
    def test_the_order_is_that_of_the_standard(self) -> None:
        texts = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ]
        versions = [parse_version(text) for text in texts]
        assert versions == sorted(version for version in versions if version)

    @pytest.mark.parametrize(
        "text",
        [
            "v1",
            "1.2",
            "latest",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-a..b",
            "",
            "v1.2.3\n",
            "1.2.9999999999",
            "x" * 5000,
        ],
    )
    def test_a_tag_that_is_no_whole_version_counts_for_nothing(self, text: str) -> None:
        assert parse_version(text) is None

    @given(VERSIONS)
    def test_a_v_before_it_and_build_metadata_after_it_change_nothing(self, version: Version) -> None:
        text = written(version)
        assert parse_version(text) == parse_version(f"v{text}") == parse_version(f"{text}+build.7") == version


class TestRanges:
    @pytest.mark.parametrize(
        ("wanted", "inside", "outside"),
        [
            (">=1.2 <2", ["1.2.0", "1.99.9"], ["1.1.9", "2.0.0", "2.0.0-rc.1"]),
            (">=1.2, <2", ["1.2.0"], ["2.0.0"]),
            ("^1.2", ["1.2.0", "1.9.0"], ["1.1.0", "2.0.0", "1.3.0-rc.1"]),
            ("^1.2.3", ["1.2.3", "1.3.0"], ["1.2.2", "2.0.0"]),
            ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "0.2.2"]),
            ("^0.0.3", ["0.0.3"], ["0.0.4"]),
            ("^0.0", ["0.0.0", "0.0.9"], ["0.1.0"]),
            ("^0", ["0.0.1", "0.9.0"], ["1.0.0"]),
            ("~1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
            ("~1.2.3", ["1.2.3"], ["1.2.2", "1.3.0"]),
            ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
            ("1.x", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.0"]),
            ("v1.2.X", ["1.2.0"], ["1.3.0"]),
            ("1.2", ["1.2.0", "1.2.7"], ["1.3.0"]),
            ("*", ["0.0.0", "9.9.9"], ["1.0.0-rc.1"]),
            ("=1.2.3", ["1.2.3", "v1.2.3"], ["1.2.4"]),
            ("!=1.2.3 1.2", ["1.2.4"], ["1.2.3", "1.3.0"]),
            ("!=1.2", ["1.3.0"], ["1.2.0", "1.2.9"]),
            (">1.2", ["1.3.0"], ["1.2.9", "1.2.0"]),
            ("<=1.2", ["1.2.9", "0.1.0"], ["1.3.0"]),
            (">1.2.3 <=1.2.5", ["1.2.4", "1.2.5"], ["1.2.3", "1.2.6"]),
            ("^1.2.0-rc.1", ["1.2.0-rc.1", "1.2.0-rc.2", "1.2.0", "1.5.0-a"], ["1.2.0-beta", "2.0.0-alpha", "2.0.0"]),
            (">=1.0.0-0", ["1.0.0-0", "2.0.0-rc.1"], ["0.9.0"]),
            ("1.2.x || ^3", ["1.2.5", "3.4.0"], ["2.0.0", "4.0.0"]),
            ("> 1.2.3", ["1.2.4"], ["1.2.3"]),
        ],
    )
    def test_each_way_of_writing_one(self, wanted: str, inside: list[str], outside: list[str]) -> None:
        assert {text: matches(wanted, text) for text in inside + outside} == {
            **dict.fromkeys(inside, True),
            **dict.fromkeys(outside, False),
        }

    @pytest.mark.parametrize(
        "text",
        ["", " ", "a", ">=", ">=1.2 and <2", "1.2.3 - 2.0", "1 ||", "^1.2-rc", "=>1", "1.2.3.4", "1" * 300, ">=1.2<2"],
    )
    def test_what_is_no_range_is_an_error_with_a_sentence(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"range|comparator|prerelease"):
            parse_range(text)

    @given(st.text(st.sampled_from("0123456789.xX*^~<>=!|v- +,ab"), max_size=30))
    def test_hostile_text_is_a_range_or_an_error_and_nothing_else(self, text: str) -> None:
        try:
            wanted = parse_range(text)
        except ValueError:
            return
        assert isinstance(Version(1) in wanted, bool)

    @given(RELEASES, RELEASES)
    def test_the_signs_agree_with_the_order(self, one: Version, other: Version) -> None:
        text = written(other)
        assert (one in parse_range(f">={text}")) == (one >= other)
        assert (one in parse_range(f">{text}")) == (one > other)
        assert (one in parse_range(f"<={text}")) == (one <= other)
        assert (one in parse_range(f"<{text}")) == (one < other)
        assert (one in parse_range(f"={text}")) == (one == other) != (one in parse_range(f"!={text}"))

    @given(RELEASES, VERSIONS)
    def test_a_tilde_is_never_wider_than_a_caret_above_zero(self, base: Version, version: Version) -> None:
        text = written(base)
        if base.major and version in parse_range(f"~{text}"):
            assert version in parse_range(f"^{text}")

    @given(st.sampled_from(["*", "^1", "~2.3", ">=1.2 <20", "!=3"]), VERSIONS)
    def test_prereleases_take_part_only_where_the_range_names_one(self, wanted: str, version: Version) -> None:
        if version in parse_range(wanted):
            assert not version.prerelease


class TestHighest:
    def test_the_highest_is_taken_and_other_tags_are_passed_over(self) -> None:
        tags = ["v1.2.0", "1.10.0", "v1.9.0", "v2.0.0", "latest", "v1.11.0-rc.1", "v1"]
        assert highest(tags, parse_range("^1")) == "1.10.0"
        assert highest(tags, parse_range(">=3")) is None

    @given(st.lists(VERSIONS, max_size=10), st.sampled_from(["*", "^1.2", ">=2.0.0-0"]), st.randoms())
    def test_the_order_of_the_tags_says_nothing(self, versions: list[Version], wanted: str, random: object) -> None:
        tags = [written(version) for version in versions]
        inside = [version for version in versions if version in parse_range(wanted)]
        found = highest(tags, parse_range(wanted))
        assert found == highest(reversed(tags), parse_range(wanted))
        assert (parse_version(found) if found else None) == max(inside, default=None)
