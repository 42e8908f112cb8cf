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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import drivers
from reconciler.core.agent import Invocation, Probe
from reconciler.core.observed import Facts, Reached, SessionSeen, StoreFile
from reconciler.core.parse import parse
from reconciler.core.record import Record
from reconciler.core.spec import Host
from reconciler.errors import OperationError, ReconcilerError
from reconciler.hosts import Connection
from reconciler.runtimes.operations import (
    Credentials,
    Launch,
    Place,
    forget_operation,
    launch_operation,
    lease_operation,
    record_operation,
    release_operation,
    rename_operation,
    renew_operation,
    restore_operation,
    send_operation,
    stop_operation,
)
from reconciler.simulation import clock
from reconciler.simulation.machine import Machine
from reconciler.simulation.stores import HOME, Stored
from reconciler.simulation.transport import Line, SimulatedTransport
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.relations import host_files
from reconciler.transcripts.staging import outgoing, stage
from reconciler.transcripts.sync import pull
from reconciler.transports import Transport, local
from tests.simulation.specs import AGENTS

pytestmark = pytest.mark.e2e
FLEET = "contract"
ONE, TWO = Credentials(FLEET, "me@here:m/b:1:1:one"), Credentials(FLEET, "you@there:m/b:2:2:two")
PROGRAMS = {"serve": "exec sleep 600", "broken": "sleep 0.6; exit 1", "job": "sleep 2"}
# A profile that is slow where it is read for the second time: first by the guard of a launch, then by its wrapper.
PROFILE = """PATH="$HOME/bin:$PATH"
if [ -e "$HOME/late" ]; then mv "$HOME/late" "$HOME/later"
elif [ -e "$HOME/later" ]; then rm "$HOME/later"; sleep 3; fi
"""
Trace = list[tuple[str, object]]
MINE = drivers.agents(parse({"f.toml": AGENTS + "[sessions.a]\nagent = 'mine'\n"}, {}))["mine"]
ID = "11111111-2222-4333-8444-555555555555"


@dataclass(frozen=True)
class Files:
    """How a test reads and writes the files of a world."""

    read: Callable[[str], bytes | None]
    write: Callable[[str, bytes, int | None], None]
    late: Callable[[], None]  # the next launch takes some seconds longer


class Told:
    """Carries out operations on one host and writes down, in words that both worlds share, what came of each."""

    def __init__(self, connection: Connection, strategy: str, files: Files, archive: Archive) -> None:
        self.connection = connection
        self.files = files
        self.archive = archive
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
        self.trace.append((what, (reached.fence, reached.local, found, list(reached.forgotten))))
        self.trace += [(f"{what}: {name}", session) for name, session in seen.items()]
        return reached

    async def launch(
        self, what: str, name: str, incarnation: int, command: str, op: str = "", wait: int = 25, **more: Any
    ) -> None:
        """Launch a program by its name."""
        launch = Launch(
            session=name, expect=more.pop("expect", incarnation - 1), record=record(name, incarnation),
            command=command, invocation=Invocation((command,)), workdir=more.pop("workdir", "~"), **more,
        )  # fmt: skip
        script = launch_operation(self.runtime, FENCED, op or f"launch-{what}", "n", launch)
        assert "\nWAIT=25\n" in script
        script = script.replace("\nWAIT=25\n", f"\nWAIT={wait}\n", 1)
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

    async def path(self, name: str) -> str:
        """Of a file of the conversation, as the host knows it."""
        return f"{(await self.connection.look(FLEET)).home}/.mine/{ID}.{name}"

    async def _there(self) -> SessionSeen:
        found = []
        for name in ("main.jsonl", "notes.log"):
            if (content := self.files.read(name)) is not None:
                # Whether the time is old enough to vouch for anything is what the script decides.
                mtime = 1_700_000_000.0 if content in (b"one\ntwo\nthree\nfo", b"note") else 0.0
                found.append(StoreFile(await self.path(name), len(content), mtime))
        facts = Facts(store=tuple(found))
        return SessionSeen("m", "lost", record("m", 1, agent="mine", conversation=ID), 1, facts=facts)

    async def pull(self, what: str) -> None:
        """From-remote: what came of it, and what the archive has then."""
        result = await pull(self.connection, MINE, "m", await self._there(), self.archive)
        manifest = self.archive.manifest("m", ID)
        assert manifest is not None
        files = [(f.name, f.size, f.sha256, f.host_size, f.host_mtime) for f in manifest.archived.files.values()]
        others = [(name, other.head.size, other.head.sha256) for name, other in manifest.others.items()]
        self.trace.append((what, (result.outcome, result.new, files, others)))

    async def stage(self, what: str, known: bool = True) -> tuple[Place, ...]:
        """To-remote as far as our own directory."""
        archived = self.archive.get("m", ID)
        assert archived is not None
        seen = await self._there()
        store = {file.path: file for file in seen.facts.store or ()}
        here = {name: store[file.path] for name, file in host_files(MINE, seen, ID).items()} if known else {}
        state = (await self.connection.look(FLEET)).state_dir
        try:
            found = await stage(self.connection, state, "m", outgoing(self.archive, archived, here, archived.files))
        except ReconcilerError as error:
            self.trace.append((what, error.code))
            return ()
        self.trace.append((what, [(s.number, s.sha256, s.size, s.name) for s in found]))
        return tuple(Place(s.number, s.size, s.sha256, f"{{home}}/.mine/{s.name}") for s in found)

    async def digests(self, what: str) -> None:
        """Of beginnings, of all of it, and of nothing."""
        main, none = await self.path("main.jsonl"), await self.path("nowhere")
        checks = [("digest", f"{length} {path}") for length, path in ((4, main), (0, main), (999, main), (4, none))]
        reached = await self.connection.look(FLEET, checks)
        self.trace.append((what, list(reached.digests.values())))

    def said(self, what: str) -> None:
        """What lies in the store."""
        self.trace.append((what, [self.files.read(name) for name in ("main.jsonl", "notes.log")]))

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
        "attached": seen.attached,
        "store": seen.facts.store and [(f.path.rpartition("/")[2], f.size) for f in seen.facts.store],
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
    await told.launch("started again", "a", 2, "serve", conversation="c-2")
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
    await told.operate("forgotten", forget_operation(drivers.runtime("process"), FENCED, "op-f", "n", "a", 2), "n")
    await told.look("what is left")
    await told.stop("the last one", "b", 2)
    await told.operate("given back", release_operation(FENCED, "n"), "n")
    await told.operate("a lease of somebody else", lease_operation(ONE, "n"), "n")
    await told.look("the end")


