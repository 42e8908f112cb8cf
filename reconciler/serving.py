"""The HTTP side of `run --listen`: `/healthz`, `/readyz`, `/metrics`, and `/webhook`, which only says "look now"."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from reconciler.core.webhook import accepts
from reconciler.errors import ReconcilerError, UsageError
from reconciler.redaction import redact

LOG = logging.getLogger(__name__)
_BODY = 1024 * 1024  # bytes of a webhook; forges stay far below
_PATIENCE = 5.0  # seconds that a client may take
_AT_ONCE = 16  # requests; further ones are turned away


@dataclass(frozen=True)
class Answers:
    """What there is to say; all of it is called on the server's threads. `trouble` is "" when all is well."""

    health: Callable[[], str]
    ready: Callable[[], str]
    metrics: Callable[[], bytes] | None
    poke: Callable[[], None]
    secret: bytes = b""


def address_of(text: str) -> tuple[str, int]:
    """`[HOST:]PORT`; without a host it is loopback. Raises UsageError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if re.fullmatch("[0-9]{1,5}", port) is None or int(port) > 65535:
        raise UsageError(f"--listen {text}: expected [HOST:]PORT, such as 9464 or 127.0.0.1:9464")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """Listens until it is closed."""

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        """Raises ReconcilerError(listen) where the address is not to be had."""
        kind = type("_Handler", (_Handler,), {"answers": answers})
        server = type("_Server", (_Listener,), {"address_family": _family(host)})
        try:
            self._server: ThreadingHTTPServer = server((host, port), kind)
        except OSError as error:
            raise ReconcilerError(
                f"cannot listen on {host}:{port}: {error.strerror}", code="listen", remedy="--listen with another port"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.info("a client of the HTTP server went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    answers: Answers
    timeout = _PATIENCE
    server_version = "reconciler"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._state(self.answers.health())
        elif self.path == "/readyz":
            self._state(self.answers.ready())
        elif self.path == "/metrics":
            self._metrics()
        else:
            self._say(404, b"there are /healthz, /readyz, /metrics and /webhook\n")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if self.path != "/webhook" or not self.answers.secret:
            self._say(404, b"there is no webhook: it needs --webhook-secret\n")
            return
        length = self.headers.get("Content-Length", "")
        if re.fullmatch("[0-9]{1,9}", length) is None or int(length) > _BODY:
            self._say(413, b"a webhook says its length, of at most 1 MiB\n")
            return
        body = self.rfile.read(int(length))
        if len(body) != int(length) or not accepts(dict(self.headers.items()), body, self.answers.secret):
            self._say(403, b"the signature is not right\n")
            return
        self.answers.poke()
        self._say(202, b"the source is asked\n")

    def _state(self, trouble: str) -> None:
        self._say(503 if trouble else 200, f"{redact(trouble) or 'ok'}\n".encode())

    def _metrics(self) -> None:
        if self.answers.metrics is None:
            self._say(501, b"metrics need: pip install 'agent-reconciler[metrics]'\n")
        else:
            self._say(200, self.answers.metrics(), "text/plain; version=0.0.4; charset=utf-8")

    def _say(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        LOG.info("http: " + format, *arguments)
