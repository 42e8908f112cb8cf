"""Ask hosts which agents they have and which run there: nothing is changed, nobody is asked a question."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence

from reconciler import drivers
from reconciler.core.agent import Agent
from reconciler.core.discovered import Found
from reconciler.core.observed import Reached, parse_strays
from reconciler.core.spec import BUILT_IN_AGENTS, MODERATOR, Desired, Host
from reconciler.core.ssh_aliases import Alias
from reconciler.core.strays import Stray, known, parse_strays_found
from reconciler.errors import ReconcilerError
from reconciler.hosts import Connection
from reconciler.observe import CONNECTS_AT_ONCE
from reconciler.runtimes.operations import stray_facts_script, strays_script

SECONDS = 5.0
_TIMEOUT = 20.0  # seconds that a host has to tell of its processes


async def discover(aliases: Sequence[Alias], config: str, told: Callable[[Found], None]) -> list[Found]:
    """Every host of an SSH config, in their order, five seconds each; `told` hears of each as it answers.

    An unknown host key is not accepted.
    """
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
            there = tuple(name for name, agent in agents.items() if seen.commands.get(agent.command))
            return Found(alias, "", there, await strays_on(connection, seen, agents, SECONDS))
    except TimeoutError:
        return Found(alias, f"{alias.name} did not answer in time")
    except ReconcilerError as error:
        return Found(alias, error.message)
    finally:
        await connection.close()


def known_agents(desired: Desired) -> Mapping[str, Agent]:
    """The agents that may be found on hosts of the specs: all built-in ones, and those of the specs."""
    found = drivers.agents(desired, frozenset(BUILT_IN_AGENTS))
    return {name: agent for name, agent in found.items() if name not in ("shell", MODERATOR)}


async def strays_on(
    connection: Connection, reached: Reached, agents: Mapping[str, Agent], seconds: float = _TIMEOUT
) -> tuple[Stray, ...]:
    """The agents that run on a host and belong to no session of any fleet. Raises HostError."""
    commands: dict[str, list[str]] = {}
    for name, agent in agents.items():
        own = connection.host.agents.get(name)
        for program in dict.fromkeys((agent.command, own.command if own and own.command else agent.command)):
            commands.setdefault(program.rpartition("/")[2], []).append(name)
    transport = await connection.transport()
    nonce = secrets.token_hex(8)
    script = strays_script(reached.path, nonce)
    done = await transport.run(("sh",), stdin=script.encode(), timeout=seconds)
    found = parse_strays_found(connection.name, nonce, done.out, commands)
    if not found:
        return ()
    asked = [(stray.pid, [probe for name in stray.agents for probe in agents[name].probes(None)]) for stray in found]
    script = stray_facts_script(reached.path, nonce, asked)
    done = await transport.run(("sh",), stdin=script.encode(), timeout=seconds)
    told = parse_strays(connection.name, nonce, done.out)
    # A process of which the host tells nothing has ended, or is somebody else's.
    return tuple(known(stray, *told[stray.pid], agents) for stray in found if stray.pid in told)
