"""What every kind of notifier keeps to; a new kind of the model is tested by being there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from reconciler.core.notices import Notice
from reconciler.core.notifier_spec import Notifier as Spec
from reconciler.core.parse import parse
from reconciler.core.verdicts import Verdict
from reconciler.errors import ReconcilerError
from reconciler.notifiers import Notifier, NotifyError, open_notifiers
from tests.support.receiver import Receiver, receiver

KINDS = get_args(Spec.model_fields["kind"].annotation)
NOTICE = Notice("crash-looping", "session.api", "gpu", "stalled", "failed 3 times: no such model", 1_750_000_000.0)
VERDICT = Verdict("0" * 40, "success", "2 sessions are as declared")
SECRET = "s3cr3t-of-the-forge"


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def notifier(kind: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Notifier:
    monkeypatch.setenv("NOTIFY_SECRET", SECRET)
    if kind == "message":
        keys = f'url = "json://user:${{env:NOTIFY_SECRET}}@127.0.0.1:{port}/x"'
    else:
        keys = f'url = "http://127.0.0.1:{port}/api"\nrepository = "team/fleet"\ntoken = "${{env:NOTIFY_SECRET}}"'
    text = f'[sessions.api]\nagent = "codex"\n[notifiers.me]\nkind = "{kind}"\n{keys}\n'
    return open_notifiers(parse({"fleet.toml": text}, {}))["me"]


def tell(found: Notifier, kind: str) -> None:
    if kind == "message":
        found.notices("acme", [NOTICE])
    else:
        found.verdict("acme", VERDICT)


def test_what_it_is_for_arrives_once(kind: str, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(notifier(kind, server.port, monkeypatch), kind)
    assert len(server.requests) == 1


def test_what_it_is_not_for_is_ignored(kind: str, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(notifier(kind, server.port, monkeypatch), "github" if kind == "message" else "message")
    assert server.requests == []


@pytest.mark.parametrize("code", [500, 503])
def test_a_server_in_trouble_is_worth_another_attempt(
    kind: str, code: int, server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.code = code
    with pytest.raises(NotifyError) as error:
        tell(notifier(kind, server.port, monkeypatch), kind)
    assert error.value.retry


def test_where_nobody_listens_it_says_so_and_never_a_secret(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as gone:
        port = gone.port
    with pytest.raises(NotifyError) as error:
        tell(notifier(kind, port, monkeypatch), kind)
    assert error.value.retry
    assert "notifier me" in error.value.message
    assert SECRET not in error.value.message + error.value.remedy


def test_a_secret_that_is_not_there_is_named(kind: str, server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    found = notifier(kind, server.port, monkeypatch)
    monkeypatch.delenv("NOTIFY_SECRET")
    with pytest.raises(ReconcilerError) as error:
        tell(found, kind)
    assert "NOTIFY_SECRET" in error.value.message
    assert server.requests == []
