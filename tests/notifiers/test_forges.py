"""Statuses of commits, as each forge wants them told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from reconciler.core.spec import Notifier
from reconciler.core.verdicts import Verdict
from reconciler.notifiers import NotifyError
from reconciler.notifiers.forges import Forge
from tests.support.receiver import Receiver, receiver

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def forge(kind: str, url: str) -> Forge:
    spec = Notifier.model_validate(
        {"kind": kind, "url": SecretStr(url), "repository": "team/my fleet", "token": SecretStr("t0ken")}
    )
    return Forge("me", spec)


@pytest.mark.parametrize(
    ("kind", "path", "header", "state"),
    [
        ("github", f"/api/repos/team/my%20fleet/statuses/{COMMIT}", ("authorization", "token t0ken"), "failure"),
        ("gitea", f"/api/repos/team/my%20fleet/statuses/{COMMIT}", ("authorization", "token t0ken"), "failure"),
        ("gitlab", f"/api/projects/team%2Fmy%20fleet/statuses/{COMMIT}", ("private-token", "t0ken"), "failed"),
    ],
)
def test_each_forge_is_told_in_its_own_words(
    kind: str, path: str, header: tuple[str, str], state: str, server: Receiver
) -> None:
    forge(kind, f"{server.url}/api/").verdict("acme", Verdict(COMMIT, "failure", "1 of 2 stalled"))
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", path)
    assert request.headers[header[0]] == header[1]
    assert request.document["state"] == state
    assert request.document["description"] == "1 of 2 stalled"
    assert request.document["name" if kind == "gitlab" else "context"] == "reconciler/acme"


def test_a_redirect_is_not_followed_with_the_token(server: Receiver) -> None:
    with receiver() as elsewhere:
        server.code, server.location = 307, f"{elsewhere.url}/"
        with pytest.raises(NotifyError):
            forge("github", server.url).verdict("acme", Verdict(COMMIT, "success", ""))
        assert elsewhere.requests == []


def test_a_token_is_not_sent_in_the_clear() -> None:
    with pytest.raises(NotifyError) as error:
        forge("gitea", "http://git.example.com/api/v1").verdict("acme", Verdict(COMMIT, "success", ""))
    assert "not https" in error.value.message
    assert not error.value.retry


def test_a_refusal_is_final(server: Receiver) -> None:
    server.code = 403
    with pytest.raises(NotifyError) as error:
        forge("github", server.url).verdict("acme", Verdict(COMMIT, "success", ""))
    assert not error.value.retry
    assert "answered 403" in error.value.message
