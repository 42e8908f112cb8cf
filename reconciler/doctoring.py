"""Examine hosts: one look and one script each, all at once; install an agent where somebody said yes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence

from reconciler import drivers
from reconciler.core.agent import Login
from reconciler.core.checkup import Examined, examined, questions, wanted_agents
from reconciler.core.facts import Check, Facts, parse_facts
from reconciler.core.machine import CHANNELS
from reconciler.core.spec import Desired, Host
from reconciler.errors import HostError, ReconcilerError
from reconciler.hosts import Connection, Hosts
from reconciler.observe import CONNECTS_AT_ONCE
from reconciler.runtimes.operations import doctor_script
from reconciler.transports import Limited, Transport
from reconciler.transports.local import LocalTransport

_INSTALL_TIMEOUT = 900.0  # seconds; npm on a slow line


async def examine(
    hosts: Hosts, desired: Desired, names: Iterable[str], *, everything: bool, told: Callable[[Examined], None]
) -> list[Examined]:
    """Every host as it answers; failure is a value."""
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def one(name: str) -> Examined:
        async with gate:
            found = await _examine(hosts.connection(name, desired.hosts[name]), desired, name, everything)
        told(found)
        return found

    return list(await asyncio.gather(*map(one, names)))


async def _examine(connection: Connection, desired: Desired, name: str, everything: bool) -> Examined:
    wanted = wanted_agents(desired, name, everything)
    agents = drivers.agents(desired, frozenset(wanted))
    try:
        seen = await connection.look(desired.fleet.name, tuple(questions(desired, agents, name, wanted)))
        now = time.time()
        transport = await connection.transport()
        facts = await _facts(transport, seen.home, seen.path, [agents[agent].login for agent in wanted])
        said = await _configured(desired, name)
        return examined(desired, agents, wanted, seen, facts, now, await _channels(transport), said)
    except ReconcilerError as error:
        return Examined(name, error.message, checks=(Check("reach", False, error.message, error.remedy),))


async def _facts(transport: Transport, home: str, path: str, logins: Sequence[Login]) -> Facts:
    nonce = secrets.token_hex(8)
    words: list[str] = []
    for login in logins:
        words += [word for file in login.files for word in ("login", file.replace("{home}", home))]
        if login.retention is not None:
            file, text, _ = login.retention
            words += ["text", file.replace("{home}", home), text]
        if login.trust is not None:
            kind, file = login.trust
            words += ["trusts", file.replace("{home}", home), kind]
    done = await transport.run(("sh",), stdin=doctor_script(path, nonce, words).encode(), timeout=30.0)
    return parse_facts(nonce, done.out)


async def _configured(desired: Desired, name: str) -> str:
    """What the system's ssh makes of the user's configuration; nothing where it does not matter."""
    command = _asking(desired.hosts[name], name)
    with contextlib.suppress(HostError):
        if command:
            return (await LocalTransport().run(command, timeout=10.0)).out.decode(errors="replace")
    return ""


def _asking(host: Host, name: str) -> tuple[str, ...]:
    if host.transport != "ssh" or host.ssh_config is False or shutil.which("ssh") is None:
        return ()
    file = ("-F", os.path.expanduser(host.ssh_config)) if isinstance(host.ssh_config, str) else ()
    return ("ssh", "-G", *file, "--", host.address or name)


async def _channels(transport: Transport) -> int:
    """How many programs run at once on the connection, up to what we need."""
    return await transport.sessions_at_once(CHANNELS) if isinstance(transport, Limited) else CHANNELS


async def install(connection: Connection, desired: Desired, command: str) -> tuple[int, str]:
    """Run an agent's own installer on a host, with the login PATH. Its exit code, and what it said last."""
    seen = await connection.look(desired.fleet.name)
    transport = await connection.transport()
    argv = ("env", f"PATH={seen.path}", "sh", "-c", f"exec 2>&1; {command}")
    done = await transport.run(argv, timeout=_INSTALL_TIMEOUT)
    return done.exit, done.out.decode("utf-8", "replace")[-2000:]
