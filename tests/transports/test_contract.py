"""What every transport owes its callers, on real machines. A new file in the package is picked up by itself."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import json
import os
import pkgutil
import pty
import select
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reconciler.transports
from reconciler.errors import HostError
from reconciler.transports import Completed, Transport
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import SHORTCUTS

pytestmark = pytest.mark.e2e


def transports() -> list[str]:
    """Every public module that can connect."""
    names = [module.name for module in pkgutil.iter_modules(reconciler.transports.__path__)]
    modules = {name: importlib.import_module(f"reconciler.transports.{name}") for name in names if name[0] != "_"}
    return [name for name, module in modules.items() if hasattr(module, "connect")]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    try:
        made = Fleet()
    except FileNotFoundError as missing:
        pytest.fail(str(missing))
    with made:
        yield made


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.host("gpu")


async def connect(way: str, fleet: Fleet, host: Host) -> Transport:
    """The machine as this transport reaches it, with its files where `host.home` shows them."""
    kind, _, shortcuts = way.partition(", ")
    module = importlib.import_module(f"reconciler.transports.{kind}")
    if kind == "local":
        made: Transport = await module.connect("local", env={**fleet.env, "HOME": str(host.home)})
        return made
    options = module.SshOptions(host.name, ssh_config=str(fleet.ssh_config), connect_timeout=20.0)
    env = {**fleet.env, "RECONCILER_SSH_SHORTCUTS": SHORTCUTS[shortcuts or "shortcuts"]}
    reached: Transport = await module.connect(host.name, options, env=env)
    return reached


@pytest_asyncio.fixture(params=[*transports(), "ssh, usual way"])
async def machine(request: pytest.FixtureRequest, fleet: Fleet, host: Host) -> AsyncIterator[Transport]:
    transport = await connect(request.param, fleet, host)
    yield transport
    await transport.close()


class Note:
    """A file in the home that no other test, running as somebody else there, has made."""

    def __init__(self, host: Host) -> None:
        self.name = f"note-{uuid.uuid4().hex}"
        self._path = host.home / self.name

    def text(self) -> str:
        return self._path.read_text(encoding="utf-8").strip()


@pytest.fixture
def note(host: Host) -> Note:
    return Note(host)


async def sh(machine: Transport, script: str, *args: str, **options: float) -> Completed:
    return await machine.run(("sh", "-c", script, "sh", *args), **options)  # type: ignore[arg-type]


def test_both_ways_to_a_machine_are_tested() -> None:
    assert {"local", "ssh"} <= set(transports())


def test_the_ssh_library_is_not_loaded_before_a_connection_is_wanted() -> None:
    script = "import sys, reconciler.transports.local; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_an_empty_argv_is_refused(machine: Transport) -> None:
    with pytest.raises(ValueError, match="argv"):
        await machine.run(())


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
async def test_the_exit_status_is_that_of_the_program(machine: Transport, code: int) -> None:
    assert (await sh(machine, f"exit {code}")).exit == code


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("HUP", 1)])
async def test_an_end_by_signal_is_128_and_its_number(machine: Transport, name: str, number: int) -> None:
    assert (await sh(machine, f"kill -{name} $$")).exit == 128 + number


async def test_a_program_that_is_not_there_is_127(machine: Transport) -> None:
    done = await machine.run(("no-such-program-anywhere",))
    assert done.exit == 127
    assert b"no-such-program-anywhere" in done.err


async def test_programs_start_in_the_home_directory(machine: Transport) -> None:
    assert (await sh(machine, 'test "$(pwd -P)" = "$(cd && pwd -P)"')).exit == 0


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xfe\x80", b"line\r\n\x04\x1a", bytes(range(256)) * 4096], ids=len)
async def test_stdin_arrives_byte_for_byte_and_then_ends(machine: Transport, data: bytes) -> None:
    assert (await machine.run(("cat",), stdin=data)).out == data


async def test_a_program_that_reads_nothing_is_no_error(machine: Transport) -> None:
    assert (await machine.run(("true",), stdin=b"x" * (1 << 20))).exit == 0


HARD = [
    "",
    " ",
    "-n",
    "--",
    "it's",
    '"',
    "\\",
    "\\\\n",
    "$(id)",
    "`id`",
    "$HOME",
    "~",
    "*",
    "!!",
    "!x",
    "a\nb",
    "\n",
    "=ls",
    "%1",
]
HARD += [
    "a=b",
    "{a,b}",
    "#x",
    "é日本🙂",
    "\t\x01\x7f",
    "&",
    ";",
    "|",
    "<",
    "\udcff",
    "x" * 5000,
    "'" * 500,
    "\\'",
    "!'\n\\",
    "^a^b",
]


async def test_arguments_arrive_exactly(machine: Transport) -> None:
    done = await machine.run(("printf", "%s\\0", *HARD))
    assert done.out.split(b"\0")[:-1] == [arg.encode("utf-8", "surrogateescape") for arg in HARD]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_arguments_arrive_exactly(machine: Transport, args: list[str]) -> None:
    done = await machine.run(("printf", "%s\\0", *args))
    assert done.out.split(b"\0")[:-1] == [arg.encode() for arg in args]


async def test_an_argument_with_a_nul_is_refused(machine: Transport) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await machine.run(("echo", "a\0b"))


async def test_stdout_and_stderr_are_kept_apart(machine: Transport) -> None:
    done = await sh(machine, "echo out; echo err >&2; exit 4")
    assert done == Completed(4, b"out\n", b"err\n")


async def test_much_on_both_at_once_does_not_block(machine: Transport) -> None:
    done = await sh(machine, "head -c 700000 /dev/zero >&2 & head -c 900000 /dev/zero; wait")
    assert (len(done.out), len(done.err)) == (900_000, 700_000)


@pytest.mark.parametrize("redirect", ["", ">&2"])
async def test_more_output_than_allowed_is_an_error_and_soon(machine: Transport, redirect: str) -> None:
    started = time.monotonic()
    with pytest.raises(HostError, match="more than 100000 bytes") as caught:
        await machine.run(
            ("sh", "-c", f"while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done {redirect}"), limit=100_000
        )
    assert caught.value.retry is False
    assert time.monotonic() - started < 10


async def test_exactly_the_allowed_output_is_none(machine: Transport) -> None:
    assert len((await sh(machine, "head -c 1000 /dev/zero", limit=1000)).out) == 1000


async def test_at_the_timeout_the_call_returns_and_the_program_ends(machine: Transport, note: Note) -> None:
    started = time.monotonic()
    with pytest.raises(HostError) as caught:
        await sh(machine, f'echo $$ >"$HOME/{note.name}"; exec sleep 600', timeout=1.0)
    assert caught.value.code == "timed-out"
    assert time.monotonic() - started < 4
    await ended(machine, note.text())


async def test_a_cancelled_run_ends_its_program(machine: Transport, note: Note) -> None:
    task = asyncio.create_task(sh(machine, f'echo $$ >"$HOME/{note.name}"; exec sleep 600'))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(machine, note.text())


async def ended(machine: Transport, pid: str) -> None:
    for _ in range(100):
        if (await sh(machine, "kill -0 $1 2>/dev/null", pid)).exit:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"process {pid} lives on")


async def test_eight_commands_run_at_once(machine: Transport) -> None:
    started = time.monotonic()
    done = await asyncio.gather(*(sh(machine, "sleep 1; echo $1", str(number)) for number in range(8)))
    assert [one.out for one in done] == [b"%d\n" % number for number in range(8)]
    assert time.monotonic() - started < 6


async def test_a_channel_is_a_conversation(machine: Transport) -> None:
    channel = await machine.open(("sh",))
    for number in range(20):
        await channel.write(b"echo $((%d * 2)); echo noise >&2\n" % number)
        assert await channel.read() == b"%d\n" % (number * 2)
    await channel.close()


async def test_channels_and_commands_interleave(machine: Transport) -> None:
    one, two = await machine.open(("cat",)), await machine.open(("cat",))
    await one.write(b"1")
    await two.write(b"2")
    assert (await machine.run(("echo", "3"))).out == b"3\n"
    assert (await two.read(), await one.read()) == (b"2", b"1")
    await one.close()
    await two.write(b"still")
    assert await two.read() == b"still"
    await two.close()


async def test_a_channel_carries_megabytes_both_ways(machine: Transport) -> None:
    channel = await machine.open(("cat",))
    block = bytes(range(256)) * 256
    sending = asyncio.create_task(send(channel, block, 64))
    received = bytearray()
    while len(received) < len(block) * 64:
        received += await channel.read()
    await sending
    assert bytes(received) == block * 64
    await channel.close()


async def send(channel: reconciler.transports.Channel, block: bytes, times: int) -> None:
    for _ in range(times):
        await channel.write(block)


async def test_a_channel_nobody_reads_holds_its_program_back(machine: Transport, note: Note) -> None:
    count = f'i=0; while :; do head -c 65536 /dev/zero || exit; i=$((i+1)); echo $i >"$HOME/{note.name}"; done'
    channel = await machine.open(("sh", "-c", count))
    before, now = "", "0"
    while now != before:
        assert int(now) < 400
        await asyncio.sleep(1.0)
        before, now = now, note.text() or "0"
    await channel.close()


async def test_a_channel_ends_with_its_program(machine: Transport) -> None:
    channel = await machine.open(("echo", "last words"))
    assert await channel.read() == b"last words\n"
    assert await channel.read() == b""
    assert await channel.read() == b""
    await asyncio.sleep(0.2)
    with pytest.raises(HostError) as caught:
        await channel.write(b"anyone there?")
    assert caught.value.code == "dropped"
    await channel.close()


async def test_closing_a_channel_twice_is_fine_and_wakes_its_reader(machine: Transport) -> None:
    channel = await machine.open(("cat",))
    reading = asyncio.create_task(channel.read())
    await asyncio.sleep(0.1)
    await channel.close()
    assert await asyncio.wait_for(reading, 5) == b""
    await channel.close()


async def test_closing_a_transport_twice_is_fine(machine: Transport) -> None:
    await machine.open(("cat",))
    await machine.close()
    await machine.close()


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n" * 3, b"x" * 3_000_000], ids=len)
async def test_what_is_written_is_read_back(machine: Transport, host: Host, data: bytes) -> None:
    await machine.write("~/a file's $(name)", data)
    assert await machine.read("~/a file's $(name)") == data
    assert (host.home / "a file's $(name)").read_bytes() == data


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o400])
async def test_a_written_file_has_the_mode_asked_for(machine: Transport, host: Host, mode: int) -> None:
    await machine.write("~/moded", b"x", mode)
    assert (host.home / "moded").stat().st_mode & 0o7777 == mode


async def test_writing_replaces_the_file_and_never_changes_the_old_one(machine: Transport, host: Host) -> None:
    await machine.write("~/state", b"old")
    (host.home / "other name").unlink(missing_ok=True)
    (host.home / "other name").hardlink_to(host.home / "state")
    await machine.write("~/state", b"new")
    assert (host.home / "other name").read_bytes() == b"old"
    assert (host.home / "state").read_bytes() == b"new"
    assert not list(host.home.glob(".reconciler.*"))


async def test_a_relative_path_is_one_in_the_home(machine: Transport, host: Host) -> None:
    await machine.write("relative", b"x")
    assert (host.home / "relative").exists()
    assert await machine.read("relative") == b"x"


@pytest.mark.parametrize("path", ["~/missing", "/nowhere/at/all", "~/-n"])
async def test_reading_a_missing_file_says_so(machine: Transport, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        await machine.read(path)


async def test_writing_into_a_missing_directory_says_so(machine: Transport) -> None:
    with pytest.raises(FileNotFoundError):
        await machine.write("~/no/such/dir/file", b"x")


async def test_a_directory_is_no_file(machine: Transport, host: Host) -> None:
    (host.home / "directory").mkdir(exist_ok=True)
    with pytest.raises(IsADirectoryError):
        await machine.read("~/directory")
    with pytest.raises(IsADirectoryError):
        await machine.write("~/directory", b"x")


async def test_a_file_longer_than_the_limit_is_an_error(machine: Transport) -> None:
    await machine.write("~/long", b"x" * 200_000)
    with pytest.raises(HostError, match="more than 100000 bytes"):
        await machine.read("~/long", limit=100_000)


async def test_nothing_temporary_is_left_where_writing_fails(machine: Transport, host: Host) -> None:
    (host.home / "taken").mkdir(exist_ok=True)
    with pytest.raises(IsADirectoryError):
        await machine.write("~/taken", b"x")
    assert not list(host.home.glob(".reconciler.*"))


TERMINAL = """
import asyncio, importlib, json, os, sys
kind, name, config, argv = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
module = importlib.import_module(f"reconciler.transports.{kind}")
async def main():
    host = None if kind == "local" else module.SshOptions(name, ssh_config=config, connect_timeout=20.0)
    transport = await module.connect(name, host)
    status = await transport.terminal(argv)
    await transport.close()
    return status
