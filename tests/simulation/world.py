"""What tests add to the simulated fleet: applies with faults, what is checked of each of them, and a secret."""

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
from reconciler.core.spec import Desired
from reconciler.errors import LeaseHeldError, ReconcilerError
from reconciler.journal import Journal
from reconciler.reconcile import Pass, archive_all, carry_out, execution, preview
from reconciler.simulation import world as simulated
from reconciler.simulation.agents import TURN
from reconciler.simulation.machine import Fault
from reconciler.simulation.stores import words_of
from reconciler.simulation.transport import Line
from reconciler.simulation.world import UNPLANNED, Broken, planned
from tests.simulation.specs import SECRET, SECRET_NAME, FleetSpec

__all__ = ["Applied", "Broken", "World", "forget_pending", "raise_later", "raise_now", "secret_environment"]


@dataclass
class Applied:
    """What one apply came to; `report` None: it was refused or died."""

    plan: Plan | None
    report: Report | None
    line: Line
    error: BaseException | None = None


class World(simulated.World):
    """The simulated fleet, with a secret in its specs; what breaks ends the test."""

    def __init__(self, directory: Path, hosts: Iterable[str]) -> None:
        super().__init__(directory, hosts, broken=raise_later, secret=SECRET)

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
        line = Line(self.sent)
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
        allowed = planned(applied.plan) if applied.plan else set()
        ids: dict[tuple[str, str, str, str], set[str]] = {}
        for host, op in applied.line.log:
            if op["OP"] in UNPLANNED:
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
            if op["OP"] not in UNPLANNED and op["OP"].partition("-")[0] not in intents:
                raise Broken(f"I7: {op.name} of {op['NAME']} on {host} without an intent")


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
    os.environ[SECRET_NAME] = SECRET
