"""Open connections and keep them: one a host, with a long-lived shell for looks and another one for operations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

from reconciler import drivers
from reconciler.core.observed import Reached, clean
from reconciler.core.spec import Host
from reconciler.errors import HostError, OperationError
from reconciler.looking import Checks, Looker
from reconciler.operating import OperationShell
from reconciler.redaction import redact
from reconciler.runtimes.operations import parse_answer
from reconciler.secret_values import resolve
from reconciler.shells import KeptShell
from reconciler.transports import Limited, Transport

LOG = logging.getLogger(__name__)
LOOK_TIMEOUT = 25.0  # seconds; the bounds inside a look are shorter
OPERATION_TIMEOUT = 120.0

Connect = Callable[[str, Host], Awaitable[Transport]]


async def connect(name: str, host: Host, resolve: Callable[[str], str] = resolve) -> Transport:
    """The host by the transport that its spec names; `resolve` gives secrets their values. Raises HostError."""
    if host.host_key_policy == "accept_all" and host.host_key is None and host.transport != "local":
        LOG.warning(
            'warning: %s: host_key_policy = "accept_all": nobody proves that it is the right machine; '
            '"accept_new", or host_key = "SHA256:…", does', name
        )  # fmt: skip
    module = drivers.transport(host.transport)
    options = module.from_spec(name, host, resolve) if hasattr(module, "from_spec") else None
    return cast("Transport", await module.connect(name, options))


class Connection:
    """One host: connected when first needed, connected again after a loss."""

    def __init__(self, name: str, host: Host, connect: Connect = connect) -> None:
        self.name = name
        self.host = host
        self._connect = connect
        self._transport: Transport | None = None
        self._looker = Looker(name)
        self.kept = KeptShell()  # for whoever reads more than a look does
        self._opening = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._operations = OperationShell(name)
        self._awaited: list[
            tuple[str, asyncio.Future[Reached | None]]
        ] = []  # what looks are to wait for, and who for them
        self._waiter: asyncio.Task[None] | None = None

    def listen(self, noticed: Callable[[], None]) -> None:
        """From now on, `noticed` is called when the host says that something may have changed; it returns at once."""
        self._looker.noticed = noticed

    @property
    def listens(self) -> bool:
        """Whether it is told of news now."""
        return self._looker.listens

    async def transport(self) -> Transport:
        """The open connection. Raises HostError."""
        async with self._opening:
            if self._transport is None:
                self._transport = await self._connect(self.name, self.host)
                if isinstance(self._transport, Limited):
                    self._transport.room.give_way = self._give_way
            return self._transport

    async def look(self, fleet: str, checks: Checks = ()) -> Reached:
        """One look: one round trip on a warm connection. Raises HostError; then the host is unknown."""
        async with self._looking:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT + self.host.connection_timeout):
                    return await self._looker.look(self._transport or await self.transport(), fleet, checks)
            except TimeoutError:
                await self._lose()
                raise HostError(
                    f"{self.name}: the look did not end within {LOOK_TIMEOUT:g} s",
                    code="timed-out",
                    remedy=f"see whether {self.name} hangs: ssh {self.host.address or self.name} uptime",
                ) from None
            except HostError as error:
                if error.code != "too-many-sessions":  # then what holds them all still needs the connection
                    await self._lose()
                raise
            except asyncio.CancelledError:
                await self._lose()
                raise

    async def operate(self, script: str, nonce: str, *, alone: bool = False) -> dict[str, Any]:
        """Run an operation; on a channel of its own where it is to be `alone` (it answers much), or has to be.

        Raises HostError, or OperationError where it was refused.
        """
        return await self._operate(script, nonce, alone)

    async def operate_and_look(self, script: str, nonce: str, fleet: str, settle: int) -> Reached | None:
        """Run an operation, and in the same flight a look that waits for it, and `settle` tenths of a second more.

        None where there was no such look: it cannot be had here, failed, or the operation took too long for it. Raises
        as `operate`.
        """
        looks: list[asyncio.Future[Reached | None]] = []
        try:
            await self._operate(
                script, nonce, False, lambda: looks.append(self._look_after(fleet, f"{nonce} {settle}"))
            )
        except BaseException:
            for found in looks:
                found.cancel()
            raise
        return await looks[0] if looks else None

    async def _operate(
        self, script: str, nonce: str, alone: bool, awaited: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        transport = await self.transport()
        try:
            out = None
            if not alone:
                out = await self._operations.run(transport, script, nonce, OPERATION_TIMEOUT, awaited)
            if out is None:
                text = script.encode()
                out = (await transport.run(("sh",), stdin=text, timeout=OPERATION_TIMEOUT, limit=1_000_000)).out
        except HostError as error:
            if error.code != "too-many-sessions" and self._transport is transport:
                await self._lose()
            raise
        answer = parse_answer(self.name, nonce, out)
        LOG.info("%s: an operation answered ok=%s code=%s", self.name, answer.get("ok"), answer.get("code"))
        if answer.get("ok") is not True:
            raise _refusal(self.name, answer)
        return answer

    def _look_after(self, fleet: str, question: str) -> asyncio.Future[Reached | None]:
        """What a look finds after an operation; those that are sent meanwhile share the next one."""
        found: asyncio.Future[Reached | None] = asyncio.get_running_loop().create_future()
        self._awaited.append((question, found))
        if self._waiter is None or self._waiter.done():
            self._waiter = asyncio.create_task(self._look_after_all(fleet))
        return found

    async def _look_after_all(self, fleet: str) -> None:
        asked: list[tuple[str, asyncio.Future[Reached | None]]] = []
        try:
            while self._awaited:
                asked, self._awaited = [item for item in self._awaited if not item[1].done()], []
                if not asked:
                    return
                reached = None
                with contextlib.suppress(HostError):  # whoever needs to know looks again
                    reached = await self.look(fleet, tuple(("after", question) for question, _ in asked))
                for question, found in asked:
                    if not found.done():
                        found.set_result(reached if reached and reached.awaited.get(question) else None)
        finally:
            for _, found in (*asked, *self._awaited):
                if not found.done():
                    found.set_result(None)

    async def shell(self, script: str, seconds: float = 30.0) -> bytes:
        """What a line of sh prints that reads only."""
        transport = await self.transport()
        mark = secrets.token_hex(8)
        out = (await transport.run(("sh", "-c", f"echo {mark}; {script}"), timeout=seconds)).out
        _, found, rest = out.partition(f"{mark}\n".encode())  # before it stands what a login says to everybody
        return rest if found else out

    async def _give_way(self) -> bool:
        """Where the host opens too few sessions for all (MaxSessions): first a shell ends that is only kept, then the
        one for operations, the control client of tmux, and the shell for looks, between two looks."""
        if await self.kept.give_way() or await self._operations.give_way() or await self._looker.give_way():
            return True
        if not self._looker.open:
            return False
        async with self._looking:
            found = self._looker.open
            await self._looker.close_shell()
        return found

    async def _lose(self) -> None:
        transport, self._transport = self._transport, None
        await self._looker.drop()
        await self.kept.drop()
        await self._operations.drop()
        if transport is not None:
            with contextlib.suppress(HostError, OSError):
                await transport.close()

    async def close(self) -> None:
        """Close it; safe to call twice."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.cancel()
            await asyncio.gather(waiter, return_exceptions=True)
        await self._looker.close()
        await self._lose()


