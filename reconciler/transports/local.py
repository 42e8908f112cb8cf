"""This machine as a transport: child processes and plain files, no SSH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from typing import cast

from reconciler.errors import HostError
from reconciler.transports import Completed, _terminal
from reconciler.transports._failures import no_answer, overrun

_BUFFER = 1 << 20
_GRACE = 1.0


async def connect(name: str, host: object = None, *, env: Mapping[str, str] | None = None) -> LocalTransport:
    """This machine; `env` replaces the environment that programs start with."""
    del host
    return LocalTransport(name, env=env)


class LocalTransport:
    """Runs programs as children in sessions of their own, starting in the home directory as a login would."""

    def __init__(self, name: str = "local", *, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._env = dict(os.environ if env is None else env)
        self._home = self._env.get("HOME") or os.path.expanduser("~")
        self._channels: set[_LocalChannel] = set()

    @property
    def home(self) -> str:
        """The home directory that programs start in."""
        return self._home

    @property
    def open_channels(self) -> int:
        """How many programs that `open` started are there still."""
        return sum(not channel.done.done() for channel in self._channels)

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """Run a program to its end and to the end of its output.

        More than `limit` bytes of output, or `timeout` seconds, kills its process group: HostError.
        """
        child = _Collector(self.name, limit)
        try:
            transport = await self._spawn(child, argv, asyncio.subprocess.PIPE)
        except _StartError as error:
            return error.completed
        child.feed(transport, stdin)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(child.done)
        except TimeoutError:
            raise no_answer(self.name, argv, timeout) from None
        finally:
            await _reap(transport, child)
        if child.overrun:
            raise overrun(self.name, argv, limit)
        return Completed(_status(transport.get_returncode()), bytes(child.out), bytes(child.err))

    async def open(self, argv: Sequence[str]) -> _LocalChannel:
        """Start a program and keep its stdin and stdout open; its stderr goes nowhere."""
        channel = _LocalChannel(self.name)
        try:
            channel.transport = await self._spawn(channel, argv, asyncio.subprocess.DEVNULL)
        except _StartError as error:
            raise HostError(
                f"{self.name}: {error.completed.err.decode(errors='replace').strip()}", code="dropped", retry=False
            ) from None
        self._channels.add(channel)
        return channel

    async def spare(self, argv: Sequence[str]) -> _LocalChannel | None:
        """As `open`: there is always room here."""
        return await self.open(argv)

    async def _spawn(
        self, child: asyncio.SubprocessProtocol, argv: Sequence[str], stderr: int
    ) -> asyncio.SubprocessTransport:
        if not argv:
            raise ValueError("an empty argv has no program")
        if any("\0" in arg for arg in argv):
            raise ValueError("an argument holds a NUL byte")
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: child, *argv, stderr=stderr, env=self._env, cwd=self._home, start_new_session=True
            )
        except OSError as error:
            # What a shell answers: 127 not found, 126 found but not to be run.
            status = 127 if isinstance(error, FileNotFoundError) else 126
            message = f"{argv[0]}: {error.strerror}\n".encode("utf-8", "surrogateescape")
            raise _StartError(Completed(status, b"", message)) from None
        return transport

    async def terminal(self, argv: Sequence[str]) -> int:
        """Run a program on the user's own terminal, in the foreground; its exit status."""
        with _terminal.interrupts_left_to_the_child():
            try:
                process = await asyncio.create_subprocess_exec(*argv, env=self._env, cwd=self._home)
            except FileNotFoundError:
                return 127
            return _status(await process.wait())

    async def read(self, path: str, limit: int = 16_000_000) -> bytes:
        """A whole file. More than `limit` bytes is a HostError."""
        data = await asyncio.to_thread(_read, self._expand(path), limit + 1)
        if len(data) > limit:
            raise overrun(self.name, ("read", path), limit)
        return data

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Replace a file by way of a temporary name beside it and a rename."""
        await asyncio.to_thread(_replace, self._expand(path), data, mode)

    def _expand(self, path: str) -> str:
        return os.path.join(self._home, path[2:] if path.startswith("~/") else path)

    async def close(self) -> None:
        """Close what is still open; safe to call twice."""
        for channel in tuple(self._channels):
            await channel.close()
        self._channels.clear()


class _StartError(Exception):
    def __init__(self, completed: Completed) -> None:
        super().__init__()
        self.completed = completed


class _Child(asyncio.SubprocessProtocol):
    """A child whose `done` is set when it has ended and its pipes are empty."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Collector(_Child):
    """Gathers stdout and stderr up to a bound, and ends the child at the byte beyond."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__()
        self.out, self.err = bytearray(), bytearray()
        self.overrun = False
        self._room = limit
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def feed(self, transport: asyncio.SubprocessTransport, stdin: bytes) -> None:
        pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        if stdin:
            pipe.write(stdin)
        pipe.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._room -= len(data)
        if self._room >= 0:
            (self.out if fd == 1 else self.err).extend(data)
        elif not self.overrun and self._transport is not None:
            self.overrun = True
            _kill_group(self._transport.get_pid())
            self._transport.close()


class _LocalChannel(_Child):
    """Bytes to and from one child; reading pauses while nobody takes what arrived."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.transport: asyncio.SubprocessTransport | None = None
        self._name = name
        self._buffer = bytearray()
        self._ended = False
        self._closed = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._buffer.extend(data)
        self._changed.set()
        if len(self._buffer) > _BUFFER:
            self._stdout().pause_reading()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._ended = True
            self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended = True
        self._changed.set()
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Send to its stdin, and wait while it takes nothing. Raises HostError(dropped) when it has ended."""
        pipe = None if self.transport is None else self.transport.get_pipe_transport(0)
        if self._closed or self.done.done() or pipe is None or pipe.is_closing():
            raise HostError(f"{self._name}: the program on this channel has ended", code="dropped")
        cast("asyncio.WriteTransport", pipe).write(data)
        await self._writable.wait()

    async def read(self, limit: int = 65536) -> bytes:
        """The next bytes of its stdout, at least one; b"" at the end."""
        while not self._buffer and not self._ended and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        if len(self._buffer) <= _BUFFER and not self._ended and not self._closed:
            self._stdout().resume_reading()
        return data

    async def close(self) -> None:
        """Close its stdin and stdout, and end the program if it does not end by itself; safe to call twice."""
        if self._closed or self.transport is None:
            return
        self._closed = True
        self._changed.set()
        self._writable.set()
        for fd in (0, 1):
            if (pipe := self.transport.get_pipe_transport(fd)) is not None:
                pipe.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await asyncio.shield(self.done)
            await _reap(self.transport, self, group=False)
        finally:
            self.transport.close()  # also when whoever closes it is cancelled

    def _stdout(self) -> asyncio.ReadTransport:
        assert self.transport is not None
        return cast("asyncio.ReadTransport", self.transport.get_pipe_transport(1))


async def _reap(transport: asyncio.SubprocessTransport, child: _Child, *, group: bool = True) -> None:
    """No child is left behind, not even by a cancelled caller."""
    if not child.done.done():
        if group:
            _kill_group(transport.get_pid())
        transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await asyncio.shield(child.done)
    transport.close()  # says that it may be forgotten; a second time does nothing


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _status(returncode: int | None) -> int:
    if returncode is None:
        return 255
    return returncode if returncode >= 0 else 128 - returncode


def _read(path: str, limit: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(limit)


def _replace(path: str, data: bytes, mode: int) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError(21, "Is a directory", path)
    handle, temporary = tempfile.mkstemp(prefix=".reconciler.", dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
