"""What happens to a fleet: edits of the specs, applies with faults, and events on the machines; and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from reconciler.core.plan import Action
from reconciler.simulation import clock
from reconciler.simulation.machine import Fault, Machine
from reconciler.simulation.scratch import scratch
from reconciler.simulation.transport import FAULTS
from tests.simulation.specs import FleetSpec, SessionSpec, edits, fleets
from tests.simulation.world import Applied, Broken, World, forget_pending, raise_now, secret_environment

# Reasons to do nothing that the specs or the record themselves explain.
EXPLAINED = {
    "protected", "not-implemented", "budget-spent", "clean-exit", "dependency", "no-terminal", "refused", "two-changes",
    "no-store", "name-taken",
}  # fmt: skip
TO_FILES = ("truncate", "rewrite", "mtime", "lost", "stale")
EVENTS = (
    "crash",
    "exit",
    "vanish",
    "busy",
    "late",
    "late",
    "reboot",
    "tmux",
    "sshd",
    "silent",
    "trouble",
    "disk",
    "net",
    "clock",
    "missing",
    "wait",
    *TO_FILES,
)
MOMENTS = ("edit", "edit", "event", "event", "faults", "die", "second")  # of a fleet that is kept
LASTING: tuple[Fault, ...] = ("slow", "hang", "cut", "")
TRIES = 14


@dataclass(frozen=True)
class Second:
    """What a second controller does during an apply: its specs, when it begins, how long it is asked before it acts."""

    fleet: FleetSpec
    after: float = 0.0
    asked: float = 0.0


@dataclass(frozen=True)
class Apply:
    """One apply, perhaps with a second controller at work at the same time. `asked`: how long somebody thinks about
    the plan before it is carried out."""

    fleet: FleetSpec
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    dies_at: int | None = None
    second: Second | None = None
    events: tuple[tuple[float, Event], ...] = ()
    asked: float = 0.0
    freezes_at: int | None = None


@dataclass(frozen=True)
class Event:
    """Something that happens on a machine by itself."""

    kind: str
    host: int = 0
    amount: int = 0


@dataclass(frozen=True)
class Scenario:
    """The whole story; `fleet` is what the specs say at its end.

    Sessions move only where every controller lives to the end: for the others, see what is still open in test_stories.
    """

    hosts: tuple[str, ...]
    steps: tuple[Apply | Event, ...]
    fleet: FleetSpec


events = st.builds(Event, st.sampled_from(EVENTS), st.integers(0, 3), st.integers(0, 7))


@st.composite
def seconds(draw: st.DrawFn, fleets: tuple[FleetSpec, ...]) -> Second:
    """A second controller may have read other specs: its checkout is behind, or ahead."""
    own = draw(st.sampled_from((fleets[-1], fleets[-1], *fleets)))
    return Second(
        own, draw(st.sampled_from((0.0, 0.0, 0.5, 1.5, 4.0, 70.0))), draw(st.sampled_from((0.0, 0.0, 1.0, 4.0, 30.0)))
    )


@st.composite
def applies(draw: st.DrawFn, fleets: tuple[FleetSpec, ...], alone: bool) -> Apply:
    fleet = fleets[-1]
    script = st.lists(st.sampled_from(FAULTS), max_size=8)
    kinds = "clean" if alone else draw(st.sampled_from(("clean", "faults", "faults", "dies", "freezes", "events")))
    return Apply(
        fleet,
        draw(st.dictionaries(st.sampled_from(fleet.hosts), script, max_size=3)) if kinds == "faults" else {},
        draw(st.integers(1, 30)) if kinds == "dies" else None,
        draw(seconds(fleets)) if not alone and draw(st.booleans()) else None,
        draw(st.lists(st.tuples(st.floats(0, 5), events), max_size=3).map(tuple)) if kinds == "events" else (),
        0.0 if alone else draw(st.sampled_from((0.0, 0.0, 0.0, 2.0, 20.0))),
        draw(st.integers(3, 16)) if kinds == "freezes" else None,
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    fleet = draw(fleets())
    told: tuple[FleetSpec, ...] = (fleet,)
    alone = draw(st.integers(0, 3)) == 0
    steps: list[Apply | Event] = [Apply(fleet) if draw(st.integers(0, 3)) else draw(applies(told, alone))]
    for number in range(draw(st.integers(2, 6))):
        if draw(st.booleans()):
            steps.append(draw(events))
        fleet = draw(edits(fleet, number + 2))
        told = (*told, fleet)
        steps.append(draw(applies(told, alone)))
    return Scenario(fleet.hosts, tuple(steps), fleet)


def play(scenario: Scenario) -> None:
    """The story, then peace, then: the fleet is as its specs say, and stays so."""
    secret_environment()
    forget_pending()
    with scratch() as directory:
        clock.run(lambda: _play(scenario, World(directory, scenario.hosts)))
    raise_now()


async def _play(scenario: Scenario, world: World) -> None:
    for step in scenario.steps:
        if isinstance(step, Event):
            happen(world, step)
        else:
            await _apply(world, step)
        await asyncio.sleep(1.0)
        raise_now()
    await settle(world, scenario.fleet)


async def _apply(world: World, step: Apply) -> None:
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(after, happen, world, event) for after, event in step.events]
    work: list[Awaitable[object]] = [
        world.apply(step.fleet, step.faults, step.dies_at, asked=step.asked, freezes_at=step.freezes_at)
    ]
    if step.second is not None:
        world.crowded = True
        work.append(_second(world, step.second))
    try:
        await asyncio.gather(*work)
    finally:
        for timer in timers:
            timer.cancel()


async def _second(world: World, second: Second) -> None:
    await asyncio.sleep(second.after)
    await world.apply(second.fleet, controller="two", asked=second.asked)


def happen(world: World, event: Event) -> None:
    """Let it happen."""
    machines = list(world.machines.values())
    machine = machines[event.host % len(machines)]
    match event.kind:
        case "reboot":
            machine.power_cut()
        case "tmux":
            for pid in [pid for pid, program in machine.programs.items() if program.session in machine.panes]:
                machine.end(pid, 129, written=bool(event.amount % 2))
            machine.panes.clear()
        case "disk":
            machine.disk_full = not machine.disk_full
        case "net":
            machine.up = not machine.up
        case "clock" | "missing" | "late" | "wait" | "sshd" | "silent" | "trouble":
            _to_a_machine(machine, event)
        case kind if kind in TO_FILES:
            _to_files(world, machine, event)
        case _:
            _to_a_program(machine, event)


def _to_a_machine(machine: Machine, event: Event) -> None:
    match event.kind:
        case "clock":
            machine.skew += (event.amount - 3) * 30
        case "sshd":
            machine.drop_connections()
        case "silent":  # its cable, or its power for those who ask
            machine.silent = not machine.silent
        case "trouble":
            machine.trouble = LASTING[event.amount % len(LASTING)]
        case "missing":
            machine.missing ^= {"claude"}
        case "late":  # some are just in time, most are not
            machine.late = 22.0 + event.amount


def _to_files(world: World, machine: Machine, event: Event) -> None:
    """Somebody cuts off, rewrites or touches a file of a conversation, or all of a machine or an archive is lost."""
    paths = sorted(machine.store.files)
    path = paths[event.amount % len(paths)] if paths else ""
    content = machine.store.get(path)
    at = len(content) * event.amount // 8
    machine.tampered = machine.time()
    match event.kind:
        case "stale":
            world.age_archive(event.amount)
        case "lost":
            machine.lose_disk()
            world.forget_copies()
        case "mtime" if path:
            machine.store.files[path].mtime = (1, machine.now() - 5, machine.now() + 10**6)[event.amount % 3]
        case "truncate" if path:
            machine.store.change(path, content[:at])
            world.forget_copies()
        case "rewrite" if path:
            machine.store.change(path, content[:at] + b"other" + content[at + 5 :])
            world.forget_copies()


def _to_a_program(machine: Machine, event: Event) -> None:
    pids = sorted(machine.programs)
    if not pids:
        return
    pid = pids[event.amount % len(pids)]
    if event.kind == "busy":
        machine.programs[pid].busy_until = machine.time() + 30
    else:
        machine.end(pid, {"crash": 1, "exit": 0}.get(event.kind, 137), written=event.kind != "vanish")


async def settle(world: World, fleet: FleetSpec) -> Applied:
    """I1, I2, I7: after faults stop, the fleet reaches its specs in a bounded number of cycles, and rests."""
    world.heal()
    await asyncio.sleep(100)  # leases of the dead expire
    for _ in range(TRIES):
        applied = await world.apply(fleet)
        raise_now()
        if applied.plan is not None and not applied.plan.effective:
            break
        await asyncio.sleep(60 if applied.error else 5)
    else:
        raise Broken(f"I1: still at work after {TRIES} cycles: {_words(applied)}")
    again = await world.apply(fleet)
    raise_now()
    if again.line.log or again.plan is None or again.plan.effective:
        raise Broken(f"I2: a second apply did something: {_words(again)}")
    await world.apply(fleet, controller="two")
    check_rest(world, fleet, applied)
    return applied


def _words(applied: Applied) -> str:
    actions = applied.plan.actions if applied.plan else ()
    ends = applied.report.outcomes if applied.report else ()
    said = [f"{a.address} {a.verb} ({a.reason}: {a.message})" for a in actions]
    return "; ".join([*said, *(f"{o.address} {o.status}: {o.message}" for o in ends), str(applied.error or "")])


def check_rest(world: World, fleet: FleetSpec, applied: Applied) -> None:
    """A fleet at rest is as its specs say, or the plan says why not; no intent is open; no secret lies anywhere."""
    for controller in ("one", "two"):
        with world.journal(controller) as journal:
            if left := journal.open_intents():
                raise Broken(f"I7: intents without an outcome: {left}")
    from tests.simulation.specs import SECRET

    if SECRET in world.files():
        raise Broken("I9: a secret lies in a file")
    assert applied.plan is not None
    actions = {action.address: action for action in applied.plan.actions}
    for action in actions.values():
        explained = EXPLAINED | ({"diverged"} if world.spoilt else set()) | ({"twice"} if world.twice else set())
        if action.reason not in explained and "restart.policy is never" not in action.message:
            raise Broken(f"I1: {_words(applied)}")
    for name in sorted({*fleet.sessions, *(n for m in world.machines.values() for n in m.sessions)}):
        _check_session(world, name, fleet.sessions.get(name), actions.get(f"session.{name}"))


def _check_session(world: World, name: str, spec: SessionSpec | None, action: Action | None) -> None:
    live = world.live(name)
    if action is not None:
        return
    if spec is None or spec.state == "stopped":
        if live:
            raise Broken(f"I1: {name} is not wanted and runs")
        return
    if spec.lifecycle == "task":
        return
    if len(live) != 1:
        raise Broken(f"I1: {name} is wanted and runs {len(live)} times")
    machine, _, program = live[0]
    model = program.argv[program.argv.index("--model") + 1] if "--model" in program.argv else None
    wrong = machine.name != spec.host or (model or None) != spec.model
    if wrong or ("TOKEN" in program.environment) != spec.secret or "H" not in program.environment:
        raise Broken(f"I1: {name} runs, but not as declared: {program}")


def without_faults(fleet: FleetSpec) -> FleetSpec:
    """The same fleet with every session wanted."""
    return replace(fleet, sessions={name: replace(s, state="running") for name, s in fleet.sessions.items()})
