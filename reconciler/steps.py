"""One step of a plan on its host: make the operation, run it, and watch until it has come true."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar, assert_never

from reconciler import drivers
from reconciler.core.agent import UNKNOWN, Agent
from reconciler.core.decision import not_idle
from reconciler.core.observed import Facts, Reached, SessionSeen, clean
from reconciler.core.readiness import busy, completed, ready_by_agent, satisfied
from reconciler.core.record import Record
from reconciler.core.spec import Desired, Ready
from reconciler.core.steps import (
    ForgetStep,
    IdleStep,
    LaunchStep,
    Need,
    PullStep,
    ReadyStep,
    RecordStep,
    RenameStep,
    SendStep,
    Step,
    StopStep,
)
from reconciler.errors import HostError, OperationError
from reconciler.hosts import Connection, Hosts
from reconciler.leases import Leases
from reconciler.redaction import redact
from reconciler.runtimes.operations import (
    Launch,
    forget_operation,
    launch_operation,
    record_operation,
    rename_operation,
    restore_operation,
    send_operation,
    stop_operation,
)
from reconciler.secret_values import resolve_all
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.carrying import Brought, bring, item_of, pull_step
from reconciler.transports.quoting import quote

Phase = Callable[[str], None]
T = TypeVar("T")
_ID_WAIT = 15.0  # seconds that an agent which names its conversations itself has to tell the name
_SETTLE = 0.4  # seconds that a program without a sign of readiness has to live to count as started
_PORT = (
    "p=$(printf %04X {port}); cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | "
    'awk -v p=":$p" \'$4 == "0A" && substr($2, length($2) - 4) == p {{ f = 1 }} END {{ exit !f }}\' || '
    "netstat -an 2>/dev/null | grep -q '[.:]{port} .*LISTEN'"
)


class StepRunner:
    """Runs the steps of one plan. Conversation ids that were learned on the way go into the records that follow."""

    def __init__(
        self,
        desired: Desired,
        hosts: Hosts,
        agents: Mapping[str, Agent],
        leases: Leases,
        archive: Archive,
        withdrawn: asyncio.Event | None = None,
    ) -> None:
        """`withdrawn`, once set, ends all waiting that comes before the first thing that is done."""
        self._desired = desired
        self._hosts = hosts
        self._agents = agents
        self._leases = leases
        self._archive = archive
        self._withdrawn = withdrawn or asyncio.Event()
        self._learned: dict[str, str] = {}
        self._launched: set[tuple[str, str]] = set()  # sessions and hosts to which a launch was sent
        self._verified: dict[
            tuple[str, str], tuple[Reached, int]
        ] = {}  # by looks that waited for launches, and how long

    def _connection(self, host: str) -> Connection:
        return self._hosts.connection(host, self._desired.hosts[host])

    async def run(self, step: Step, op: str, phase: Phase) -> None:
        """Do one step. Raises HostError or OperationError."""
        match step:
            case LaunchStep():
                phase("starts its process")
                await self._launch(step, op)
            case ReadyStep():
                phase("waits until it is ready")
                await self._ready(step, op)
            case IdleStep():
                await self._idle(step, phase)
            case StopStep():
                phase("stops its process")
                await self._operate(step.host, lambda c, n: stop_operation(
                    drivers.runtime(step.strategy), c, op, n, session=step.session, expect=step.expect,
                    keys=step.keys, signal=step.signal, record=self._known(step.record),
                ))  # fmt: skip
            case SendStep():
                phase("waits until it is idle, to send the message")
                await self._send(step, op)
            case RecordStep():
                await self._operate(step.host, lambda c, n: record_operation(
                    c, op, n, self._known(step.record), step.expect, step.file
                ))  # fmt: skip
            case PullStep():
                phase("copies its conversation into the archive")
                await self._pull(step)
            case ForgetStep():
                await self._operate(step.host, lambda c, n: forget_operation(
                    drivers.runtime(step.strategy), c, op, n, step.session, step.expect
                ))  # fmt: skip
                # It may go on and on: what the archive has of it is no session's any more.
                await asyncio.to_thread(self._archive.forget, step.session)
            case RenameStep():
                runtime = drivers.runtime(step.strategy)
                await self._operate(step.host, lambda c, n: rename_operation(
                    runtime, c, op, n, session=step.session, expect=step.expect, record=step.record
                ))  # fmt: skip
            case _:
                assert_never(step)

    def _known(self, record: Record) -> Record:
        learned = self._learned.get(record.name)
        return replace(record, conversation=learned) if learned else record

    async def _operate(self, host: str, script: Callable[..., str]) -> None:
        """Run an operation; once more when the line broke, since a repeat of the same is a no-op there."""
        connection = self._connection(host)
        await self._twice(host, lambda nonce, text: connection.operate(text, nonce), script)

    async def _twice(self, host: str, operate: Callable[[str, str], Awaitable[T]], script: Callable[..., str]) -> T:
        for last in (False, True):
            nonce = secrets.token_hex(8)
            try:
                return await operate(nonce, script(self._leases.credentials(host), nonce))
            except HostError as error:
                if last or not error.retry:
                    raise
                await asyncio.sleep(0.5)
        raise AssertionError

    async def _launch(self, step: LaunchStep, op: str) -> None:
        brought = await self._bring(step) if step.bring else Brought()
        inherited = {name: os.environ[name] for name in step.invocation.inherits if name in os.environ}
        launch = Launch(
            session=step.session,
            expect=step.expect,
            record=step.record,
            command=step.command,
            invocation=step.invocation,
            workdir=step.workdir,
            probes=step.probes,
            environment={**inherited, **await asyncio.to_thread(resolve_all, step.environment)},
            shell=step.shell,
            tmux_conf=step.tmux_conf,
            conversation=step.record.conversation or "",
            snapshot=step.snapshot,
            places=brought.places,
            claim=brought.claim,
            imports=brought.imports,
            import_env=brought.import_env,
        )
        runtime = drivers.runtime(step.strategy)
        self._launched.add((step.session, step.host))
        connection, fleet = self._connection(step.host), self._desired.fleet.name
        # An agent that has no sign of its own from the first moment has to live for a while, see `_ready`.
        settle = 0 if self._agents[step.record.agent].ready(Facts(pid=1)) is False else round(_SETTLE * 10)
        verified = await self._twice(
            step.host,
            lambda nonce, text: connection.operate_and_look(text, nonce, fleet, settle),
            lambda c, n: launch_operation(runtime, c, op, n, launch),
        )
        if verified is not None:
            self._verified[step.session, step.host] = verified, settle

    async def _bring(self, step: LaunchStep) -> Brought:
        connection = self._connection(step.host)
        reached = await connection.look(self._desired.fleet.name)
        return await bring(connection, reached, self._archive, self._agents[step.record.agent], step)

    async def _pull(self, step: PullStep) -> None:
        connection, agent = self._connection(step.host), self._agents[step.agent]
        reached, _ = await self._seen(step.host, step.session)
        item = await item_of(self._desired, reached, agent, step.session, agent.command)
        await pull_step(connection, reached, self._archive, agent, step, item)

    async def fall_back(self, steps: tuple[Step, ...], op: str, phase: Phase) -> None:
        """The way back of a failed move: its first step, which ends what came up, may find nothing to end.

        Where no launch was sent there is nothing, and the target need not answer for the source to go on.
        """
        for index, step in enumerate(steps):
            if isinstance(step, StopStep) and (step.session, step.host) not in self._launched:
                continue
            try:
                await self.run(step, f"{op}-back-{index}", phase)
            except OperationError as error:
                if index or error.code != "stale":
                    raise

    async def restore(self, step: LaunchStep, op: str) -> None:
        """After a resume that failed: end it, and put the snapshot of the conversation's files back."""
        runtime = drivers.runtime(step.strategy)
        await self._operate(step.host, lambda c, n: restore_operation(
            runtime, c, op, n, session=step.session, expect=step.record.incarnation, record=self._known(step.record)
        ))  # fmt: skip

    async def _seen(self, host: str, session: str, verified: Reached | None = None) -> tuple[Reached, SessionSeen]:
        reached = verified or await self._connection(host).look(self._desired.fleet.name)
        seen = reached.sessions.get(session)
        if seen is None:
            raise OperationError(f"session {session} is not on {host} any more", code="stale", remedy="reconciler plan")
        return reached, seen

    async def _until(self, seconds: float, check: Callable[[], Awaitable[bool]]) -> bool:
        """Ask again and again, at growing intervals, until it is so or the time is over."""
        end = time.monotonic() + seconds
        pause = 0.1
        while not await check():
            if time.monotonic() + pause > end:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        return True

    async def _in_time(self, seconds: float, check: Callable[[], Awaitable[bool]]) -> bool:
        """The same for what waits before anything is done: it can be withdrawn."""

        async def still_wanted() -> bool:
            if self._withdrawn.is_set():
                raise OperationError("a newer revision came while it waited", code="withdrawn", retry=True)
            return await check()

        return await self._until(seconds, still_wanted)

    async def _ready(self, step: ReadyStep, op: str) -> None:
        agent = self._agents[step.agent]
        since = time.monotonic()
        verified, settled = self._verified.pop((step.session, step.host), (None, 0))

        async def check() -> bool:
            nonlocal verified
            reached, seen = await self._seen(step.host, step.session, verified)
            verified = None
            if seen.incarnation != step.incarnation:
                raise OperationError("somebody else launched it meanwhile", code="stale", remedy="reconciler plan")
            if completed(seen):
                return True
            if seen.state in ("exited", "lost", "stopped"):
                raise OperationError(
                    await self._last_words(reached, seen), code="exited", remedy=self._logs(step.session)
                )
            if not ready_by_agent(agent, seen) or not await self._own_ready(reached, seen, step.ready):
                return False
            if agent.ready(seen.facts) is None and not settled and time.monotonic() - since < _SETTLE:
                return False
            return self._same_conversation(step, agent, seen, time.monotonic() - since) and self._whole(step, seen)

        if not await self._until(step.ready.timeout, check):
            reached, seen = await self._seen(step.host, step.session)
            raise OperationError(
                f"not ready within {step.ready.timeout:g} s; {await self._screen(reached, seen)}",
                code="not-ready",
                remedy=f"reconciler attach {step.session}",
            )
        if step.learn:
            await self._learn(step, agent, op)

    def _same_conversation(self, step: ReadyStep, agent: Agent, seen: SessionSeen, waited: float) -> bool:
        """Whether it works on what it was to take up. Claude Code names a new one until it has read the old one."""
        found = agent.conversation(seen.facts)
        if not step.conversation or not found or found == step.conversation:
            return True
        if waited < _ID_WAIT:
            return False
        raise OperationError(
            f"it came up with conversation {clean(found, 80)}, not with {step.conversation}",
            code="other-conversation",
            remedy=f"reconciler attach {step.session}",
        )

    def _whole(self, step: ReadyStep, seen: SessionSeen) -> bool:
        """Whether the conversation is at least as long as it was before."""
        if not step.at_least or seen.facts.store is None:
            return True
        return max((file.size for file in seen.facts.store), default=0) >= step.at_least

    async def _learn(self, step: ReadyStep, agent: Agent, op: str) -> None:
        """Write down the id that the agent gave its conversation. Where it takes longer, the next plan does it."""

        async def check() -> bool:
            reached, seen = await self._seen(step.host, step.session)
            found = agent.conversation(seen.facts)
            if found and found not in reached.forgotten:
                self._learned[step.session] = found
            return step.session in self._learned or seen.state != "running"

        await self._until(_ID_WAIT, check)
        if step.session in self._learned:
            record = self._known(step.record)
            await self._operate(step.host, lambda c, n: record_operation(c, f"{op}-id", n, record, step.incarnation))

    async def _own_ready(self, reached: Reached, seen: SessionSeen, ready: Ready) -> bool:
        """The spec's own condition, where it has one."""
        assert seen.record is not None
        connection = self._connection(reached.name)
        if ready.pattern:
            text = await self._output(reached, seen, 200)
            return re.search(ready.pattern, text, re.MULTILINE) is not None
        if ready.command:
            line = f"PATH={quote([reached.path])} && export PATH && {quote(ready.command)} >/dev/null 2>&1 && echo yes"
            return (await connection.shell(line)).strip() == b"yes"
        if ready.port:
            return (await connection.shell(f"{{ {_PORT.format(port=ready.port)}; }} && echo yes")).strip() == b"yes"
        return True

    async def _output(self, reached: Reached, seen: SessionSeen, lines: int) -> str:
        assert seen.record is not None
        runtime = drivers.runtime(seen.record.strategy)
        line = f"PATH={quote([reached.path])}; {runtime.log(reached.state_dir, seen.name, lines, seen.record.terminal)}"
        return (await self._connection(reached.name).shell(line)).decode("utf-8", "replace")

    async def _screen(self, reached: Reached, seen: SessionSeen) -> str:
        # Before it is cut: half a secret would be known to nobody.
        text = redact(await self._output(reached, seen, 50))
        lines = [clean(line, 160).strip() for line in text.splitlines()]
        words = " | ".join([line for line in lines if line][-8:])
        return f"its screen shows: {words}" if words else "its screen is empty"

    async def _last_words(self, reached: Reached, seen: SessionSeen) -> str:
        code = f"with exit code {seen.exit.code}" if seen.exit else "without a trace"
        detail = f" ({seen.exit.error})" if seen.exit and seen.exit.error else ""
        return f"it ended {code}{detail}; {await self._screen(reached, seen)}"

    def _logs(self, session: str) -> str:
        return f"reconciler logs {session}"

    async def _idle(self, step: IdleStep, phase: Phase) -> None:
        agent = self._agents[step.agent]
        told = False
        last = UNKNOWN

        async def check() -> bool:
            nonlocal told, last
            _, seen = await self._seen(step.host, step.session)
            if not busy(agent, seen):
                return True
            last = agent.activity(seen.facts)
            if not told:
                told = True
                phase(f"{last.state}: waits up to {step.stop.timeout:g} s for idle")
            return False

        if not await self._in_time(step.stop.timeout, check) and step.stop.then == "block":
            message, remedy = not_idle(step.session, step.stop, last)
            raise OperationError(message, code="not-idle", remedy=remedy)

    async def _send(self, step: SendStep, op: str) -> None:
        agent = self._agents[step.agent]

        async def check() -> bool:
            _, seen = await self._seen(step.host, step.session)
            if seen.state != "running":
                raise OperationError("it does not run any more", code="stale", remedy="reconciler plan")
            return ready_by_agent(agent, seen) and not busy(agent, seen)

        if not await self._in_time(step.timeout, check):
            raise OperationError(
                f"not idle within {step.timeout:g} s; the message was not sent",
                code="not-idle",
                remedy=f"end its turn: reconciler attach {step.session}; then: reconciler apply",
            )
        runtime = drivers.runtime(step.strategy)
        record = self._known(step.record)
        await self._operate(step.host, lambda c, n: send_operation(
            runtime, c, op, n, session=step.session, expect=step.expect, message=step.message, record=record,
            before=step.before
        ))  # fmt: skip

    async def await_need(self, need: Need) -> None:
        """Wait for a dependency's condition. Raises OperationError(dependency) when it does not come."""
        agent = self._agents[need.agent]

        async def check() -> bool:
            reached = await self._connection(need.host).look(self._desired.fleet.name)
            seen = reached.sessions.get(need.session)
            if seen is not None and seen.state in ("exited", "lost", "stopped") and not completed(seen):
                raise OperationError(f"session.{need.session} has ended", code="dependency")
            by_spec = replace(need, ready=Ready())
            if seen is None or not satisfied(agent, seen, by_spec):
                return False
            return need.until != "ready" or completed(seen) or await self._own_ready(reached, seen, need.ready)

        if not await self._in_time(need.timeout, check):
            raise OperationError(
                f"session.{need.session} was not {need.until} within {need.timeout:g} s", code="dependency"
            )
