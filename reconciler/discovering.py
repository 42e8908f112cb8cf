"""Ask the hosts of an SSH config what they have: five seconds each, all at once, never a question, nothing changed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

from reconciler import drivers
from reconciler.core.discovered import Found, parse_running
from reconciler.core.spec import BUILT_IN_AGENTS, Host
from reconciler.core.ssh_aliases import Alias
from reconciler.errors import ReconcilerError
from reconciler.hosts import Connection
from reconciler.observe import CONNECTS_AT_ONCE

SECONDS = 5.0
_SCRIPT = """
PATH=$1; export PATH
printf 'begin\\t%s\\n' "$2"
ps -A -o pid= -o ppid= -o args= 2>/dev/null </dev/null | sed 's/^/process /' | tr -d '\\000-\\010\\013-\\037\\177'
for socket in "${TMUX_TMPDIR:-/tmp}/tmux-$(id -u)"/*; do
  [ -S "$socket" ] || continue
  tmux -S "$socket" list-panes -a -F "pane	#{pane_pid}	#{session_name}	#{pane_current_path}" 2>/dev/null </dev/null
done
"""


async def discover(aliases: Sequence[Alias], config: str, told: Callable[[Found], None]) -> list[Found]:
    """Every one of them, in their order; `told` hears of each as it answers. An unknown host key is not accepted."""
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def one(alias: Alias) -> Found:
        async with gate:
            found = await _discover(alias, config)
        told(found)
        return found

    return list(await asyncio.gather(*map(one, aliases)))


async def _discover(alias: Alias, config: str) -> Found:
    host = Host(address=alias.name, ssh_config=config, host_key_policy="strict").model_copy(
        update={"connection_timeout": SECONDS}
    )
    connection = Connection(alias.name, host)
    agents = {name: drivers.built_in_agent(name) for name in BUILT_IN_AGENTS if name != "shell"}
    try:
        async with asyncio.timeout(2 * SECONDS):
            seen = await connection.look("default", tuple(("command", agent.command) for agent in agents.values()))
            nonce = secrets.token_hex(8)
            transport = await connection.transport()
            done = await transport.run(("sh", "-c", _SCRIPT, "discover", seen.path, nonce), timeout=SECONDS)
        commands = {agent.command: name for name, agent in agents.items()}
        there = tuple(name for name, agent in agents.items() if seen.commands.get(agent.command))
        return Found(alias, "", there, parse_running(nonce, done.out, commands))
    except TimeoutError:
        return Found(alias, f"{alias.name} did not answer in time")
    except ReconcilerError as error:
        return Found(alias, error.message)
    finally:
        await connection.close()
