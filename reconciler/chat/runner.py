"""The process of a group chat: it folds the log, asks whoever owes a turn, and writes down what comes of it.

It hosts nothing: turns are jobs on their hosts, and go on when it ends. Whatever it needs to know again stands in the
log, so it may be ended at any moment and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.chat import log, state
from reconciler.chat.cast import Cast, read_cast
from reconciler.chat.entries import Entry
from reconciler.chat.jobs import WAIT, Caller, Ended, HostJobs, Job
from reconciler.chat.outcomes import entry_of, late, unasked
from reconciler.chat.prompts import compose
from reconciler.chat.turns import Owed, Talk, after, close, conversation_of, fold
from reconciler.errors import HostError, LeaseHeldError, OperationError, ReconcilerError
from reconciler.hosts import Hosts
from reconciler.leases import this_machine

LOG = logging.getLogger(__name__)
POLL = 0.25  # seconds between looks at the inbox and the document
RENEW = 40.0  # seconds between renewals of the lease on a host where nothing runs
PATIENCE = 60.0  # seconds, and no more than a turn's time, that a host may be silent before the chat goes on without it
GRACE = 20.0  # seconds that a host may take to say that a turn's time was over
RETRY = 5.0  # seconds between two attempts to reach a host, at most
PASSING = ("locked", "disk-full")  # refusals of hosts that pass
GIVEN_UP = ("unreachable", "timeout", "removed")


@dataclass(frozen=True)
class Asked:
    """A turn that may run: on which host, and the chat as it was declared when it was asked for."""

    owed: Owed
    host: str
    cast: Cast


class Runner:
    """One chat in its folder, which is the session's directory on this machine."""

    def __init__(self, folder: Path, values: dict[str, str], hosts: Hosts) -> None:
        """`values` are those that variables stand for in the document. Raises LeaseHeldError, OperationError."""
        self._folder = folder
        self._values = values
        self._hosts = hosts
        self._log = log.Log(folder)
        self._stamp = self._incarnation()
        self._cast = read_cast(self._read_document(), values)
        self._read_at = (0, 0)
        self._chat = fold(self._log.entries, self._cast.limits)
        self._jobs: dict[str, HostJobs] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._inherited = frozenset(owed.turn_id for owed in self._chat.owed)  # another process may have asked for them
        self._began: dict[str, Asked] = {}
        self._given_up: dict[str, Asked] = {}
        self._trouble: dict[str, str] = {}
        self._begins: dict[str, asyncio.Event] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._ends = asyncio.Event()
        self._failure: ReconcilerError | None = None
        self._said = ""

    # -- its folder --------------------------------------------------------------------------------------------------

    def _incarnation(self) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / "incarnation").read_text(encoding="ascii").strip()
        return ""

    def _read_document(self) -> str:
        try:
            return (self._folder / log.CONFIG).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OperationError(f"{log.CONFIG}: {error}", code="chat-broken", remedy="reconciler apply") from None

    def _reread(self) -> None:
        """Take a changed document over. One that cannot be read changes nothing, and is said."""
        with contextlib.suppress(OSError, OperationError):
            found = (self._folder / log.CONFIG).stat()
            if (stamp := (found.st_mtime_ns, found.st_ino)) == self._read_at:
                return
            self._read_at = stamp
            try:
                self._cast = read_cast(self._read_document(), self._values)
                self._trouble.pop("chat.json", None)
            except OperationError as error:
                self._trouble["chat.json"] = error.message

    def _asked_to_close(self) -> bool:
        with contextlib.suppress(OSError):
            return (self._folder / log.CLOSE).read_text(encoding="ascii").strip() == self._stamp
        return False

    def _append(self, entry: Entry) -> None:
        """Write it down, and let the chat follow from it. Raises OperationError(disk-full), and nothing happened."""
        numbered = self._log.append(entry, time.time())
        self._chat = after(self._chat, numbered, self._cast.limits)
        self._wake.set()

    # -- its life ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End soon: at once, or where it was asked to close, as soon as that is done."""
        self._ends.set()
        self._wake.set()

    async def run(self) -> None:
        """Until it is stopped or closed. Raises LeaseHeldError where another machine runs this chat."""
        try:
            self._open()
            await self._leases()
            while not self._done():
                self._wake.clear()
                self._step()
                self._say()
                if self._failure is not None:
                    raise self._failure
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL)
            if self._endings:
                await asyncio.wait(self._endings)
            self._say()
        finally:
            for task in (*self._turns.values(), *self._watching.values()):
                task.cancel()
            self._log.close()

    def _done(self) -> bool:
        if self._chat.closed:
            return True
        return self._ends.is_set() and not self._asked_to_close()

    def _open(self) -> None:
        if not self._chat.id or self._chat.closed:
            cast = self._cast
            text = f"{cast.moderator} moderates; with {', '.join(cast.participants)}"
            data = {
                "id": self._chat.id or cast.id,
                "moderator": cast.moderator,
                "participants": list(cast.participants),
            }
            self._append(Entry(0, "system", "chat", (), text, "opened", data=data))

    def _step(self) -> None:
        """Everything that can be done without waiting: news are taken in, turns begun, what is due closed."""
        self._reread()
        try:
            self._members()
            self._messages()
            self._closing = self._closing or self._asked_to_close()
            if self._closing:
                self._close()
            elif self._chat.closing:
                self._append(close(self._chat))
            self._trouble.pop("disk", None)
        except OperationError as error:
            self._trouble["disk"] = error.message
            return
        self._turn_tasks()
        self._watches()

    def _watches(self) -> None:
        """One for each host where somebody may be asked or was, and none for others."""
        wanted = set(self._cast.hosts)
        wanted |= {asked.host for asked in (*self._began.values(), *self._given_up.values())}
        for name in wanted - set(self._watching):
            self._watching[name] = self._task(self._watch(name))
        for name in set(self._watching) - wanted:
            self._watching.pop(name).cancel()
            self._trouble.pop(name, None)

    def _turn_tasks(self) -> None:
        """One for each turn that is owed, and none for others."""
        owed = {owed.turn_id: owed for owed in self._chat.owed}
        for identity in set(self._turns) - set(owed):
            self._turns.pop(identity).cancel()
        for identity in set(owed) - set(self._turns) if not self._closing else ():
            self._turns[identity] = self._task(self._take(owed[identity]))

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)

        def ended(done: asyncio.Task[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, ReconcilerError):
                self._failure = error
            elif error is not None:
                LOG.error("a bug", exc_info=error)
                self._failure = OperationError(f"this is a bug: {error!r}", code="bug")
            self._wake.set()

        task.add_done_callback(ended)
        return task

    def _members(self) -> None:
        """Members change between rounds."""
        cast, chat = self._cast, self._chat
        asked = any(asked.host not in self._trouble for asked in self._asked())
        if (cast.moderator, cast.participants) == (chat.moderator, chat.participants) or not chat.between or asked:
            return
        before, now = {chat.moderator, *chat.participants}, set(cast.members)
        words = [f"{', '.join(sorted(now - before))} joined"] if now - before else []
        words += [f"{', '.join(sorted(before - now))} left"] if before - now else []
        words += [f"{cast.moderator} moderates"] if cast.moderator != chat.moderator else []
        data = {"moderator": cast.moderator, "participants": list(cast.participants)}
        self._append(Entry(0, "system", "chat", (), "; ".join(words) or "in another order", "members", data=data))

    def _messages(self) -> None:
        """The prompt of the specs, where it is new, and what lies in the inbox, in the order of arrival."""
        cast = self._cast
        if cast.prompt is not None and not self._closing:
            identity = "prompt-" + hashlib.sha256(cast.prompt.encode()).hexdigest()[:16]
            if identity != self._chat.prompt and (cast.follows_prompt or not self._chat.prompt):
                self._append(Entry(0, "user", "specs", (self._chat.moderator,), cast.prompt, turn_id=identity))
        for identity, path, message in log.received(self._folder):
            if identity not in self._chat.heard:
                sender = str(message.get("from", "user"))[:64] or "user"
                text = message["text"][: log.MESSAGE_LIMIT]
                self._append(Entry(0, "user", sender, (self._chat.moderator,), text, turn_id=identity))
            with contextlib.suppress(OSError):
                path.unlink()

    def _close(self) -> None:
        """Once nothing runs any more, or when there is no time left to wait for it."""
        running = self._asked()
        if not running:
            self._append(close(self._chat, "closed"))
        elif self._ends.is_set():
            for asked in running:
                del self._began[asked.owed.turn_id]
                self._endings.add(self._task(self._end_now(asked.owed, asked.host)))

    def _asked(self) -> list[Asked]:
        """The turns that may run."""
        return [self._began[owed.turn_id] for owed in self._chat.owed if owed.turn_id in self._began]

    async def _end_now(self, owed: Owed, host: str) -> None:
        with contextlib.suppress(ReconcilerError, TimeoutError):
            async with asyncio.timeout(5):
                await self._jobs_on(host).end(owed.who, owed.turn_id)

    # -- turns -------------------------------------------------------------------------------------------------------

    def _jobs_on(self, name: str) -> HostJobs:
        declared = self._cast.desired.hosts.get(name)
        if name not in self._jobs or (declared is not None and self._jobs[name].host != declared):
            connection = self._hosts.connection(name, self._cast.desired.hosts[name])
            # One holder for a machine: the next process of the chat goes on where this one ended.
            machine = hashlib.sha256(this_machine().encode()).hexdigest()[:16]
            holder = f"{os.uname().nodename}/{machine}"
            caller = Caller(self._cast.desired.fleet.name, self._cast.chat, self._chat.id[:8], holder)
            self._jobs[name] = HostJobs(connection, caller, self._over)
        return self._jobs[name]

    async def _leases(self) -> None:
        """Every host that answers within a moment knows who runs the chat before anybody is asked."""

        async def one(name: str) -> None:
            try:
                await self._jobs_on(name).look()
            except HostError as error:
                self._trouble[name] = error.message

        names = self._cast.hosts
        try:
            async with asyncio.timeout(PATIENCE / 4), asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(one(name))
        except* OperationError as errors:
            raise _refused(errors.exceptions[0]) from None
        except* TimeoutError:
            pass

    async def _watch(self, name: str) -> None:
        """Hear of turns on one host as they end; keep the lease there. A silent host is asked again and again."""
        begins = self._begins.setdefault(name, asyncio.Event())
        pause = 1.0
        while True:
            begins.clear()
            busy = any(asked.host == name for asked in self._began.values())
            try:
                left = await self._jobs_on(name).look(WAIT if busy else 0)
                self._trouble.pop(name, None)
                pause = 1.0
            except HostError as error:
                self._trouble[name] = error.message
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY)
                continue
            except OperationError as error:
                if error.code == "lease-held":
                    raise _refused(error) from None
                self._trouble[name] = error.message
                await asyncio.sleep(2.0)
                continue
            if not busy and not left:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(begins.wait(), RENEW)

    async def _take(self, owed: Owed) -> None:
        """See to it that a turn is begun, and that it has an outcome in bounded time."""
        cast, who = self._cast, owed.who
        if not cast.knows(who):
            await self._record(owed, unasked(self._chat, owed, "removed", f"{who} is no member any more"))
            return
        host = cast.host_of(who)
        if not cast.host(who).enabled:
            await self._record(owed, unasked(self._chat, owed, "unreachable", f"host.{host} is not enabled"))
            return
        try:
            begun = await self._begin(cast, owed, host)
        except (ReconcilerError, ValueError) as error:  # what its agent refuses ends no chat
            if getattr(error, "code", "") == "lease-held":
                raise _refused(error) from None
            await self._record(owed, unasked(self._chat, owed, "failed", str(error)))
            return
        if begun:
            await self._outcome(owed, cast.turn_timeout + min(GRACE, 5 + cast.turn_timeout))
        if owed in self._chat.owed:
            why = self._trouble.get(host, "no answer in time")
            status = "timeout" if begun and host not in self._trouble else "unreachable"
            await self._end_now(owed, host)
            if begun:
                self._given_up[owed.turn_id] = Asked(owed, host, cast)
            await self._record(owed, unasked(self._chat, owed, status, why))
            self._began.pop(owed.turn_id, None)

    async def _outcome(self, owed: Owed, seconds: float) -> None:
        """Wait until the turn has one; a moderator that cannot be reached is waited for."""
        end = time.monotonic() + seconds
        while owed in self._chat.owed:
            waits = owed.role == "moderator" and self._cast.host_of(owed.who) in self._trouble
            if time.monotonic() > end and not waits:
                return
            await asyncio.sleep(0.1)

    async def _begin(self, cast: Cast, owed: Owed, host: str) -> bool:
        """Whether the turn may have begun. Raises ReconcilerError, ValueError where it cannot begin at all."""
        jobs = self._jobs_on(host)
        since, pause = time.monotonic(), 0.5
        may_run = owed.turn_id in self._inherited
        while True:
            try:
                if not jobs.state_dir or host in self._trouble:
                    await jobs.look()  # what ended there meanwhile comes first: this turn may follow from it
                job = self._job(cast, owed, jobs.state_dir)
                self._began[owed.turn_id] = Asked(owed, host, cast)
                self._begins.setdefault(host, asyncio.Event()).set()
                await jobs.begin(job)
            except HostError as error:
                self._trouble[host] = error.message
                may_run = may_run or owed.turn_id in self._began
            except OperationError as error:
                if not may_run:
                    self._began.pop(owed.turn_id, None)
                if not error.retry and error.code not in PASSING:
                    raise
                self._trouble[host] = error.message
            else:
                return True
            patience = min(PATIENCE, cast.turn_timeout)
            if owed.role != "moderator" and time.monotonic() - since >= patience:
                return may_run
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY)

    def _job(self, cast: Cast, owed: Owed, state_dir: str) -> Job:
        who = owed.who
        agent = cast.agent(who)
        talk = self._chat.talks.get(who, Talk())
        known = conversation_of(self._chat, who) if agent.assigns_id else talk.id
        resume = talk.begun and cast.remembers(who) and known is not None
        if agent.assigns_id and not cast.remembers(who):
            known = str(uuid.uuid5(uuid.NAMESPACE_OID, owed.turn_id))
        prompt = compose(cast.scene, self._chat, self._log.entries, owed)
        directory = f"{state_dir}/sessions/{who}/turns/{owed.turn_id}"
        # A moderator changes no files; an agent that cannot be held to it, as one of templates, is told so.
        read_only = who in cast.read_only or (owed.role == "moderator" and agent.can_be_read_only)
        invocation = cast.invocation(who, directory, prompt, (known, resume), read_only)
        environment = {**cast.environment(who), **invocation.env}
        shell = cast.host(who).shell or ""
        limit = max(1, round(cast.turn_timeout))
        return Job(who, owed.turn_id, agent.name, invocation, cast.workdir(who), limit, environment, shell)

    async def _over(self, ended: Ended) -> None:
        """A turn has ended on its host. Raises OperationError(disk-full) where that cannot be written down yet."""
        asked = self._began.get(ended.turn) or self._given_up.get(ended.turn)
        cast = asked.cast if asked else self._cast
        chat = self._chat
        owed = next((owed for owed in chat.owed if owed.turn_id == ended.turn), None)
        if owed is not None and cast.knows(owed.who):
            self._append(entry_of(chat, cast, owed, ended))
        elif owed is None and (given_up := self._outcome_without(ended)):
            entry = late(cast, given_up, ended)
            if entry is not None:
                self._append(entry)
        self._began.pop(ended.turn, None)
        self._given_up.pop(ended.turn, None)

    def _outcome_without(self, ended: Ended) -> Entry | None:
        """The entry of a turn that was given up before its host told of it; None where the host was heard."""
        entries = [entry for entry in self._log.entries if entry.turn_id == ended.turn]
        by_us = bool(entries) and entries[-1].data.get("begun") is False and entries[-1].status in GIVEN_UP
        return entries[-1] if by_us else None

    async def _record(self, owed: Owed, entry: Entry) -> None:
        """Write down that a turn came to nothing, as soon as that can be written."""
        while owed in self._chat.owed:
            try:
                self._append(entry)
            except OperationError as error:
                self._trouble["disk"] = error.message
                await asyncio.sleep(2.0)

    # -- what it says of itself --------------------------------------------------------------------------------------

    def _say(self) -> None:
        """The state file, which looks and `reconciler chat` read."""
        now = state.Present(frozenset(self._began), self._trouble, self._closing)
        text = state.text_of(self._chat, self._cast, self._log.entries, now)
        if text != self._said and state.write(self._folder, text):
            self._said = text


def _refused(error: BaseException) -> ReconcilerError:
    if getattr(error, "code", "") == "lease-held":
        return LeaseHeldError(str(error), code="lease-held", remedy="stop it there first: reconciler chat close")
    return error if isinstance(error, ReconcilerError) else OperationError(str(error), code="failed")