async def slow(told: Told) -> None:
    """A launch that was given up does not come up later."""
    told.files.late()
    await told.launch("given up", "s", 1, "serve", wait=1)
    await asyncio.sleep(4)
    await told.look("it saw that it is not wanted")
    await told.launch("started in time", "s", 2, "serve")
    await told.stop("ended", "s", 2)


async def copies(told: Told) -> None:
    """Conversations: what is new is read, what is lacking is put in place, and what a failed resume did is undone."""
    told.files.write("main.jsonl", b"one\ntwo\n", None)
    await told.pull("all of it")
    await told.pull("nothing new")
    told.files.write("main.jsonl", b"one\ntwo\nthree\nfo", 1_700_000_000)
    told.files.write("notes.log", b"note", 1_700_000_000)
    await told.pull("a tail, without the torn line, and a second file")
    await told.pull("as it was at the last sync")
    await told.digests("digests")
    told.files.write("main.jsonl", b"one\n", 1_700_000_001)
    await told.pull("only a beginning is left")
    places = await told.stage("what is lacking")
    probes = (Probe("store", "store", "{home}/.mine/{session_id}.*"),)
    more: dict[str, Any] = {"conversation": ID, "probes": probes, "snapshot": (await told.path("main.jsonl"),)}
    await told.launch("with the archive's copy", "m", 1, "serve", places=places, **more)
    await told.look("it has all of it")
    told.said("put in place")
    told.files.write("main.jsonl", b"one\ntwo\nthree\nother\n", None)
    await told.operate("the way back", restore_operation(
        told.runtime, FENCED, "back", "n", session="m", expect=1, record=record("m", 1, conversation=ID)
    ), "n")  # fmt: skip
    told.said("as before")
    told.files.write("main.jsonl", b"one\ntwo\nand more of it, elsewhere\n", None)
    await told.pull("two ends")
    await told.pull("two ends, seen again")
    places = await told.stage("a beginning that is none")
    told.files.write("main.jsonl", b"eno\n", None)
    places = await told.stage("another beginning that is none")
    whole = await told.stage("all of it, since nothing is known there", known=False)
    await told.launch("where another copy lies", "m", 2, "serve", places=whole, **more)
    told.said("left as it was")
    told.files.write("main.jsonl", b"one\ntwo\nthree\nfour\n", None)
    whole = await told.stage("again", known=False)
    await told.launch("where a longer copy lies", "m", 3, "serve", places=whole, **more)
    told.said("the longer one stays")
    await told.look("it goes on")


