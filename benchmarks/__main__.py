"""Run all benchmarks, or those named; prints a line each. A missed gate is said, not an error: machines are noisy."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import import_module

ALL = ("startup", "planning", "cold_plan", "sync", "loop_latency", "loop_idle", "loop_day", "chat")


def main(arguments: list[str]) -> None:
    """`python -m benchmarks [--json] [NAME...]`."""
    as_json = "--json" in arguments
    names = [name for name in arguments if not name.startswith("-")] or list(ALL)
    for name in names:
        for figure in import_module(f"benchmarks.{name}").measure():
            line = json.dumps({**asdict(figure), "ratio": figure.ratio}) if as_json else str(figure)
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
