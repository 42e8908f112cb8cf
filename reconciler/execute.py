"""Carry out a plan: every choice is in it already; here it is only done, in order, and written down."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from reconciler.core.agent import Agent
from reconciler.core.plan import LAUNCHES, Action, Plan
from reconciler.core.report import Event, Outcome, Report
from reconciler.core.spec import Desired
from reconciler.core.steps import IdleStep, LaunchStep, ReadyStep, StopStep
from reconciler.errors import HostError, OperationError, ReconcilerError
from reconciler.hosts import Hosts
from reconciler.journal import Journal
from reconciler.leases import Leases
from reconciler.steps import StepRunner
from reconciler.transcripts.archive import Archive

LOG = logging.getLogger(__name__)
Tell = Callable[[Event], None]


class Gates:
    """How much may be under way at once, over all executions of one program."""

    def __init__(self, parallelism: int) -> None:
        self.actions = asyncio.Semaphore(parallelism * 4)
        self._starts: dict[str, tuple[int, asyncio.Semaphore]] = {}

    def starts(self, host: str, limit: int) -> asyncio.Semaphore:
        """Of sessions that start or resume on a host; a changed limit counts for those that come."""
        if self._starts.get(host, (0,))[0] != limit:
            self._starts[host] = (limit, asyncio.Semaphore(limit))
        return self._starts[host][1]


class Execution:
    """One plan being carried out.

    `drain` lets what runs finish and starts nothing more; `withdraw` also ends what only waits for its turn.
    """

    def __init__(
        self,
        plan: Plan,
        desired: Desired,
        hosts: Hosts,
        agents: Mapping[str, Agent],
        journal: Journal,
        tell: Tell,
        archive: Archive,
        fences: Mapping[str, int],
        gates: Gates | None = None,
        afresh: Callable[[], Awaitable[Plan]] | None = None,
    ) -> None:
        """`fences` are those that a look saw on all the hosts whose leases are needed. Where another controller has
        had one of them since, the plan is made `afresh` and what differs is not begun; without, nothing is."""
        self.plan = plan
        self._desired = desired
        self._hosts = hosts
        self._agents = agents
        self._journal = journal
        self._tell = tell
        self._archive = archive
        self._fences = fences
        self._gates = gates or Gates(desired.fleet.parallelism)
        self._afresh = afresh
        self._settled: dict[str, Outcome] = {}
        self.overtaken: frozenset[str] = frozenset()  # hosts on which another controller was at work since the look
        self._draining = asyncio.Event()
        self._withdrawn = asyncio.Event()
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}

    def drain(self) -> None:
        """No new action begins; those that run finish."""
        self._draining.set()

    def withdraw(self) -> None:
        """Nothing more begins, and what waits (for idle, for another session) has waited in vain."""
        self._draining.set()
        self._withdrawn.set()

    async def run(self, leases: Leases) -> Report:
        """Do all of it. Raises LeaseHeldError before anything was done where another controller is at work."""
        actions = self.plan.effective
        runner = StepRunner(self._desired, self._hosts, self._agents, leases, self._archive, self._withdrawn)
        concerned = frozenset[str]().union(*(action.hosts for action in actions))
        own = [self._hosts.connection(name, self._desired.hosts[name]) for name in sorted(concerned)]
        others = [
            self._hosts.connection(name, self._desired.hosts[name]) for name in sorted(set(self._fences) - concerned)
        ]
        await leases.acquire(own, others)
        self.overtaken = leases.passed(self._fences)
        if self.overtaken:
            self._settled = compared(self.plan, await self._afresh()) if self._afresh else stale(self.plan)
        loop = asyncio.get_running_loop()
        self._outcomes = {_key(action): loop.create_future() for action in actions}
        tasks = [asyncio.create_task(self._act(action, runner, leases)) for action in actions]
        try:
            outcomes = await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            outcomes = await self._cut(tasks)
            return Report(self.plan, tuple(outcomes), interrupted=True)
        return Report(self.plan, tuple(outcomes), interrupted=self._draining.is_set())

    async def _cut(self, tasks: list[asyncio.Task[Outcome]]) -> list[Outcome]:
        """The second Ctrl-C: what was under way is unknown now."""
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        return [
            outcome if isinstance(outcome, Outcome) else self._unknown(action)
            for outcome, action in zip(ended, self.plan.effective, strict=True)
        ]

    def _unknown(self, action: Action) -> Outcome:
        message = "interrupted; the next look will tell"
        return Outcome(action.address, action.host, action.verb, "unknown", 0.0, "interrupted", message)

    async def _act(self, action: Action, runner: StepRunner, leases: Leases) -> Outcome:
        begun = time.monotonic()
        first = self._settled.get(_key(action)) or await self._dependencies(action)
        if first is not None:
            outcome = first
        elif action.verb in LAUNCHES:
            limit = self._desired.hosts[action.host].max_parallel_starts
            async with self._gates.actions, self._gates.starts(action.host, limit):
                outcome = await self._carry_out(action, runner, leases, begun)
        else:
            async with self._gates.actions:
                outcome = await self._carry_out(action, runner, leases, begun)
        self._outcomes[_key(action)].set_result(outcome)
        self._say(action, outcome)
        return outcome

    async def _dependencies(self, action: Action) -> Outcome | None:
        """Wait for what comes first; the outcome of an action that cannot begin then."""
        for address, future in self._outcomes.items():
            if address.rpartition("@")[0] not in action.after:
                continue
            before = await asyncio.shield(future)
            goes_on = action.anyway or (action.verb == "stop" and before.status == "failed")
            if before.status != "done" and not goes_on:
                return self._skipped(action, f"{before.address} {before.status}", "dependency")
        return self._skipped(action, "interrupted before it began", "interrupted") if self._draining.is_set() else None

    def _skipped(self, action: Action, why: str, code: str) -> Outcome:
        return Outcome(action.address, action.host, action.verb, "skipped", 0.0, code, why)

    async def _carry_out(self, action: Action, runner: StepRunner, leases: Leases, begun: float) -> Outcome:
        if self._draining.is_set():
            return self._skipped(action, "interrupted before it began", "interrupted")
        op = operation_id(self.plan.id, _key(action), action.again)
        self._tell(Event("apply_start", action))

        def phase(words: str) -> None:
            self._tell(Event("apply_progress", action, words, time.monotonic() - begun))

        def outcome(status: str, error: ReconcilerError | None = None) -> Outcome:
            return Outcome(
                action.address, action.host, action.verb, status, time.monotonic() - begun,  # type: ignore[arg-type]
                error.code if error else "", error.message if error else "", error.remedy if error else "",
            )  # fmt: skip

        try:
            credentials = leases.credentials(action.host)
            self._journal.begin(
                op, address=action.address, host=action.host, verb=action.verb, precondition=action.precondition,
                fence=credentials.fence, revision=self.plan.revision, evidence=_evidence(action), run=self.plan.id,
            )  # fmt: skip
            for need in action.needs:
                phase(f"waits for session.{need.session} to be {need.until}")
                await runner.await_need(need)
            await self._steps(action, runner, op, phase)
            result = outcome("done")
        except HostError as error:
            # The line broke: what was sent may have happened. Nothing is guessed; the next look tells.
            begun_already = any(isinstance(step, LaunchStep) for step in action.steps)
            result = outcome("unknown" if begun_already else "failed", error)
        except (OperationError, ReconcilerError) as error:
            result = outcome("failed", error)
        except asyncio.CancelledError:
            self._journal.finish(op, "unknown", "interrupted")
            raise
        except Exception as error:  # a bug of ours stays with its session
            LOG.exception("%s: a bug", action.address)
            why = f"this is a bug: {type(error).__name__}: {error}"
            result = outcome("failed", OperationError(why, code="bug", remedy="reconciler -v apply; please report it"))
        self._journal.finish(op, result.status, result.message)
        return result

    async def _steps(self, action: Action, runner: StepRunner, op: str, phase: Callable[[str], None]) -> None:
        """All steps; where one fails that leaves a conversation nowhere, the way back. Raises what the step raised."""
        for index, step in enumerate(action.steps):
            if isinstance(step, LaunchStep):
                # Before, not after: if nobody hears of this host again, it may live there.
                self._journal.remember({step.session: step.host})
            try:
                await runner.run(step, f"{op}-{index}", phase)
            except (HostError, OperationError) as error:
                why = await self._undo(action, index, runner, op, phase, error)
                if why:
                    error.message = f"{error.message}; {why}"
                raise

    async def _undo(
        self, action: Action, index: int, runner: StepRunner, op: str, phase: Callable[[str], None], error: Exception
    ) -> str:
        """After a failed step: a move goes back to its source, a resume puts the conversation's files back."""
        failed = action.steps[index]
        launch = next((s for s in action.steps[: index + 1] if isinstance(s, LaunchStep)), None)
        try:
            if action.fallback and not isinstance(failed, IdleStep | StopStep):
                phase("goes back to where it was")
                self._journal.remember({s.session: s.host for s in action.fallback if isinstance(s, LaunchStep)})
                await runner.fall_back(action.fallback, op, phase)
                return (
                    "it was resumed where it was"
                    if isinstance(action.fallback[1], LaunchStep)
                    else "it was left where it was"
                )
            if not isinstance(failed, ReadyStep) or not isinstance(error, OperationError) or launch is None:
                return ""
            # A task that failed has had its turn, which is part of the conversation now.
            if launch.snapshot and launch.record.lifecycle == "service":
                phase("puts its conversation back")
                await runner.restore(launch, f"{op}-restore")
                return "its conversation is as it was before"
        except (HostError, OperationError) as second:
            return f"and going back failed as well: {second.message}"
        return ""

    def _say(self, action: Action, outcome: Outcome) -> None:
        kind = {"done": "apply_complete", "skipped": "apply_skipped"}.get(outcome.status, "apply_errored")
        self._tell(Event(kind, action, outcome.message, outcome.seconds, outcome.code, outcome.remedy))  # type: ignore[arg-type]


