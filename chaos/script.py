"""What one seed stands for: specs that change, and what breaks when. Pure; the same seed is always the same script."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

HOSTS = ("a", "b", "c")
SMALL = "c"  # the host with a disk of its own


@dataclass(frozen=True)
class Fault:
    """One thing that breaks: so many seconds after the step's clock began, for so long. `host` "" is a controller."""

    kind: str
    host: str
    at: float
    lasts: float


@dataclass(frozen=True)
class Session:
    """A session of the specs."""

    host: str
    strategy: str
    state: str = "running"
    version: int = 0  # a value in its environment: another one means a restart
    prompt: int = 0

    def text(self, name: str) -> str:
        """Its table. Without a terminal a message has to come with a new process."""
        changed = 'on_prompt_change = "restart"\n' if self.strategy == "process" else ""
        return (
            f'[sessions.{name}]\nhost = "{self.host}"\nagent = "script"\nstrategy = "{self.strategy}"\n'
            f'state = "{self.state}"\nprompt = "MARK-{name}-{self.prompt}"\n'
            f'{changed}env = {{ VERSION = "{self.version}", NEEDLE = "${{env:CHAOS_NEEDLE}}" }}\n'
        )


Specs = Mapping[str, Session]


@dataclass(frozen=True)
class Step:
    """Other specs, who applies them, and what breaks meanwhile.

    `at_work`: the clock of its faults begins with the first thing that a controller does, not with its start.
    """

    specs: Specs
    controllers: int
    faults: tuple[Fault, ...]
    at_work: bool

    def text(self) -> str:
        """The sessions of its specs."""
        return "".join(session.text(name) for name, session in self.specs.items())


@dataclass(frozen=True)
class Script:
    """All of it. The last specs are those that have to be reached."""

    seed: int
    steps: tuple[Step, ...]
    dropped: tuple[int, ...] = field(default=())

    @property
    def faults(self) -> list[str]:
        """What breaks, as words."""
        return [f"{fault.kind}{':' + fault.host if fault.host else ''}" for step in self.steps for fault in step.faults]

    def without(self, number: int) -> Script:
        """The same script, one step shorter."""
        steps = self.steps[:number] + self.steps[number + 1 :]
        return replace(self, steps=steps, dropped=(*self.dropped, number))


def script(seed: int, kinds: Sequence[str]) -> Script:
    """The script of a seed, of faults of these kinds."""
    dice = random.Random(seed)
    specs: dict[str, Session] = {}
    for number in range(dice.randint(2, 4)):
        specs[f"s{number}"] = Session(dice.choice(HOSTS), dice.choice(("tmux", "process")))
    steps = [_step(dice, specs, kinds)]
    for _ in range(dice.randint(1, 2)):
        specs = _changed(dice, specs)
        steps.append(_step(dice, specs, kinds))
    return Script(seed, tuple(steps))


def _step(dice: random.Random, specs: Specs, kinds: Sequence[str]) -> Step:
    return Step(dict(specs), dice.choice((1, 1, 2)), _faults(dice, kinds), dice.random() < 0.75)


def _changed(dice: random.Random, specs: Specs) -> dict[str, Session]:
    found = dict(specs)
    for name in dice.sample(sorted(found), min(len(found), dice.randint(1, 3))):
        change = dice.choice(("move", "move", "restart", "stop", "leave", "prompt"))
        changes: dict[str, Any] = {
            "move": {"host": dice.choice(HOSTS)},
            "restart": {"version": found[name].version + 1},
            "stop": {"state": "stopped" if found[name].state == "running" else "running"},
            "prompt": {"prompt": found[name].prompt + 1},
        }
        if change == "leave" and len(found) > 1:
            del found[name]
        else:
            found[name] = replace(found[name], **changes.get(change, {}))
    if dice.random() < 0.4:
        free = next(f"s{n}" for n in range(20) if f"s{n}" not in specs)
        found[free] = Session(dice.choice(HOSTS), dice.choice(("tmux", "process")))
    return found


def _faults(dice: random.Random, kinds: Sequence[str]) -> tuple[Fault, ...]:
    found = []
    for kind in dice.choices(kinds, k=dice.choice((1, 1, 2))):
        host = SMALL if kind == "disk-full" else dice.choice(HOSTS)
        if kind in ("kill-controller", "freeze-controller"):
            host = ""
        at = 0.0 if kind == "away" else round(dice.uniform(0.0, 3.0), 2)
        found.append(Fault(kind, host, at, round(dice.uniform(0.3, 4.0), 2)))
    return tuple(found)
