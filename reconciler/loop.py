"""`run`: a pass at every change and every interval, for ever. Hosts are looked at one by one, and thought of at once.

    source ──▶ revision ─┐
    watches ──▶ views ───┼──▶ decide ──▶ executions (one for each group of actions that belong together)
    requests ────────────┘      ▲             │
                                └── look again ┘

Level-triggered: whatever wakes it only means "look again now". What is under way, has failed lately or was borrowed by
a command reaches the planner as a hold, so that the plan stays the whole truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from reconciler import garbage
from reconciler.copies import Copies
from reconciler.core.guards import check_stops, limit_of
from reconciler.core.holds import Hold
from reconciler.core.memory import Memory
from reconciler.core.observed import Observed, Reached
from reconciler.core.plan import components
from reconciler.core.report import Outcome
from reconciler.core.spec import Desired, address_of, name_of
from reconciler.core.status import Status, source_status, statuses
from reconciler.core.transcript import Archived, Relation
from reconciler.core.transitions import dated, key, transitions
from reconciler.core.windows import next_change
from reconciler.errors import GuardError, LeaseHeldError
from reconciler.hosts import Hosts
from reconciler.in_force import InForce
from reconciler.journal import Intent, Journal
from reconciler.leases import this_machine
from reconciler.observe import CONNECTS_AT_ONCE, own_local
from reconciler.reconcile import Evidence, Options, Pass, consider, leases_of, local_of, remember, settle
from reconciler.runtimes.operations import Credentials
from reconciler.surroundings import Specs, Told, Tuning
from reconciler.watch import View, Watches, for_ever
from reconciler.works import Work, Works

LOG = logging.getLogger(__name__)
LEASE_TTL = 180  # seconds: longer than for an apply, since it is held as long as the loop lives
FRESH = 2.0  # seconds that a look may be old when something is done because of it
FOREIGN = 15.0  # seconds until a host that another controller has is asked for again
ENDS = "wait for it to end; whether it has: reconciler status"
SLEPT = 20.0  # seconds by which a machine must have slept for its connections to count as broken
FIRST_LOOKS = 3.0  # seconds that the first decision waits for hosts at the most
DRAIN = 60.0  # seconds that what runs may take to end


class Loop:
    """Keeps one fleet as its specs say, until it is told to end."""

    def __init__(
        self, specs: Specs, hosts: Hosts, journal: Journal, told: Told | None = None, tuning: Tuning | None = None
    ) -> None:
        self._specs = specs
        self._hosts = hosts
        self._journal = journal
        self._told = told or Told()
        self._tuning = tuning or Tuning()
        self._machine = this_machine()
        self._due = asyncio.Event()
        self._stopping = asyncio.Event()
        self._begun = False
        self._connects = asyncio.Semaphore(CONNECTS_AT_ONCE)
        self._watches = Watches(self._look, self._seen, lambda: self.interval, self._tuning.dice)
        hosts.noticed = self._watches.nudge
        self._memory = Memory()
        self._foreign: dict[str, tuple[Hold, float]] = {}
        self._borrowed: dict[str, str] = {}
        self._restart: set[str] = set()
        self._wanted: set[str] = set()  # hosts whose next look is thought about, whatever it says
        self._unsettled: list[Intent] = []
        self._in_force: InForce | None = None
        self._works: Works | None = None
        self._copies = Copies(hosts, self._copied)
        self._thought: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.beat = 0.0  # time of the loop's clock at which it began to think last
        self.last: Pass | None = None
        self.statuses: tuple[Status, ...] = ()

    @property
    def revision(self) -> str | None:
        """The revision in force."""
        return self._specs.good.id if self._specs.good else None

    def under_way(self) -> frozenset[str]:
        """The addresses that something is being done about."""
        return frozenset(self._works.hold()) if self._works is not None else frozenset()

    def failures(self) -> dict[str, int]:
        """How often in a row what failed last has failed, by address."""
        return {address: attempt.failures for address, attempt in self._memory.attempts.items()}

    def looked(self) -> dict[str, float | None]:
        """When each host answered last, by the wall clock."""
        return {name: view.good for name, view in self._watches.views.items()}

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`. What runs then is let finish; leases are given back."""
        self._unsettled = self._journal.open_intents()
        parts = (self._follow, self._decide_for_ever, self._mind_sleep)
        tasks = [asyncio.create_task(for_ever(part)) for part in parts]
        try:
            await self._stopping.wait()
        finally:
            self._stopping.set()
            await self._end(tasks)

    def stop(self) -> None:
        """Begin nothing more, let what runs finish, end."""
        self._stopping.set()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            if self._works is not None:
                await self._works.finish(DRAIN)
            await self._copies.close()
        finally:
            await self._watches.only(())
            if self._in_force is not None:
                await self._in_force.leases.release()

    def reload(self) -> None:
        """SIGHUP: read the specs again, and look at everything."""
        self._specs.poke()
        self._watches.poke()

    def accept(self, revision: str) -> None:
        """A person says that a revision is meant, though most of its files are gone. Raises UsageError."""
        self._specs.accept(revision)
        self._specs.poke()

    # -- revisions -----------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            before = self._specs.trouble
            if await self._specs.refresh() or self._in_force is None:
                await self._revised()
            if self._specs.trouble != before:
                self._due.set()
            pause = self.interval * (0.9 + 0.2 * self._tuning.dice()) * (1 if self._specs.polls else 10)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._specs.changed()

    async def _revised(self) -> None:
        """Another revision is in force: what waits for the old one is withdrawn, and everything is looked at."""
        if self._specs.good is None:
            return
        desired: Desired = self._specs.good.desired
        leases = self._in_force.leases if self._in_force else leases_of(desired, LEASE_TTL)
        leases.announce(local_of(desired))
        if self._works is None:
            self._works = Works(self._hosts, self._journal, leases, self._told.event, self._ended, self._due.set)
        self._in_force = InForce.of(desired, leases)
        self._memory = Memory()
        self._told.revised(desired)
        self._works.withdraw()
        self._copies.only(frozenset(desired.sessions))
        await self._watches.only(name for name, host in desired.hosts.items() if host.enabled)
        if not len(self._works):
            await self._hosts.keep_only(desired.hosts)
        self._due.set()

    @property
    def interval(self) -> float:
        """Seconds between two looks at a host."""
        if self._tuning.interval is not None:
            return self._tuning.interval
        return self._in_force.desired.fleet.interval if self._in_force else 30.0

    # -- looking -------------------------------------------------------------------------------------------------

    async def _look(self, name: str) -> View:
        force = self._in_force
        assert force is not None
        view = await force.look(name, self._hosts, self._connects)
        self._told.looked(isinstance(view.seen, Reached), view.took)
        before = self._watches.views.get(name)
        answered = self._tuning.clock() if isinstance(view.seen, Reached) else before.good if before else None
        return replace(view, good=answered)

    def _seen(self, name: str, view: View) -> None:
        before = self._watches.views.get(name)
        if before is None or name in self._wanted or _essence(before) != _essence(view):
            self._wanted.discard(name)
            self._due.set()
        if isinstance(view.seen, Reached) and self.last is not None:
            self._copy(view.seen)

    def _copy(self, reached: Reached) -> None:
        force = self._in_force
        assert force is not None
        assert self.last is not None
        now = asyncio.get_running_loop().time()
        if names := self._copies.due(reached, force.desired, self.last.agents, now):
            observed = Observed({**self.last.observed.hosts, reached.name: reached})
            self._copies.begin(replace(self.last, observed=observed), reached.name, names)

    def _copied(self, results: list[Any]) -> None:
        if results and self._in_force is not None:
            self._in_force.known = None
            self._due.set()

    # -- thinking ------------------------------------------------------------------------------------------------

    async def _decide_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next(loop.time())):
                    await self._due.wait()
            if not self._due.is_set() and self._in_force is not None:
                self._in_force.known = None  # another process may have written to the archive
            self._due.clear()
            self.beat = begun = loop.time()
            if self._in_force is not None:
                await self._first_looks()
                await self._decide(self._in_force, await self._in_force.heads())
                self._told.decided(loop.time() - begun)
            # What changes all the time is thought about together, and at most a fifth of the time.
            await asyncio.sleep(max(0.05, 4 * (loop.time() - begun)))

    def _until_next(self, now: float) -> float:
        times = [now + self.interval, *(until for _, until in self._foreign.values() if until > now)]
        if (again := self._memory.next(now)) is not None:
            times.append(again)
        if self._in_force is not None:
            wall = datetime.fromtimestamp(self._tuning.clock(), UTC)
            if (change := next_change(self._in_force.desired.windows, wall)) is not None:
                times.append(now + (change - wall).total_seconds())
        return max(0.0, min(times) - now) + 0.001

    async def _first_looks(self) -> None:
        """At the start, hosts that answer at once are waited for: a session may be on another one than it should."""
        if not self._begun:
            self._begun = True
            await asyncio.wait([asyncio.create_task(self._watches.again())], timeout=FIRST_LOOKS)

    async def _decide(self, force: InForce, heads: Mapping[str, Archived]) -> None:
        views = {name: view for name, view in self._watches.views.items() if name in force.desired.hosts}
        observed = Observed(own_local({name: view.seen for name, view in views.items()}, self._machine))
        related: dict[str, Relation] = {}
        for name, view in views.items():
            related |= view.relations
            if aged := _aged(view, heads):
                # The archive has more than when the host was looked at: how the two stand is for the next look.
                related |= dict.fromkeys(aged, "unknown")
                self._watches.poke([name])
        self._settle(observed)
        if not self._borrowed:
            remember(self._journal, observed, force.desired, skip=self._in_flight())
        self.last = self._considered(force, Evidence(observed, force.archive, heads, related))
        self._publish(self.last)
        self._dispatch(self.last)

    def _in_flight(self) -> frozenset[str]:
        assert self._works is not None
        return frozenset(name_of(address) for address in self._works.hold())

    def _settle(self, observed: Observed) -> None:
        """Intents of a controller that was killed get their outcome from what is seen now."""
        if self._unsettled:
            settle(self._journal, observed, self._unsettled)
            answered = {name for name, seen in observed.hosts.items() if isinstance(seen, Reached)}
            self._unsettled = [intent for intent in self._unsettled if intent.host not in answered]

    def _considered(self, force: InForce, evidence: Evidence) -> Pass:
        options = Options(restart=tuple(sorted(self._restart)))
        hold = self._hold(force, evidence.observed)
        now = datetime.fromtimestamp(self._tuning.clock(), UTC)
        done = consider(force.desired, evidence, self._journal, now, options, hold, force.thought)
        try:
            check_stops(done.plan, force.desired.fleet.max_stop, limit_of(force.desired))
        except GuardError as error:
            # The rest goes on: what has died comes back, whatever is refused.
            refused = Hold(error.code, error.message, error.remedy)
            hold |= {action.address: refused for action in done.plan.actions if action.stops_running}
            done = consider(force.desired, evidence, self._journal, now, options, hold, force.thought)
        return done

    def _hold(self, force: InForce, observed: Observed) -> dict[str, Hold]:
        assert self._works is not None
        now = asyncio.get_running_loop().time()
        self._foreign = {name: held for name, held in self._foreign.items() if held[1] > now}
        hold: dict[str, Hold] = {**self._memory.hold(now)}
        waits = {name: held for name, (held, _) in self._foreign.items()}
        waits |= {name: Hold("borrowed", f"{who} is at work there", ENDS) for name, who in self._borrowed.items()}
        for place, held in waits.items():
            for address in _addresses(force.desired, observed, place):
                hold[address] = held
        return hold | self._works.hold()

    def _dispatch(self, done: Pass) -> None:
        assert self._works is not None
        now = asyncio.get_running_loop().time()
        for actions in components(done.plan.effective):
            concerned = frozenset[str]().union(*(action.hosts for action in actions))
            views = {name: self._watches.views[name] for name in concerned if name in self._watches.views}
            if old := [name for name, view in views.items() if now - view.at > FRESH or not self._asked(name, view)]:
                # What is done rests on a look of just now, by the revision in force; then this is thought of again.
                self._wanted |= set(old)
                self._watches.poke(old)
                continue
            self._restart -= {action.address for action in actions}
            self._works.begin(done, actions)

    def _asked(self, name: str, view: View) -> bool:
        """Whether a look asked what the revision in force needs to know: a new working directory, say."""
        return self._in_force is not None and view.checks == self._in_force.checks.get(name)

    async def _ended(self, work: Work, outcomes: tuple[Outcome, ...], foreign: LeaseHeldError | None) -> None:
        """After a group of actions: what came of it is remembered, and its hosts are looked at before all else."""
        now = asyncio.get_running_loop().time()
        self._memory = self._memory.told(outcomes, now, self._tuning.dice())
        if foreign is not None:
            held = Hold("lease-held", foreign.message, foreign.remedy)
            places = work.hosts if len(work.fenced) == 1 else {action.address for action in work.actions}
            self._foreign |= dict.fromkeys(places, (held, now + FOREIGN))
        if self._in_force is not None:
            self._in_force.known = None
        if not self._stopping.is_set():
            await self._watches.again(work.hosts | work.execution.overtaken)

    # -- saying --------------------------------------------------------------------------------------------------

    def _publish(self, done: Pass) -> None:
        known = self._in_force.thought if self._in_force is not None else None
        with garbage.held_off():
            before = {key(status): status for status in self.statuses}
            found = statuses(done.desired, done.observed, done.diff, done.plan, done.agents, before, known)
            found = (*self._source(), *found)
            changed = transitions(before, found)
            self.statuses = dated(before, found, self._tuning.clock())
        for transition in changed:
            self._told.transition(transition)
        self._told.published(self.statuses)
        for waiting in self._thought:
            if not waiting.done():
                waiting.set_result(None)
        self._thought.clear()

    def _source(self) -> tuple[Status, ...]:
        good, trouble = self._specs.good, self._specs.trouble
        return (source_status(good.id if good else None, trouble),)

    async def thought(self) -> None:
        """Return after the next decision."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thought.append(future)
        self._due.set()
        await future

    # -- requests ------------------------------------------------------------------------------------------------

    async def ask(self, addresses: Iterable[str], restart: bool = False) -> None:
        """A person wants these looked at and done now, whatever failed before. All of them, where none is named."""
        wanted = list(addresses)
        self._memory = self._memory.forget(wanted or self._memory.attempts)
        if restart:
            self._restart |= set(wanted)
        hosts = {status.host for status in self.statuses if status.address in wanted}
        await self._watches.again(hosts or None)
        await self.thought()

    async def borrow(self, who: str, hosts: Iterable[str]) -> dict[str, Credentials]:
        """Let a command of this machine act on these hosts; nothing is done there until `give_back`.

        Raises LeaseHeldError where another command has one, or another controller.
        """
        wanted = sorted(set(hosts))
        force = self._in_force
        assert force is not None
        assert self._works is not None
        for name in wanted:
            if name in self._borrowed:
                raise LeaseHeldError(f"{name}: {self._borrowed[name]} is at work there", code="lease-held",
                                     remedy=f"{ENDS}, then: reconciler apply")  # fmt: skip
        self._borrowed |= dict.fromkeys(wanted, who)
        try:
            self._works.withdraw(frozenset(wanted))
            await self._works.free(wanted)
            known = [name for name in wanted if name in force.desired.hosts]
            await force.leases.acquire(self._hosts.connection(name, force.desired.hosts[name]) for name in known)
            return {name: force.leases.credentials(name) for name in known if name not in force.leases.failed}
        except BaseException:
            self.give_back(wanted)
            raise

    def give_back(self, hosts: Iterable[str]) -> None:
        """The command has ended."""
        names = [name for name in hosts if self._borrowed.pop(name, None)]
        task = asyncio.create_task(self._after_borrowing(names))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _after_borrowing(self, names: list[str]) -> None:
        self._borrowed |= dict.fromkeys(names, "a command")  # until it was seen what it did
        try:
            if self._in_force is not None:
                self._in_force.known = None
            await self._watches.again(names)
        finally:
            for name in names:
                self._borrowed.pop(name, None)
            self._due.set()

    # -- sleep ---------------------------------------------------------------------------------------------------

    async def _mind_sleep(self) -> None:
        """After this machine slept its connections are dead and do not know it: open new ones, look at once."""
        slept = self._tuning.slept()
        while True:
            await asyncio.sleep(5.0)
            now = self._tuning.slept()
            if now - slept > SLEPT:
                LOG.info("slept for %.0f s: connects again", now - slept)
                await self._hosts.close()
                self._watches.poke()
            slept = now


def _essence(view: View) -> tuple[object, object]:
    """What of a view decisions rest on: not when it was."""
    seen = view.seen
    return (replace(seen, now=0) if isinstance(seen, Reached) else seen), view.relations


def _aged(view: View, heads: Mapping[str, Archived]) -> list[str]:
    """The sessions of a host that are not live and of which the archive has something else since the look."""
    seen = view.seen.sessions if isinstance(view.seen, Reached) else {}
    return [name for name, found in seen.items() if not found.live and heads.get(name) != view.heads.get(name)]


def _addresses(desired: Desired, observed: Observed, place: str) -> set[str]:
    """The addresses that a held host, or a held address, stands for."""
    if place.startswith(("session.", "group_chat.")):
        return {place}
    seen = observed.hosts.get(place)
    there = seen.sessions.items() if isinstance(seen, Reached) else ()
    return {desired.address(name) for name, session in desired.sessions.items() if session.host == place} | {
        address_of(name, found.record.agent if found.record else "") for name, found in there
    }
