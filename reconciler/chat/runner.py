"""The process of a group chat: it folds the log, asks whoever owes a turn, and writes down what comes of it.

It hosts nothing: turns are jobs on their hosts, and go on when it ends. Whatever it needs to know again stands in the
log, so it may be ended at any moment and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from reconciler.chat import log
from reconciler.chat.cast import Cast, read_cast
from reconciler.chat.entries import Entry
from reconciler.chat.jobs import WAIT, Caller, Ended, HostJobs, Job
from reconciler.chat.prompts import compose
from reconciler.chat.turns import (
    Owed,
    Talk,
    after,
    answered,
    close,
    conversation_of,
    fold,
    forgot,
    missed,
)
from reconciler.errors import HostError, LeaseHeldError, OperationError, ReconcilerError
from reconciler.hosts import Hosts
from reconciler.leases import this_machine

LOG = logging.getLogger(__name__)
POLL = 0.25  # seconds between looks at the inbox and the document
RENEW = 40.0  # seconds between renewals of the lease on a host where nothing runs
PATIENCE = 60.0  # seconds for which a participant's host may be silent before the chat goes on without it
GRACE = 20.0  # seconds that a host may take to say that a turn's time was over
TEXT_LIMIT = 200_000  # characters of one answer that the log keeps
STATE_LIMIT = 3900  # bytes of what a look reads of the state file


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
        self._began: dict[str, tuple[Owed, str]] = {}  # turn id -> whom, and on which host
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
        for name in {self._cast.host_of(who) for who in self._cast.members} - {""}:
            if name not in self._watching or self._watching[name].done():
                self._watching[name] = self._task(self._watch(name))

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
        asked = any(host not in self._trouble for _, host in self._asked())
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
            for owed, host in running:
                del self._began[owed.turn_id]
                self._endings.add(self._task(self._end_now(owed, host)))

    def _asked(self) -> list[tuple[Owed, str]]:
        """The turns that may run, and on which host."""
        return [self._began[owed.turn_id] for owed in self._chat.owed if owed.turn_id in self._began]

    async def _end_now(self, owed: Owed, host: str) -> None:
        with contextlib.suppress(ReconcilerError):
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

        names = {self._cast.host_of(who) for who in self._cast.members} - {""}
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
            busy = any(host == name for _, host in self._began.values())
            try:
                left = await self._jobs_on(name).look(WAIT if busy else 0)
                self._trouble.pop(name, None)
                pause = 1.0
            except HostError as error:
                self._trouble[name] = error.message
                await asyncio.sleep(pause)
                pause = min(pause * 2, 15.0)
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
            await self._record(owed, "removed", f"{who} is no member any more")
            return
        host = cast.host_of(who)
        try:
            begun = await self._begin(cast, owed, host)
        except (OperationError, ValueError) as error:
            if getattr(error, "code", "") == "lease-held":
                raise _refused(error) from None
            await self._record(owed, "failed", str(error))
            return
        if begun:
            await self._outcome(owed, cast.turn_timeout + GRACE)
        if owed in self._chat.owed:
            why = self._trouble.get(host, "no answer in time")
            status = "timeout" if begun and host not in self._trouble else "unreachable"
            await self._end_now(owed, host)
            self._began.pop(owed.turn_id, None)
            await self._record(owed, status, why)

    async def _outcome(self, owed: Owed, seconds: float) -> None:
        """Wait until the turn has one; a moderator that cannot be reached is waited for."""
        end = time.monotonic() + seconds
        while owed in self._chat.owed:
            waits = owed.role == "moderator" and self._cast.host_of(owed.who) in self._trouble
            if time.monotonic() > end and not waits:
                return
            await asyncio.sleep(0.1)

    async def _begin(self, cast: Cast, owed: Owed, host: str) -> bool:
        """Whether the turn may have begun. Raises OperationError, ValueError where it cannot begin at all."""
        jobs = self._jobs_on(host)
        since, pause = time.monotonic(), 0.5
        while True:
            sent = False
            try:
                if not jobs.state_dir:
                    await jobs.look()
                job = self._job(cast, owed, jobs.state_dir)
                sent = True
                self._began[owed.turn_id] = (owed, host)
                self._begins.setdefault(host, asyncio.Event()).set()
                await jobs.begin(job)
            except HostError as error:
                self._trouble[host] = error.message
            except OperationError as error:
                if not error.retry and error.code != "locked":
                    self._began.pop(owed.turn_id, None)
                    raise
                self._trouble[host] = error.message
            else:
                return True
            patient = owed.role == "moderator" or time.monotonic() - since < PATIENCE
            if not patient:
                return sent or owed.turn_id in self._began
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)

    def _job(self, cast: Cast, owed: Owed, state_dir: str) -> Job:
        who = owed.who
        agent = cast.agent(who)
        talk = self._chat.talks.get(who, Talk())
        known = conversation_of(self._chat, who) if agent.assigns_id else talk.id
        resume = talk.begun and agent.resumable and known is not None
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
        self._began.pop(ended.turn, None)
        owed = next((owed for owed in self._chat.owed if owed.turn_id == ended.turn), None)
        if owed is not None:
            self._append(self._entry(owed, ended))
        elif not any(e.turn_id == ended.turn and e.status in ("ok", "unclear", "late") for e in self._log.entries):
            self._late(ended)

    def _late(self, ended: Ended) -> None:
        """It answers after its outcome was written down: that is kept, and leads to nothing."""
        who = ended.turn.split(".")[2]
        if not self._cast.knows(who) or not any(e.turn_id == ended.turn for e in self._log.entries):
            return
        reply = self._cast.agent(who).reply(_code(ended), ended.out, ended.err)
        if reply.text:
            round_of = next(e.round for e in self._log.entries if e.turn_id == ended.turn)
            self._append(Entry(0, "participant", who, (), _kept(reply.text), "late", ended.turn, round_of))

    def _entry(self, owed: Owed, ended: Ended) -> Entry:
        """What the outcome of a turn means."""
        chat = self._chat
        if ended.error == "timeout":
            return missed(chat, owed, "timeout", f"it was ended after {self._cast.turn_timeout:g} s")
        if ended.error:
            return missed(chat, owed, "failed", _why(owed, ended))
        if not self._cast.knows(owed.who):
            return missed(chat, owed, "removed", f"{owed.who} is no member any more")
        if ended.exit is None:
            return missed(chat, owed, "lost", "its host lost the turn: it was restarted, or the process killed")
        reply = self._cast.agent(owed.who).reply(_code(ended), ended.out, ended.err)
        usage: dict[str, float] = {"cost": reply.cost} if reply.cost else {}
        if reply.tokens and not reply.running:
            usage["tokens"] = reply.tokens
        if ended.exit == 0 and not reply.error:
            return answered(chat, owed, _kept(reply.text), usage, reply.conversation)
        if (reply.unknown or reply.taken) and owed.attempt < 3 and not owed.anew:
            return forgot(owed)
        why = reply.error or f"its agent ended with exit code {ended.exit}"
        return missed(chat, owed, "failed", why[:2000], usage, reply.conversation)

    async def _record(self, owed: Owed, status: str, why: str) -> None:
        """Write down that a turn came to nothing, as soon as that can be written."""
        while owed in self._chat.owed:
            try:
                self._append(missed(self._chat, owed, status, why))
            except OperationError as error:
                self._trouble["disk"] = error.message
                await asyncio.sleep(2.0)

    # -- what it says of itself --------------------------------------------------------------------------------------

    def _say(self) -> None:
        """The state file, which looks and `reconciler chat` read."""
        chat = self._chat
        since = self._log.entries[-1].at if self._log.entries else time.time()
        owed = [
            {"who": owed.who, "host": self._cast.host_of(owed.who), "since": self._since(owed),
             "status": "asked" if owed.turn_id in self._began else "to be asked"}
            for owed in chat.owed
        ]  # fmt: skip
        trouble = "; ".join(words for key, words in sorted(self._trouble.items()) if self._matters(key))
        state: str = "closing" if self._closing and not chat.closed else chat.state
        if state == "moderating" and self._cast.host_of(chat.moderator) in self._trouble:
            state = "waiting"
        table: dict[str, Any] = {
            "pid": os.getpid(), "state": state, "round": chat.round, "max_rounds": self._cast.limits.max_rounds,
            "since": since, "owed": owed, "queued": len(chat.queue), "cost": round(chat.cost, 6),
            "trouble": trouble[:400], "hosts": {who: self._cast.host_of(who) for who in self._cast.members},
        }  # fmt: skip
        text = json.dumps(table)
        if len(text) > STATE_LIMIT:
            text = json.dumps({**table, "hosts": {}, "owed": [{"who": item["who"]} for item in owed[:40]]})
        if text != self._said:
            try:
                log.replace_file(self._folder / log.STATE, text)
                self._said = text
            except OperationError as error:
                LOG.warning("%s", error.message)

    def _matters(self, key: str) -> bool:
        return key not in self._cast.desired.hosts or key in {self._cast.host_of(owed.who) for owed in self._chat.owed}

    def _since(self, owed: Owed) -> float:
        return self._log.entries[owed.cause - 1].at


def _code(ended: Ended) -> int:
    return 1 if ended.exit is None else ended.exit


def _kept(text: str) -> str:
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters are left out here ...]\n{text[-half:]}"


def _why(owed: Owed, ended: Ended) -> str:
    return {
        "agent-missing": f"its agent is not on the PATH of the login shell: {ended.detail}",
        "workdir-missing": f"its working directory {ended.detail} does not exist",
    }.get(ended.error, ended.detail or ended.error)


def _refused(error: BaseException) -> ReconcilerError:
    if getattr(error, "code", "") == "lease-held":
        return LeaseHeldError(str(error), code="lease-held", remedy="stop it there first: reconciler chat close")
    return error if isinstance(error, ReconcilerError) else OperationError(str(error), code="failed")
