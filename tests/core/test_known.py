"""What is kept of the last pass gives what comes without it, and only what changed is thought of again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.core.agent import Agent
from reconciler.core.decision import Decision
from reconciler.core.diff import Diff, Entry, compare
from reconciler.core.holds import Hold
from reconciler.core.known import Known
from reconciler.core.observed import Exit, HostSeen, Observed, Reached, SessionSeen, State
from reconciler.core.plan import Plan, make_plan
from reconciler.core.spec import Desired
from reconciler.core.status import Status, statuses
from reconciler.core.steps import LaunchStep
from reconciler.core.transcript import Archived, Relation
from reconciler.core.transitions import dated, key, transitions
from tests.core.situations import (
    BOOT,
    CONVERSATION,
    NOW,
    OTHER,
    agents_of,
    applied,
    archived,
    gone,
    host,
    running,
    silent,
    specs,
)

FLEET = """
[hosts.a]
[hosts.b]
[hosts.c]
[agents.mine]
extends = "claude-code"
[defaults.session]
host = "a"
agent = "claude-code"
[sessions.api]
[sessions.db]
agent = "mine"
labels = { tier = "1" }
[sessions.web]
host = "b"
depends_on = ["api", "db"]
prompt = "go on"
[sessions.job]
host = "b"
lifecycle = "task"
prompt = "do it"
[sessions.off]
host = "c"
state = "stopped"
[sessions.new]
host = "c"
protect = true
depends_on = ["off"]
[group_chats.talk]
moderator = "api"
participants = ["web"]
[[moved]]
from = "session.old"
to = "session.new"
[[removed]]
address = "session.left"
"""
REVISIONS = (
    specs(FLEET),
    specs(FLEET.replace('labels = { tier = "1" }', 'model = "opus"').replace('state = "stopped"', "protect = true")),
    specs(FLEET.replace('[sessions.job]\nhost = "b"', '[fleet]\nprune = false\n[sessions.job]\nhost = "c"')),
    specs(FLEET.replace("[hosts.b]", "[hosts.b]\nenabled = false")),
)  # fmt: skip
DRIVERS = [agents_of(desired) for desired in REVISIONS]
NAMES = ("api", "db", "web", "job", "off", "new", "talk", "old", "left", "other")
HOSTS = ("a", "b", "c")
ADDRESSES = tuple(f"session.{name}" for name in NAMES)


def _seen(name: str, **changes: Any) -> SessionSeen:
    declared = name if name in REVISIONS[0].sessions else "api"
    return running(replace(applied(REVISIONS[0], declared), name=name, **changes))


def _gone(name: str, state: State, boot: str = BOOT, code: int | None = None, **changes: Any) -> SessionSeen:
    record = _seen(name, **changes).record
    assert record is not None
    return gone(record, state, boot, None if code is None else Exit(code, NOW, 1))


def _doing(name: str, status: str) -> SessionSeen:
    record = _seen(name).record
    assert record is not None
    return running(record, status)


CLEARED = f'{{"pid": 100, "procStart": "7", "sessionId": "{OTHER}", "status": "idle"}}'
# What a host may have of a session.
SIGHTS: Mapping[str, Callable[[str], SessionSeen | None]] = {
    "nothing": lambda name: None,
    "runs": _seen,
    "busy": lambda name: _doing(name, "busy"),
    "cleared": lambda name: _doing(name, CLEARED),
    "relaunched": lambda name: replace(_seen(name, incarnation=2), incarnation=2),
    "labelled": lambda name: _seen(name, labels={"tier": "2"}),
    "another model": lambda name: _seen(name, written={"model": "haiku"}),
    "protected": lambda name: _seen(name, protected_by="ann", protected_at=NOW - 60, written={"model": "haiku"}),
    "lost": lambda name: _gone(name, "lost"),
    "spent": lambda name: _gone(name, "lost", restarts=tuple(NOW - 3590 + i for i in range(5))),
    "rebooted": lambda name: _gone(name, "lost", "boot-0"),
    "failed": lambda name: _gone(name, "exited", code=1),
    "complete": lambda name: _gone(name, "exited", code=0, lifecycle="task"),
    "stopped": lambda name: _gone(name, "stopped", intent="stopped"),
    "went to b": lambda name: _gone(name, "stopped", intent="stopped", to="b"),
    "moved": lambda name: _seen(name, moves=3),
    "broken": lambda name: SessionSeen(name, "broken", None, 1, trouble="its files cannot be read"),
    "unknown": lambda name: SessionSeen(name, "unknown", None, 1, trouble="nobody can tell"),
    "called old": lambda name: replace(_seen(name), called="old"),
    "attached": lambda name: replace(_seen(name), attached=1),
}
# What else a host may say.
SAYINGS: tuple[dict[str, Any], ...] = (
    {"boot": "boot-2"}, {"tmux": ""}, {"directories": {"~": ""}}, {"commands": {"claude": ""}},
    {"links": {"api": "other"}}, {"forgotten": {CONVERSATION: "77"}}, {"fence": 9}, {"user": "you"},
)  # fmt: skip
HOLDS = ("back-off", "suspended", "unselected", "")
RELATIONS: tuple[Relation, ...] = ("equal", "archive-ahead", "diverged", "unknown")


@dataclass
class World:
    """Everything that a pass rests on."""

    desired: Desired = REVISIONS[0]
    agents: Mapping[str, Agent] = field(default_factory=lambda: DRIVERS[0])
    hosts: dict[str, HostSeen] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    archive: dict[str, Archived] = field(default_factory=dict)
    relations: dict[str, Relation] = field(default_factory=dict)
    hold: dict[str, Hold | None] = field(default_factory=dict)
    restart: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    closed: bool = False
    passes: int = 0

    def gate(self, entry: Entry, decision: Decision) -> Hold | None:
        return Hold("window", "closed") if self.closed and decision.verb != "resume" else None

    def think(self, known: Known | None) -> tuple[Diff, Plan]:
        seen = Observed(dict(self.hosts))
        diff = compare(self.desired, seen, dict(self.last), known)
        plan = make_plan(
            diff, self.desired, seen, self.agents, plan_id=f"plan-{self.passes}",
            controller=f"me {self.passes}",
            hold=dict(self.hold), gate=self.gate, restart=self.restart, archive=dict(self.archive),
            relations=dict(self.relations), taken=self.taken, known=known,
        )  # fmt: skip
        return diff, plan


hosts = st.sampled_from(HOSTS)
names = st.sampled_from(NAMES)
changes = st.one_of(
    st.tuples(st.just("see"), hosts, names, st.sampled_from(sorted(SIGHTS))),
    st.tuples(st.just("see"), hosts, names, st.sampled_from(sorted(SIGHTS))),
    st.tuples(st.just("say"), hosts, st.sampled_from(range(len(SAYINGS)))),
    st.tuples(st.just("later"), hosts, st.sampled_from((1, 30, 4000))),
    st.tuples(st.just("silent"), hosts, st.sampled_from(("refused", "timed out"))),
    st.tuples(st.just("back"), hosts),
    st.tuples(st.just("not looked at"), hosts),
    st.tuples(st.just("parsed anew"), hosts),
    st.tuples(st.just("last"), names, st.sampled_from((*HOSTS, "gone", ""))),
    st.tuples(st.just("archive"), names, st.sampled_from((0, 5000, 9000))),
    st.tuples(st.just("relation"), names, st.sampled_from(RELATIONS)),
    st.tuples(st.just("hold"), st.sampled_from(ADDRESSES), st.sampled_from(HOLDS)),
    st.tuples(st.just("restart"), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("taken"), names),
    st.tuples(st.just("window")),
    st.tuples(st.just("revision"), st.sampled_from(range(len(REVISIONS)))),
    st.tuples(st.just("nothing")),
)  # fmt: skip


def _reached(world: World, name: str) -> Reached:
    found = world.hosts.get(name)
    return found if isinstance(found, Reached) else host(name)


def _look(world: World, change: tuple[Any, ...]) -> None:
    """Another look at one host."""
    match change:
        case ("see", name, session, sight):
            there = {key: seen for key, seen in _reached(world, name).sessions.items() if key != session}
            if (seen := SIGHTS[sight](session)) is not None:
                there[session] = seen
            world.hosts[name] = replace(_reached(world, name), sessions=there)
        case ("say", name, index):
            world.hosts[name] = replace(_reached(world, name), **SAYINGS[index])
        case ("later", name, seconds):
            world.hosts[name] = replace(_reached(world, name), now=_reached(world, name).now + seconds)
        case ("silent", name, why):
            world.hosts[name] = silent(name, why)
        case ("back", name):
            world.hosts[name] = host(name)
        case ("not looked at", name):
            world.hosts.pop(name, None)
        case ("parsed anew", name):
            if name in world.hosts:
                world.hosts[name] = deepcopy(world.hosts[name])


def _happen(world: World, change: tuple[Any, ...]) -> None:
    _look(world, change)
    match change:
        case ("last", name, place):
            world.last.pop(name, None)
            world.last |= {name: place} if place else {}
        case ("archive", name, size):
            world.archive[name] = archived(name, size)
        case ("relation", name, relation):
            world.relations[name] = relation
        case ("hold", address, why):
            world.hold.pop(address, None)
            if why:
                world.hold[address] = None if why == "unselected" else Hold(why, f"it is {why}")
        case ("restart", address):
            world.restart ^= {address}
        case ("taken", name):
            world.taken ^= {name}
        case ("window",):
            world.closed = not world.closed
        case ("revision", index):
            world.desired, world.agents = REVISIONS[index], DRIVERS[index]


def _starting() -> World:
    world = World()
    for name, session in world.desired.sessions.items():
        there = _reached(world, session.host)
        world.hosts[session.host] = replace(there, sessions={**there.sessions, name: _seen(name)})
    return world


class Publisher:
    """Says what has changed, as `run` does."""

    def __init__(self, known: Known | None) -> None:
        self.known = known
        self.statuses: tuple[Status, ...] = ()

    def publish(self, world: World) -> tuple[object, ...]:
        """Everything that comes of one pass."""
        diff, plan = world.think(self.known)
        seen, before = Observed(world.hosts), {key(status): status for status in self.statuses}
        found = statuses(world.desired, seen, diff, plan, world.agents, before, self.known)
        changed = transitions(before, found)
        self.statuses = dated(before, found, float(world.passes))
        return diff, plan, changed, self.statuses


stories = st.lists(st.lists(changes, min_size=1, max_size=3), max_size=8)


@settings(max_examples=60, deadline=None)
@given(stories)
@example([[("see", "a", "api", "lost"), ("silent", "c", "refused")], [("last", "api", "c")], [("last", "api", "")]])
@example([[("see", "a", "api", "lost"), ("last", "api", "c")], [("silent", "c", "refused")], [("back", "c")]])
@example(
    [[("see", "a", "api", "nothing"), ("say", "a", 4), ("see", "a", "other", "runs")], [("see", "a", "other", "lost")]]
)
@example([[("see", "c", "new", "nothing"), ("see", "c", "old", "runs")], [("see", "c", "old", "nothing")]])
@example([[("see", "b", "api", "moved")], [("later", "b", 30)], [("see", "b", "api", "lost")], [("say", "b", 0)]])
@example([[("see", "a", "api", "spent")], [("later", "a", 4000)], [("restart", "session.api")], [("taken", "api")]])
@example([[("see", "a", "api", "lost"), ("archive", "api", 9000)], [("relation", "api", "diverged")], [("window",)]])
def test_with_what_is_known_a_pass_gives_what_it_gives_without(story: list[list[tuple[Any, ...]]]) -> None:
    world, remembers, forgets = _starting(), Publisher(Known()), Publisher(None)
    for step in [[("nothing",)], *story]:
        for change in step:
            _happen(world, change)
        world.passes += 1
        assert remembers.publish(world) == forgets.publish(world)


class TestInAFleetOfAThousand:
    """Ten sessions a host, all as declared, each tenth after another. What is counted is what was worked out anew."""

    def _fleet(self) -> tuple[World, Publisher]:
        lines = [f"[hosts.h{i}]\n" for i in range(100)]
        for i in range(1000):
            after = f'depends_on = ["s{i - 1}"]\n' if i % 10 == 9 else ""
            lines.append(f'[sessions.s{i}]\nhost = "h{i // 10}"\nagent = "claude-code"\n{after}')
        desired = specs("".join(lines))
        world = World(desired, agents_of(desired))
        for i in range(100):
            seen = [running(applied(desired, f"s{n}")) for n in range(i * 10, i * 10 + 10)]
            world.hosts[f"h{i}"] = host(f"h{i}", *seen)
        publisher = Publisher(Known())
        publisher.publish(world)
        return world, publisher

    def _look(self, world: World, session: str = "", **changes: Any) -> None:
        """At every host: those that say the same are not parsed, and the clocks go on."""
        for name, seen in world.hosts.items():
            assert isinstance(seen, Reached)
            there = seen.sessions
            if session in there:
                there = {**deepcopy(dict(there)), session: replace(there[session], **changes)}
            world.hosts[name] = replace(seen, now=seen.now + 30, fence=seen.fence + 1, sessions=there)
        world.passes += 1

    def _anew(self, publisher: Publisher) -> tuple[list[Any], list[Any], list[Any]]:
        assert publisher.known is not None
        found = publisher.known.anew
        return found["entries"], found["decisions"], [address for address, _ in found["statuses"]]

    def test_at_first_everything_is_thought_of(self) -> None:
        _, publisher = self._fleet()
        assert [len(found) for found in self._anew(publisher)] == [1000, 1000, 1000]

    def test_nothing_is_where_no_host_says_anything_else_than_before(self) -> None:
        world, publisher = self._fleet()
        self._look(world)
        _, plan, changed, found = publisher.publish(world)
        assert self._anew(publisher) == ([], [], [])
        assert isinstance(plan, Plan)
        assert (plan.unchanged, plan.actions, changed) == (1000, (), [])
        assert found == tuple(publisher.statuses)

    def test_one_session_that_ended_is_thought_of_alone(self) -> None:
        world, publisher = self._fleet()
        self._look(world, "s123", state="lost", process=None)
        _, plan, *_ = publisher.publish(world)
        assert self._anew(publisher) == (["s123"], ["s123"], ["session.s123"])
        assert isinstance(plan, Plan)
        assert [(action.address, action.verb) for action in plan.actions] == [("session.s123", "resume")]

    def test_what_is_to_be_done_is_decided_again_for_each_plan_and_what_is_held_is_not(self) -> None:
        world, publisher = self._fleet()
        self._look(world, "s123", state="lost", process=None)
        publisher.publish(world)
        world.passes += 1
        _, plan, *_ = publisher.publish(world)
        assert self._anew(publisher)[:2] == ([], ["s123"])
        assert isinstance(plan, Plan)
        assert [step.record.op for step in plan.actions[0].steps if isinstance(step, LaunchStep)] == [plan.id]
        world.hold["session.s123"] = Hold("back-off", "again in 10 s")
        publisher.publish(world)
        world.passes += 1
        publisher.publish(world)
        assert self._anew(publisher)[:2] == ([], [])

    def test_a_host_that_was_rebooted_concerns_its_sessions(self) -> None:
        world, publisher = self._fleet()
        world.hosts["h7"] = replace(_reached(world, "h7"), boot="boot-2")
        publisher.publish(world)
        mine = {f"s{i}" for i in range(70, 80)}
        entries, decisions, _ = self._anew(publisher)
        assert (set(entries), set(decisions)) == (mine, mine)

    def test_other_specs_concern_everything(self) -> None:
        world, publisher = self._fleet()
        world.desired = replace(world.desired)
        publisher.publish(world)
        assert [len(found) for found in self._anew(publisher)] == [1000, 1000, 1000]
