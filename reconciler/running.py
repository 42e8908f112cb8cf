"""Everything that `reconciler run` consists of, put together: source, loop, journal, socket; and taken down again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.control import Control, Lock
from reconciler.core.diagnostics import Diagnostic
from reconciler.core.report import Event
from reconciler.core.spec import Desired
from reconciler.core.status import Status
from reconciler.core.transitions import Transition
from reconciler.errors import UsageError
from reconciler.hosts import Hosts
from reconciler.journal import Happened, Journal, open_journal
from reconciler.leases import actor
from reconciler.loop import Loop
from reconciler.outside import Outside
from reconciler.sources import open_source
from reconciler.sources.following import Following, SourceTrouble
from reconciler.sources.notes import Notes, place_of
from reconciler.surroundings import Told, Tuning

LOG = logging.getLogger(__name__)
_AGAIN = 5.0  # seconds until a source that never gave a revision is asked again
_OWN_FILES = 128  # descriptors that are not for connections


@dataclass(frozen=True)
class Settings:
    """What the command line says. `interval` in seconds, None for the fleet's own."""

    source: str
    interval: float | None = None
    verify: str | None = None
    allowed_signers: str | None = None
    listen: str | None = None  # [HOST:]PORT
    webhook_secret: bytes = b""


@dataclass(frozen=True)
class Voice:
    """To whom it speaks: actions, changes, and words about the program itself."""

    event: Callable[[Event], None]
    transition: Callable[[Transition], None]
    say: Callable[[str], None]


async def keep(settings: Settings, voice: Voice, ended: asyncio.Event, reload: asyncio.Event) -> None:
    """Keep the fleet until `ended`. Raises LeaseHeldError where another one keeps it on this machine already."""
    place = place_of(settings.source)
    source = open_source(settings.source, verify=settings.verify, allowed_signers=settings.allowed_signers, state=place)
    following = Following(source, Notes(place), now=time.time)
    try:
        if not await _first(following, voice, ended):
            return
        assert following.good is not None
        fleet = following.good.desired.fleet.name
        lock = Lock(fleet)
        try:
            with open_journal(fleet, write=True, actor=actor("run")) as journal:
                async with Hosts() as hosts:
                    await _keep(settings, voice, following, journal, hosts, lock, ended, reload)
        finally:
            lock.release()
    finally:
        await source.close()


async def first_look(settings: Settings) -> Desired:
    """What the newest revision declares. Raises SourceError or SpecError where it cannot be in force."""
    place = place_of(settings.source)
    source = open_source(settings.source, verify=settings.verify, allowed_signers=settings.allowed_signers, state=place)
    try:
        return (await source.read()).desired
    finally:
        await source.close()


async def _first(following: Following, voice: Voice, ended: asyncio.Event) -> bool:
    """Ask until there is a revision to begin with; False where it ended before."""
    told = ""
    while not ended.is_set():
        await following.refresh()
        if following.good is not None:
            return True
        words = following.trouble.message if following.trouble else "there are no specs"
        if words != told:
            voice.say(f"{following.source.name}: {words}; nothing is done until that is settled")
            told = words
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN):
                await ended.wait()
    return False


async def _keep(
    settings: Settings,
    voice: Voice,
    following: Following,
    journal: Journal,
    hosts: Hosts,
    lock: Lock,
    ended: asyncio.Event,
    reload: asyncio.Event,
) -> None:
    noted: list[Happened] = []

    outside = Outside(journal, following, voice.say)

    def transition(changed: Transition) -> None:
        voice.transition(changed)
        outside.transition(changed)
        noted.append(_happened(changed))

    def event(happens: Event) -> None:
        voice.event(happens)
        outside.event(happens)

    def published(statuses: tuple[Status, ...]) -> None:
        if noted:
            journal.note(noted)
            noted.clear()
        outside.published(statuses, loop.failures())

    told = Told(event, transition, published, outside.revised, outside.looked, outside.decided)
    loop = Loop(_Specs(following, journal), hosts, journal, told, Tuning(interval=settings.interval))
    control = Control(loop, lock.path)
    assert following.good is not None
    wanted = len(following.good.desired.hosts)
    if (most := enough_files(wanted)) < wanted:
        voice.say(f"this process may open {most} connections, and there are {wanted} hosts: ulimit -n {wanted * 2}")
    if settings.listen is not None:
        outside.listen(loop, settings.listen, settings.webhook_secret)
    await control.start()
    voice.say(
        f"keeps the fleet {following.good.desired.fleet.name} as {following.source.name} says, at {following.good.id}"
    )
    _told_of_run(journal, following, voice, "begin")
    signals = [asyncio.create_task(_when(ended, loop.stop)), asyncio.create_task(_each(reload, loop.reload))]
    try:
        await loop.run()
    finally:
        for task in signals:
            task.cancel()
        await control.close()
        await outside.close()
        _told_of_run(journal, following, voice, "end")


