"""Runs one target: guided by coverage where atheris is installed, else by mutation alone. Faults are kept as files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.mutate import mutate
from fuzz.oracles import Check, Hang, bounded

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"
MEMORY = 4 << 30  # bytes that a run may have
LIMIT = 100_000  # bytes of an input that is made here


@dataclass
class Found:
    """What came of a run. `faults` are by where they happened: one file for each."""

    runs: int = 0
    seconds: float = 0.0
    faults: dict[str, Path] = field(default_factory=dict)


def corpus(target: str) -> list[bytes]:
    """The committed inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir()) if path.is_file()]


def once(check: Check, data: bytes) -> BaseException | None:
    """One input: the fault, or None. What the program prints goes nowhere."""
    try:
        with bounded(len(data)), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            check(data)
    except KeyboardInterrupt:
        raise
    except (Exception, Hang, SystemExit) as fault:
        return fault
    return None


def inputs(target: str, seed: int) -> Iterator[bytes]:
    """The corpus, then mutations of it without end; the same for the same seed."""
    rng, known = random.Random(seed), corpus(target) or [b""]
    yield from known
    while True:
        yield mutate(rng.choice(known), known, rng, LIMIT)


def run(target: str, check: Check, minutes: float, seed: int) -> Found:
    """By mutation alone, for so long."""
    found, start = Found(), time.monotonic()
    for data in inputs(target, seed):
        _one(found, target, check, data)
        found.seconds = time.monotonic() - start
        if found.seconds > 60 * minutes:
            return found
    return found


def run_guided(target: str, check: Check, minutes: float, seed: int, scratch: Path) -> None:
    """By atheris, which has instrumented what was imported under it; never returns. New inputs go to `scratch`."""
    import atheris

    found, start = Found(), time.monotonic()
    known = corpus(target) or [b""]

    def one(data: bytes) -> None:
        _one(found, target, check, data)
        found.seconds = time.monotonic() - start
        if found.seconds > 60 * minutes:
            report(target, found)
            sys.stdout.flush()
            os._exit(1 if found.faults else 0)

    def change(data: bytes, size: int, dice: int) -> bytes:
        rng = random.Random(dice)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, size))
        return mutate(data, known, rng, min(size, LIMIT))

    arguments = [sys.argv[0], f"-seed={seed or 1}", f"-max_len={LIMIT}", "-timeout=120", "-rss_limit_mb=4096",
                 "-print_funcs=0", f"-artifact_prefix={CRASHES}/{target}-libfuzzer-",
                 str(scratch), str(CORPUS / target)]  # fmt: skip
    CRASHES.mkdir(exist_ok=True)
    atheris.Setup(arguments, one, custom_mutator=change)
    atheris.Fuzz()


def _one(found: Found, target: str, check: Check, data: bytes) -> None:
    fault = once(check, data)
    found.runs += 1
    if fault is None:
        return
    where = place(fault)
    if where not in found.faults:
        found.faults[where] = keep(target, data)
        print(f"\nFAULT in {target}: {where}\n  {type(fault).__name__}: {str(fault)[:300]}\n"
              f"  repeat: python -m fuzz {target} --input {found.faults[where]}", flush=True)  # fmt: skip


def place(fault: BaseException) -> str:
    """Where it happened: the last line of the program itself, and its kind."""
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [frame for frame in frames if "/reconciler/" in frame.filename or "/fuzz/targets/" in frame.filename]
    last = (ours or list(frames))[-1]
    return f"{type(fault).__name__} at {os.path.basename(last.filename)}:{last.lineno} in {last.name}"


def keep(target: str, data: bytes) -> Path:
    """The input as a file."""
    CRASHES.mkdir(exist_ok=True)
    path = CRASHES / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def report(target: str, found: Found) -> None:
    """One line."""
    rate = found.runs / found.seconds if found.seconds else 0.0
    print(f"{target}: {found.runs:,} inputs in {found.seconds / 60:.1f} min ({rate:,.0f}/s), "
          f"{len(found.faults)} fault{'s' * (len(found.faults) != 1)}", flush=True)  # fmt: skip
