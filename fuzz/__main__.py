"""`python -m fuzz TARGET|all --minutes M [--seed N] [--engine auto|atheris|own]`, or `--input FILE` for one input."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from fuzz import engine, targets
from fuzz.oracles import SCRATCH, scratch


def main() -> int:
    """Exit code 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Hostile input for parsers.")
    parser.add_argument("target", choices=("all", *targets.NAMES))
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("auto", "atheris", "own"), default="auto")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run this one input, and show its traceback")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.input is not None:
        return _repeat(found.target, found.input)
    guided = find_spec("atheris") is not None if found.engine == "auto" else found.engine == "atheris"
    if found.inside:
        return _inside(found.target, found.minutes, found.seed, guided)
    print(f"engine: {'atheris, guided by coverage' if guided else 'mutation of the corpus, unguided'}", flush=True)
    names = targets.NAMES if found.target == "all" else (found.target,)
    return max(_outside(name, found.minutes, found.seed, guided) for name in names)


def _repeat(target: str, file: Path) -> int:
    fault = engine.once(targets.load(target), file.read_bytes())
    if fault is None:
        print("no fault")
        return 0
    raise fault


def _outside(target: str, minutes: float, seed: int, guided: bool) -> int:
    """In a process of its own: with bounds on its memory, and whatever it does to itself."""
    argv = [sys.executable, "-m", "fuzz", target, f"--minutes={minutes}", f"--seed={seed}", "--inside",
            f"--engine={'atheris' if guided else 'own'}"]  # fmt: skip
    folder = scratch()
    covered, last = "", ""
    try:
        with subprocess.Popen(
            argv, stderr=subprocess.PIPE, text=True, errors="replace", env={**os.environ, SCRATCH: str(folder)}
        ) as process:
            for line in process.stderr or ():
                match = re.search(r"cov: \d+ ft: \d+ corp: \d+", line)
                covered, last = match[0] if match else covered, line if not match else last
            code = process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if covered:
        print(f"  coverage (edges, features, inputs kept): {covered}", flush=True)
    if code not in (0, 1):
        print(f"FAULT in {target}: the process ended with {code}: {last.strip()}", flush=True)
    return int(code != 0)


def _inside(target: str, minutes: float, seed: int, guided: bool) -> int:
    if not guided:
        _bound_memory()
        done = engine.run(target, targets.load(target), minutes, seed)
        engine.report(target, done)
        return int(bool(done.faults))
    import atheris

    with atheris.instrument_imports(include=["reconciler"]):
        check = targets.load(target)
    engine.run_guided(target, check, minutes, seed, scratch())
    return 0


def _bound_memory() -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (engine.MEMORY, limit[1]))


if __name__ == "__main__":
    sys.exit(main())
