"""The simulated shell answers as the real one does: the same operations on both, answers and looks compared."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import drivers
from reconciler.core.agent import Invocation
from reconciler.core.observed import Reached, SessionSeen
from reconciler.core.record import Record
from reconciler.core.spec import Host
from reconciler.errors import OperationError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import (
    Credentials,
    Launch,
    forget_operation,
    launch_operation,
    lease_operation,
    record_operation,
    release_operation,
    renew_operation,
    send_operation,
    stop_operation,
)
from reconciler.transports import Transport, local
from tests.simulation import clock
from tests.simulation.machine import Machine
from tests.simulation.transport import Line, SimulatedTransport

pytestmark = pytest.mark.e2e
FLEET = "contract"
ONE, TWO = Credentials(FLEET, "me@here:m/b:1:1:one"), Credentials(FLEET, "you@there:m/b:2:2:two")
PROGRAMS = {"serve": "exec sleep 600", "broken": "sleep 0.6; exit 1", "job": "sleep 2"}
Trace = list[tuple[str, object]]


class Told:
    """Carries out operations on one host and writes down, in words that both worlds share, what came of each."""

    def __init__(self, connection: Connection, strategy: str) -> None:
        self.connection = connection
        self.runtime = drivers.runtime(strategy)
        self.trace: Trace = []
        self.pids: dict[str, int] = {}

    async def operate(self, what: str, script: str, nonce: str) -> dict[str, Any]:
        """The answer, or the code of the refusal."""
        try:
            answer = await self.connection.operate(script, nonce)
        except OperationError as error:
            answer = {"refused": error.code}
        shared = {key: value for key, value in answer.items() if key not in ("pid", "now")}
        self.trace.append((what, {**shared, "pid": "pid" in answer}))
        return answer

    async def look(self, what: str) -> Reached:
        """All that a look says and that does not depend on the machine."""
        checks = [("command", "serve"), ("command", "nowhere"), ("directory", "~"), ("directory", "/nowhere")]
        reached = await self.connection.look(FLEET, checks)
        seen = {name: _seen(session) for name, session in sorted(reached.sessions.items())}
        found = [bool(there) for there in (*reached.commands.values(), *reached.directories.values())]
        self.trace.append((what, (reached.fence, reached.local, found)))
        self.trace += [(f"{what}: {name}", session) for name, session in seen.items()]
        return reached

    async def launch(self, what: str, name: str, incarnation: int, command: str, op: str = "", **more: Any) -> None:
        """Launch a program by its name."""
        launch = Launch(
            session=name, expect=more.pop("expect", incarnation - 1), record=record(name, incarnation),
            command=command, invocation=Invocation((command,)), workdir=more.pop("workdir", "~"), **more,
        )  # fmt: skip
        script = launch_operation(self.runtime, FENCED, op or f"launch-{what}", "n", launch)
        answer = await self.operate(what, script, "n")
        if "pid" in answer:
            before = self.pids.setdefault(f"{name}-{incarnation}", answer["pid"])
            self.trace.append((f"{what}: the same process", before == answer["pid"]))

    async def stop(self, what: str, name: str, incarnation: int) -> None:
        """By TERM."""
        await self.operate(what, stop_operation(
            self.runtime, FENCED, f"stop-{what}", "n", session=name, expect=incarnation, keys=(), signal="TERM",
            record=record(name, incarnation, intent="stopped"),
        ), "n")  # fmt: skip

    async def send(self, what: str, name: str, incarnation: int) -> None:
        """One message."""
        await self.operate(what, send_operation(
            self.runtime, FENCED, f"send-{what}", "n", session=name, expect=incarnation, message="hello",
            record=record(name, incarnation, prompt="handed over"),
        ), "n")  # fmt: skip


FENCED = replace(TWO, fence=2)


def record(name: str, incarnation: int, **changes: Any) -> Record:
    made = Record(FLEET, name, "shell", "process", "sha256:0", incarnation=incarnation, workdir="~")
    return replace(made, **changes)


def _seen(seen: SessionSeen) -> dict[str, object]:
    return {
        "state": seen.state, "incarnation": seen.incarnation, "trouble": seen.trouble,
        "record": seen.record and seen.record.to_json(), "exit": seen.exit and (seen.exit.code, seen.exit.error),
        "alive": seen.process and seen.process.alive, "of": seen.process and seen.process.incarnation,
        "attached": seen.attached, "store": seen.facts.store,
    }  # fmt: skip


async def leases(told: Told) -> None:
    await told.look("an empty host")
    await told.operate("the first lease", lease_operation(ONE, "n", local="machine-1 laptop"), "n")
    await told.operate("a lease that is held", lease_operation(TWO, "n"), "n")
    await told.operate("a lease of the dead", lease_operation(TWO, "n", ONE.holder, "machine-2 other"), "n")
    await told.look("after two leases")
    await told.operate("an old fence", renew_operation(replace(ONE, fence=1), "n"), "n")
    stale = record_operation(replace(ONE, fence=1), "op-stale", "n", record("a", 0), 0)
    await told.operate("an operation with an old fence", stale, "n")
    await told.operate("the present fence, another holder", renew_operation(replace(ONE, fence=2), "n"), "n")
    await told.operate("the lease is renewed", renew_operation(FENCED, "n"), "n")


async def lives(told: Told) -> None:
    await told.launch("started", "a", 1, "serve", op="op-1")
    await told.launch("the same operation again", "a", 1, "serve", op="op-1")
    await told.look("it runs")
    await told.launch("made for another incarnation", "a", 1, "serve")
    await told.launch("started while it lives", "a", 2, "serve")
    await told.look("it still runs, with its number")
    changed = record("a", 1, labels={"team": "x"}, conversation="c-1")
    await told.operate("a record", record_operation(FENCED, "op-r", "n", changed, 1), "n")
    await told.operate("a stale record", record_operation(FENCED, "op-s", "n", changed, 7), "n")
    await told.send("a message", "a", 1)
    await told.look("it has its record")
    await told.stop("stopped for another incarnation", "a", 3)
    await told.stop("stopped", "a", 1)
    await told.stop("stopped twice", "a", 1)
    await told.send("a message to nobody", "a", 1)
    await told.look("it is stopped")
    await told.launch("started again", "a", 2, "serve")
    await told.look("it runs again")


async def ends(told: Told) -> None:
    await told.launch("a program that breaks", "b", 1, "broken")
    await told.launch("a program that ends", "c", 1, "job")
    await told.launch("a program that is not there", "d", 1, "nowhere")
    await told.launch("a directory that is not there", "e", 1, "serve", workdir="/nowhere")
    await asyncio.sleep(3.5)
    await told.look("they have ended")
    await told.launch("the broken one once more", "b", 2, "serve")
    await told.stop("a stop of what is gone", "c", 1)
    await told.operate("forgotten", forget_operation(FENCED, "op-f", "n", "a", 2), "n")
    await told.look("what is left")
    await told.stop("the last one", "b", 2)
    await told.operate("given back", release_operation(FENCED, "n"), "n")
    await told.operate("a lease of somebody else", lease_operation(ONE, "n"), "n")
    await told.look("the end")


async def story(connection: Connection, strategy: str) -> Trace:
    told = Told(connection, strategy)
    try:
        for part in (leases, lives, ends):
            await part(told)
    finally:
        await connection.close()
    return told.trace


def simulated(strategy: str) -> Trace:
    async def work() -> Trace:
        machine = Machine("gpu")
        machine.missing |= {"nowhere", "/nowhere"}

        async def connect(name: str, host: Host) -> Transport:
            return SimulatedTransport(Line(lambda _argv, _stdin: None), machine)

        return await story(Connection("gpu", Host(), connect), strategy)

    return clock.run(work)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory whose login shell finds the programs; short, for the socket of tmux."""
    directory = Path(tempfile.mkdtemp(prefix="rc-"))
    (directory / "bin").mkdir()
    for name, body in PROGRAMS.items():
        (directory / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / "bin" / name).chmod(0o700)
    (directory / ".profile").write_text('PATH="$HOME/bin:$PATH"\n')
    yield directory
    state = directory / ".local/state/reconciler" / FLEET
    subprocess.run(["tmux", "-S", state / "tmux", "kill-server"], capture_output=True, check=False)
    for noted in state.glob("*/*/process.*"):
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            os.kill(int(noted.read_text().split()[0]), signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def real(strategy: str, home: Path) -> Trace:
    environment = {"HOME": str(home), "SHELL": "/bin/sh", "PATH": os.environ["PATH"]}

    async def connect(name: str, host: Host) -> Transport:
        return await local.connect(name, env=environment)

    work: Callable[[], Coroutine[Any, Any, Trace]] = lambda: story(Connection("gpu", Host(), connect), strategy)  # noqa: E731
    return asyncio.run(work())


@pytest.mark.parametrize("strategy", ["process", "tmux"])
def test_the_simulated_shell_tells_the_same_story_as_the_real_one(strategy: str, home: Path) -> None:
    if strategy == "tmux" and shutil.which("tmux") is None:
        pytest.fail("tmux is needed")
    expected, found = real(strategy, home), simulated(strategy)
    assert [what for what, _ in expected] == [what for what, _ in found]
    different = {
        what: (truth, model) for (what, truth), (_, model) in zip(expected, found, strict=True) if truth != model
    }
    assert not different
