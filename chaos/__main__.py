"""`python -m chaos [--seed N] [--scripts N] [--minutes N] [--jobs N] [--plain] [--json] [--keep DIR] [--shrink]`.

Each script is a random fleet with changing specs and faults on real hosts. Exit 1 when an invariant of the safety
contract broke. `--seed N` repeats one script (with `--scripts`, that one and those after it).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter

from chaos import faults
from chaos.runner import Settings, carry_out

SCRIPTS, MINUTES, JOBS = 30, 9.0, 3


def main(arguments: list[str]) -> int:
    """Run, print, and say by the exit code whether all held."""
    options = _parsed(arguments)
    keep = options.keep or tempfile.mkdtemp(prefix="reconciler-chaos-")
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(1, 10**6)
    count = options.scripts or (1 if options.seed is not None else SCRIPTS)
    settings = Settings(options.plain, keep, options.shrink)
    jobs = max(1, min(options.jobs, count))
    begun = time.monotonic()
    seeds = [first + number for number in range(count)]
    results = carry_out(seeds, options.minutes, jobs, settings, options.json)
    missing = faults.not_done(not options.plain)
    broken = Counter(b.invariant for result in results for b in {b.invariant: b for b in result.broken}.values())
    summary = {
        "type": "summary", "scripts": len(results), "faults": sum(result.injected for result in results),
        "broken": dict(broken), "seconds": round(time.monotonic() - begun, 1), "seed": first, "not_done": missing,
    }  # fmt: skip
    if options.json:
        print(json.dumps(summary))
    else:
        words = ", ".join(f"{name} in {number}" for name, number in sorted(broken.items())) or "none"
        took = summary["seconds"]
        print(f"\n{len(results)} scripts, {summary['faults']} faults, {took} s. Invariants broken: {words}.")
        for name, why in missing.items():
            print(f"Not done: {name}: {why}.")
    if not broken:
        shutil.rmtree(keep, ignore_errors=True)
    return 1 if broken or not results else 0


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m chaos", description="Random faults on real hosts.")
    parser.add_argument("--seed", type=int, help="the first script; without --scripts, the only one")
    parser.add_argument("--scripts", type=int, help=f"how many (default {SCRIPTS})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="no script begins after that")
    parser.add_argument("--jobs", type=int, default=JOBS, help="scripts at once, each on hosts of its own")
    parser.add_argument("--plain", action="store_true", help="unprivileged sshds also where namespaces can be had")
    parser.add_argument("--keep", help="where the evidence of a broken script is kept")
    parser.add_argument("--shrink", action="store_true", help="try a broken script again with fewer steps")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
