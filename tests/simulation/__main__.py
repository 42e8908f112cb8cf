"""Many stories on all cores: `python -m tests.simulation [--stories N] [--seed S] [--jobs J] [--shrink]`.

Prints the seed of every batch that breaks something, with the story (the smallest one, with --shrink), and how many
stories a minute there were. Half of them are of applies, half of a fleet that `run` keeps.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import logging
import os
import random
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.simulation.scenario import Scenario, play, scenarios
from tests.simulation.test_loop_properties import Story, keep, stories

BATCH = 25


def batch(number: int, shrink: bool) -> tuple[int, int, float, str]:
    """The seed, how many stories were told, seconds of a core, and what broke."""
    told = 0
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    begun = time.process_time()
    how = settings(
        max_examples=BATCH, database=None, deadline=None, phases=phases, print_blob=True, derandomize=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    @seed(number)
    @how
    @given(scenarios())
    def applies(scenario: Scenario) -> None:
        nonlocal told
        told += 1
        play(scenario)

    @seed(number)
    @how
    @given(stories())
    def kept(story: Story) -> None:
        nonlocal told
        told += 1
        keep(story)

    broken = ""
    try:
        (kept if number % 2 else applies)()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        broken = "".join([*traceback.format_exception_only(error), *getattr(error, "__notes__", [])])
    return number, told, time.process_time() - begun, broken


def main() -> int:
    """0 where nothing broke, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--stories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shrink", action="store_true", help="look for the smallest story that breaks the same")
    given_ = parser.parse_args()
    logging.disable()  # what the program says of faults that are meant
    seeds = range(given_.seed, given_.seed + -(-given_.stories // BATCH))
    print(f"seeds {seeds[0]} to {seeds[-1]}, {BATCH} stories each, {given_.jobs} processes", flush=True)
    begun, told, spent, failed = time.monotonic(), 0, 0.0, 0
    with concurrent.futures.ProcessPoolExecutor(given_.jobs, initializer=logging.disable) as pool:
        for number, count, seconds, broken in pool.map(batch, seeds, [given_.shrink] * len(seeds)):
            told, spent = told + count, spent + seconds
            if broken:
                failed += 1
                print(f"\nseed {number}: {broken}", flush=True)
                print(f"again: python -m tests.simulation --seed {number} --stories 1 --shrink", flush=True)
    took = time.monotonic() - begun
    print(
        f"{told} stories in {took:.0f} s: {told / took * 60:.0f} a minute, with {spent / took:.1f} cores at work"
        f" ({told / spent * 60:.0f} a minute and core); {failed or 'no'} batches broke something"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
