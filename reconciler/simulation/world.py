"""A fleet of simulated machines with controllers at work on it, and what has to hold at every moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from reconciler.core.plan import Plan
from reconciler.core.spec import Host
from reconciler.core.steps import ForgetStep, LaunchStep, ReadyStep, RecordStep, RenameStep, SendStep, StopStep
from reconciler.errors import HostError
from reconciler.hosts import Hosts
from reconciler.journal import Journal
from reconciler.simulation.agents import Kinds, Program, kind_of
from reconciler.simulation.machine import Files, Machine
from reconciler.simulation.stores import name_of, whole_lines
from reconciler.simulation.texts import parse_operation
from reconciler.simulation.transport import Line, SimulatedTransport
from reconciler.transcripts.archive import Archive
from reconciler.transports import Transport

UNPLANNED = ("lease", "renew", "unlease")  # operations that serve no action of a plan


class Broken(AssertionError):
    """An invariant of the safety contract does not hold."""


class World:
    """Machines, journals of two controllers, and everything that was ever said or written."""

    def __init__(
        self, directory: Path, hosts: Iterable[str], broken: Callable[[Broken], object], secret: str = "",
        kinds: Kinds = kind_of,
    ) -> None:  # fmt: skip
        """`broken` is told of what is found inside a machine, `secret` may stand in the environment of agents alone,
        `kinds` says what kind of program a launch starts."""
        names = dict.fromkeys(("local", *hosts))
        self.machines = {name: Machine(name, self._spawned, self._written, kinds) for name in names}
        self.broken = broken
        self.secret = secret
        self.directory = directory
        self.crowded = False  # whether two controllers were at work at once
        self.silent: dict[str, set[str]] = {}  # by controller: the hosts that did not answer when it planned
        self.twice = False  # whether a session began on a host while it ran on one that was silent
        self.spoilt = False  # whether somebody else changed or lost files of conversations
        self.kept: set[tuple[str, bytes]] = set()  # by name: what is known to have been in files of conversations

    # -- invariants at every moment ----------------------------------------------------------------------------

    def _spawned(self, machine: Machine, program: Program) -> None:
        """I3: never two live processes of one session or on one conversation."""
        forgotten = {noted.pid for files in machine.forgotten for noted in files.processes.values()}
        for other in self.machines.values():
            left = {noted.pid for files in other.forgotten for noted in files.processes.values()}
            for running in other.programs.values():
                if running is program or not running.begun:
                    continue
                if running.session == program.session and running.pid not in left and program.pid not in forgotten:
                    self._found_twice(other, program)
                if program.conversation and running.conversation == program.conversation:
                    self.broken(Broken(f"I3: two live processes on conversation {program.conversation}"))

        # Who changes a file after it was looked at is not noticed before the next look.
        if program.resumes and not self.crowded and machine.tampered < machine.looked:
            self._check_resumed(machine, program)

    def _found_twice(self, other: Machine, program: Program) -> None:
        """One session runs on two hosts. Only a controller that has never seen it, while its host is silent, may
        begin another conversation of that name: nothing that it reaches knows of the first one."""
        if self.crowded and not program.resumes and other.name in set[str]().union(*self.silent.values()):
            self.twice = True
        else:
            self.broken(Broken(f"I3: two live processes of session.{program.session}"))

    def _check_resumed(self, machine: Machine, program: Program) -> None:
        """I6: what goes on, goes on with all that the archive has of it."""
        mine = {name_of(path): machine.store.get(path) for path in program.paths}
        for name, content in self._archived("one", program.conversation or ""):
            if not mine.get(name, content).startswith(content):
                self.broken(Broken(
                    f"I6: session.{program.session} goes on at {machine.name} with less than is archived: {name}, "
                    f"{len(mine[name])} of {len(content)} bytes"
                ))  # fmt: skip

    def _written(self, path: str, before: bytes, after: bytes) -> None:
        """I6: our program only ever appends to a file of a conversation, but for a line that was torn when its writer
        died, and for the way back of a failed resume."""
        if after.startswith(whole_lines(path, before)):
            return
        kept = {copy for m in self.machines.values() for f in m.sessions.values() for copy in f.failed.values()}
        if before not in kept:
            self.broken(Broken(f"I6: {path} was rewritten: {len(before)} bytes, {len(after)} now"))

    def archive(self, controller: str) -> Path:
        """Where a controller keeps its archive."""
        return self.directory / f"{controller}-archive"

    def _archived(self, controller: str, conversation: str = "", everything: bool = False) -> list[tuple[str, bytes]]:
        """Names and contents of what an archive has, of one conversation or of all."""
        archive = Archive(self.archive(controller))
        found = []
        for session in archive.storage.names(""):
            for name in archive.storage.names(session) if not session.startswith(".") else ():
                if name.startswith(".") or conversation not in ("", name):
                    continue
                archived = archive.get(session, name)
                for file in archived.files.values() if archived and not (archived.diverged and not everything) else ():
                    found.append((f"{name}/{file.name}", b"".join(archive.read(session, name, file.name))))
                below = f"{session}/{name}/diverged"
                for copy in archive.storage.names(below) if everything else ():
                    for kept in archive.storage.names(f"{below}/{copy}"):
                        found.append((f"{name}/{kept}", b"".join(archive.storage.chunks(f"{below}/{copy}/{kept}"))))
        return found

    def _copies(self) -> set[tuple[str, bytes]]:
        """All copies of files of conversations, wherever they lie."""
        found = {copy for controller in ("one", "two") for copy in self._archived(controller, everything=True)}
        for machine in self.machines.values():
            found |= {(name_of(path), file.content) for path, file in machine.store.files.items()}
        return {(name, whole) for name, content in found if (whole := whole_lines(name, content))}

    def check_copies(self) -> None:
        """I6: what was in a file of a conversation is in one still."""
        there = self._copies()
        lost = self.kept - there
        kept_back = {copy for m in self.machines.values() for f in m.sessions.values() for copy in f.failed.values()}
        for name, content in lost:
            if not any(n == name and c.startswith(content) for n, c in there) and content not in kept_back:
                raise Broken(f"I6: {len(content)} bytes of {name} are nowhere any more")
        self.kept = there

    def forget_copies(self) -> None:
        """Something happened for which the program is not to blame."""
        self.spoilt = True
        self.kept = self._copies()

    def sent(self, argv: str, stdin: bytes) -> None:
        """I9: a secret value travels in the exports of a launch and nowhere else."""
        text = stdin.decode()
        if self.secret and self.secret in argv + text:
            settings = parse_operation(text).settings
            where = [name for name, value in settings.items() if self.secret in value]
            if where != ["EXPORTS"]:
                self.broken(Broken(f"I9: a secret is in {where or 'the script'}"))

    def check_fences(self) -> None:
        """I8: what acted on a host never carried a smaller fence than what acted before."""
        for machine in self.machines.values():
            fences = [int(op["FENCE"]) for op in machine.arrived]
            if fences != sorted(fences):
                raise Broken(f"I8: {machine.name} obeyed an older controller: {fences}")

    # -- controllers -------------------------------------------------------------------------------------------

    def journal(self, controller: str) -> Journal:
        """The one that a controller writes; another one of that name finds it again."""
        return Journal(self.directory / f"{controller}.sqlite")

    def connect(self, line: Line) -> Hosts:
        """The machines as hosts of one controller."""

        async def connect(name: str, host: Host) -> Transport:
            machine = self.machines[name]
            fault = line.next_fault(machine) if line.dead else ""
            if machine.silent or machine.trouble == "hang":
                line.unseen.add(name)
                await asyncio.sleep(host.connection_timeout)
                raise HostError(
                    f"{name}: no answer within {host.connection_timeout:g} s", code="timed-out", remedy=f"ping {name}"
                )
            if fault or not machine.up:
                line.unseen.add(name)
                raise HostError(f"{name}: connection refused", code="refused", remedy=f"start {name}")
            return SimulatedTransport(line, machine)

        return Hosts(connect)

    # -- at rest -----------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """All faults stop."""
        for machine in self.machines.values():
            machine.up, machine.disk_full, machine.power_after = True, False, None
            machine.silent, machine.trouble = False, ""
            machine.late = 0.0
            machine.missing.clear()

    def files(self) -> str:
        """All text that lies on hosts or in journals."""
        parts = [path.read_bytes().decode("latin-1") for path in self.directory.iterdir() if path.is_file()]
        for path, file in ((p, f) for m in self.machines.values() for p, f in m.store.files.items()):
            parts += [path, file.content.decode()]
        for machine in self.machines.values():
            parts += [*machine.ops.values(), machine.lease[1], machine.local]
            for files in (*machine.sessions.values(), *machine.forgotten):
                parts += [files.record or "", files.launch, files.conversation, json.dumps(list(files.exits.values()))]
            for program in machine.programs.values():
                parts.append(" ".join(program.argv))
        return "\n".join(parts)

    def live(self, name: str) -> list[tuple[Machine, Files, Program]]:
        """The live processes of a session that is managed."""
        return [
            (machine, machine.sessions[name], machine.programs[noted.pid])
            for machine in self.machines.values()
            if name in machine.sessions
            for noted in machine.sessions[name].processes.values()
            if machine.alive(noted)
        ]


_OPERATIONS = {
    LaunchStep: "op_launch", StopStep: "op_stop", SendStep: "op_send", RecordStep: "op_record",
    ForgetStep: "op_forget", RenameStep: "op_rename",
}  # fmt: skip


def planned(plan: Plan) -> set[tuple[str, str, str, str]]:
    """Host, operation, session and incarnation of every step of a plan."""
    found = set()
    for action in plan.effective:
        for step in (*action.steps, *action.fallback):
            if isinstance(step, LaunchStep | StopStep | SendStep | RecordStep | ForgetStep | RenameStep):
                found.add((step.host, _OPERATIONS[type(step)], step.session, str(step.expect)))
            if isinstance(step, LaunchStep) and step.snapshot:
                found.add((step.host, "op_restore", step.session, str(step.record.incarnation)))
            elif isinstance(step, ReadyStep) and step.learn:
                found.add((step.host, "op_record", step.session, str(step.incarnation)))
    return found
