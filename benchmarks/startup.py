"""`reconciler --version` over `python -c pass`: lazy imports. Gate: 80 ms where python takes 8."""

from __future__ import annotations

from benchmarks.figure import Figure, in_turn, process, python


def measure() -> list[Figure]:
    """Two figures: `--version` and `--help`."""
    found = []
    for option, gate in (("--version", 10.0), ("--help", 10.0)):
        ours, floor = in_turn(
            lambda option=option: process(python("-m", "reconciler", option)),  # type: ignore[misc]
            lambda: process(python("-c", "pass")),
            runs=15,
        )
        found.append(Figure(f"reconciler {option} over python -c pass", ours, floor, gate, "Whole processes."))
    return found
