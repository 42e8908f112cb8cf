"""A simulated host: what the scripts in reconciler/runtimes/scripts do to a real one, step by step in virtual time.

Every `await self.step()` is a moment at which the power may go; everything between two of them happens at once.
Held to the real shell by test_contract. What a look finds of it is in look.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.agents import Program, begin
from tests.simulation.texts import Operation, exported, launch_argv

EPOCH = 1_800_000_000
HOME = "/home/me"
TURN = "(a headless turn)"


class Refused(Exception):
    """`fail CODE SENTENCE` of the guard."""

    def __init__(self, code: str, message: str = "", **more: object) -> None:
        super().__init__(code)
        self.answer = {"ok": False, "code": code, **({"message": message} if message else {}), **more}


@dataclass
class Noted:
    """A process file: what the agent's shell wrote of itself."""

    pid: int
    start: str
    boot: str
    group: int


@dataclass
class Files:
    """One directory below sessions/."""

    incarnation: int = 0
    record: str | None = None
    conversation: str = ""
    launch: str = ""
    probe: str = ""  # the key of the one thing that a look looks for
    processes: dict[int, Noted] = field(default_factory=dict)
    exits: dict[int, dict[str, Any]] = field(default_factory=dict)


class Machine:
    """One host. `power_cut` ends all that runs there; what was written stays."""

    def __init__(self, name: str, spawned: Callable[[Machine, Program], None] = lambda _m, _p: None) -> None:
        self.name = name
        self.spawned = spawned
        self.boot = 1
        self.skew = 0.0
        self.up = True
        self.disk_full = False
        self.tmux = True
        self.missing: set[str] = set()  # commands and directories that are not there
        self.fence = 0
        self.local = ""
        self.lease: tuple[int, str] = (0, "")
        self.ops: dict[str, str] = {}
        self.sessions: dict[str, Files] = {}
        self.forgotten: list[Files] = []
        self.programs: dict[int, Program] = {}
        self.panes: dict[str, int] = {}
        self.transcripts: dict[str, list[str]] = {}
        self.arrived: list[Operation] = []
        self.power_after: int | None = None
        self.cut = asyncio.Event()
        self.locks: dict[str, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pids = 100

    # -- time and power ----------------------------------------------------------------------------------------

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> int:
        return int(EPOCH + self.time() + self.skew)

    async def step(self) -> None:
        if self.power_after is not None:
            self.power_after -= 1
            if self.power_after < 0:
                self.power_cut()
        await asyncio.sleep(0.01)

    def power_cut(self) -> None:
        """Everything that runs is gone, and every connection; the machine boots again."""
        self.power_after = None
        self.boot += 1
        self.programs.clear()
        self.panes.clear()
        self.locks.clear()
        for task in self._tasks:
            task.cancel()
        self.cut.set()
        self.cut = asyncio.Event()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Something that runs on this machine and ends with it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- processes ---------------------------------------------------------------------------------------------

    def alive(self, noted: Noted) -> bool:
        program = self.programs.get(noted.pid)
        return noted.boot == f"boot-{self.boot}" and program is not None and program.start == noted.start

    def live(self, files: Files) -> Noted | None:
        return next((noted for noted in files.processes.values() if self.alive(noted)), None)

    def end(self, pid: int, code: int, *, written: bool = True) -> None:
        """A program ends; its wrapper writes how, unless it dies with it."""
        program = self.programs.pop(pid, None)
        if program is None:
            return
        for files in (*self.sessions.values(), *self.forgotten):
            noted = files.processes.get(program.incarnation)
            if written and noted is not None and noted.pid == pid and not self.disk_full:
                files.exits[program.incarnation] = self._exit(code, program.incarnation)

    def _exit(self, code: int, incarnation: int, error: str = "", detail: str = "") -> dict[str, Any]:
        return {"code": code, "at": self.now(), "incarnation": incarnation, "error": error, "detail": detail}

    async def _wrapper(self, name: str, files: Files, exports: str, incarnation: int) -> None:
        await asyncio.sleep(0.1)
        settings, argv = launch_argv(files.launch)
        for missing, code, error in ((settings["workdir"], 1, "workdir-missing"), (argv[0], 127, "agent-missing")):
            if missing in self.missing:
                files.exits[incarnation] = self._exit(code, incarnation, error, missing)
                return
        files.probe = "store" if r"\t%s\n' store" in files.launch else ""
        self._pids += 10
        program = Program(
            self._pids, str(self._pids * 7 + self.boot), name, incarnation, argv, exported(exports), self.time()
        )
        files.processes[incarnation] = Noted(program.pid, program.start, f"boot-{self.boot}", program.pid - 1)
        if files.incarnation != incarnation:
            files.exits[incarnation] = self._exit(75, incarnation)
            return
        begin(program)
        self.programs[program.pid] = program
        self.spawned(self, program)
        ending = program.ends(self.transcripts)
        for words in program.said if ending is None or not ending[1] else ():
            # A task that is cut short is given its prompt again; a message to a service is not.
            self.hear(program, words if ending is None else TURN)
        if ending is not None:
            await asyncio.sleep(ending[0])
            self.end(program.pid, ending[1])

    def hear(self, program: Program, words: str) -> None:
        """A message reaches an agent: its conversation has it from now on."""
        program.busy_until = self.time() + 3.0
        if program.conversation is not None:
            self.transcripts.setdefault(program.conversation, []).append(words)

    # -- the guard ---------------------------------------------------------------------------------------------

    async def perform(self, op: Operation) -> str:
        """One operation under the guard; its answer as JSON."""
        task = asyncio.current_task()
        assert task is not None
        try:
            done = await self._guard(op, task)
            if done is None:
                done = await self._act(op)
                await self._put(lambda: self.ops.update({op["OP"]: done or ""}))
            return done
        except Refused as refused:
            return json.dumps(refused.answer)
        finally:
            for name in [name for name, holder in self.locks.items() if holder is task]:
                del self.locks[name]

    async def _put(self, write: Callable[[], object]) -> None:
        await self.step()
        if self.disk_full:
            raise Refused("disk-full", "cannot write")
        write()

    async def _take(self, name: str, seconds: float, task: asyncio.Task[Any]) -> None:
        waited = 0.0
        while name in self.locks:
            if waited > seconds:
                raise Refused("locked", f"another operation is at work on {name}")
            await asyncio.sleep(0.1)
            waited += 0.1
        self.locks[name] = task

    async def _guard(self, op: Operation, task: asyncio.Task[Any]) -> str | None:
        await self._put(lambda: None)
        await self._take("host", 10, task)
        until, holder = self.lease
        foreign = bool(holder) and holder != op["HOLDER"] and until > self.now()
        fence = int(op["FENCE"])
        if op["OP"] == "lease":
            if foreign and holder != op["DEAD"]:
                raise Refused("lease-held", f"{holder} holds the lease for another {until - self.now()} s")
            fence = self.fence + 1
            if op["LOCAL"] and not self.local:
                await self._put(lambda: setattr(self, "local", op["LOCAL"]))
        elif fence < self.fence:
            raise Refused("fence-stale", f"this host has seen fence {self.fence}, newer than ours ({fence})")
        elif foreign:
            raise Refused("lease-held", f"{holder} holds the lease for another {until - self.now()} s")
        if fence > self.fence:
            await self._put(lambda: setattr(self, "fence", fence))
        await self._put(lambda: setattr(self, "lease", (self.now() + int(op["TTL"]), op["HOLDER"])))
        if op["OP"] == "lease":
            return json.dumps({"ok": True, "fence": fence, "now": self.now()})
        if op["OP"] == "unlease":
            await self._put(lambda: setattr(self, "lease", (0, op["HOLDER"])))
            return '{"ok":true}'
        if op["OP"] == "renew":
            return '{"ok":true}'
        await self._take(op.lock, 30, task)
        del self.locks["host"]
        return self.ops.get(op["OP"])

    async def _act(self, op: Operation) -> str:
        self.arrived.append(op)
        await self.step()
        files = self.sessions.get(op["NAME"]) or Files()
        if op.name == "op_launch":
            self.sessions[op["NAME"]] = files
        if files.incarnation != int(op["EXPECT"]):
            raise Refused("stale", f"session {op['NAME']} is at incarnation {files.incarnation}")
        match op.name:
            case "op_launch":
                return await self._launch(op, files)
            case "op_stop":
                return await self._stop(op, files)
            case "op_send":
                return await self._send(op, files)
            case "op_record":
                await self._put(lambda: setattr(files, "conversation", op["CONVERSATION"] or files.conversation))
                await self._put(lambda: setattr(files, "record", op["RECORD"]))
            case "op_forget":
                self.forgotten.append(self.sessions.pop(op["NAME"]))
            case _:
                raise AssertionError(f"the simulated shell does not know {op.name}")
        return '{"ok":true}'

    async def _launch(self, op: Operation, files: Files) -> str:
        if op.strategy == "tmux" and not self.tmux:
            raise Refused("tmux-missing", "tmux is not on the PATH")
        incarnation = int(op["INCARNATION"])
        await self._put(lambda: setattr(files, "incarnation", incarnation))
        if live := self.live(files):
            await self._put(lambda: setattr(files, "incarnation", int(op["EXPECT"])))
            raise Refused("already-running", f"pid {live.pid} lives")
        files.exits.clear()
        files.processes.clear()
        if not files.conversation or files.conversation != op["CONVERSATION"]:
            await self._put(lambda: setattr(files, "probe", "unbegun"))
        await self._put(lambda: setattr(files, "record", op["RECORD"]))
        await self._put(lambda: setattr(files, "conversation", op["CONVERSATION"]))
        await self._put(lambda: setattr(files, "launch", op["LAUNCH"]))
        await self.step()
        if op.strategy == "tmux":
            self.panes[op["NAME"]] = incarnation
        self.spawn(self._wrapper(op["NAME"], files, op["EXPORTS"], incarnation))
        for _ in range(250):
            if incarnation in files.processes or incarnation in files.exits:
                break
            await asyncio.sleep(0.1)
        if incarnation in files.exits and incarnation not in files.processes:
            raise Refused("launch", exit=files.exits[incarnation])
        if incarnation not in files.processes:
            raise Refused("failed", "it did not start within 25 s")
        return json.dumps({"ok": True, "pid": files.processes[incarnation].pid})

    async def _stop(self, op: Operation, files: Files) -> str:
        how = "gone"
        if live := self.live(files):
            await self.step()
            how = "keys" if op.strategy == "tmux" and op["KEYS"] else op["SIGNAL"]
            self.end(live.pid, 0 if how == "keys" else 143)
            await asyncio.sleep(0.2)
        self.panes.pop(op["NAME"], None)
        await self._put(lambda: setattr(files, "record", op["RECORD"]))
        return json.dumps({"ok": True, "how": how})

    async def _send(self, op: Operation, files: Files) -> str:
        live = self.live(files)
        if live is None:
            raise Refused("stale", "it has no live process to send to")
        await self._put(lambda: None)
        if op.strategy == "process":
            raise Refused("no-terminal", "a session of the strategy process has no terminal to send to")
        if op["RECORD"]:
            await self._put(lambda: setattr(files, "record", op["RECORD"]))
        await self.step()
        if program := self.programs.get(live.pid):
            self.hear(program, op["TEXT"])
        return '{"ok":true}'
