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
        self._buffer = bytearray()
        self._ended = False
        self._closed = False
        self._paused = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            return
        self._buffer.extend(data)
        self._changed.set()
        if len(self._buffer) > _BUFFER and not self._paused and self.wire is not None:
            self._paused = True
            self.wire.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._changed.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Send to its stdin, and wait while it takes nothing. Raises HostError(dropped) when it is gone."""
        if self._closed or self.done.done() or self.wire is None or self.wire.is_closing():
            raise self._gone()
        try:
            self.wire.write(data)
        except OSError:
            raise self._gone() from None
        await self._writable.wait()

    async def read(self, limit: int = 65536) -> bytes:
        """The next bytes of its stdout, at least one; b"" at the end. Raises HostError(dropped)."""
        while not (self._buffer or self._ended or self._closed or self.done.done()):
            self._changed.clear()
            await self._changed.wait()
        if not (self._buffer or self._ended or self._closed) and self.exit is None:
            raise self._gone()
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        if self._paused and len(self._buffer) <= _BUFFER and self.wire is not None:
            self._paused = False
            self.wire.resume_reading()
        return data

    async def close(self) -> None:
        """End the channel; safe to call twice. The process sees the end of its stdin."""
        self._closed = True
        self._changed.set()
        self._writable.set()
        if self.wire is not None and not self.done.done():
            self.wire.abort()

    def _gone(self) -> HostError:
        return dropped(self._name, str(self.lost) if self.lost else "the program on this channel has ended")
