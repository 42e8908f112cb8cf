"""The two ways to talk to a remote process: gather all it says, or exchange bytes with it for as long as it lives."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, Protocol

from reconciler.errors import HostError
from reconciler.transports._failures import dropped

_BUFFER = 1 << 20


class Wire(Protocol):
    """What this module needs of the SSH library's channel."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool: ...
    def send_signal(self, signal: str) -> None: ...
    def change_terminal_size(self, width: int, height: int) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Session:
    """Callbacks of one remote process; `done` is set when its channel has closed."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exit: int | None = None
        self.lost: Exception | None = None

    def connection_made(self, chan: Any) -> None:
        self.wire = chan

    def session_started(self) -> None:
        """Nothing to do: the caller is told by its own await."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        raise NotImplementedError

    def eof_received(self) -> bool:
        # Keep our direction open: the far end may have closed its stdout alone.
        return True

    def exit_status_received(self, status: int) -> None:
        self.exit = status

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:
        number = getattr(signal, f"SIG{name}", None) if name.isalnum() else None
        self.exit = 128 + int(number) if isinstance(number, signal.Signals) else 255

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        if not self.done.done():
            self.done.set_result(None)

    def pause_writing(self) -> None:
        """Only a stream waits for room."""

    def resume_writing(self) -> None:
        """Only a stream waits for room."""

    def xon_xoff_requested(self, client_can_do: bool) -> None:
        """Of no use without a line discipline."""

    def end(self) -> None:
        """Kill the process where the server does that for us, and give the channel back."""
        if self.wire is None:
            return
        with contextlib.suppress(OSError):
            self.wire.send_signal("KILL")
        self.wire.abort()


class Collector(Session):
    """Gathers stdout and stderr up to `limit` bytes in all; the byte beyond ends the process."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.out, self.err = bytearray(), bytearray()
        self.overrun = False
        self._room = limit

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._room -= len(data)
        if self._room >= 0:
            (self.err if datatype else self.out).extend(data)
        elif not self.overrun:
            self.overrun = True
            self.end()
            if not self.done.done():
                self.done.set_result(None)


class Stream(Session):
    """A channel of bytes; the far end is held back while nobody reads, and so is the writer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._buffer: bytes | bytearray = b""
        self._ended = False
        self._closed = False
        self._paused = False
        self._readers: tuple[asyncio.Future[None], ...] = ()
        self._writable: asyncio.Event | None = None  # where writing is paused
        self._packets: Any = None  # the plainest way to the wire, where there is one

    def connection_made(self, chan: Any) -> None:
        super().connection_made(chan)
        self._packets = chan.get_extra_info("packets")

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            return
        if not self._buffer:  # nearly always; then it is handed on as it came
            self._buffer = data
        else:
            self._buffer = _growing(self._buffer)
            self._buffer += data
        self._wake()
        if len(self._buffer) > _BUFFER and not self._paused and self.wire is not None:
            self._paused = True
            self.wire.pause_reading()

    def _wake(self) -> None:
        readers, self._readers = self._readers, ()
        for reader in readers:
            if not reader.done():
                reader.set_result(None)

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def write(self, data: bytes) -> None:
        """Send to its stdin, and wait while it takes nothing. Raises HostError(dropped) when it is gone."""
        if self._closed or self.done.done() or self.wire is None or self.wire.is_closing():
            raise self._gone()
        try:
            if self._packets is not None:
                self._packets.write(self.wire, data)
            else:
                self.wire.write(data)
        except OSError:
            raise self._gone() from None
        if self._writable is not None and not self._closed:
            await self._writable.wait()

    async def write_soon(self, data: bytes) -> None:
        """As `write`; may leave with what else is written on the connection in this turn of the loop."""
        if self._packets is not None:
            self._packets.hold()
        await self.write(data)

    async def read(self, limit: int = 65536) -> bytes:
        """The next bytes of its stdout, at least one; b"" at the end. Raises HostError(dropped)."""
        while not (self._buffer or self._ended or self._closed or self.done.done()):
            await self._arrival()
        if not (self._buffer or self._ended or self._closed) and self.exit is None:
            raise self._gone()
        if len(self._buffer) <= limit:
            data, self._buffer = bytes(self._buffer), b""
        else:
            self._buffer = _growing(self._buffer)
            data = bytes(self._buffer[:limit])
            del self._buffer[:limit]
        if self._paused and len(self._buffer) <= _BUFFER and self.wire is not None:
            self._paused = False
            self.wire.resume_reading()
        return data

    async def _arrival(self) -> None:
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers = (*(waiting for waiting in self._readers if not waiting.done()), reader)
        await reader

    async def close(self) -> None:
        """End the channel; safe to call twice. The process sees the end of its stdin."""
        self._closed = True
        self._wake()
        self.resume_writing()
        if self.wire is not None and not self.done.done():
            self.wire.abort()

    def _gone(self) -> HostError:
        return dropped(self._name, str(self.lost) if self.lost else "the program on this channel has ended")


def _growing(data: bytes | bytearray) -> bytearray:
    return data if isinstance(data, bytearray) else bytearray(data)
