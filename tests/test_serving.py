"""Health, metrics and the webhook, over real sockets."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from reconciler.core.status import Condition, Status
from reconciler.errors import ReconcilerError, UsageError
from reconciler.metrics import Metrics, Now
from reconciler.serving import Answers, Server, address_of, is_loopback

SECRET = b"a secret of the webhook"
STATUSES = (
    Status("source.specs", "local", "ready", ()),
    Status("host.gpu", "gpu", "ready", ()),
    Status("host.away", "away", "unknown", ()),
    Status("session.a", "gpu", "idle", (Condition("Ready", "True", "unchanged"),)),
    Status("session.b", "gpu", "idle", (Condition("Ready", "True", "unchanged"),)),
    Status("session.c", "away", "unknown", (Condition("Ready", "Unknown", "timeout"),)),
)


@dataclass
class World:
    """A server and what it says."""

    trouble: str = ""
    pokes: int = 0
    server: Server = field(init=False)

    def poke(self) -> None:
        self.pokes += 1

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    metrics = Metrics(lambda: Now(STATUSES, "main@1", {"gpu": 5.0, "away": None}, {("me", "sent"): 3}))
    metrics.looked(True, 0.02)
    answers = Answers(lambda: found.trouble, lambda: found.trouble, metrics.text, found.poke, SECRET)
    found.server = Server("127.0.0.1", 0, answers)
    yield found
    found.server.close()


def signed(body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()}


def test_health_and_readiness_say_what_is_wrong(world: World) -> None:
    assert world.ask("GET", "/healthz") == (200, "ok\n")
    world.trouble = "nothing was decided yet"
    assert world.ask("GET", "/readyz") == (503, "nothing was decided yet\n")
    assert world.ask("HEAD", "/healthz") == (503, "")


def test_metrics_count_sessions_hosts_looks_and_messages(world: World) -> None:
    code, text = world.ask("GET", "/metrics")
    assert code == 200
    lines = text.splitlines()
    assert 'reconciler_sessions{host="gpu",phase="idle"} 2.0' in lines
    assert 'reconciler_conditions{status="Unknown",type="Ready"} 1.0' in lines
    assert 'reconciler_host_reachable{host="away"} 0.0' in lines
    assert 'reconciler_host_last_answer_timestamp_seconds{host="gpu"} 5.0' in lines
    assert "reconciler_source_ready 1.0" in lines
    assert 'reconciler_notices{notifier="me",outcome="sent"} 3.0' in lines
    assert 'reconciler_look_seconds_count{outcome="reached"} 1.0' in lines


def test_a_webhook_that_proves_the_secret_pokes_once_and_its_body_is_not_read(world: World) -> None:
    body = b"no JSON at all \xff"
    assert world.ask("POST", "/webhook", body, signed(body))[0] == 202
    assert world.pokes == 1


def test_whoever_does_not_know_the_secret_pokes_nothing(world: World) -> None:
    for headers in ({}, signed(b"another body"), {"X-Gitlab-Token": "a guess"}, {"X-Hub-Signature-256": "sha256=é"}):
        with_bytes = {k: v.encode("utf-8").decode("latin-1") for k, v in headers.items()}
        assert world.ask("POST", "/webhook", b"body", with_bytes)[0] == 403
    assert world.ask("GET", "/webhook")[0] == 404
    assert world.ask("POST", "/elsewhere", b"body", signed(b"body"))[0] == 404
    assert world.pokes == 0


def test_a_body_without_bounds_is_refused_before_it_is_read(world: World) -> None:
    for length in ("1048577", "99999999999999999999", "9" * 5000, "-1", "\xb2", "x"):
        with socket.create_connection(("127.0.0.1", world.server.port), 10) as line:
            line.sendall(f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode("latin-1"))
            assert line.recv(100).startswith(b"HTTP/1.0 413")
    assert world.pokes == 0


def test_without_a_secret_there_is_no_webhook_and_without_the_extra_no_metrics() -> None:
    world = World()
    world.server = Server("127.0.0.1", 0, Answers(lambda: "", lambda: "", None, world.poke))
    try:
        assert world.ask("POST", "/webhook", b"", {"X-Gitlab-Token": ""})[0] == 404
        assert world.ask("GET", "/metrics") == (501, "metrics need: pip install 'agent-reconciler[metrics]'\n")
    finally:
        world.server.close()


def test_an_address_is_a_port_or_a_host_with_a_port() -> None:
    assert address_of("9464") == ("127.0.0.1", 9464)
    assert address_of("0.0.0.0:80") == ("0.0.0.0", 80)
    assert address_of("[::1]:80") == ("::1", 80)
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    for wrong in ("", "x", "1:x", "70000"):
        with pytest.raises(UsageError):
            address_of(wrong)


def test_a_port_that_somebody_has_is_named(world: World) -> None:
    with pytest.raises(ReconcilerError) as error:
        Server("127.0.0.1", world.server.port, Answers(lambda: "", lambda: "", None, lambda: None))
    assert f"127.0.0.1:{world.server.port}" in error.value.message
