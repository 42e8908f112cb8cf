"""Many hosts behind one SSH server in a process of its own: each user name is one.

`python -m tests.support.crowd KEY PORTS` prints its ports and serves until its stdin ends. A shell answers
`echo WORDS`; a user whose name begins with `endless` says something for ever, whatever is asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncssh


class Anyone(asyncssh.SSHServer):
    """Any key is good."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


async def program(process: asyncssh.SSHServerProcess[bytes]) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        if process.get_extra_info("username").startswith("endless"):
            while True:
                process.stdout.write(b"and on and on\n" * 4096)
                await process.stdout.drain()
        while line := await process.stdin.readline():
            if line.startswith(b"echo "):
                process.stdout.write(line[5:])
        process.exit(0)


async def serve(key: str, ports: int) -> None:
    """Until nobody holds our stdin open any more."""
    servers = [
        await asyncssh.create_server(
            Anyone, "127.0.0.1", 0, server_host_keys=[key], process_factory=program, encoding=None, backlog=1024
        )
        for _ in range(ports)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


@contextlib.contextmanager
def crowd(key: Path, ports: int = 1) -> Iterator[list[int]]:
    """The ports of such servers, each in a process of its own."""
    command = [sys.executable, "-m", "tests.support.crowd", str(key), "1"]
    with contextlib.ExitStack() as ending:
        started = []
        for _ in range(ports):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            ending.callback(_end, process)
            started.append(process)
        assert all(process.stdout is not None for process in started)
        yield [int(process.stdout.readline()) for process in started if process.stdout is not None]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
