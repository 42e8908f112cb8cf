"""TCP to a host, and how many hosts are greeted at once: those that are dead hold up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["HANDSHAKES_AT_ONCE", "TooManyFilesError", "dial", "enough_files", "handshake"]

HANDSHAKES_AT_ONCE = 100  # more at a time only makes them wait for each other's cryptography
_SILENT = 0.5  # seconds after which a host that has not said a word gives its place to another
_LONGEST = 3.0  # and one that has
_SPARE = 48  # descriptors for what is not a connection: files, programs, locks, the journal
_MOST_FILES = 65_536

_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


class TooManyFilesError(Exception):
    """This process may open no further connection; its limit of descriptors."""


def enough_files() -> int:
    """Raise our limit of open files as far as it may go; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


@contextlib.asynccontextmanager
async def handshake(limit: asyncio.Timeout | None, heard: Callable[[], bool]) -> AsyncIterator[None]:
    """A place among those that are being greeted. Waiting for one does not count against `limit`."""
    loop = asyncio.get_running_loop()
    places = _places.setdefault(loop, asyncio.Semaphore(HANDSHAKES_AT_ONCE))
    ends = limit.when() if limit is not None else None
    if limit is not None and ends is not None and places.locked():
        begun = loop.time()
        limit.reschedule(None)
        await places.acquire()
        limit.reschedule(ends + loop.time() - begun)
    else:
        await places.acquire()
    held = [True]

    def give() -> None:
        if held:
            held.clear()
            places.release()

    timers = [
        loop.call_later(_SILENT, lambda: None if heard() else give()),
        loop.call_later(_LONGEST, give),
    ]
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        give()


async def dial(host: str, port: int, family: int, local: tuple[str, int] | None) -> socket.socket:
    """A connected socket: each address of the host is tried in turn. Raises OSError and TooManyFilesError."""
    errors: list[OSError] = []
    for kind, _, protocol, _, address in await _addresses(host, port, family):
        try:
            return await _connected(kind, protocol, address, local)
        except OSError as error:
            errors.append(error)
    if len({str(error) for error in errors}) == 1:
        raise errors[0]
    raise OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")


async def _connected(kind: int, protocol: int, address: Any, local: tuple[str, int] | None) -> socket.socket:
    made = socket.socket(kind, socket.SOCK_STREAM, protocol)
    try:
        if made.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE:
            most = enough_files()
            if made.fileno() >= most - _SPARE:
                raise TooManyFilesError(str(most))
        made.setblocking(False)
        if local:
            made.bind(local)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


async def _addresses(host: str, port: int, family: int) -> list[Any]:
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(host)
        kind = socket.AF_INET6 if number.version == 6 else socket.AF_INET
        if family in (socket.AF_UNSPEC, kind) and "%" not in host:
            return [(kind, socket.SOCK_STREAM, 0, "", (host, port))]
    return await _looked_up(host, port, family)


async def _looked_up(host: str, port: int, family: int) -> list[Any]:
    """In a thread of its own: a resolver that hangs holds up neither other names nor the end of the program."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def tell(found: list[Any] | Exception) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[Any] | Exception
        try:
            found = list(socket.getaddrinfo(host, port, socket.AddressFamily(family), socket.SOCK_STREAM))
        except (OSError, UnicodeError, OverflowError) as error:
            found = error
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    return await answer
