"""URLs of repositories: what they mean, and that none of them can become an option of git."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.location import is_ref_name, looks_like_git, parse_location
from reconciler.errors import SourceError

SHA = "0123456789abcdef0123456789abcdef01234567"


def refused(text: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        parse_location(text)
    assert caught.value.code == "bad-url"
    assert caught.value.exit_code == 64
    return caught.value


class TestMeaning:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("git+ssh://git@example.com/acme/fleet.git", "ssh://git@example.com/acme/fleet.git"),
            ("git+ssh://git@example.com:2222/~/fleet", "ssh://git@example.com:2222/~/fleet"),
            ("ssh://example.com/fleet", "ssh://example.com/fleet"),
            ("git+https://example.com/acme/fleet", "https://example.com/acme/fleet"),
            ("https://example.com/acme/fleet.git", "https://example.com/acme/fleet.git"),
            ("https://[::1]:8443/fleet.git", "https://[::1]:8443/fleet.git"),
            ("git+file:///srv/my fleet.git", "file:///srv/my fleet.git"),
            ("git@example.com:acme/fleet.git", "git@example.com:acme/fleet.git"),
        ],
    )
    def test_each_kind_of_url(self, text: str, url: str) -> None:
        assert looks_like_git(text)
        place = parse_location(text)
        assert (place.url, place.ref_kind, place.ref, place.path, place.verify) == (url, "head", "", None, None)

    @pytest.mark.parametrize("text", ["specs", "./specs", "/srv/specs", "~/specs", "a@b", "C:specs", "-x", "a:b"])
    def test_a_directory_is_no_url(self, text: str) -> None:
        assert not looks_like_git(text)

    def test_the_query_says_which_ref_which_folder_and_who_may_sign(self) -> None:
        place = parse_location(
            "git+file:///r?ref=branch:feature/a+b&path=./env/prod/&verify=strict&allowed_signers=~/s"
        )
        assert (place.ref_kind, place.ref, place.path) == ("branch", "feature/a+b", "env/prod")
        assert (place.verify, place.allowed_signers) == ("strict", "~/s")
        assert parse_location("git+file:///r?ref=semver:%3E=1.2%20<2").ref == ">=1.2 <2"
        assert parse_location(f"git@h:r?ref=commit:{SHA.upper()}").ref == SHA

    def test_what_is_shown_holds_no_credentials(self) -> None:
        place = parse_location("https://me%40x:s3cret@example.com/r.git?ref=tag:v1&path=specs")
        assert place.name == "https://example.com/r.git?ref=tag:v1&path=specs"
        assert (place.username, place.password) == ("me@x", "s3cret")
        assert "s3cret" not in place.url + repr(place)
        alone = parse_location("https://token@example.com/r.git")
        assert alone.url == "https://token@example.com/r.git"
        assert alone.name == "https://example.com/r.git"


class TestRefusals:
    @pytest.mark.parametrize(
        "text",
        [
            "http://example.com/r.git",
            "git://example.com/r",
            "git+http://h/r",
            "ftp://h/r",
            "ext::sh -c x://",
            "file:///r",
            "git+ssh://-oProxyCommand=x/r",
            "git+ssh://%2DoProxyCommand=x/r",
            "git+ssh://-u@h/r",
            "git+ssh://h/-r",
            "git+ssh://h/%2Dr",
            "git+ssh://h",
            "git+https:///r",
            "git+file://host/r",
            "git+file:relative",
            "git+file://",
            "git@h:-r",
            "git+ssh://h/r\n",
            "git+ssh://h/r%0a",
            "git+ssh://u:p@h/r",
            "git+https://h:99999999/r",
            "git+https://h/r#main",
        ],
    )
    def test_urls_that_are_no_place_or_could_be_an_option(self, text: str) -> None:
        refused(text)

    @pytest.mark.parametrize(
        "query",
        [
            "ref=main",
            "ref=branch:",
            "ref=branch:-x",
            "ref=branch:--upload-pack=x",
            "ref=branch:a:b",
            "ref=branch:a..b",
            "ref=branch:a b",
            "ref=branch:a%0ab",
            "ref=branch:a/",
            "ref=branch:a.lock",
            "ref=branch:a*",
            "ref=tag:@{-1}",
            "ref=tag:+x^{}",
            "ref=semver:new",
            "ref=commit:HEAD",
            "ref=commit:0123",
            "ref=pull:1",
            "path=../x",
            "path=/etc",
            "path=a/../../b",
            "path=~/x",
            "path=.git",
            "path=",
            "verify=yes",
            "reff=branch:a",
            "ref=tag:a&ref=tag:b",
        ],
    )
    def test_queries_that_say_nothing_or_could_be_an_option(self, query: str) -> None:
        refused(f"git+file:///r?{query}")

    def test_the_sentence_says_what_to_write(self) -> None:
        assert "did you mean `ref`" in refused("git+file:///r?reff=x").message
        assert "ref=branch:NAME" in refused("git+file:///r?ref=main").remedy
        assert "git+https://" in refused("http://h/r").remedy

    @pytest.mark.parametrize(
        "text", ["ssh://u:s3cret@h/r", "http://u:s3cret@h/r", "https://u:s3cret@-h/r", "https://u:s3cret@h/r?x=1"]
    )
    def test_no_refusal_repeats_a_password(self, text: str) -> None:
        error = refused(text)
        assert "s3cret" not in error.message + error.remedy

    @given(
        st.sampled_from(["git+ssh://", "git+https://", "git+file:///", "ssh://", "git@h:"]),
        st.text(st.sampled_from("-abu:/@%2D0a.~ \n\0[]{}^*+=&?\\é"), max_size=24),
    )
    def test_whatever_is_taken_is_no_option_and_has_no_control_character(self, scheme: str, rest: str) -> None:
        try:
            place = parse_location(scheme + rest)
        except SourceError:
            return
        host, _, path = place.url.partition("://")[2].partition("/") if "://" in place.url else place.url.partition(":")
        assert not place.url.startswith("-")
        assert not host.rpartition("@")[2].startswith("-")
        assert not path.startswith("-")
        assert place.url.isprintable()
        assert not place.ref or is_ref_name(place.ref) or place.ref_kind in ("semver", "commit")
        assert ".." not in (place.path or "").split("/")
