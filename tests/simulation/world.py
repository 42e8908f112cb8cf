"""A fleet of simulated machines with controllers at work on it, and what has to hold at every moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.core.observed import Unreached
from reconciler.core.plan import Plan
from reconciler.core.printed import plan_json, recap, render
from reconciler.core.report import Report
from reconciler.core.spec import Desired, Host
from reconciler.core.steps import ForgetStep, LaunchStep, ReadyStep, RecordStep, RenameStep, SendStep, StopStep
from reconciler.errors import HostError, LeaseHeldError, ReconcilerError
from reconciler.hosts import Hosts
from reconciler.journal import Journal
from reconciler.reconcile import Pass, archive_all, carry_out, execution, preview
from reconciler.transcripts.archive import Archive
from reconciler.transports import Transport
from tests.simulation.agents import Program
from tests.simulation.machine import TURN, Files, Machine
from tests.simulation.specs import SECRET, FleetSpec
from tests.simulation.stores import name_of, whole_lines, words_of
from tests.simulation.texts import parse_operation
from tests.simulation.transport import Fault, Line, SimulatedTransport


class Broken(AssertionError):
    """An invariant of the safety contract does not hold."""


@dataclass
class Applied:
    """What one apply came to; `report` None: it was refused or died."""

    plan: Plan | None
    report: Report | None
    line: Line
    error: BaseException | None = None


class World:
    """Machines, journals of two controllers, and everything that was ever said or written."""

    def __init__(self, directory: Path, hosts: Iterable[str]) -> None:
        self.machines = {name: Machine(name, self._spawned, self._written) for name in ("local", *hosts)}
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
                    raise_later(Broken(f"I3: two live processes on conversation {program.conversation}"))

        # Who changes a file after it was looked at is not noticed before the next look.
        if program.resumes and not self.crowded and machine.tampered < machine.looked:
            self._check_resumed(machine, program)

    def _found_twice(self, other: Machine, program: Program) -> None:
        """One session runs on two hosts. Only a controller that has never seen it, while its host is silent, may
        begin another conversation of that name: nothing that it reaches knows of the first one."""
        if self.crowded and not program.resumes and other.name in set[str]().union(*self.silent.values()):
            self.twice = True
        else:
            raise_later(Broken(f"I3: two live processes of session.{program.session}"))

    def _check_resumed(self, machine: Machine, program: Program) -> None:
        """I6: what goes on, goes on with all that the archive has of it."""
        mine = {name_of(path): machine.store.get(path) for path in program.paths}
        for name, content in self._archived("one", program.conversation or ""):
            if not mine.get(name, content).startswith(content):
                raise_later(Broken(
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
            raise_later(Broken(f"I6: {path} was rewritten: {len(before)} bytes, {len(after)} now"))

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

    def age_archive(self, amount: int) -> None:
        """The archive of a controller is put back to what a backup had, or a backup is made."""
        backup = self.directory / "backup"
        if amount % 2 or not backup.exists():
            shutil.rmtree(backup, ignore_errors=True)
            if self.archive("one").exists():
                shutil.copytree(self.archive("one"), backup)
        else:
            shutil.rmtree(self.archive("one"), ignore_errors=True)
            shutil.copytree(backup, self.archive("one"))
            self.forget_copies()

    def _sent(self, argv: str, stdin: bytes) -> None:
        """I9: a secret value travels in the exports of a launch and nowhere else."""
        text = stdin.decode()
        if SECRET in argv + text:
            settings = parse_operation(text).settings
            where = [name for name, value in settings.items() if SECRET in value]
            if where != ["EXPORTS"]:
                raise_later(Broken(f"I9: a secret is in {where or 'the script'}"))

    def check_fences(self) -> None:
        """I8: what acted on a host never carried a smaller fence than what acted before."""
        for machine in self.machines.values():
            fences = [int(op["FENCE"]) for op in machine.arrived]
            if fences != sorted(fences):
                raise Broken(f"I8: {machine.name} obeyed an older controller: {fences}")

    def check_messages(self) -> None:
        """A message reaches a conversation once; what two controllers do about that, see test_known."""
        if self.crowded:
            return
        for machine in self.machines.values():
            for path, file in machine.store.files.items():
                said = words_of(file.content)
                again = {words for words in said if words not in ("p", TURN) and said.count(words) > 1}
                if again:
                    raise Broken(f"{path} was told twice: {again}")

    # -- controllers -------------------------------------------------------------------------------------------

    def journal(self, controller: str) -> Journal:
        return Journal(self.directory / f"{controller}.sqlite")

    def connect(self, line: Line) -> Hosts:
        async def connect(name: str, host: Host) -> Transport:
            machine = self.machines[name]
            fault = line.next_fault(machine) if line.dead else ""
            if fault or not machine.up:
                line.unseen.add(name)
                raise HostError(f"{name}: connection refused", code="refused", remedy=f"start {name}")
            return SimulatedTransport(line, machine)

        return Hosts(connect)

    async def apply(
        self,
        fleet: FleetSpec,
        faults: dict[str, list[Fault]] | None = None,
        dies_at: int | None = None,
        controller: str = "one",
        asked: float = 0.0,
        freezes_at: int | None = None,
    ) -> Applied:
        """One apply by one controller, with its faults; `asked` seconds lie between its plan and what it does. A dead
        controller leaves nothing tidy behind."""
        line = Line(self._sent)
        line.faults = {name: list(script) for name, script in (faults or {}).items()}
        line.dies_at, line.freezes_at = dies_at, freezes_at
        applied = Applied(None, None, line)
        journal = self.journal(controller)
        desired = fleet.desired()
        desired = replace(desired, fleet=desired.fleet.model_copy(update={"archive": str(self.archive(controller))}))
        work = asyncio.create_task(self._apply(desired, journal, applied, controller, asked))
        death = asyncio.create_task(line.died.wait())
        await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if line.dead:
            journal.close()  # before the cancellation: a dead process writes nothing more
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, ReconcilerError):
                await work
            applied.report = None
        else:
            await work
            journal.close()
        self._check_applied(applied)
        self._check_intents(applied, controller)
        return applied

    async def _apply(self, desired: Desired, journal: Journal, applied: Applied, controller: str, asked: float) -> None:
        async with self.connect(applied.line) as hosts:
            done = await preview(desired, hosts, journal)
            applied.plan = done.plan
            self._check_plan(done, applied.line)
            self.silent[controller] = {n for n, seen in done.observed.hosts.items() if isinstance(seen, Unreached)}
            await asyncio.sleep(asked)
            try:
                applied.report = await carry_out(execution(done, hosts, journal, lambda _: None), done, journal)
            except LeaseHeldError as error:
                applied.error = error
            self._check_silent(done, applied)
            if applied.report is not None:
                await archive_all(done, hosts)
        if applied.report is not None:
            self._check_public(recap(applied.report))

    def _check_plan(self, done: Pass, line: Line) -> None:
        """I4 and I9 of a plan: nothing is done yet, nothing on unknown hosts, no secret in any form of it."""
        if line.log:
            raise Broken("I5: a plan changed something")
        self._check_public(render(done.plan))
        self._check_public(json.dumps(plan_json(done.plan)))
        silent = {name for name, seen in done.observed.hosts.items() if isinstance(seen, Unreached)}
        acted = frozenset[str]().union(*(action.hosts for action in done.plan.effective))
        if acted & (silent | line.unseen):
            raise Broken(f"I4: actions on hosts that are unknown: {acted & (silent | line.unseen)}")

    def _check_silent(self, done: Pass, applied: Applied) -> None:
        silent = {name for name, seen in done.observed.hosts.items() if isinstance(seen, Unreached)}
        sent = {host for host, _ in applied.line.log}
        if silent & sent:
            raise Broken(f"I4: operations on hosts that are unknown: {silent & sent}")

    def _check_public(self, text: str) -> None:
        if SECRET in text:
            raise Broken("I9: a secret is in something that people see")

    def _check_applied(self, applied: Applied) -> None:
        """I5: what arrived at a host is a step of an action of the plan."""
        allowed = _planned(applied.plan) if applied.plan else set()
        ids: dict[tuple[str, str, str, str], set[str]] = {}
        for host, op in applied.line.log:
            if op["OP"] in ("lease", "renew", "unlease"):
                continue
            what = (host, op.name, op["NAME"], op["EXPECT"])
            ids.setdefault(what, set()).add(op["OP"])
            if what not in allowed or len(ids[what]) > 1:
                raise Broken(f"I5: {what} is not in the plan, or more often than there")
        self.check_fences()
        self.check_messages()
        self.check_copies()

    def _check_intents(self, applied: Applied, controller: str) -> None:
        """I7: no side effect without an intent that was durable before."""
        with self.journal(controller) as journal:
            intents = {intent.op for intent in journal.history(limit=1000)}
        for host, op in applied.line.log:
            if op["OP"] not in ("lease", "renew", "unlease") and op["OP"].partition("-")[0] not in intents:
                raise Broken(f"I7: {op.name} of {op['NAME']} on {host} without an intent")

    # -- at rest -----------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """All faults stop."""
        for machine in self.machines.values():
            machine.up, machine.disk_full, machine.power_after = True, False, None
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


def _planned(plan: Plan) -> set[tuple[str, str, str, str]]:
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


_pending: list[BaseException] = []


def raise_later(error: BaseException) -> None:
    """What is found inside a simulated machine ends the test, not the machine."""
    _pending.append(error)


def forget_pending() -> None:
    """A new story begins."""
    _pending.clear()


def raise_now() -> None:
    """Raise the first thing that was found."""
    if _pending:
        error = _pending[0]
        _pending.clear()
        raise error


def secret_environment() -> None:
    from tests.simulation.specs import SECRET_NAME

    os.environ[SECRET_NAME] = SECRET
