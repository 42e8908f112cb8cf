"""What specs would do when things go wrong: the loop of `run` on a simulated fleet, a script of faults, what came."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler.core.observed import Reached
from reconciler.core.plan import Plan
from reconciler.core.report import Event
from reconciler.core.spec import Desired
from reconciler.core.transitions import Transition
from reconciler.reconcile import preview
from reconciler.simulation import clock
from reconciler.simulation.controller import Controller
from reconciler.simulation.machine import EPOCH, Machine
from reconciler.simulation.mishaps import EVER, KINDS, Mishap, Stage
from reconciler.simulation.outcome import Entry, Outage, Result, SessionEnd, clock_of
from reconciler.simulation.rehearsal import SECRET, VARIABLE, Rehearsal
from reconciler.simulation.scratch import scratch
from reconciler.simulation.transport import Line
from reconciler.simulation.world import Broken, World

_HOLDER = re.compile(r"\S+ \(pid \d+\) holds the lease .*? unless it renews it")

FIRST = 900.0  # seconds in which a fleet without faults has to come up
GONE = "4194305"  # a process id that no system gives
_COPIES = 60.0  # seconds between two looks whether all copies of conversations are there
_TOLD = {"apply_start": "does", "apply_complete": "did", "apply_errored": "failed", "apply_skipped": "skipped"}
_CONTROLLER = "controller"


@dataclass(frozen=True)
class Script:
    """What happens, for how long it is watched, and whether nothing runs at the beginning."""

    mishaps: tuple[Mishap, ...]
    seconds: float = 1800.0
    empty: bool = False
    seed: int = 0


def stage_of(desired: Desired, seconds: float, seed: int) -> Stage:
    """Whom something may happen to: enabled hosts, `local` only where something runs on it, and their sessions."""
    sessions = {name: s.host for name, s in desired.sessions.items() if desired.hosts[s.host].enabled}
    used = set(sessions.values())
    hosts = tuple(name for name, h in desired.hosts.items() if h.enabled and (name != "local" or name in used))
    return Stage(hosts, sessions, seconds, seed)


def simulate(rehearsal: Rehearsal, script: Script) -> Result:
    """Run it to its end in virtual time. The same arguments give the same result."""
    with scratch() as directory, _secret():
        return clock.run(lambda: _Simulation(directory, rehearsal, script).run())


@contextmanager
def _secret() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = SECRET
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


class _Keeper(Controller):
    """A controller that tells the timeline what it sees and does."""

    def __init__(self, world: World, name: str, event: Callable[[Event], None], saw: Callable[[Transition], None]):
        super().__init__(world, name, event)
        self._saw = saw

    def transition(self, changed: Transition) -> None:
        """Something has become another."""
        self._saw(changed)


@dataclass
class _Simulation:
    directory: Path
    rehearsal: Rehearsal
    script: Script
    entries: list[Entry] = field(default_factory=list)
    outages: dict[str, list[Outage]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    keepers: dict[str, _Keeper] = field(default_factory=dict)
    begun: list[Mishap] = field(default_factory=list)
    on: Counter[tuple[str, str]] = field(default_factory=Counter)
    deaths: int = 0  # what keeps the first controller from running
    zero: float = 0.0
    saw: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    async def run(self) -> Result:
        desired = self.rehearsal.desired
        self.world = World(self.directory, desired.hosts, self._broken, SECRET, self.rehearsal.kinds)
        self._begin("one")
        if not self.script.empty:
            await self._first()
        self.zero = self._time()
        if not self.script.empty:
            self.entries.clear()  # how it came up is not asked for
        tasks = [asyncio.create_task(self._happens(mishap)) for mishap in self.script.mishaps]
        tasks.append(asyncio.create_task(self._watch()))
        await asyncio.sleep(self.script.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in list(self.keepers):
            await self._stop(name)
        return await self._result(desired)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    async def _first(self) -> None:
        """Until the fleet is as its specs say, or does not get any further."""
        end = self._time() + FIRST
        while self._time() < end:
            await asyncio.sleep(1.0)
            loop = self.keepers["one"].loop
            if loop.last is not None and not loop.last.plan.effective and not loop.under_way():
                break
        await asyncio.sleep(10.0)  # what was begun is copied

    # -- controllers -----------------------------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        other = "" if name == "one" else "the second controller: "
        keeper = _Keeper(self.world, name, lambda e: self._event(e, other), lambda t: self._transition(t, other))
        keeper.commit(self.rehearsal.desired)
        keeper.start()
        self.keepers[name] = keeper

    async def _stop(self, name: str) -> None:
        keeper = self.keepers.pop(name)
        keeper.check_sent()
        await keeper.stop()

    def _revive(self) -> None:
        self.deaths -= 1
        if not self.deaths:
            self._begin("one")

    async def _kill(self) -> None:
        """kill -9. The next one proves by its process id that it is gone, and takes its leases over."""
        self.deaths += 1
        if "one" not in self.keepers:
            return
        keeper = self.keepers.pop("one")
        keeper.check_sent()
        await keeper.die()
        holders = {operation["HOLDER"] for _, operation in keeper.line.log}
        for machine in self.world.machines.values():
            until, holder = machine.lease
            parts = holder.split(":")
            if holder in holders and len(parts) == 5:
                machine.lease = until, ":".join((*parts[:2], GONE, *parts[3:]))

    # -- what is told ----------------------------------------------------------------------------------------------

    def _say(self, kind: str, host: str, address: str, message: str) -> None:
        words = _HOLDER.sub("another controller holds the lease", message)  # its process and clock are this machine's
        self.entries.append(Entry(max(0.0, self._time() - self.zero), kind, host, address, words))

    def _broken(self, broken: Broken) -> None:
        words = str(broken)
        if self.broken.setdefault(words[:2], words) == words:
            self._say("broken", "", "", words)

    def _event(self, event: Event, other: str) -> None:
        if event.type not in _TOLD:
            return
        action = event.action
        words = {
            "apply_start": f"{action.verb}: {action.message}",
            "apply_complete": f"{action.verb} done in {event.seconds:.0f} s",
            "apply_skipped": f"{action.verb} skipped: {event.message}",
            "apply_errored": f"{action.verb} failed: {event.message}",
        }[event.type]
        self._say(_TOLD[event.type], action.host, action.address, other + words)

    def _transition(self, changed: Transition, other: str) -> None:
        if changed.type != "Phase" or (changed.before == "" and not self.script.empty):
            return
        if changed.address.startswith("host."):
            words = f"{changed.after}: {changed.message}" if changed.message else changed.after
            self._say("saw", changed.host, changed.address, other + words)
        elif changed.after in _WORTH and changed.reason not in PASSED_OVER:
            key, words = (changed.address, other), f"{other}{changed.after}: {changed.message}"
            if words not in self.saw.setdefault(key, set()):  # it is so again after each attempt that failed
                self._say("saw", changed.host, changed.address, words)
            self.saw[key].add(words)
        elif changed.after in _WELL:
            self.saw.pop((changed.address, other), None)

    # -- what happens ----------------------------------------------------------------------------------------------

    async def _happens(self, mishap: Mishap) -> None:
        await asyncio.sleep(mishap.at)
        self.begun.append(mishap)
        until = f" until {clock_of(mishap.end)}" if mishap.lasts not in (None, EVER) else ""
        host = mishap.target if KINDS[mishap.kind].where == "host" else _CONTROLLER
        if KINDS[mishap.kind].where == "session":
            host = self.rehearsal.desired.sessions[mishap.target].host
        address = f"session.{mishap.target}" if KINDS[mishap.kind].where == "session" else ""
        self._say("fault", host, address, f"{mishap.kind}{until}: {KINDS[mishap.kind].words}")
        self.on[mishap.kind, mishap.target] += 1
        await self._begins(mishap)
        if mishap.lasts is None or mishap.lasts == EVER:
            return
        await asyncio.sleep(mishap.lasts)
        self.on[mishap.kind, mishap.target] -= 1
        if not self.on[mishap.kind, mishap.target]:
            self._say("over", host, address, f"{mishap.kind} is over")
        await self._ends(mishap)

    async def _begins(self, mishap: Mishap) -> None:
        first = self.on[mishap.kind, mishap.target] == 1
        match mishap.kind:
            case "kill-agent":
                for machine, _, program in self.world.live(mishap.target):
                    machine.end(program.pid, 137)
            case "kill-controller":
                await self._kill()
            case "second-controller" if first:
                self.world.crowded = True
                self._begin("two")
            case kind if KINDS[kind].where == "host":
                _to_machine(self.world.machines[mishap.target], mishap)
                self._apply(mishap.target)
                if _takes_controller(mishap):
                    await self._kill()

    async def _ends(self, mishap: Mishap) -> None:
        last = not self.on[mishap.kind, mishap.target]
        match mishap.kind:
            case "kill-controller":
                self._revive()
            case "second-controller" if last:
                await self._stop("two")
            case "clock-jump":
                self.world.machines[mishap.target].skew -= mishap.by
            case kind if KINDS[kind].where == "host":
                self._apply(mishap.target)
                if _takes_controller(mishap):
                    self._revive()

    def _apply(self, host: str) -> None:
        """Let a machine be as all that is wrong with it at once says."""
        machine = self.world.machines[host]
        wrong = {kind for (kind, target), count in self.on.items() if target == host and count}
        machine.silent = bool(wrong & {"power-cut", "reboot", "cable"})
        machine.up = "kill-sshd" not in wrong
        machine.disk_full = "disk-full" in wrong
        machine.trouble = (
            "hang" if "hang" in wrong else "cut" if "half-answers" in wrong else "slow" if "slow" in wrong else ""
        )

    # -- what is true ----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Every second, whether each session that is wanted runs; now and then, whether every copy is there."""
        wanted = [name for name, s in self.rehearsal.desired.sessions.items() if _kept(self.rehearsal.desired, name)]
        seconds = 0.0
        await asyncio.sleep(0.5)  # after whatever happens at a full second
        while True:
            for name in wanted:
                self._note(name, any(program.begun for _, _, program in self.world.live(name)))
            if seconds % _COPIES == 0:
                self._check_copies()
            await asyncio.sleep(1.0)
            seconds += 1.0

    def _note(self, name: str, up: bool) -> None:
        now = self._time() - self.zero
        found = self.outages.setdefault(name, [])
        down = bool(found) and found[-1].until is None
        if not up and not down:
            found.append(Outage(self.rehearsal.desired.address(name), int(now), None, self._cause(name, now)))
        elif up and down:
            found[-1] = replace(found[-1], until=int(now))

    def _cause(self, name: str, now: float) -> str:
        host = self.rehearsal.desired.sessions[name].host
        for mishap in reversed(self.begun):
            where = KINDS[mishap.kind].where
            if (mishap.target == name if where == "session" else mishap.target == host) and mishap.at <= now:
                return str(mishap)
        return ""

    def _check_copies(self) -> None:
        try:
            self.world.check_copies()
        except Broken as broken:
            self._broken(broken)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _result(self, desired: Desired) -> Result:
        for machine in self.world.machines.values():  # a look at the end, as a person would take it
            if machine.trouble == "slow":
                machine.trouble = ""
        line = Line(self.world.sent)
        async with self.world.connect(line) as hosts:
            with self.world.journal("one") as journal:
                now = datetime.fromtimestamp(EPOCH + self._time(), UTC)
                archive = {"archive": str(self.world.archive("one"))}
                specs = replace(desired, fleet=desired.fleet.model_copy(update=archive))
                done = await preview(specs, hosts, journal, now=now)
                silent = [name for name, seen in done.observed.hosts.items() if not isinstance(seen, Reached)]
                open_intents = [i.address for i in journal.open_intents() if i.host not in silent]
        self._check_copies()
        ends = tuple(self._end(desired, name, done.plan) for name in desired.sessions)
        self._promises(open_intents, done.plan, ends)
        lasting = tuple(str(m) for m in self.begun if m.lasts is not None and m.end > self.script.seconds)
        reached = all(end.right for end in ends) and not done.plan.effective and not silent
        outages = tuple(outage for found in self.outages.values() for outage in found)
        entries = tuple(sorted(self.entries, key=lambda e: (round(e.at, 1), e.host, e.address)))
        return Result(
            desired.fleet.name, self.script.seed, self.script.seconds, self.script.empty, self.script.mishaps, entries,
            ends, outages, dict(self.broken), lasting, reached, self.rehearsal.notes,
        )  # fmt: skip

    def _promises(self, open_intents: Sequence[str], plan: Plan, ends: Sequence[SessionEnd]) -> None:
        lasting = [m for m in self.begun if m.lasts not in (None, EVER) and m.end > self.script.seconds]
        if open_intents:
            self._broken(Broken(f"I7: intents without an outcome: {', '.join(open_intents)}"))
        if SECRET in self.world.files():
            self._broken(Broken("I9: a secret lies in a file"))
        try:
            self.world.check_fences()
        except Broken as broken:
            self._broken(broken)
        if not lasting and not any(mishap.lasts == EVER for mishap in self.begun) and plan.effective:
            words = "; ".join(f"{a.address}: {a.verb}, {a.message}" for a in plan.effective)
            self._broken(Broken(f"I2: there is still something to do: {words}"))

    def _end(self, desired: Desired, name: str, plan: Plan) -> SessionEnd:
        session = desired.sessions[name]
        address = desired.address(name)
        live = [machine.name for machine, _, program in self.world.live(name) if program.begun]
        why = next((a.message for a in plan.actions if a.address == address), "")
        if not desired.hosts[session.host].enabled or session.suspend:
            return SessionEnd(address, session.host, "not acted on", True, why)
        if session.lifecycle == "task" and session.state == "running":
            ended = any(e["code"] == 0 for e in self._exits(name, session.host))
            return SessionEnd(address, session.host, "complete" if ended else "not complete", ended, why)
        if session.state == "stopped":
            return SessionEnd(address, session.host, "runs" if live else "stopped", not live, why)
        if live == [session.host]:
            return SessionEnd(address, session.host, "runs", True, why)
        if len(live) > 1:
            return SessionEnd(address, session.host, f"runs {len(live)} times: {', '.join(live)}", False, why)
        return SessionEnd(address, session.host, f"runs on {live[0]}" if live else "does not run", False, why)

    def _exits(self, name: str, host: str) -> Sequence[dict[str, object]]:
        files = self.world.machines[host].sessions.get(name)
        return list(files.exits.values()) if files else []


def _takes_controller(mishap: Mishap) -> bool:
    """It runs on the machine that the host `local` is."""
    return mishap.target == "local" and mishap.kind in ("power-cut", "reboot")


PASSED_OVER = ("in-progress",)
_WELL = ("running", "idle", "busy", "waiting", "completed", "stopped")
_WORTH = ("stalled", "lost", "exited", "failed", "unknown", "blocked")


def _kept(desired: Desired, name: str) -> bool:
    session = desired.sessions[name]
    acted_on = desired.hosts[session.host].enabled and not session.suspend
    return acted_on and session.lifecycle == "service" and session.state == "running"


def _to_machine(machine: Machine, mishap: Mishap) -> None:
    match mishap.kind:
        case "power-cut" | "reboot":
            machine.power_cut()
        case "kill-sshd":
            machine.drop_connections()
        case "clock-jump":
            machine.skew += mishap.by
        case "kill-tmux":
            for pid in [pid for pid, program in machine.programs.items() if program.session in machine.panes]:
                machine.end(pid, 129)
            machine.panes.clear()