def compared(plan: Plan, fresh: Plan) -> dict[str, Outcome]:
    """The outcomes of actions that are not begun, since another controller acted after the plan was made: one that a
    fresh plan lacks is done already; one that rests on something else now is stale."""
    now = {_key(action): action for action in fresh.actions}
    found = stale(plan)
    for action in plan.effective:
        other = now.get(_key(action))
        if other is None:
            found[_key(action)] = Outcome(action.address, action.host, action.verb, "done", message="it is so already")
        elif _basis(other) == _basis(action):
            del found[_key(action)]
    return found


def stale(plan: Plan) -> dict[str, Outcome]:
    """The outcomes of a plan of which nothing is begun."""
    why = "another controller acted after the plan was made"
    return {
        _key(a): Outcome(a.address, a.host, a.verb, "skipped", 0.0, "stale", why, "reconciler plan")
        for a in plan.effective
    }


def _basis(action: Action) -> tuple[object, ...]:
    return action.verb, action.precondition, action.hosts


def _evidence(action: Action) -> str:
    """What the audit log says of why it is done."""
    return f"{action.reason}: {action.message}; seen: {action.evidence}"


def _key(action: Action) -> str:
    """An orphan may bear the same name on two hosts."""
    return f"{action.address}@{action.host}"


def operation_id(plan_id: str, address: str, again: str = "") -> str:
    """The same for a repeat of the same action of the same plan: hosts answer a repeat without doing it again.

    `again` makes it another one.
    """
    words = (plan_id, address, again) if again else (plan_id, address)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]
