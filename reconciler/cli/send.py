"""`reconciler send`: one message into a session, when it is idle."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated

import typer

from reconciler import drivers
from reconciler.asking import open_leases
from reconciler.cli._completion import session_names
from reconciler.cli.common import Specs, find, load, run, session_name
from reconciler.core.printed import escaped
from reconciler.core.spec import Desired
from reconciler.core.steps import SendStep
from reconciler.errors import OperationError, UsageError
from reconciler.hosts import Hosts
from reconciler.steps import StepRunner
from reconciler.transcripts.carrying import open_archive


def command(
    session: Annotated[str, typer.Argument(help="Its name or address.", autocompletion=session_names)],
    text: Annotated[str, typer.Argument(help="The message; `-` reads it from standard input.")],
    timeout: Annotated[float, typer.Option("--timeout", help="Wait so many seconds for it to be idle.")] = 600.0,
    directory: Specs = "specs",
) -> None:
    """Send a message to a session: it waits until the agent is idle, pastes it whole, and submits it."""
    desired = load(directory)
    name = session_name(desired, session)
    if name in desired.group_chats:
        raise OperationError(
            f"group_chat.{name} has no terminal", code="no-terminal", remedy=f"reconciler chat send {name} TEXT"
        )
    message = sys.stdin.read() if text == "-" else text
    if not message.strip():
        raise UsageError("there is no message to send")
    run(_send(desired, name, message, timeout))
    typer.echo(f"sent to session.{name}")


async def _send(desired: Desired, name: str, message: str, timeout: float) -> None:
    async with Hosts() as hosts:
        connection, _, seen = await find(hosts, desired, name)
        record = seen.record
        assert record is not None
        if seen.state != "running":
            raise OperationError(f"session.{name} is {seen.state}", code="stale", remedy="reconciler apply")
        if not drivers.runtime(record.strategy).terminal:
            raise OperationError(
                f"session.{name} has no terminal: its strategy is {record.strategy}", code="no-terminal"
            )
        agents = drivers.agents(desired, frozenset({record.agent}))
        leases = await open_leases(desired, "reconciler send")
        await leases.acquire([connection])
        try:
            # Whoever had the lease before may have written the record since.
            _, _, seen = await find(hosts, desired, name)
            record = seen.record
            assert record is not None
            step = SendStep(
                session=name, host=connection.name, agent=record.agent, strategy=record.strategy,
                expect=seen.incarnation, message=agents[record.agent].paste_text(message), record=record,
                timeout=timeout, before=record.prompt,
            )  # fmt: skip
            op = secrets.token_hex(16)
            runner = StepRunner(desired, hosts, agents, leases, open_archive(desired))
            await runner.run(step, op, lambda words: typer.echo(escaped(words), err=True))
        finally:
            await leases.release()
