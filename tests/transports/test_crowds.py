"""Many hosts at once: the dead hold up nobody, a host that never stops talking is cut off, and limits have names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.spec import Host
from reconciler.errors import HostError
from reconciler.hosts import Connection
from reconciler.transports._dialing import HANDSHAKES_AT_ONCE, handshake
from reconciler.transports._ssh_options import SshOptions
from reconciler.transports.ssh import SshTransport, connect
from tests.e2e._host import new_key
from tests.support.crowd import crowd

LIVE = DEAD = 100


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key(tmp_path_factory.mktemp("crowd") / "id_ed25519")


@pytest.fixture(scope="module")
def port(key: Path) -> Iterator[int]:
    with crowd(key) as ports:
        yield ports[0]


@contextlib.contextmanager
def grave(kind: str) -> Iterator[int]:
    """The port of something dead: nothing answers there at all, or nothing is said, or nothing but a version."""
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if kind == "deaf" else 4 * DEAD)
        place = listener.getsockname()
        if kind == "deaf":  # a queue that is full: the kernel does not answer who knocks
            for _ in range(3):
                knock = open_.enter_context(socket.socket())
                knock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    knock.connect(place)
        if kind == "stuck":  # says what a server says first, and no more
            thread = threading.Thread(target=_greet, args=(listener,))
            thread.start()
            open_.callback(thread.join)
            open_.callback(listener.shutdown, socket.SHUT_RDWR)
        yield place[1]


def _greet(listener: socket.socket) -> None:
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(listener.accept()[0])
            taken[-1].sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    for connection in taken:
        connection.close()


def options(key: Path, port: int, user: str, **more: object) -> SshOptions:
    words: dict[str, object] = {"connect_timeout": 20.0, "host_key_policy": "accept_all", **more}
    return SshOptions("127.0.0.1", user=user, port=port, identity=str(key), ssh_config=False, **words)  # type: ignore[arg-type]


async def look(name: str, at: SshOptions, env: dict[str, str]) -> float:
    """When it had answered."""
    transport = await connect(name, at, env=env)
    shell = await transport.open(("sh",))
    await shell.write(b"echo here\n")
    assert await shell.read() == b"here\n"
    seen = time.monotonic()
    await transport.close()
    return seen


@pytest.mark.parametrize("kind", ["deaf", "silent", "stuck"])
async def test_dead_hosts_do_not_slow_the_live_ones(key: Path, port: int, tmp_path: Path, kind: str) -> None:
    env = {"HOME": str(tmp_path)}
    with grave(kind) as dead:
        begun = time.monotonic()
        late = asyncio.gather(
            *(connect(f"d{n}", options(key, dead, "x", connect_timeout=120.0), env=env) for n in range(DEAD)),
            return_exceptions=True,
        )
        await asyncio.sleep(0)  # they are the first in every line
        seen = await asyncio.gather(*(look(f"h{n}", options(key, port, f"h{n}"), env) for n in range(LIVE)))
        assert max(seen) - begun < 40  # whoever waited for the dead would wait for 120
        assert not late.done()
        late.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await late
        await asyncio.sleep(0.5)


async def test_no_more_than_some_are_greeted_at_once_and_waiting_costs_them_no_time() -> None:
    now = most = 0

    async def one() -> None:
        nonlocal now, most
        async with asyncio.timeout(0.8) as limit, handshake(limit, lambda: True):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.5)
            now -= 1

    await asyncio.gather(*(one() for _ in range(3 * HANDSHAKES_AT_ONCE)))
    assert most == HANDSHAKES_AT_ONCE


async def test_a_host_that_streams_for_ever_is_cut_at_a_bound(key: Path, port: int, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = Host.model_validate({"address": "127.0.0.1", "connection_timeout": "20s"})

    async def to(name: str, _: Host) -> SshTransport:
        return await connect(name, options(key, port, name), env={"HOME": str(tmp_path)})

    async with contextlib.AsyncExitStack() as ending:
        endless = Connection("endless", host, to)
        ending.push_async_callback(endless.close)
        begun = time.monotonic()
        looking = asyncio.create_task(endless.look("fleet"))
        seen = await look("live", options(key, port, "live"), {"HOME": str(tmp_path)})
        with pytest.raises(HostError) as caught:
            await looking
        assert caught.value.code in ("look-failed", "look-truncated", "protocol")
        assert seen - begun < 15
        with pytest.raises(HostError, match="more than 1000000 bytes"):
            await (await endless.transport()).run(("cat",), limit=1_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000  # kB


FILES = """
import asyncio, resource, sys
from tests.transports.test_crowds import options, connect, Path
from reconciler.errors import HostError
soft, hard, most, key, port = *map(int, sys.argv[1:4]), Path(sys.argv[4]), int(sys.argv[5])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
async def main():
    made, errors = [], []
    for n in range(most):
        try:
            made.append(await connect(f"h{n}", options(key, port, f"h{n}"), env={"HOME": "/nonexistent"}))
        except HostError as error:
            errors.append(f"{error.code} retry={error.retry} {error.message}")
    codes = set(error.split(" ")[0] for error in errors)
    with open("/dev/null"):
        print(len(made), len(errors), codes, "limit of open files" in str(errors))
    await asyncio.gather(*(one.close() for one in made))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "said"), [(100, 400, r"80 0 set\(\) False"), (100, 100, r"\d\d \d\d {'too-many-files'} True")]
)
def test_the_limit_of_files_is_raised_and_has_a_name_before_it_is_reached(
    key: Path, port: int, soft: int, hard: int, said: str
) -> None:
    words = [str(soft), str(hard), "80", str(key), str(port)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FILES, *words], env=env, capture_output=True, text=True, check=False)
    assert re.fullmatch(said, done.stdout.strip()), done.stdout + done.stderr
