"""A simulated host: what the scripts in reconciler/runtimes/scripts do to a real one, step by step in virtual time.

Every `await self.step()` is a moment at which the power may go; everything between two of them happens at once.
Held to the real shell by test_contract. What a look finds of it is in look.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from reconciler.simulation.agents import LIVELY, TURN, Kinds, Program, begin, kind_of
from reconciler.simulation.stores import HOME, Store, line_of, parse_launch, sha, whole_lines
from reconciler.simulation.texts import Operation, exported, launch_argv

Fault = Literal[
    "", "before", "during", "after", "cut", "garbage", "slow", "hang", "silence", "power-2", "power-5", "power-8"
]  # fmt: skip
EPOCH = 1_800_000_000


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
    probes: tuple[tuple[str, str, str], ...] = ()  # kind, key and path template of what a look looks for
    incoming: dict[int, bytes] = field(default_factory=dict)
    snapshot: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    failed: dict[int, bytes] = field(default_factory=dict)
    processes: dict[int, Noted] = field(default_factory=dict)
    exits: dict[int, dict[str, Any]] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)  # launches that were given up


class Machine:
    """One host. `power_cut` ends all that runs there; what was written stays."""

    def __init__(
        self,
        name: str,
        spawned: Callable[[Machine, Program], None] = lambda _m, _p: None,
        written: Callable[[str, bytes, bytes], None] = lambda _p, _b, _a: None,
        kinds: Kinds = kind_of,
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.spawned = spawned
        self.store = Store(self.now, written)
        self.boot = 1
        self.skew = 0.0
        self.up = True
        self.silent = False  # whether what is sent there does not arrive, and nobody is told so
        self.trouble: Fault = ""  # what is wrong with every call
        self.links_cut = 0  # how often all connections to it were lost
        self.disk_full = False
        self.tmux = True
        self.missing: set[str] = set()  # commands and directories that are not there
        self.late = 0.0  # seconds that the next launch takes longer than others: a slow profile, say
        self.looked = self.tampered = 0.0  # when somebody looked, and when somebody changed files, last
        self.fence = 0
        self.local = ""
        self.lease: tuple[int, str] = (0, "")
        self.ops: dict[str, str] = {}
        self.sessions: dict[str, Files] = {}
        self.forgotten: list[Files] = []
        self.programs: dict[int, Program] = {}
        self.panes: dict[str, tuple[int, asyncio.Task[Any]]] = {}  # the incarnation in it, and its first process
        self.links: dict[str, str] = {}  # a name that a session had before -> the name it has
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
        self.drop_connections()

    def drop_connections(self) -> None:
        """sshd was killed, say: what runs goes on, and nobody hears of it."""
        self.links_cut += 1
        self.cut.set()
        self.cut = asyncio.Event()

    def lose_disk(self) -> None:
        """The machine comes back with nothing on it."""
        self.power_cut()
        self.fence, self.local, self.lease = 0, "", (0, "")
        for kept in (self.ops, self.sessions, self.links, self.store.files):
            kept.clear()
        self.forgotten.clear()
        self.arrived.clear()

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
        late, self.late = self.late, 0.0
        launch = files.launch  # the shell has begun to read it: a later launch writes another file
        await asyncio.sleep(0.1 + late)
        settings, argv = launch_argv(launch)
        for missing, code, error in ((settings["workdir"], 1, "workdir-missing"), (argv[0], 127, "agent-missing")):
            if missing in self.missing:
                files.exits[incarnation] = self._exit(code, incarnation, error, missing)
                return
        workdir = settings["workdir"].replace("~", HOME, 1)
        launched = parse_launch(launch, workdir, name, settings["fleet"])
        files.probes = launched.probes
        done = True
        for line in launched.lines:
            await self.step()
            try:
                done = self._line(files, *line)
            except Refused as refused:
                if not self.disk_full:
                    files.exits[incarnation] = self._exit(1, incarnation, str(refused), str(refused.answer["message"]))
                return
        self._pids += 10
        start, environment = str(self._pids * 7 + self.boot), exported(exports)
        kind, task = self.kinds(files.record or "", argv), '"lifecycle":"task"' in (files.record or "")
        program = Program(self._pids, start, name, incarnation, argv, environment, self.time(), kind, task)
        if done and await self._become(files, program):
            begin(program, workdir, files.conversation, tuple(p for how, _, p in launched.probes if how == "store"))
            self.spawned(self, program)
            await self._run(program)

    async def _become(self, files: Files, program: Program) -> bool:
        """The shell of a launch notes itself, then looks whether it is still wanted: then it becomes the agent."""
        incarnation = program.incarnation
        if self.disk_full:
            return False  # what cannot note itself does not start
        files.processes[incarnation] = Noted(program.pid, program.start, f"boot-{self.boot}", program.pid - 1)
        self.programs[program.pid] = program
        await self.step()
        if files.incarnation != incarnation or incarnation in files.withdrawn:
            self.end(program.pid, 75)
        return program.pid in self.programs

    async def _run(self, program: Program) -> None:
        ending = program.ends(self.store.files)
        self.spawn(self._live(program))
        for words in program.said if ending is None or not ending[1] else ():
            # A task that is cut short is given its prompt again; a message to a service is not.
            self.hear(program, words if ending is None else TURN)
        if ending is not None:
            await asyncio.sleep(ending[0])
            self.end(program.pid, ending[1])

    def _line(self, files: Files, word: str, *rest: str) -> bool:
        """One line of a launch that keeps or places files of a conversation; whether the shell calls it a success."""
        match word:
            case "rm":
                files.snapshot, files.failed = ({}, {}) if "snapshot" in rest[-1] else (files.snapshot, files.failed)
                files.incoming = {} if "incoming" in rest[-1] else files.incoming
            case "keep":
                path, number = rest
                if path in self.store.files and self.disk_full:
                    return False
                if path in self.store.files:
                    files.snapshot[int(number)] = (path, self.store.get(path))
            case "place":
                self._place(files, int(rest[0]), int(rest[1]), rest[2], rest[3])
        return True

    def _place(self, files: Files, number: int, size: int, digest: str, path: str) -> None:
        """As `place` of launch.sh."""
        ours, there = files.incoming.get(number), self.store.get(path)
        if ours is None or sha(ours) != digest:
            raise Refused("sync-failed", f"what was staged for {path} is not what was sent")
        assert len(ours) == size
        if len(there) > size and there[:size] == ours:
            return
        whole = whole_lines(path, there)
        if len(whole) > size or ours[: len(whole)] != whole:
            raise Refused("diverged", f"{path} and the archive's copy differ within {len(whole)} bytes")
        if self.disk_full:
            raise Refused("disk-full", f"cannot write {path}")
        self.store.put(path, ours)

    async def _live(self, program: Program) -> None:
        """As long as there is something to do, the conversation grows; now and then a line is written in two parts."""
        while self.programs.get(program.pid) is program:
            await asyncio.sleep(0.7 if self.time() - program.stirred < LIVELY else 30.0)
            if self.programs.get(program.pid) is program and self.time() - program.stirred < LIVELY + 1:
                self._write(program, "")

    def _write(self, program: Program, words: str) -> None:
        """The next line of a conversation, or half of one; a message always as a whole."""
        if not program.paths or self.disk_full or (not words and program.paths[0] not in self.store.files):
            return
        program.written += 1
        rest, program.torn = program.torn, b""
        line = line_of(program.written, words, self.name)
        if not words and program.written % 3 == 0:
            line, program.torn = line[:9], line[9:]
        self.store.append(program.paths[0], rest + line)
        for path in program.paths[1:] if program.written % 2 else ():
            self.store.append(path, b"note")

    def hear(self, program: Program, words: str) -> None:
        """A message reaches an agent: its conversation has it from now on."""
        program.busy_until = self.time() + 3.0
        program.stirred = self.time()
        self._write(program, words)

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
        until = until if until <= self.now() + 600 else 0  # no lease lasts so long: the clock was set back
        foreign = bool(holder) and holder != op["HOLDER"] and until > self.now()
        fence = int(op["FENCE"])
        if op["OP"] == "lease":
            if foreign and holder != op["DEAD"]:
                raise Refused("lease-held", f"{holder} holds the lease for another {until - self.now()} s")
            fence = self.fence + (2 if holder not in ("", op["HOLDER"]) and self.lease[0] else 1)
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
            await self._put(lambda: setattr(self, "fence", fence + 1))
            return '{"ok":true}'
        if op["OP"] == "renew":
            return '{"ok":true}'
        await self._take(op.lock, 30, task)
        del self.locks["host"]
        return self.ops.get(op["OP"])

    async def _directory(self, op: Operation) -> str:
        """The session whose directory an operation works in: an older name is a link; only launches take it over."""
        name = self.links.get(op["NAME"], op["NAME"])
        if op.name != "op_launch" and name != op["NAME"]:
            raise Refused("stale", f"session {op['NAME']} is called {name} now")
        if name != op["NAME"]:
            if name in self.sessions and self.live(self.sessions[name]):
                raise Refused("name-taken", f"{name} still runs in the directory of the name {op['NAME']}")
            await self._put(lambda: self.links.pop(op["NAME"], None))
            name = op["NAME"]
        return name

    async def _act(self, op: Operation) -> str:
        self.arrived.append(op)
        await self.step()
        name = await self._directory(op)
        files = self.sessions.get(name) or Files()
        if op.name == "op_launch":
            self.sessions[name] = files
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
            case "op_rename":
                return await self._rename(op, files)
            case "op_restore":
                return await self._restore(op, files)
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
        self.links = {old: new for old, new in self.links.items() if new != op["NAME"]}
        files.exits.clear()
        files.processes.clear()
        files.withdrawn.clear()
        if not files.conversation or files.conversation != op["CONVERSATION"]:
            await self._put(lambda: setattr(files, "probes", (("store", "unbegun", "/nowhere"),)))
        await self._put(lambda: setattr(files, "record", op["RECORD"]))
        await self._put(lambda: setattr(files, "conversation", op["CONVERSATION"]))
        await self._put(lambda: setattr(files, "launch", op["LAUNCH"]))
        await self.step()
        wrapper = self.spawn(self._wrapper(op["NAME"], files, op["EXPORTS"], incarnation))
        if op.strategy == "tmux":
            self.panes[op["NAME"]] = incarnation, wrapper
        for _ in range(int(op["WAIT"]) * 10):
            if incarnation in files.processes or incarnation in files.exits:
                break
            await asyncio.sleep(0.1)
        if incarnation in files.exits and incarnation not in files.processes:
            raise Refused("launch", exit=files.exits[incarnation])
        if incarnation not in files.processes:
            await self._put(lambda: files.withdrawn.add(incarnation))
        if incarnation not in files.processes:
            raise Refused("failed", f"session {op['NAME']} did not start within {op['WAIT']} s")
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

    async def _restore(self, op: Operation, files: Files) -> str:
        how = "gone"
        if live := self.live(files):
            await self.step()
            how = op["SIGNAL"]
            self.end(live.pid, 143)
            await asyncio.sleep(0.2)
        self.panes.pop(op["NAME"], None)
        for number, (path, before) in files.snapshot.items():
            await self.step()
            if path not in self.store.files or self.store.get(path) == before:
                continue
            if self.disk_full:
                raise Refused("disk-full", f"cannot put {path} back")
            files.failed[number] = self.store.get(path)
            self.store.put(path, before)
        await self._put(lambda: setattr(files, "record", op["RECORD"]))
        return json.dumps({"ok": True, "how": how})

    async def _rename(self, op: Operation, files: Files) -> str:
        old, new = op["NAME"], op["TO"]
        task = asyncio.current_task()
        assert task is not None
        await self._take(f"session-{new}", 30, task)
        there = self.sessions.get(new)
        if there is not None and there.record is not None:
            raise Refused("stale", f"there is a session {new} already")
        self.links.pop(new, None)
        await self._put(lambda: None)
        if old in self.panes:
            self.panes[new] = self.panes.pop(old)
        await self.step()
        self.sessions[new] = self.sessions.pop(old)
        self.links[old] = new
        for program in self.programs.values():
            program.session = new if program.session == old else program.session
        await self.step()
        files.record = op["RECORD"]
        return '{"ok":true}'

    async def _send(self, op: Operation, files: Files) -> str:
        live = self.live(files)
        if live is None:
            raise Refused("stale", "it has no live process to send to")
        if op["HAS"] not in (files.record or ""):
            raise Refused("stale", "it was sent another prompt meanwhile")
        await self._put(lambda: None)
        if op.strategy == "process":
            raise Refused("no-terminal", "a session of the strategy process has no terminal to send to")
        if op["RECORD"]:
            await self._put(lambda: setattr(files, "record", op["RECORD"]))
        await self.step()
        if program := self.programs.get(live.pid):
            self.hear(program, op["TEXT"])
        return '{"ok":true}'