async def names(told: Told) -> None:
    """Another name."""
    rename = rename_operation(told.runtime, FENCED, "rename", "n", session="m", expect=3, record=record("k", 3))
    await told.operate("renamed", rename, "n")
    await told.operate("renamed again by the same operation", rename, "n")
    await told.stop("stopped under the name that it had", "m", 3)
    late = record_operation(FENCED, "late", "n", record("m", 3), 3)
    await told.operate("what was learned of it under the name that it had", late, "n")
    await told.look("under its other name")
    await told.stop("stopped under its other name", "k", 3)
    await told.launch("somebody else takes the name", "m", 1, "serve")
    await told.look("both")
    taken = rename_operation(told.runtime, FENCED, "rename-2", "n", session="k", expect=3, record=record("a", 3))
    await told.operate("renamed to what is there", taken, "n")
    await told.stop("the last one of all", "m", 1)
    await told.look("the end of names")


async def story(connection: Connection, strategy: str, files: Files, archive: Path) -> Trace:
    told = Told(connection, strategy, files, Archive(archive))
    try:
        for part in (leases, lives, slow, copies, names, ends):
            await part(told)
    finally:
        await connection.close()
    return told.trace


def simulated(strategy: str, archive: Path) -> Trace:
    async def work() -> Trace:
        machine = Machine("gpu")
        machine.missing |= {"nowhere", "/nowhere"}
        base = f"{HOME}/.mine/{ID}."

        def write(name: str, content: bytes, mtime: int | None) -> None:
            machine.store.files[base + name] = Stored(content, machine.now() if mtime is None else mtime)

        def read(name: str) -> bytes | None:
            return machine.store.files[base + name].content if base + name in machine.store.files else None

        def late() -> None:
            machine.late = 3.0

        async def connect(name: str, host: Host) -> Transport:
            return SimulatedTransport(Line(lambda _argv, _stdin: None), machine)

        return await story(Connection("gpu", Host(), connect), strategy, Files(read, write, late), archive)

    return clock.run(work)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory whose login shell finds the programs; short, for the socket of tmux."""
    directory = Path(tempfile.mkdtemp(prefix="rc-"))
    (directory / "bin").mkdir()
    for name, body in PROGRAMS.items():
        (directory / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / "bin" / name).chmod(0o700)
    (directory / ".profile").write_text(PROFILE)
    yield directory
    state = directory / ".local/state/reconciler" / FLEET
    subprocess.run(["tmux", "-S", state / "tmux", "kill-server"], capture_output=True, check=False)
    for noted in state.glob("*/*/process.*"):
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            os.kill(int(noted.read_text().split()[0]), signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def real(strategy: str, home: Path, archive: Path) -> Trace:
    environment = {"HOME": str(home), "SHELL": "/bin/sh", "PATH": os.environ["PATH"]}
    (home / ".mine").mkdir()

    def write(name: str, content: bytes, mtime: int | None) -> None:
        path = home / ".mine" / f"{ID}.{name}"
        path.write_bytes(content)
        if mtime is not None:
            os.utime(path, (mtime, mtime))

    def read(name: str) -> bytes | None:
        path = home / ".mine" / f"{ID}.{name}"
        return path.read_bytes() if path.exists() else None

    def late() -> None:
        (home / "late").touch()

    async def connect(name: str, host: Host) -> Transport:
        return await local.connect(name, env=environment)

    work: Callable[[], Coroutine[Any, Any, Trace]] = lambda: story(  # noqa: E731
        Connection("gpu", Host(), connect), strategy, Files(read, write, late), archive
    )
    return asyncio.run(work())


@pytest.mark.parametrize("strategy", ["process", "tmux"])
def test_the_simulated_shell_tells_the_same_story_as_the_real_one(strategy: str, home: Path, tmp_path: Path) -> None:
    if strategy == "tmux" and shutil.which("tmux") is None:
        pytest.fail("tmux is needed")
    expected, found = real(strategy, home, tmp_path / "real"), simulated(strategy, tmp_path / "simulated")
    assert [what for what, _ in expected] == [what for what, _ in found]
    different = {
        what: (truth, model) for (what, truth), (_, model) in zip(expected, found, strict=True) if truth != model
    }
    assert not different
