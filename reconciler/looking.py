"""The shell that looks at one host, and what it answered last: an answer that has not changed is not parsed again.

What the host may leave out it may leave out only by saying so (`same`), and only of an answer that is at hand here; a
whole answer is asked for again every so often, whatever it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from reconciler.core.observed import LOOK_LIMIT, Reached, panes_told, parse_look, parse_panes
from reconciler.errors import HostError
from reconciler.panes import Panes
from reconciler.runtimes.operations import control_command, glance_definition, look_call, look_definition
from reconciler.transports import Channel, Spare, Transport

LOG = logging.getLogger(__name__)
WHOLE_EVERY = 10  # looks
WHOLE_AFTER = 300.0  # seconds
LAG = 2.0  # seconds that the control client may answer later than the shell
COMING = 10.0  # seconds that it may take to come
PAUSES = (0.0, 0.5, 2.0, 300.0)  # seconds before the next try to have one, by how many failed in a row
ONCE = frozenset({"digest", "version"})  # checks of which nobody asks twice
_NOW = re.compile(rb'"now":[0-9]{1,12}')

Checks = Sequence[tuple[str, str]]


@dataclass
class _Last:
    """The last whole answer to one question, what tmux told beside it, and what both came to."""

    question: tuple[str, Checks]
    nonce: str
    answer: bytes
    panes: bytes | None
    reached: Reached
    now: int  # by the host's clock, as the answer was given
    at: float
    repeated: int = 0

    def due(self, now: float) -> bool:
        """Whether it is time for another whole one."""
        return self.repeated + 1 >= WHOLE_EVERY or now - self.at > WHOLE_AFTER


class Looker:
    """One long-lived shell, and a control client of tmux beside it for whoever has to notice. Not for two at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.noticed: Callable[[], None] | None = None  # told when something may have changed between two looks
        self._shell: Channel | None = None
        self._again = False  # it knows how to look again
        self._last: _Last | None = None
        self._panes: Panes | None = None
        self._opening: asyncio.Task[None] | None = None
        self._narrow = False  # the host has no room for a control client
        self._failed = 0  # control clients in a row that did not answer, or not the truth
        self._not_before = 0.0

    @property
    def open(self) -> bool:
        """Whether the shell runs."""
        return self._shell is not None

    @property
    def listens(self) -> bool:
        """Whether there is a control client."""
        return self._panes is not None and self._panes.alive

    async def give_way(self) -> bool:
        """End the control client, for good: the host has no room for it."""
        self._narrow = True
        listened = self.listens or self._opening is not None
        await self._unlisten()
        return listened

    async def drop(self) -> None:
        """Its connection is gone."""
        self._shell = self._last = None
        self._narrow, self._failed, self._not_before = False, 0, 0.0
        await self._unlisten()

    async def close(self) -> None:
        """End the shell and the client; safe to call twice."""
        shell = self._shell
        await self.drop()
        if shell is not None:
            with contextlib.suppress(HostError, OSError):
                await shell.close()

    async def close_shell(self) -> None:
        """End the shell alone, between two looks."""
        shell, self._shell, self._last = self._shell, None, None
        if shell is not None:
            await shell.close()

    async def look(self, transport: Transport, fleet: str, checks: Checks) -> Reached:
        """One look: one round trip. Raises HostError; the caller bounds the time, and closes it then."""
        question = (fleet, tuple(checks))
        last = self._last if self._last is not None and self._last.question == question else None
        due = last is None or last.due(time.monotonic())
        panes = await self._listening()
        since = last.nonce if last and not due and self._shell and (last.panes is None) == (panes is None) else ""
        nonce = secrets.token_hex(8)
        asked = await panes.ask() if panes is not None else None
        # At first and now and then the shell asks tmux too: then it shows whether the client tells the truth.
        own = panes is None or last is None or last.panes is None or due
        answer = await self._ask(transport, look_call(fleet, nonce, checks, since, panes=own), nonce)
        listed = await self._told(asked) if asked is not None else None
        if panes is not None and (listed is None or (own and not _agree(answer, listed))):
            LOG.info("%s: the control client of tmux does not answer, or not the truth", self.name)
            await self._unlisten()
            self._fell()
            listed = None
            if not own:
                return await self.look(transport, fleet, checks)
        elif own:
            self._failed = 0
        if not own and last is not None and listed != last.panes and _shape(listed) != _shape(last.panes):
            self._last = None  # which panes there are, and which are dead, nobody believes the client alone
            return await self.look(transport, fleet, checks)
        if last is not None and since and answer.startswith(b"same\t"):
            await self._mind(transport, last.reached, last.answer, listed)
            return self._still(last, listed, _seconds(self.name, answer))
        reached = self._taken(last, nonce, answer, listed)
        if not any(kind in ONCE for kind, _ in checks):
            self._last = _Last(question, nonce, answer, listed, reached, reached.now, time.monotonic())
            if last is not None and since:  # some of it may have been repeated
                self._last.at, self._last.repeated = last.at, last.repeated + 1
        await self._mind(transport, reached, answer, listed)
        return reached

    def _still(self, last: _Last, listed: bytes | None, seconds: int) -> Reached:
        """The last answer still holds, but for what tmux tells."""
        last.repeated += 1
        if listed != last.panes:
            last.panes = listed
            last.reached = parse_look(self.name, last.nonce, last.answer, listed)
        return replace(last.reached, now=last.now + seconds)

    def _taken(self, last: _Last | None, nonce: str, answer: bytes, listed: bytes | None) -> Reached:
        if last is not None and listed == last.panes and essence(answer) == essence(last.answer):
            return replace(last.reached, now=_now(answer))
        return parse_look(self.name, nonce, answer, listed)

    # -- the control client ------------------------------------------------------------------------------------------

    async def _listening(self) -> Panes | None:
        if self._panes is not None and not self._panes.alive:
            await self._unlisten()
        return self._panes

    async def _told(self, asked: asyncio.Future[bytes | None]) -> bytes | None:
        try:
            async with asyncio.timeout(LAG):
                return await asked
        except TimeoutError:
            return None

    async def _mind(self, transport: Transport, reached: Reached, answer: bytes, listed: bytes | None) -> None:
        """A client where there is something to hear of, and none where it alone would keep a server."""
        if listed is not None:
            if not parse_panes(listed):
                await self._unlisten()
            return
        wanted = self.noticed is not None and self._panes is None and self._opening is None and self._hopeful()
        if wanted and b"\npane" in answer and isinstance(transport, Spare):
            self._opening = asyncio.create_task(self._listen(transport, reached))

    def _hopeful(self) -> bool:
        return not self._narrow and self._not_before < time.monotonic() + PAUSES[-1] / 2

    def _fell(self) -> None:
        self._failed += 1
        self._not_before = time.monotonic() + PAUSES[min(self._failed, len(PAUSES) - 1)]

    async def _listen(self, transport: Spare, reached: Reached) -> None:
        """Until there is one, or too many have failed."""
        try:
            while self._hopeful():
                await asyncio.sleep(self._not_before - time.monotonic())
                self._panes = await self._come(transport, reached)
                if self._panes is not None:
                    self._notice()
                    return
        finally:
            self._opening = None

    async def _come(self, transport: Spare, reached: Reached) -> Panes | None:
        """It counts from its first answer on: until then no look waits for it."""
        panes: Panes | None = None
        try:
            async with asyncio.timeout(COMING):
                channel = await transport.spare(control_command(reached.path, reached.state_dir))
                if channel is None:
                    self._narrow = True
                    return None
                panes = Panes(self.name, channel, self._notice)
                if await (await panes.ask()) is not None:
                    found, panes = panes, None
                    return found
        except (HostError, TimeoutError) as error:
            LOG.info("%s: no control client of tmux: %s", self.name, error)
        finally:
            if panes is not None:
                await panes.close()
        self._fell()
        return None

    def _notice(self) -> None:
        if self.noticed is not None:
            self.noticed()

    async def _unlisten(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        panes, self._panes = self._panes, None
        if panes is not None:
            await panes.close()

    # -- the shell ---------------------------------------------------------------------------------------------------

    async def _ask(self, transport: Transport, call: str, nonce: str) -> bytes:
        shell = self._shell  # whoever loses the connection meanwhile takes it away
        if shell is None:
            shell = self._shell = await transport.open(("sh",))
            call = look_definition() + call
            self._again = False
        elif not self._again:  # whoever looks once needs no more, and what opens a connection should be short
            call = glance_definition() + call
            self._again = True
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


def _agree(answer: bytes, listed: bytes) -> bool:
    """Whether the shell and the control client tell the same of panes: which there are, and which of them are dead."""
    return panes_told(answer) == _shape(listed)


def _shape(listed: bytes | None) -> dict[str, tuple[object, object]]:
    return {name: (pane["pid"], pane["dead"]) for name, pane in parse_panes(listed or b"").items()}


def _now(answer: bytes) -> int:
    found = _NOW.search(answer)
    return int(found[0].partition(b":")[2]) if found else 0


def _seconds(name: str, answer: bytes) -> int:
    """How long ago the answer was given that still holds."""
    text = answer.rstrip(b"\n").rpartition(b"\t")[2]
    if not (text.isdigit() and len(text) < 10):
        raise HostError(f"{name}: the answer to the look is not what it should be", code="look-failed")
    return int(text)
