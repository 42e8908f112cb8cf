"""The safety contract as properties over generated fleets, specs, edits and faults; see scenario.py and world.py.

HYPOTHESIS_PROFILE=thorough runs many more examples. A failure prints the story and a line that reproduces it.
"""

from __future__ import annotations

import os
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from reconciler.simulation.machine import Fault
from reconciler.simulation.transport import FAULTS
from tests.simulation.scenario import EVENTS, MOMENTS, Apply, Event, Scenario, Second, play, scenarios
from tests.simulation.specs import FleetSpec, SessionSpec

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
PROPERTY = settings(
    max_examples=4000 if THOROUGH else 100,
    deadline=None,
    print_blob=True,
    # A story takes some 0.1 s, so that making it smaller takes minutes: only where somebody asked for more.
    phases=list(Phase) if THOROUGH else [Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

HOSTS = ("local", "h1")
START = FleetSpec(
    HOSTS,
    {
        "a": SessionSpec("h1", prompt="p", secret=True),
        "b": SessionSpec("local", agent="mine", depends=(("a", "ready"),)),
        "c": SessionSpec("h1", agent="shell", args=("serve",), strategy="process"),
    },
)
CHANGED = FleetSpec(
    HOSTS,
    {
        "a": SessionSpec("h1", prompt="p2", model="m2", secret=True),
        "b": SessionSpec("local", agent="mine", label="x", prompt="p3", depends=(("a", "ready"),)),
        "d": SessionSpec("local", lifecycle="task", prompt="p"),
    },
)


@PROPERTY
@given(scenarios())
def test_whatever_happens_every_promise_is_kept_and_the_fleet_reaches_its_specs(scenario: Scenario) -> None:
    play(scenario)


# The faults that the design names, by what generates them: a fault of a call, an event on a machine, or a step.
NAMED = {
    "power cut": {"power-2", "power-5", "power-8", "reboot"}, "cable": {"silence", "silent", "during", "after"},
    "hang": {"hang", "trouble"}, "slow": {"slow", "trouble", "late"}, "half-written answers": {"cut", "garbage"},
    "disk full": {"disk"}, "clock jump": {"clock"}, "kill -9 of an agent": {"crash", "vanish"}, "tmux": {"tmux"},
    "sshd": {"sshd"}, "controller": {"dies_at", "freezes_at", "die"}, "two controllers": {"second"},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_every_fault_that_the_design_names_is_generated(name: str) -> None:
    steps = {field.name for field in fields(Apply)} | set(MOMENTS)
    assert NAMED[name] <= {*FAULTS, *EVENTS, *steps}


def story(*steps: Apply | Event, fleet: FleetSpec = CHANGED) -> None:
    play(Scenario(HOSTS, steps, fleet))


@pytest.mark.parametrize("fleet", [START, CHANGED], ids=["start", "change"])
def test_a_controller_may_be_killed_before_any_of_its_calls(fleet: FleetSpec) -> None:
    for call in range(1, 45, 1 if THOROUGH else 2):
        story(*([Apply(START)] if fleet is CHANGED else []), Apply(fleet, dies_at=call), fleet=fleet)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault])
def test_a_fault_may_hit_any_call_to_a_host(fault: Fault) -> None:
    for call in range(0, 14, 1 if THOROUGH else 3):
        script: list[Fault] = [""] * call
        story(Apply(START), Apply(CHANGED, {"h1": [*script, fault]}))


def test_the_same_fault_may_last() -> None:
    lasting: tuple[Fault, ...] = ("before", "during", "after", "cut", "garbage")
    for fault in lasting:
        story(Apply(START), Apply(CHANGED, {"h1": ["", *[fault] * 6]}))


def test_two_controllers_never_start_anything_twice() -> None:
    for fault in FAULTS:
        story(
            Apply(START, {"h1": ["", fault]}, second=Second(START)),
            Apply(CHANGED, {"h1": [fault]}, second=Second(CHANGED)),
        )


@pytest.mark.parametrize(
    "kind", ["reboot", "tmux", "sshd", "silent", "trouble", "crash", "vanish", "clock", "disk", "net"]
)
def test_a_machine_may_fail_at_any_moment_of_an_apply(kind: str) -> None:
    for tenths in range(0, 30, 1 if THOROUGH else 4):
        event = (tenths / 10, Event(kind, 1, tenths))
        story(Apply(START), Apply(CHANGED, events=(event,)))
