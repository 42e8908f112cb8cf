"""Who may say that the specs changed."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.webhook import accepts

SECRET = b"correct horse"
BODY = b'{"ref": "refs/heads/main"}'
HEX = hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()
GOOD = {
    "GitHub": {"X-Hub-Signature-256": f"sha256={HEX}"},
    "Gitea": {"X-Gitea-Signature": HEX},
    "Forgejo": {"X-Forgejo-Signature": HEX},
    "GitLab": {"X-Gitlab-Token": SECRET.decode()},
    "Bitbucket": {"X-Hub-Signature": f"sha256={HEX}"},
    "anybody": {"X-Signature": f"sha256={HEX}"},
}
NAMES = st.sampled_from([name for headers in GOOD.values() for name in headers])


class TestGood:
    @pytest.mark.parametrize("sender", GOOD)
    def test_every_sender_that_knows_the_secret_is_taken(self, sender: str) -> None:
        headers = {"Content-Type": "application/json", **GOOD[sender]}
        assert accepts(headers, BODY, SECRET)
        assert accepts({name.lower(): value for name, value in headers.items()}, BODY, SECRET)

    @pytest.mark.parametrize("sender", GOOD)
    def test_another_secret_is_not(self, sender: str) -> None:
        assert not accepts(GOOD[sender], BODY, SECRET + b"x")

    @pytest.mark.parametrize("sender", [sender for sender in GOOD if sender != "GitLab"])
    def test_another_body_is_not(self, sender: str) -> None:
        assert not accepts(GOOD[sender], BODY + b" ", SECRET)

    def test_an_old_signature_beside_a_good_one_does_no_harm_but_alone_proves_nothing(self) -> None:
        old = {"X-Hub-Signature": "sha1=" + hmac.new(SECRET, BODY, hashlib.sha1).hexdigest()}
        assert accepts({**old, **GOOD["GitHub"]}, BODY, SECRET)
        assert not accepts(old, BODY, SECRET)

    def test_an_empty_secret_proves_nothing(self) -> None:
        empty = hmac.new(b"", BODY, hashlib.sha256).hexdigest()
        assert not accepts({"X-Gitea-Signature": empty, "X-Gitlab-Token": ""}, BODY, b"")


class TestHostile:
    def test_no_header_is_no_proof(self) -> None:
        assert not accepts({}, BODY, SECRET)

    @given(
        st.dictionaries(NAMES | st.text(), st.text(st.characters()) | st.sampled_from([HEX[:-1], "sha256=", HEX * 2])),
        st.binary(),
        st.binary(),
    )
    def test_nothing_raises_and_nothing_passes(self, headers: dict[str, str], body: bytes, secret: bytes) -> None:
        if headers.get("X-Gitlab-Token", "x").encode("utf-8", "surrogatepass") != secret:
            assert accepts(headers, body, secret) is False

    @given(NAMES, st.text(st.characters(codec=None, categories=["Cs", "Cc", "Lu"])))
    def test_half_characters_and_control_characters_are_only_wrong(self, name: str, value: str) -> None:
        assert accepts({name: value}, BODY, SECRET) is False

    @given(st.binary(min_size=1), st.binary())
    def test_whoever_knows_the_secret_is_always_taken(self, secret: bytes, body: bytes) -> None:
        signed = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        assert accepts({"x-hub-signature-256": signed}, body, secret)
