"""The shell that looks at one host, and what it answered last: an answer that has not changed is not parsed again.

What the host may leave out it may leave out only by saying so (`same`), and only of an answer that is at hand here; a
whole answer is asked for again every so often, whatever it says.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler.core.observed import LOOK_LIMIT, Reached, parse_look
from reconciler.errors import HostError
from reconciler.runtimes.operations import look_call, look_definition
from reconciler.transports import Channel, Transport

LOG = logging.getLogger(__name__)
WHOLE_EVERY = 10  # looks
WHOLE_AFTER = 300.0  # seconds
ONCE = frozenset({"digest", "version"})  # checks of which nobody asks twice
_NOW = re.compile(rb'"now":[0-9]{1,12}')

Checks = Sequence[tuple[str, str]]


@dataclass
class _Last:
    """The last whole answer to one question."""

    question: tuple[str, Checks]
    nonce: str
    answer: bytes
    reached: Reached
    at: float
    repeated: int = 0

    def due(self, now: float) -> bool:
        """Whether it is time for another whole one."""
        return self.repeated + 1 >= WHOLE_EVERY or now - self.at > WHOLE_AFTER


class Looker:
    """One long-lived shell. Not to be used by two at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._shell: Channel | None = None
        self._last: _Last | None = None

    @property
    def open(self) -> bool:
        """Whether the shell runs."""
        return self._shell is not None

    def drop(self) -> None:
        """Its connection is gone."""
        self._shell = self._last = None

    async def close(self) -> None:
        """End the shell; safe to call twice."""
        shell = self._shell
        self.drop()
        if shell is not None:
            with contextlib.suppress(HostError, OSError):
                await shell.close()

    async def look(self, transport: Transport, fleet: str, checks: Checks) -> Reached:
        """One look: one round trip. Raises HostError; the caller bounds the time, and closes it then."""
        question = (fleet, tuple(checks))
        last = self._last if self._last is not None and self._last.question == question else None
        since = last.nonce if last is not None and self._shell is not None and not last.due(time.monotonic()) else ""
        nonce = secrets.token_hex(8)
        answer = await self._ask(transport, look_call(fleet, nonce, checks, since), nonce)
        if last is not None and since and answer.startswith(b"same\t"):
            last.repeated += 1
            return replace(last.reached, now=last.reached.now + _seconds(self.name, answer))
        if last is not None and essence(answer) == essence(last.answer):
            reached = replace(last.reached, now=_now(answer))
        else:
            reached = parse_look(self.name, nonce, answer)
        if not any(kind in ONCE for kind, _ in checks):
            self._last = _Last(question, nonce, answer, reached, time.monotonic())
        return reached

    async def _ask(self, transport: Transport, call: str, nonce: str) -> bytes:
        shell = self._shell  # whoever loses the connection meanwhile takes it away
        if shell is None:
            shell = self._shell = await transport.open(("sh",))
            call = look_definition() + call
        begun = time.monotonic()
        await shell.write(call.encode())
        ends = (f"end\t{nonce}\t".encode(), f"same\t{nonce}\t".encode())
        answer = bytearray()
        while True:
            data = await shell.read()
            if not data:
                raise HostError(f"{self.name}: the shell that looks ended", code="look-truncated")
            answer += data
            if len(answer) > LOOK_LIMIT:
                raise HostError(f"{self.name}: the answer to the look is too long", code="look-failed")
            last = answer.rfind(b"\n", 0, len(answer) - 1) + 1
            if answer.endswith(b"\n") and answer.startswith(ends, last):
                LOG.info(
                    "%s: looked in %.0f ms, %d bytes", self.name, (time.monotonic() - begun) * 1000, len(answer)
                )  # fmt: skip
                if answer.startswith(ends[1], last):
                    return bytes(answer[last:])
                # A login may greet whoever comes; what is ours begins with the host, and its lines are counted.
                return bytes(answer[max(0, answer.find(b"host\t-\t")) :])


def essence(answer: bytes) -> tuple[bytes, bytes, bytes]:
    """What of a whole answer says something of the host: all but its time and the nonce."""
    first, _, rest = answer.partition(b"\n")
    told, _, trailer = rest.rstrip(b"\n").rpartition(b"\n")
    return _NOW.sub(b"", first, count=1), told, trailer.rpartition(b"\t")[2]


def _now(answer: bytes) -> int:
    found = _NOW.search(answer)
    return int(found[0].partition(b":")[2]) if found else 0


def _seconds(name: str, answer: bytes) -> int:
    """How long ago the answer was given that still holds."""
    text = answer.rstrip(b"\n").rpartition(b"\t")[2]
    if not (text.isdigit() and len(text) < 10):
        raise HostError(f"{name}: the answer to the look is not what it should be", code="look-failed")
    return int(text)
