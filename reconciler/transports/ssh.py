"""SSH as a transport: one connection per host, and a channel on it for everything that runs there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from reconciler.errors import HostError
from reconciler.transports import Completed, _asyncssh, _terminal
from reconciler.transports import _failures as failures
from reconciler.transports._login_shell import command_line
from reconciler.transports._patience import Room
from reconciler.transports._remote_files import RemoteFiles
from reconciler.transports._ssh_options import SshOptions, checked, from_spec
from reconciler.transports._ssh_sessions import Collector, Session, Stream

__all__ = ["SshOptions", "SshTransport", "connect", "from_spec"]

_OPEN_TIMEOUT = 30.0
_PATIENCE = 10.0  # seconds that a channel is waited for where the host opens no more of them
_S = TypeVar("_S", bound=Session)
# What programs leave switched on when the line to them breaks: alternate screen, hidden cursor, mouse, paste.
_CALM_TERMINAL = b"\x1b[?1049l\x1b[?25h\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\r\n"


async def connect(name: str, host: SshOptions, *, env: Mapping[str, str] | None = None) -> SshTransport:
    """One connection to the host that specs call `name`, through its jump hosts.

    `env` stands for this process's environment (HOME, SSH_AUTH_SOCK). Raises HostError with a code and a remedy;
    all of it takes at most `host.connect_timeout` seconds.
    """
    options, own = checked(name, host), os.environ if env is None else env
    way = await _asyncssh.open_way(name, options, own)
    guess = _asyncssh.may_guess(way[-1], own)
    return SshTransport(name, way, (lambda: _asyncssh.open_way(name, options, own)) if guess else None)


class SshTransport(RemoteFiles):
    """An open connection; `connect` makes it."""

    def __init__(
        self,
        name: str,
        way: list[_asyncssh.Connection],
        again: Callable[[], Awaitable[list[_asyncssh.Connection]]] | None = None,
    ) -> None:
        """`again` opens another way; then the first program may be started by a guess that loses this one."""
        self.name = name
        self._way = way
        self._connection = way[-1]
        self._again = again
        self._first = asyncio.Lock()
        self._closed = False
        self.room = Room()

    async def _start(self, new: Callable[[], _S], command: str, patience: float = _PATIENCE, **pty: Any) -> _S:
        """A channel of its own, waited for where the host has all open that it opens."""

        return await self.room.enter(lambda: self._start_now(new, command, **pty), patience)

    async def _start_now(self, new: Callable[[], _S], command: str, **pty: Any) -> _S:
        if self._again is not None or self._first.locked():
            async with self._first:
                session = await self._start_first(new, command, **pty)
        else:
            session = await _asyncssh.start(self.name, self._connection, new, command, **pty)
        self.room.entered(session.done)
        return session

    async def _start_first(self, new: Callable[[], _S], command: str, **pty: Any) -> _S:
        again, self._again = self._again, None
        if self._way:
            try:
                return await _asyncssh.start(self.name, self._connection, new, command, guess=again is not None, **pty)
            except _asyncssh.GuessedWrongError:
                lost, self._way = self._way, []
                self._again = again  # until there is another connection: who waits for it may be cut off
                await _asyncssh.close(lost)
        assert again is not None
        self._again = again
        self._way = await again()
        self._again, self._connection = None, self._way[-1]
        if self._closed:
            await self.close()
        return await _asyncssh.start(self.name, self._connection, new, command, **pty)

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """Run a program to its end and to the end of its output.

        More than `limit` bytes of output, or `timeout` seconds, ends it: HostError.
        """
        session: Collector | None = None
        command = command_line(argv)
        try:
            async with asyncio.timeout(timeout):
                session = await self._start(lambda: Collector(limit), command, min(timeout, 3 * _PATIENCE))
                _feed(session, stdin)
                await asyncio.shield(session.done)
        except TimeoutError:
            raise failures.no_answer(self.name, argv, timeout) from None
        finally:
            if session is not None and not session.done.done():
                session.end()
        if session.overrun:
            raise failures.overrun(self.name, argv, limit)
        if session.exit is None:
            raise failures.dropped(self.name, str(session.lost or ""))
        return Completed(session.exit, bytes(session.out), bytes(session.err))

    async def open(self, argv: Sequence[str]) -> Stream:
        """Start a program and keep its stdin and stdout open (no terminal); its stderr goes nowhere."""
        command = command_line(argv)
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                return await self._start(lambda: Stream(self.name), command)
        except TimeoutError:
            raise failures.no_answer(self.name, argv, _OPEN_TIMEOUT) from None

    async def spare(self, argv: Sequence[str]) -> Stream | None:
        """As `open`, but None at once where the host has all open that it opens."""
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                return await self._start_now(lambda: Stream(self.name), command_line(argv))
        except TimeoutError:
            raise failures.no_answer(self.name, argv, _OPEN_TIMEOUT) from None
        except HostError as error:
            if error.code != "too-many-sessions":
                raise
            return None

    async def terminal(self, argv: Sequence[str]) -> int:
        """Run a program on the user's own terminal (raw mode, resize, signals); its exit status."""
        pty: dict[str, Any] = {
            "request_pty": "force",
            "term_type": os.environ.get("TERM", "xterm-256color"),
            "term_size": _terminal.size(),
        }
        session = await self._start(_Screen, command_line(argv), **pty)
        with _terminal.raw(), _terminal.on_resize(session.resized), _terminal.keys(session.pressed):
            session.show()
            try:
                await asyncio.shield(session.done)
            finally:
                session.end()
            if session.exit is None:
                _terminal.show(_CALM_TERMINAL)
        if session.exit is None:
            raise failures.dropped(self.name, str(session.lost or ""))
        return session.exit

    async def sessions_at_once(self, most: int) -> int:
        """How many channels the host opens on this connection, those that are open now among them; up to `most`."""
        opened: list[Stream] = []
        found = self.room.open
        try:
            while found < most:
                opened.append(await self._start_now(lambda: Stream(self.name), "exec cat"))
                found += 1
        except HostError as error:
            if error.code != "too-many-sessions":
                raise
        finally:
            for channel in opened:
                await channel.close()
            if opened:
                await asyncio.wait([channel.done for channel in opened], timeout=_PATIENCE)
        return found

    async def close(self) -> None:
        """Close the connection and those it goes through; safe to call twice."""
        self._closed = True
        await _asyncssh.close(self._way)


def _feed(session: Session, stdin: bytes) -> None:
    # A program may end without reading: that is its own affair.
    with contextlib.suppress(OSError):
        if session.wire is not None:
            session.wire.write(stdin)
            session.wire.write_eof()


class _Screen(Session):
    """A remote program on the local terminal; what it says before the terminal is ready waits for that."""

    def __init__(self) -> None:
        super().__init__()
        self._early: bytes | None = b""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._early is None:
            _terminal.show(data)
        else:
            self._early += data

    def show(self) -> None:
        """From now on at once."""
        early, self._early = self._early, None
        if early:
            _terminal.show(early)

    def pressed(self, data: bytes) -> None:
        """Keys, or b"" at the end of them."""
        with contextlib.suppress(OSError):
            if self.wire is not None and not self.wire.is_closing():
                if data:
                    self.wire.write(data)
                else:
                    self.wire.write_eof()

    def resized(self) -> None:
        """Tell the far terminal our size."""
        if self.wire is not None and not self.wire.is_closing():
            self.wire.change_terminal_size(*_terminal.size())
