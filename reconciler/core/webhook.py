"""Whether a webhook comes from somebody who knows the secret. Pure. What it says is never read."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

# GitHub, Gitea and Forgejo, Gogs, Bitbucket, and whoever signs in the same manner. SHA-1 is not taken.
_SIGNED = {
    "x-hub-signature-256",
    "x-gitea-signature",
    "x-forgejo-signature",
    "x-gogs-signature",
    "x-hub-signature",
    "x-signature",
}
_TOKEN = "x-gitlab-token"  # GitLab sends the secret itself
_PREFIX = "sha256="


def accepts(headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
    """Whether one of the headers proves the secret, over this very body where the sender signs.

    Never raises. An empty secret proves nothing. Every comparison takes the same time whatever is wrong.
    """
    if not secret:
        return False
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    proven = False
    for name, value in headers.items():
        word = name.lower()
        if word in _SIGNED:
            proven |= _same(value.strip().removeprefix(_PREFIX).lower(), digest.encode())
        elif word == _TOKEN:
            proven |= _same(value, secret)
    return proven


def _same(given: str, expected: bytes) -> bool:
    # Bytes, because text that is not ASCII would raise.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected)
