"""The shell that carries operations, under each shell that a host may call `sh`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import drivers
from reconciler.core.agent import Invocation
from reconciler.core.record import Record
from reconciler.core.spec import Host
from reconciler.errors import OperationError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import (
    Credentials,
    Launch,
    launch_operation,
    lease_operation,
    parse_answer,
    renew_operation,
    stop_operation,
)
from reconciler.runtimes.scripts import text
from reconciler.transports import Completed, Room, Transport
from reconciler.transports.local import LocalTransport
from reconciler.transports.quoting import quote
from tests.runtimes.test_scripts import FLEET, OURS, SHELLS, Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
HARD = "it's \"$(touch x)\" `y`\\ \\n %s !! ${z} \t' \n''"


class Far(LocalTransport):
    """This machine as if it were elsewhere: it has room, and counts what had a channel of its own."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("here", env=machine.env)
        self.room = Room()
        self.alone = 0

    async def sessions_at_once(self, most: int) -> int:
        return most

    async def run(self, argv, *, stdin=b"", timeout=30.0, limit=16_000_000) -> Completed:  # type: ignore[no-untyped-def]
        self.alone += 1
        return await super().run(argv, stdin=stdin, timeout=timeout, limit=limit)


class Line:
    """A connection to it, with a lease."""

    def __init__(self, far: Far) -> None:
        self.far = far
        self.ours = OURS

        async def connect(name: str, host: Host) -> Transport:
            return far

        self.connection = Connection("here", Host(), connect)

    async def lease(self) -> None:
        nonce = secrets.token_hex(8)
        self.ours = replace(OURS, fence=(await self.connection.operate(lease_operation(OURS, nonce), nonce))["fence"])

    async def renew(self) -> None:
        nonce = secrets.token_hex(8)
        await self.connection.operate(renew_operation(self.ours, nonce), nonce)


@contextlib.asynccontextmanager
async def line(machine: Machine) -> AsyncIterator[Line]:
    made = Line(Far(machine))
    try:
        await made.lease()
        yield made
    finally:
        await made.connection.close()


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        made = Machine(Path(root), SHELLS[request.param])
        try:
            yield made
        finally:
            made.close()


def launched(ours: Credentials, nonce: str, command: str = "sleep") -> str:
    record = Record(FLEET, "api", "shell", "process", "sha256:0", incarnation=1, workdir="~", prompt=HARD)
    invocation = Invocation((command, "600"), files={"hard": HARD})
    launch = Launch("api", 0, record, command, invocation, "~", environment={"HARD": HARD})
    return launch_operation(drivers.runtime("process"), ours, "op-api", nonce, launch)


async def test_operations_are_done_as_on_channels_of_their_own(machine: Machine) -> None:
    async with line(machine) as it:
        nonce = secrets.token_hex(8)
        begun = time.monotonic()
        reached = await it.connection.operate_and_look(launched(it.ours, nonce), nonce, FLEET, 9)
        assert reached is not None
        assert reached.sessions["api"].state == "running"
        assert time.monotonic() - begun > 0.9
        pid = reached.sessions["api"].process
        assert pid is not None
        assert f"HARD={HARD}\0".encode() in Path(f"/proc/{pid.pid}/environ").read_bytes()  # noqa: ASYNC240
        assert (machine.state / "sessions/api/hard").read_text(encoding="utf-8") == HARD
        again = secrets.token_hex(8)
        assert (await it.connection.operate(launched(it.ours, again), again))["pid"] == pid.pid
        stop, runtime = secrets.token_hex(8), drivers.runtime("process")
        gone = Record(FLEET, "api", "shell", "process", "sha256:0", "stopped", incarnation=1)
        script = stop_operation(
            runtime, it.ours, "stop", stop, session="api", expect=1, keys=(), signal="TERM", record=gone
        )
        assert (await it.connection.operate(script, stop))["how"] == "TERM"
        assert it.far.alone == 0


@pytest.mark.parametrize("machine", ["dash", "busybox"], indirect=True)
async def test_many_at_once_each_get_their_own_answer(machine: Machine) -> None:
    async with line(machine) as it:
        await asyncio.gather(*(it.renew() for _ in range(8)))
        assert it.far.alone == 0


@pytest.mark.parametrize("machine", ["dash", "busybox"], indirect=True)
async def test_a_refusal_is_no_reason_to_wait(machine: Machine) -> None:
    async with line(machine) as it:
        nonce = secrets.token_hex(8)
        with pytest.raises(OperationError) as caught:
            await it.connection.operate_and_look(launched(it.ours, nonce, "no-such-program"), nonce, FLEET, 4)
        assert caught.value.code == "agent-missing"
        await it.connection.look(FLEET)
        assert not list((machine.state / "looks").iterdir())


async def test_where_nothing_can_be_detached_operations_have_their_own_channels(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        machine = Machine(Path(root), SHELLS["dash"])
        (machine.bin / "setsid").write_text("#!/bin/dash\nexit 1\n", encoding="ascii")  # as busybox has it: no -f
        (machine.bin / "setsid").chmod(0o755)
        try:
            async with line(machine) as it:
                await it.renew()
                assert it.far.alone == 2
        finally:
            machine.close()


def test_an_answer_begins_on_a_line_of_its_own_whatever_somebody_else_has_begun_to_say(machine: Machine) -> None:
    operation = quote([lease_operation(OURS, "n")])
    begun = text("common") + text("operate") + "emit 'half a line'\n"
    lines = machine.sh(f"{begun}reconciler_operate n {operation}\n").split(b"\n")
    assert [line for line in lines if line.startswith(b'answer\tn\t{"ok":true')]


def test_without_setsid_job_control_keeps_what_is_begun_from_ignoring_interrupts(tmp_path: Path) -> None:
    for name in ("printf", "cat", "sh", "grep"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    with tempfile.TemporaryDirectory(prefix="rs") as root:
        machine = Machine(Path(root), SHELLS["bash"])
        machine.env["PATH"] = str(tmp_path)
        ignored = 'grep SigIgn /proc/self/status | grep -o "[0-9a-f]*$"'
        said = f'printf "\\nanswer\\tn\\t{{\\"ok\\":true,\\"ignored\\":\\"%s\\"}}\\n" "$({ignored})"'
        script = f"reconciler_operate n {quote([said])}\n"
        (tmp_path / "sh").unlink()
        (tmp_path / "sh").symlink_to("/bin/bash")
        out = machine.sh(text("common") + text("operate") + script + "wait\n")
    left = int(str(parse_answer("here", "n", out)["ignored"]), 16)
    before = re.findall(r"SigIgn:\s*([0-9a-f]+)", Path("/proc/self/status").read_text("ascii"))
    interrupts = 1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1
    assert left & interrupts == int(before[0], 16) & interrupts  # whoever runs tests in the background ignores some
