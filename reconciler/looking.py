"""The shell that looks at one host, and what it answered last: an answer that has not changed is not parsed again.

What the host may leave out it may leave out only by saying so (`same`), and only of an answer that is at hand here; a
whole answer is asked for again every so often, whatever it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.core.observed import LOOK_LIMIT, Known, Reached, panes_told, parse_again, parse_panes
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
ONCE = frozenset({"digest", "version", "after"})  # checks of which nobody asks twice
_NOW = re.compile(rb'"now":[0-9]{1,12}')

Checks = Sequence[tuple[str, str]]


@dataclass(slots=True)
class _Last:
    """What the last whole answer to one question and what tmux told beside it came to."""

    question: tuple[str, Checks]
    nonce: str
    essence: bytes
    panes: bytes | None
    paned: bool  # whether it spoke of panes
    adopted: bool  # whether it spoke of a terminal of the user's own
    reached: Reached
    known: Known
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
        self._doubted = False  # it told something else than the shell, once

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
        # Where a look waits for an operation, the control client would answer long before it.
        waits = any(kind == "after" for kind, _ in checks)
        panes = await self._listening() if not waits else None
        if panes is not None and panes.ended:
            # All is asked at once: what is different now would have to be asked of the shell in any case.
            panes.ended, due = False, True
        repeats = last and not due and not last.adopted and (last.panes is None) == (panes is None)
        since = last.nonce if last and repeats and self._shell else ""
        nonce = secrets.token_hex(8)
        asked = await panes.ask() if panes is not None else None
        # At first and now and then the shell asks tmux too: then it shows whether the client tells the truth.
        own = panes is None or last is None or last.panes is None or due
        call = look_call(fleet, nonce, question[1], since, panes=own)
        answer = await self._ask(transport, call, nonce, waits=waits)
        listed = await self._told(asked) if asked is not None else None
        agreed = listed is not None and not (own and not _agree(answer, listed))
        if panes is not None and listed is not None and not agreed and not self._doubted:
            # What ended between the two answers is told by one of them only: ask both again.
            self._doubted, self._last = True, None
            return await self.look(transport, fleet, checks)
        self._doubted = False
        if panes is not None and not agreed:
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
            return await self._still(transport, last, listed, _seconds(self.name, answer))
        last = self._taken(last, question, nonce, answer, listed, repeated=bool(since))
        if not any(kind in ONCE for kind, _ in checks):
            self._last = last
        await self._mind(transport, last.reached, last.paned, listed)
        return last.reached

    async def _still(self, transport: Transport, last: _Last, listed: bytes | None, seconds: int) -> Reached:
        """The last answer still holds, but for what tmux tells."""
        last.repeated += 1
        reached = last.reached.at(last.reached.now + seconds)
        if listed is None or listed != last.panes:
            if listed is not None:
                reached = reached.titled(listed)
                last.panes, last.reached = listed, reached.at(last.reached.now)
            await self._mind(transport, reached, last.paned, listed)
        return reached

    def _taken(
        self, last: _Last | None, question: tuple[str, Checks], nonce: str, answer: bytes, listed: bytes | None,
        *, repeated: bool,
    ) -> _Last:  # fmt: skip
        """A whole answer: of one that says what the last one said only the time is read, and of each session that is
        told of in the words of last time, nothing. Of one that was asked for as such, some may have been `repeated`."""
        found = essence(answer)
        if last is not None and listed == last.panes and found == last.essence:
            reached, known = last.reached.at(_now(answer)), last.known
        else:
            reached, known = parse_again(self.name, nonce, answer, listed, last.known if last else None)
        paned, adopted = b"\npanes\t" in answer, b"\nterminal\t" in answer
        made = _Last(question, nonce, found, listed, paned, adopted, reached, known, time.monotonic())
        if last is not None and repeated:
            made.at, made.repeated = last.at, last.repeated + 1
        return made

    # -- the control client ------------------------------------------------------------------------------------------

    async def _listening(self) -> Panes | None:
        if self._panes is not None and not self._panes.alive:
            await self._unlisten()
        return self._panes

    async def _told(self, asked: asyncio.Future[bytes | None]) -> bytes | None:
        if asked.done():  # nearly always: tmux is faster than a shell
            return asked.result()
        try:
            async with asyncio.timeout(LAG):
                return await asked
        except TimeoutError:
            return None

    async def _mind(self, transport: Transport, reached: Reached, paned: bool, listed: bytes | None) -> None:
        """A client where there is something to hear of, and none where it alone would keep a server."""
        if listed is not None:
            if not parse_panes(listed):
                await self._unlisten()
            return
        wanted = self.noticed is not None and self._panes is None and self._opening is None and self._hopeful()
        if wanted and paned and isinstance(transport, Spare):
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

    async def _ask(self, transport: Transport, call: str, nonce: str, *, waits: bool) -> bytes:
        shell, text = self._shell, ""  # whoever loses the connection meanwhile takes it away
        if shell is None:
            shell = self._shell = await transport.open(("sh",))
            text, self._again = look_definition(), False
        # Whoever looks once needs no more, and what opens a connection should be short.
        if not self._again and (not text or waits):
            text += glance_definition()
            self._again = True
        begun = time.monotonic()
        await shell.write((text + call).encode())
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


def essence(answer: bytes) -> bytes:
    """A digest of what of a whole answer says something of the host: all but its time and the nonce."""
    first, _, rest = answer.partition(b"\n")
    told, _, trailer = rest.rstrip(b"\n").rpartition(b"\n")
    found = hashlib.sha256(_NOW.sub(b"", first, count=1))
    for part in (told, trailer.rpartition(b"\t")[2]):
        found.update(b"\n")
        found.update(part)
    return found.digest()


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