_REMEDIES = {
    "disk-full": "free some space on {host}, then apply again",
    "tmux-missing": 'install tmux on {host}, or set strategy = "process"',
    "too-many-terminals": 'fewer sessions on {host}, some of another fleet, or strategy = "process"',
    "socket-path": "a shorter fleet name, or XDG_STATE_HOME on {host}",
    "stale": "reconciler plan",
    "locked": "wait for it to end, then apply again",
    "fence-stale": "reconciler plan",
}


def _refusal(host: str, answer: Mapping[str, Any]) -> OperationError:
    """What a refused operation means, in words."""
    code = clean(answer.get("code", "failed"), 40)
    message = clean(redact(str(answer.get("message", ""))))
    if code == "launch" and isinstance(answer.get("exit"), dict):
        ended = answer["exit"]
        code, detail = clean(ended.get("error", ""), 40) or "exited", clean(redact(str(ended.get("detail", ""))))
        message = {
            "agent-missing": f"its agent is not on the PATH of the login shell: {detail}",
            "workdir-missing": f"its working directory {detail} does not exist",
        }.get(code, detail or f"its agent ended at once with exit code {clean(ended.get('code'), 8)}")
    return OperationError(f"{host}: {message}", code=code, remedy=_REMEDIES.get(code, "").format(host=host))


class Hosts:
    """The connections of one run of the program."""

    def __init__(self, connect: Connect = connect) -> None:
        """`connect` opens a connection; tests hand in simulated machines."""
        self._connect = connect
        self._connections: dict[str, list[Connection]] = {}
        self.noticed: Callable[[str], None] | None = None  # told which host says that something may have changed

    def connection(self, name: str, host: Host) -> Connection:
        """The one connection to a host; a changed spec of the host gets a new one."""
        known = self._connections.setdefault(name, [])
        for found in known:
            if found.host is host or found.host == host:
                return found
        known.append(Connection(name, host, self._connect))
        if self.noticed is not None:
            known[-1].listen(partial(self.noticed, name))
        return known[-1]

    async def keep_only(self, wanted: Mapping[str, Host]) -> None:
        """Close the connections to hosts that are not declared any more, or not like that."""
        closing = []
        for name, known in list(self._connections.items()):
            kept = [found for found in known if wanted.get(name) == found.host]
            closing += [found for found in known if found not in kept]
            self._connections[name] = kept
            if not kept:
                del self._connections[name]
        await asyncio.gather(*(connection.close() for connection in closing))

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(found.close() for known in self._connections.values() for found in known))

    async def __aenter__(self) -> Hosts:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
