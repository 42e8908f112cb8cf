"""START HERE. One pass: observe everything once, compare purely, plan, and carry out that very plan."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler import drivers, garbage
from reconciler.core.agent import Agent
from reconciler.core.diff import Diff, announced, compare, owners
from reconciler.core.guards import check_emptiness, check_stops, contested, limit_of
from reconciler.core.holds import Hold, open_gate, suspended
from reconciler.core.known import Known
from reconciler.core.observed import HostSeen, Observed, Reached
from reconciler.core.plan import LAUNCHES, Plan, make_plan
from reconciler.core.report import Report
from reconciler.core.selection import Selection, address, hold_for
from reconciler.core.spec import Desired, address_of, name_of
from reconciler.core.transcript import Archived, Relation
from reconciler.core.windows import gate
from reconciler.execute import Execution, Tell
from reconciler.hosts import Hosts
from reconciler.journal import Intent, Journal
from reconciler.leases import TTL, Leases, holder, this_machine
from reconciler.observe import observe
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.carrying import item_of, open_archive
from reconciler.transcripts.relations import relations
from reconciler.transcripts.sync import PullResult, pull_many


@dataclass(frozen=True)
class Pass:
    """What one pass made: the specs, what was seen, the difference, and what to do about it."""

    desired: Desired
    agents: Mapping[str, Agent]
    observed: Observed
    diff: Diff
    plan: Plan
    archive: Archive

    def address(self, name: str) -> str:
        """The address of a session or group chat, declared or as the record on a host says."""
        found = (host.sessions[name].record for host in self.observed.hosts.values()
                 if isinstance(host, Reached) and name in host.sessions)  # fmt: skip
        agent = next((record.agent for record in found if record is not None), "")
        return self.desired.address(name) if name in self.desired.sessions else address_of(name, agent)


@dataclass(frozen=True)
class Options:
    """What a person may add to the specs for one pass."""

    selection: Selection = field(default_factory=Selection)
    restart: tuple[str, ...] = ()
    max_stop: str | None = None
    take_over: tuple[str, ...] = ()  # sessions whose silent host is taken for gone, because a person says so
    ignore_windows: bool = False  # act although a window of the specs holds changes
    plan_id: str = ""  # of a saved plan that this pass carries out: hosts do nothing twice for one id


@dataclass(frozen=True)
class Evidence:
    """What a plan rests on: what was seen of the hosts, what the archive has, and how the two stand to each other."""

    observed: Observed
    archive: Archive
    heads: Mapping[str, Archived] = field(default_factory=dict)
    relations: Mapping[str, Relation] = field(default_factory=dict)


async def preview(
    desired: Desired,
    hosts: Hosts,
    journal: Journal,
    options: Options | None = None,
    seen: Callable[[HostSeen], None] = lambda _: None,
    now: datetime | None = None,
) -> Pass:
    """What would happen, and why. Changes nothing anywhere. Raises GuardError for specs that declare nothing.

    `now` is the moment for which windows and suspensions count; the clock's, where nobody says otherwise.
    """
    now = now or datetime.now(UTC)
    check_emptiness(desired)
    observed = await observe(hosts, desired, drivers.agents(desired), seen=seen)
    archive = open_archive(desired)
    heads = await asyncio.to_thread(archive.heads)
    agents = drivers.agents(desired, agents_seen(observed))
    related = await relations(hosts, desired, agents, observed, heads, archive.prefix_digest)
    evidence = Evidence(observed, archive, heads, related)
    return consider(desired, evidence, journal, now, options)


def consider(
    desired: Desired,
    evidence: Evidence,
    journal: Journal,
    now: datetime,
    options: Options | None = None,
    hold: Mapping[str, Hold] | None = None,
    known: Known | None = None,
) -> Pass:
    """Think, and look at no host again. `hold` is what waits for reasons of the caller's own. `known` is what the
    last pass left there: whatever rests on the same is not worked out again, and the outcome is the same."""
    with garbage.held_off():
        return _considered(desired, evidence, journal, now, options or Options(), hold or {}, known)


def _considered(
    desired: Desired,
    evidence: Evidence,
    journal: Journal,
    now: datetime,
    options: Options,
    hold: Mapping[str, Hold],
    known: Known | None,
) -> Pass:
    observed, heads = evidence.observed, evidence.heads
    agents = _agents(desired, agents_seen(observed), known)
    taken = {name_of(address(desired, text)) for text in options.take_over}
    # Where the journal is lost, the archive still knows from which host a conversation came last.
    last = {name: found.host for name, found in heads.items() if name in desired.sessions and found.host}
    went = {name: host for name, host in announced(observed).items() if name in desired.sessions}
    places = {name: host for name, host in {**last, **journal.places(), **went}.items() if name not in taken}
    diff = compare(desired, observed, places, known)
    silent = [name for name, found in observed.hosts.items() if not isinstance(found, Reached)]
    plan = make_plan(
        diff, desired, observed, agents, plan_id=options.plan_id or secrets.token_hex(16), controller=holder(),
        hold={
            **hold,
            **suspended(desired, diff, journal.suspensions(now.timestamp())),
            **hold_for(desired, diff, options.selection, silent),  # not shown at all, suspended or not
        },
        restart=frozenset(address(desired, text) for text in options.restart), archive=heads,
        relations=evidence.relations, taken=frozenset(taken),
        gate=gate(desired, now) if not options.ignore_windows else open_gate, known=known,
    )  # fmt: skip
    return Pass(desired, agents, observed, diff, plan, evidence.archive)


def _agents(desired: Desired, seen: frozenset[str], known: Known | None) -> Mapping[str, Agent]:
    """The drivers: as long as they are the same the same objects, since one that specs declare is equal to no other."""
    if known is None:
        return drivers.agents(desired, seen)
    known.about(desired)
    if known.agents is None or known.agents[0] != seen:
        known.agents = seen, drivers.agents(desired, seen)
    found: Mapping[str, Agent] = known.agents[1]
    return found


def execution(done: Pass, hosts: Hosts, journal: Journal, tell: Tell, options: Options | None = None) -> Execution:
    """Ready to carry out the plan of a pass. Raises GuardError where it would stop too much at once."""
    asked = (options or Options()).max_stop
    where = " by --max-stop" if asked else limit_of(done.desired)
    check_stops(done.plan, asked or done.desired.fleet.max_stop, where)

    async def afresh() -> Plan:
        return (await preview(done.desired, hosts, journal, options)).plan

    fences = contested(done.observed, done.plan.effective)
    return Execution(
        done.plan, done.desired, hosts, done.agents, journal, tell, done.archive, fences, afresh=afresh
    )  # fmt: skip


async def carry_out(work: Execution, done: Pass, journal: Journal, leases: Leases | None = None) -> Report:
    """Do it. Before, open intents of a controller that was killed get their outcome from what was seen.

    `leases` are those of a controller that is at work already; without, it takes its own and gives them back.
    """
    settle(journal, done.observed, journal.open_intents())
    remember(journal, done.observed, done.desired)
    if not done.plan.effective:
        return Report(done.plan, ())
    own = leases or leases_of(done.desired)
    try:
        report = await work.run(own)
    finally:
        await asyncio.shield(own.release())
    arrived(journal, report)
    return report


def leases_of(desired: Desired, ttl: int = TTL) -> Leases:
    """Leases for one fleet, none of them taken yet; `ttl` counts where the specs do not say how long they last."""
    return Leases(desired.fleet.name, holder(), local_of(desired), int(desired.fleet.lease or ttl))


def local_of(desired: Desired) -> str:
    """Which machine the host `local` is, where the fleet has sessions on it; else nothing."""
    return this_machine() if any(session.host == "local" for session in desired.sessions.values()) else ""


def arrived(journal: Journal, report: Report) -> None:
    """Remember where the launches of a report brought their sessions."""
    journal.remember({
        name_of(outcome.address): outcome.host
        for outcome in report.outcomes
        if outcome.status == "done" and outcome.verb in LAUNCHES
    })  # fmt: skip


def settle(journal: Journal, observed: Observed, intents: Iterable[Intent]) -> None:
    """Give every open intent on a host that answered its outcome: by looking, never by asking."""
    for intent in intents:
        host = observed.hosts.get(intent.host)
        if isinstance(host, Reached):
            seen = host.sessions.get(name_of(intent.address))
            state = f"{seen.state}, incarnation {seen.incarnation}" if seen else "absent"
            journal.settle(intent.op, f"seen afterwards: {state}")


def remember(journal: Journal, observed: Observed, desired: Desired, skip: frozenset[str] = frozenset()) -> None:
    """Where each session is now, for the day on which a host does not answer.

    `skip` are those that something is being done to: whoever does it knows better.
    """
    known = journal.places()
    places = {
        name: host.name
        for host in observed.hosts.values()
        if isinstance(host, Reached)
        for name, seen in host.sessions.items()
        if seen.record is not None
    }
    answered = {host.name for host in observed.hosts.values() if isinstance(host, Reached)}
    gone = {name for name, host in known.items() if host in answered and name not in places}
    gone |= {name_of(item.address) for item in desired.removed} & set(known)
    gone -= skip
    new = {k: host for k, host in places.items() if known.get(k) != host and k not in gone and k not in skip}
    if new or gone:
        journal.remember(new, frozenset(gone))


def agents_seen(observed: Observed) -> frozenset[str]:
    """The agents of sessions on hosts, which the specs may not name any more."""
    return frozenset(
        seen.record.agent
        for host in observed.hosts.values()
        if isinstance(host, Reached)
        for seen in host.sessions.values()
        if seen.record is not None
    )


async def archive_all(done: Pass, hosts: Hosts, names: frozenset[str] | None = None) -> list[PullResult]:
    """From-remote for every session of the fleet (of `names`) that was seen: one exec a host, none where nothing
    changed. A failure is a value: it never fails a session, and the next time tries again.

    What a session left on hosts from which it moved is older than the archive, and not asked for. Neither is what the
    plan forgets: a copy would make it the present conversation again of a session that it is not any more.
    """
    forgotten = {action.address for action in done.plan.effective if action.verb == "forget"}
    places = owners(done.desired, done.observed)

    async def one(reached: Reached) -> list[PullResult]:
        items = []
        for name, seen in reached.sessions.items():
            agent = done.agents.get(seen.record.agent) if seen.record else None
            declared = done.desired.sessions.get(name)
            wanted = name in names if names is not None else declared is None or declared.sync.transcript
            wanted = (
                wanted
                and places.get(name) == reached.name
                and address_of(name, agent.name if agent else "") not in forgotten
            )
            if agent is not None and agent.resumable and wanted:
                items.append(await item_of(done.desired, reached, agent, name, agent.command))
        connection = hosts.connection(reached.name, done.desired.hosts[reached.name])
        return await pull_many(connection, items, done.archive) if items else []

    found = [host for host in done.observed.hosts.values() if isinstance(host, Reached)]
    return [result for results in await asyncio.gather(*map(one, found)) for result in results]
