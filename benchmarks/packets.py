"""A delay of every packet between two TUN interfaces: handshakes, Nagle and delayed acknowledgements count as they do.

`python -m benchmarks.packets NEAR FAR` makes both, says "ready", and passes packets on until its standard input ends. A
line there is the delay each way in seconds. A process of its own, so that its CPU is nobody's figure.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_AT_ONCE = 64  # packets that one side may send before the other is looked after


def _tun(name: str) -> int:
    """A new interface, as a file of packets."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return file


class _Way:
    """One direction: what came in, each with the moment at which it goes out."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self._target = source, target
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self, delay: float) -> None:
        """Read what is there."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                self._waiting.append((time.monotonic() + delay, os.read(self.source, 65536)))

    def give(self) -> float | None:
        """Pass on what is due; seconds until there is more, None where nothing waits."""
        while self._waiting:
            if (left := self._waiting[0][0] - time.monotonic()) > 0:
                return left
            with contextlib.suppress(OSError):  # an interface that is down, or full, drops: as a line does
                os.write(self._target, self._waiting[0][1])
            self._waiting.popleft()
        return None


def main(near: str, far: str) -> None:
    """Until standard input ends."""
    files = _tun(near), _tun(far)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # a busy machine is no longer a way
    ways = _Way(*files), _Way(*reversed(files))
    delay, words = 0.0, b""
    print("ready", flush=True)
    while True:
        left = [way.give() for way in ways]
        pauses = [seconds for seconds in left if seconds is not None]
        readable, _, _ = select.select([*files, 0], [], [], min(pauses) if pauses else None)
        for way in ways:
            if way.source in readable:
                try:
                    way.take(delay)
                except OSError:  # the interface is gone: its namespace ended
                    return
        if 0 in readable:
            words += os.read(0, 4096)
            if not words:
                return
            *lines, words = words.split(b"\n")
            delay = float(lines[-1]) if lines else delay


if __name__ == "__main__":
    main(*sys.argv[1:])
