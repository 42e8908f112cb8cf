"""What a group chat adds to each turn, over the same program run on an open connection; at 0 and at 50 ms round trip.

The agents wait for a second and answer, so what is over that second is the chat's: its log, the job on the host, the
way there and back. The floor is the same agent by bare asyncssh, one after the other as often as the chat has turns,
or all at once. Real sshd, unprivileged, behind a relay that delays.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import time
import uuid
from pathlib import Path

import asyncssh

from benchmarks.delay import Relay
from benchmarks.figure import Figure
from reconciler.chat.runner import Runner
from reconciler.core.chats import document
from reconciler.core.parse import parse
from reconciler.core.spec import Host as HostSpec
from reconciler.hosts import Hosts
from reconciler.transports import Transport, ssh
from tests.e2e.fleet import Fleet

TASK = 1.0  # seconds that an agent takes by itself
MANY = 20
AT_ONCE = 8
RUNS = 5
# A moderator asks everybody once, then is done: three turns one after the other.
AGENT = r"""#!/bin/sh
sleep 1
case $1 in
ask) if [ -e "$HOME/asked-$2" ]; then rm "$HOME/asked-$2"; echo "that is all"
  else : >"$HOME/asked-$2"; printf '```route\n{"to": ["all"], "message": "your turn"}\n```\n'; fi ;;
*) echo "here is what I think" ;;
esac
"""
SPECS = """
[hosts.far]
workdir = "/"
[agents.mod]
command = "{agent}"
start = ["{{command}}"]
turn = ["{{command}}", "ask", "{{session_id}}"]
resume_turn = ["{{command}}", "ask", "{{session_id}}"]
[agents.member]
command = "{agent}"
start = ["{{command}}"]
turn = ["{{command}}", "say"]
resume_turn = ["{{command}}", "say"]
[group_chats.talk]
moderator = {{ host = "far", agent = "mod" }}
participants = [{names}]
prompt = "Begin."
"""


def specs(agent: str, members: int) -> str:
    """A chat of so many participants, all on the one host."""
    names = [f"p{number}" for number in range(members)]
    tables = "".join(f'[sessions.{name}]\nhost = "far"\nagent = "member"\nstate = "stopped"\n' for name in names)
    return SPECS.format(agent=agent, names=", ".join(f'"{name}"' for name in names)) + tables


class Chats:
    """Whole chats on one host, each in a folder of its own."""

    def __init__(self, root: Path, agent: str, hosts: Hosts) -> None:
        self._root, self._agent, self._hosts = root, agent, hosts

    async def wall(self, members: int) -> float:
        """Seconds from the message in the log to its final answer."""
        folder = self._root / uuid.uuid4().hex
        folder.mkdir()
        given = document(parse({"a.toml": specs(self._agent, members)}, {}), "talk", str(uuid.uuid4()))
        (folder / "chat.json").write_text(given.text, encoding="utf-8")
        runner = Runner(folder, dict(given.values), self._hosts)
        task = asyncio.create_task(runner.run())
        entries = runner._log.entries
        while not any(entry.status == "idle" for entry in entries):
            if task.done():
                await task
            await asyncio.sleep(0.01)
        runner.stop()
        await task
        if any(entry.status not in ("opened", "ok", "idle") for entry in entries):
            raise RuntimeError(f"a turn went wrong: {[entry.to_json() for entry in entries]}")
        asked = next(entry.at for entry in entries if entry.kind == "user")
        return entries[-1].at - asked


async def floor(connection: asyncssh.SSHClientConnection, agent: str, members: int) -> float:
    """The same turns with nothing around them: one, all at once, one."""

    async def turn() -> None:
        await connection.run(f"sh -lc 'exec {agent} say'", check=True)

    begun = time.perf_counter()
    await turn()
    # Sshd gives ten channels to a connection, and takes a moment to close one.
    for first in range(0, members, AT_ONCE):
        await asyncio.gather(*(turn() for _ in range(min(AT_ONCE, members - first))))
    await turn()
    return time.perf_counter() - begun


def measure() -> list[Figure]:
    """Overhead of a turn at two distances; twenty that answer at once."""
    if shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        raise RuntimeError("sshd is missing: apt-get install openssh-server")
    with Fleet(namespaces=False) as fleet:
        host = fleet.host("far")
        host.write("~/agent", AGENT, mode=0o755)
        with Relay(host.address, host.port) as relay:
            known = fleet.root / "relayed-hosts"
            known.write_text(f"[127.0.0.1]:{relay.port} {host.public_host_key}\n", encoding="utf-8")
            config = fleet.root / "relayed"
            block = fleet.ssh_config.read_text(encoding="utf-8").replace(f"Port {host.port}", f"Port {relay.port}")
            config.write_text(block.replace(str(fleet.known_hosts), str(known)), encoding="utf-8")

            async def connect(name: str, _: HostSpec) -> Transport:
                return await ssh.connect(name, ssh.SshOptions("far", ssh_config=str(config)), env=fleet.env)

            async def work() -> list[Figure]:
                async with Hosts(connect) as hosts:
                    agent = f"{host.inner_home}/agent"
                    login = {"known_hosts": str(known), "config": [str(config)]}
                    async with asyncssh.connect("far", **login) as bare:  # type: ignore[arg-type]
                        return await _figures(Chats(fleet.root, agent, hosts), bare, agent, relay)

            return asyncio.run(work())


async def _figures(chats: Chats, bare: asyncssh.SSHClientConnection, agent: str, relay: Relay) -> list[Figure]:
    found = []
    for trip in (0.0, 0.05):
        relay.delay = trip / 2
        ours, theirs = await _medians(chats, bare, agent, 1)
        note = f"over the agent's own second, of three in a row; {trip * 1000:g} ms by a TCP relay."
        found.append(Figure("chat: overhead of a turn", (ours - 3 * TASK) / 3, (theirs - 3 * TASK) / 3, 6.0, note))
    relay.delay = 0.0
    ours, theirs = await _medians(chats, bare, agent, MANY)
    note = "wall of the whole chat; bare asyncssh in goes of eight, since sshd allows ten channels."
    found.append(Figure(f"chat: {MANY} participants answer at once", ours, theirs, 2.0, note))
    return found


async def _medians(chats: Chats, bare: asyncssh.SSHClientConnection, agent: str, members: int) -> tuple[float, float]:
    await chats.wall(members), await floor(bare, agent, members)
    pairs = [(await chats.wall(members), await floor(bare, agent, members)) for _ in range(RUNS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