status = asyncio.run(main())
print(f"[ended {status}]", flush=True)
os.read(0, 1)
"""


class Screen:
    """A terminal with the program under test on it."""

    def __init__(self, kind: str, fleet: Fleet, host: Host, argv: list[str], name: str = "gpu") -> None:
        self._fd, other = pty.openpty()
        self.resize(24, 80)
        home = str(host.home) if kind == "local" else str(fleet.controller_home)
        self.before = termios.tcgetattr(other)
        self._process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, kind, name, str(fleet.ssh_config), json.dumps(argv)],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**fleet.env, "HOME": home, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=Path(__file__).parents[2],
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._other = other
        self._seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: bytes) -> None:
        end = time.monotonic() + 20
        while text not in self._seen:
            assert select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0], self._seen
            self._seen += os.read(self._fd, 65536)
        self._seen = self._seen.partition(text)[2]

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._other)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        os.close(self._other)


@pytest.mark.parametrize("kind", transports())
def test_a_terminal_carries_keys_sizes_and_the_exit_status_and_is_given_back_as_it_was(
    kind: str, fleet: Fleet, host: Host
) -> None:
    script = "stty size; trap 'stty size' WINCH; printf 'ready\n'; "
    script += """until read -r word; do :; done; printf 'got <%s>\n' "$word"; """
    script += "stty raw -echo; printf 'raw\n'; head -c 2 | od -An -tx1; exit 7"
    screen = Screen(kind, fleet, host, ["sh", "-c", script])
    try:
        screen.wait_for(b"24 80")
        screen.wait_for(b"ready")
        screen.resize(50, 132)
        time.sleep(0.3)
        screen.type(b"a word\r")
        screen.wait_for(b"50 132")
        screen.wait_for(b"got <a word>")
        screen.wait_for(b"raw")
        screen.type(b"\x03\x1a")
        screen.wait_for(b"03 1a")
        screen.wait_for(b"[ended 7]")
        if kind != "local":
            assert screen.modes() == screen.before
    finally:
        screen.close()


def test_a_terminal_is_given_back_when_the_connection_breaks(fleet: Fleet) -> None:
    host = fleet.host("fragile")
    screen = Screen("ssh", fleet, host, ["sh", "-c", "echo ready; exec sleep 60"], name="fragile")
    try:
        screen.wait_for(b"ready")
        assert screen.modes() != screen.before
        host.exec(["sh", "-c", "kill -9 $(pgrep -f 'sshd: [^ ]*@pts')"])
        screen.wait_for(b"HostError")
        assert screen.modes() == screen.before
    finally:
        screen.close()
