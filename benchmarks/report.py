"""What becomes of figures: a table, a document, and the comparison with what was recorded before."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import farm, peers
from benchmarks.figure import Figure, Unavailable

RECORDED = Path(__file__).parent / "recorded.json"
WORSE, NOISE = 1.2, 0.5  # one run that was disturbed must not excuse whatever comes later
_TITLES = ("#", "figure", "ours", "floor or peer", "ratio", "gate", "verdict", "CPU client / hosts")


@dataclass(frozen=True)
class Missing:
    """A benchmark without figures, and why."""

    name: str
    why: str
    broken: bool = False


def row(figure: Figure) -> tuple[str, ...]:
    """One line of the table."""
    ours, floor = figure.printed(figure.ours), figure.printed(figure.floor)
    used = [f"{value:.2f} s" if value is not None else "-" for value in (figure.client, figure.hosts)]
    cpu = " / ".join(used) if figure.client or figure.hosts else ""
    numbers = f"{figure.ratio:.3g}", f"{figure.gate:.3g}"
    return (figure.target, figure.name, ours, floor, *numbers, figure.verdict, cpu)


def table(figures: Sequence[Figure]) -> str:
    """For a terminal: targets first, in their order."""
    rows = [_TITLES, *map(row, ordered(figures))]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(_TITLES))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


def ordered(figures: Sequence[Figure]) -> list[Figure]:
    """G1 to G11, then what has no target."""
    return sorted(figures, key=lambda figure: int(figure.target[1:] or 99))


def as_json(figure: Figure) -> str:
    """One line."""
    return json.dumps({**asdict(figure), "ratio": figure.ratio, "met": figure.ratio <= figure.gate})


# -- what was recorded ---------------------------------------------------------------------------------------------


def recorded(full: bool) -> dict[str, dict[str, float]]:
    """Ratio and spread by the name of a figure, of runs of this size."""
    if not RECORDED.exists():
        return {}
    kept: dict[str, dict[str, float]] = json.loads(RECORDED.read_text(encoding="utf-8")).get(_size(full), {})
    return kept


def record(figures: Sequence[Figure], full: bool) -> None:
    """Keep these; others of the same size stay as they are."""
    kept = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    kept.setdefault(_size(full), {}).update(
        {figure.name: {"ratio": float(f"{figure.ratio:.4g}"), "spread": round(figure.spread, 3)} for figure in figures}
    )
    RECORDED.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def worse(figures: Sequence[Figure], before: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each that is a fifth above what was recorded, and by more than it varied then, up to a half."""
    found = []
    for figure in figures:
        known = before.get(figure.name)
        if known is not None and figure.ratio > known["ratio"] * max(WORSE, 1 + min(known["spread"], NOISE)):
            times = figure.ratio / known["ratio"]
            found.append(f"{figure.name}: {figure.ratio:.3g}, recorded {known['ratio']:.3g}: {times:.2f} times that")
    return found


def _size(full: bool) -> str:
    return "full" if full else "default"


# -- the document --------------------------------------------------------------------------------------------------


def markdown(figures: Sequence[Figure], missing: Sequence[Missing], facts: Mapping[str, Any]) -> str:
    """`docs/performance.md`."""
    lines = [_HEAD]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", f"| {' | '.join(_TITLES)} |", "|" + "---|" * len(_TITLES)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row(figure))} |" for figure in ordered(figures)]
    met = sum(figure.ratio <= figure.gate for figure in figures if figure.target)
    lines += ["", f"{met} of {sum(bool(figure.target) for figure in figures)} gates that come from targets hold."]
    lines += ["", "## How each was made", ""]
    lines += [f"- **{figure.name}**: {figure.note}{_varied(figure)}" for figure in ordered(figures)]
    if missing:
        lines += ["", "## Not measured", "", *(f"- {one.name}: {one.why}" for one in missing)]
    return "\n".join(lines) + "\n"


def _varied(figure: Figure) -> str:
    return f" Single runs were up to {figure.spread:.0%} away." if figure.spread else ""


def facts(command: str, seconds: float, loads: Sequence[float], twice: Sequence[str]) -> dict[str, str]:
    """Where and how it was: no names of machines, no paths."""
    model = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"`{command}`, {seconds / 60:.0f} minutes",
        "machine": f"{model[0] if model else platform.machine()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release().partition('-')[0]}; others kept it busy meanwhile where the load is above the cores: "
        f"{loads[0]:.1f} before, {loads[1]:.1f} at the end",
        "versions": ", ".join(filter(None, _versions())),
    }
    if twice:
        found["measured twice, the better one kept"] = ", ".join(twice)
    if delay := delayed_by():
        found["delay"] = delay
    return found


def delayed_by() -> str:
    """How round trips were made longer, and how exactly; nothing where no hosts were needed."""
    line = farm.line_of_shared()
    return f"{line}; an exchange at 50 ms takes {farm.measured_trip(0.05) * 1000:.1f} ms" if line else ""


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _versions() -> list[str]:
    said = [f"Python {platform.python_version()}"]
    for argv in (["ssh", "-V"], ["tmux", "-V"], ["rsync", "--version"]):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError:
            continue
        said.append((done.stdout + done.stderr).splitlines()[0].partition(",")[0].partition("  protocol")[0].strip())
    import asyncssh

    said.append(f"asyncssh {asyncssh.__version__}")
    try:
        said.append(peers.versions())
    except Unavailable as error:
        said.append(str(error))
    return said


_HEAD = """# Performance

Made by `python -m benchmarks --markdown > docs/performance.md`; do not edit it by hand. Each figure is a ratio
against a floor or a peer that was measured in turn with it, in the same run; medians. Gates with a number come from the
targets of the design, the others are guesses. Less is better everywhere.

Hosts and client share the machine, so at 0 ms every wall contains the CPU of the hosts; it stands beside that of the
client, for one run of ours. Hosts are real: an sshd, a tmux and ten sessions each. The program starts those of the
first host; the others are copies of what that left there. Without `--full` there are fewer hosts than targets ask for
(100 in place of 200 and 500), so a gate that holds here is not yet a target that is met.

`make bench` compares with `benchmarks/recorded.json` and names what got more than 20 % worse. What looks like it is
measured a second time, and the better one counts, in this table too. How `run` reacts, and what it costs over hours, is
in [figures-run.md](figures-run.md).
"""
