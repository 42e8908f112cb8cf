"""Scripts on several arenas at once, each in a process of its own: hosts die with the process that made them."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path

from chaos import faults
from chaos.arena import Arena, Trial
from chaos.broken import Broken
from chaos.script import Script, script


@dataclass(frozen=True)
class Result:
    """What came of one script."""

    seed: int
    faults: list[str]
    injected: int
    applies: int
    seconds: float
    broken: list[Broken] = field(default_factory=list)
    evidence: str = ""

    def __str__(self) -> str:
        what = " ".join(self.faults) or "none"
        end = "ok" if not self.broken else f"BROKEN {' '.join(sorted({b.invariant for b in self.broken}))}"
        lines = [f"seed {self.seed}  {what}  applies {self.applies}  {self.seconds:.1f} s  {end}"]
        lines += [f"    {b.invariant}: {b.words[:600]}" for b in self.broken]
        if self.broken:
            lines += [f"    kept in {self.evidence}; again: make chaos SEED={self.seed}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Settings:
    """How scripts are carried out."""

    plain: bool
    keep: str
    shrink: bool


_ARENA: list[Arena] = []


def _arena(plain: bool) -> Arena:
    """One for each process."""
    if not _ARENA:
        _ARENA.append(Arena(namespaces=False if plain else None))
        Finalize(None, _ARENA[0].close, exitpriority=10)
    return _ARENA[0]


def one(seed: int, settings: Settings) -> Result:
    """Carry out the script of a seed; where something broke, perhaps with fewer steps."""
    arena = _arena(settings.plain)
    wanted = script(seed, faults.kinds(arena.fleet.namespaces))
    result = _trial(arena, wanted, settings)
    if result.broken and settings.shrink:
        for number in reversed(range(len(wanted.steps) - 1)):
            shorter = _trial(arena, wanted.without(number), settings)
            if {b.invariant for b in shorter.broken} & {b.invariant for b in result.broken}:
                wanted, result = wanted.without(number), shorter
    return result


def _trial(arena: Arena, wanted: Script, settings: Settings) -> Result:
    begun = time.monotonic()
    trial = Trial(arena, wanted)
    try:
        trial.run()
    except Exception as error:  # of the tool or of a host: it is told, and the evidence is kept
        trial.broken.append(Broken("tool", f"{type(error).__name__}: {error}"))
    evidence = ""
    if trial.broken:
        evidence = str(Path(settings.keep) / str(wanted.seed))
        shutil.rmtree(evidence, ignore_errors=True)
        trial.keep(Path(evidence))
    arena.tidy()
    return Result(
        wanted.seed, wanted.faults, trial.injected, trial.applies, time.monotonic() - begun, trial.broken, evidence
    )


def carry_out(seeds: list[int], minutes: float, jobs: int, settings: Settings, as_json: bool) -> list[Result]:
    """All of them, as far as the time suffices or until Ctrl-C; each is printed as it ends."""
    end = time.monotonic() + minutes * 60
    results: list[Result] = []
    todo = list(reversed(seeds))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running: set[Future[Result]] = set()
        try:
            while running or (todo and time.monotonic() < end):
                while todo and len(running) < jobs and time.monotonic() < end:
                    running.add(pool.submit(one, todo.pop(), settings))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    results.append(result := future.result())
                    print(json.dumps(asdict(result)) if as_json else result, flush=True)
        except KeyboardInterrupt:  # the arenas have got it too, and take themselves down
            pool.shutdown(wait=True, cancel_futures=True)
    return results