def _told_of_run(journal: Journal, following: Following, voice: Voice, verb: str) -> None:
    """Both ends of a run are in the audit log; the head of its chain goes where the words of `run` are kept."""
    assert following.good is not None
    journal.record("run", "fleet", verb=verb, revision=following.good.desired.revision, message=following.source.name)
    number, head = journal.head()
    voice.say(f"audit log: entry {number} has the hash {head}")


class _Specs:
    """What the loop sees of a followed source; a pin of `rollback` counts, and a fleet keeps its name."""

    def __init__(self, following: Following, journal: Journal) -> None:
        self._following = following
        self._journal = journal
        self.good = following.good
        self.trouble = _told(following.trouble)
        self.polls = following.source.polls
        self._put_down()

    async def refresh(self) -> bool:
        """Another revision is in force."""
        following, pin = self._following, self._journal.recall("pin")
        if pin and pin != following.pinned:
            following.pin(pin)
        elif not pin and following.pinned:
            following.unpin()
        changed = await following.refresh()
        self.trouble = _told(following.trouble)
        good = following.good
        if good is not None and self.good is not None and good.desired.fleet.name != self.good.desired.fleet.name:
            names = self.good.desired.fleet.name, good.desired.fleet.name
            why = f"{good.id} renames the fleet {names[0]} to {names[1]}: start reconciler run again for that"
            self.trouble = _Trouble("renamed", why)
            return False
        self.good = good
        self._put_down()
        return changed

    def _put_down(self) -> None:
        """The audit log names the commit of what is done from now on."""
        if self.good is not None:
            self._journal.comes_from(self.good.desired.revision, self.good.commit, self.good.author)

    async def changed(self) -> None:
        """There may be something new."""
        await self._following.source.changed()

    def poke(self) -> None:
        """Ask now."""
        self._following.source.poke()

    def accept(self, revision: str) -> None:
        """That revision is meant. Raises UsageError where it is not the one that is refused for its lost files."""
        trouble = self._following.trouble
        if trouble is None or trouble.code != "mass-loss" or not _same_revision(trouble.attempted, revision):
            raise UsageError(
                f"no revision {revision} is refused for the files that it lost", remedy="reconciler status"
            )
        self._journal.record(
            "guard-lifted", "source", verb=trouble.code, revision=trouble.attempted, evidence=trouble.message,
            message="reconciler reconcile --accept",
        )  # fmt: skip
        self._following.accept(trouble.attempted)


def _same_revision(attempted: str, given: str) -> bool:
    """Whether a person means it: its id, or seven and more of the first characters of its digest."""
    return given == attempted or (len(given) >= 7 and attempted.rpartition(":")[2].startswith(given))


@dataclass(frozen=True)
class _Trouble:
    """Why what is new is not in force."""

    code: str
    message: str


def _told(trouble: SourceTrouble | None) -> _Trouble | None:
    """The same in one sentence, with the place of the first error."""
    if trouble is None:
        return None
    found = [d for d in trouble.diagnostics if isinstance(d, Diagnostic)]
    place = f"{found[0].file}:{found[0].line}: {found[0].summary}" if found else ""
    words = f"{trouble.message}: {place}" if place else trouble.message
    return _Trouble(trouble.code, f"{words}; {trouble.remedy}" if trouble.remedy else words)


async def _when(event: asyncio.Event, act: Callable[[], None]) -> None:
    await event.wait()
    act()


async def _each(event: asyncio.Event, act: Callable[[], None]) -> None:
    while True:
        await event.wait()
        event.clear()
        act()


def _happened(changed: Transition) -> Happened:
    return Happened(
        0, time.time(), changed.address, changed.host, changed.type, changed.before, changed.after, changed.reason,
        changed.message,
    )  # fmt: skip


def enough_files(hosts: int) -> int:
    """Raise the limit of open files as far as it goes; how many connections there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = 2 * hosts + _OWN_FILES
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return hosts if soft == unlimited else max(0, soft - _OWN_FILES)
