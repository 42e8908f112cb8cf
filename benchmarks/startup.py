"""G9: what the program takes to say its help and to check specs; whole processes, since imports are what counts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.figure import Figure, in_turn_with_spread, process, python
from benchmarks.peers import tools

FILES, RUNS = 10, 9


def measure(full: bool = False) -> list[Figure]:
    """Three figures."""
    runs = 3 * RUNS if full else RUNS
    found = []
    cases = (("--help", "import argparse", 4.0, "G9"), ("--version", "pass", 10.0, ""))
    for option, floor, gate, target in cases:
        values = in_turn_with_spread(
            lambda option=option: process(python("-m", "reconciler", option)),  # type: ignore[misc]
            lambda floor=floor: process(python("-c", floor)),  # type: ignore[misc]
            runs,
        )
        found.append(_figure(f"reconciler {option} over python -c '{floor}'", values, gate, target))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FILES):
            text = f'[hosts.h{number}]\n[sessions.s{number}]\nhost = "h{number}"\nagent = "codex"\n'
            Path(folder, f"{number}.toml").write_text(text, encoding="utf-8")
        peer = str(tools() / "pyinfra")
        values = in_turn_with_spread(
            lambda: process(python("-m", "reconciler", "validate", folder)), lambda: process([peer, "--help"]), runs
        )
    return [*found, _figure(f"reconciler validate of {FILES} files over pyinfra --help", values, 0.5, "G9")]


def _figure(name: str, values: tuple[float, float, float], gate: float, target: str) -> Figure:
    ours, floor, apart = values
    return Figure(name, ours, floor, gate, "Whole processes.", target=target, spread=apart)
