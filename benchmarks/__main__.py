"""Run the benchmarks: those of the targets, or those named; a line each, a table at the end, and what got worse.

    python -m benchmarks [NAME|G3]... [--only NAME] [--full] [--record] [--json | --markdown]

A missed gate is said, not an error: what was recorded is the guard. It ends with 1 where a figure is more than 20 %
worse than that, measured twice, or where a benchmark failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from importlib import import_module

from benchmarks import farm, noop, report
from benchmarks.figure import Figure, Unavailable
from benchmarks.report import Missing

TARGETS = {
    "G9": "startup", "G11": "planning", "G1": "noop", "G2": "noop_cpu", "G3": "over_ssh", "G10": "memory",
    "G4": "over_tools", "G5": "drift", "G7": "cold_plan", "G8": "sync", "G6": "push",
}  # fmt: skip
OTHERS = ("loop_latency", "loop_idle", "loop_day", "chat")  # many minutes: by name, or with --full
BOUND = 14 * 60  # seconds after which no other benchmark begins, without --full


class Run:
    """One run; what it found, by module."""

    def __init__(self, full: bool, quiet: bool) -> None:
        self._full = full
        self._out = sys.stderr if quiet else sys.stdout
        self._begun = time.monotonic()
        self.found: dict[str, list[Figure]] = {}
        self.missing: list[Missing] = []
        self.twice: list[str] = []

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    @property
    def figures(self) -> list[Figure]:
        """All of them."""
        return [figure for figures in self.found.values() for figure in figures]

    def measure(self, name: str) -> None:
        """One benchmark; of figures that were measured before, the better ones are kept."""
        if not self._full and self.seconds > BOUND:
            self.missing.append(Missing(name, f"{BOUND / 60:.0f} minutes had passed: python -m benchmarks {name}"))
            return
        module, begun = import_module(f"benchmarks.{name}"), time.monotonic()
        try:
            new: list[Figure] = module.measure(self._full) if name in TARGETS.values() else module.measure()
        except Unavailable as error:
            self.missing.append(Missing(name, str(error)))
        except Exception as error:  # the others still have something to say
            self.missing.append(Missing(name, f"failed: {error!r}", broken=True))
        else:
            old = {figure.name: figure for figure in self.found.get(name, [])}
            new = [min(figure, old.get(figure.name, figure), key=lambda one: one.ratio) for figure in new]
            self.found[name] = new
            for figure in new:
                print(figure, file=self._out, flush=True)
        print(f"({name}: {time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)

    def again(self, before: dict[str, dict[str, float]]) -> None:
        """What looks worse than before is measured once more: machines are noisy."""
        for name, figures in list(self.found.items()):
            if report.worse(figures, before) and (self._full or self.seconds < BOUND):
                print(f"({name} looks worse than recorded: once more)", file=sys.stderr, flush=True)
                noop.forget()
                self.twice.append(name)
                self.measure(name)


def main(arguments: list[str]) -> int:
    """As the module says; the exit code."""
    given = _arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    names = [TARGETS.get(name, name) for name in [*given.names, *given.only]]
    names = names or [*TARGETS.values(), *(OTHERS if given.full else ())]
    farm.size = (
        noop.MANY if given.full else max(getattr(import_module(f"benchmarks.{name}"), "HOSTS", 1) for name in names)
    )
    run, loads = Run(given.full, given.json or given.markdown), [os.getloadavg()[0]]
    before = report.recorded(given.full)
    for name in names:
        run.measure(name)
    if not given.record:
        run.again(before)
    loads.append(os.getloadavg()[0])
    if given.json:
        print(*map(report.as_json, run.figures), sep="\n")
    elif given.markdown:
        command = " ".join(["python -m benchmarks", *arguments])
        print(report.markdown(run.figures, run.missing, report.facts(command, run.seconds, loads, run.twice)), end="")
    delay = report.delayed_by()
    farm.end()
    out = sys.stderr if given.json or given.markdown else sys.stdout
    print(f"\n{report.table(run.figures)}\n{f'Delay: {delay}' if delay else ''}\n", file=out)
    print(*(f"not measured: {one.name}: {one.why}" for one in run.missing), sep="\n", file=out)
    if given.record:
        report.record(run.figures, given.full)
        return int(any(one.broken for one in run.missing))
    lines = report.worse(run.figures, before)
    print(*(f"WORSE: {line}" for line in lines), sep="\n", file=out)
    return int(bool(lines) or any(one.broken for one in run.missing))


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    known = [*TARGETS, *TARGETS.values(), *OTHERS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--only", action="append", default=[], choices=known, metavar="NAME")
    parser.add_argument("--full", action="store_true", help="the sizes of the targets, more runs, the long ones too")
    parser.add_argument("--record", action="store_true", help="what is measured now is what later runs compare with")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="a line each, for programs")
    shown.add_argument("--markdown", action="store_true", help="the text of docs/performance.md")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(known)}")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
