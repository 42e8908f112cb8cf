"""`python -m reconciler.chat DIRECTORY`: the process of the group chat whose session directory that is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from reconciler.chat.runner import Runner
from reconciler.core.chats import VARIABLE
from reconciler.core.spec import Host
from reconciler.errors import ReconcilerError
from reconciler.hosts import Hosts
from reconciler.hosts import connect as connect_by
from reconciler.transports import Transport


async def connect(name: str, host: Host) -> Transport:
    """As for controllers; but the values of secrets are there already."""
    return await connect_by(name, host, lambda text: text)


async def work(folder: Path, values: dict[str, str]) -> None:
    """Run the chat until a signal ends it, or it is closed."""
    async with Hosts(connect) as hosts:
        runner = Runner(folder, values, hosts)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, runner.stop)
        await runner.run()


def main() -> int:
    """Exit 0: closed, or ended by a signal; else as the error says."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if len(sys.argv) != 2:
        print("usage: python -m reconciler.chat DIRECTORY", file=sys.stderr)
        return 64
    values = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(VARIABLE)}
    try:
        asyncio.run(work(Path(sys.argv[1]), values))
    except ReconcilerError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
