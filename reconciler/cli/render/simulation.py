"""The printed form of a simulation: what happened when, how every session ended, which promises were kept."""

from __future__ import annotations

import typer

from reconciler.cli.common import colours
from reconciler.core.printed import escaped
from reconciler.core.values import format_duration
from reconciler.simulation.outcome import PROMISES, Outage, Result, SessionEnd, clock_of

_MARKS = {
    "fault": ("!", "yellow"), "over": ("·", "yellow"), "saw": ("?", "bright_black"), "does": (">", "cyan"),
    "did": ("=", "green"), "failed": ("x", "red"), "skipped": ("-", "bright_black"), "broken": ("X", "red"),
}  # fmt: skip


def text(result: Result) -> str:
    """All of it, for people."""
    parts = [_head(result), _timeline(result), _sessions(result), _promises(result)]
    return "\n".join(part for part in parts if part) + "\n"


def _head(result: Result) -> str:
    begins = "nothing runs" if result.empty else "everything runs as declared"
    lines = [
        f"Simulated: the fleet {result.fleet} for {format_duration(result.seconds)}; at 00:00 {begins}.",
        "Faults: " + ("; ".join(str(mishap) for mishap in result.mishaps) or "none") + ".",
        *(f"Note: {note}." for note in result.notes),
    ]
    return "\n".join(lines) + "\n"


def _timeline(result: Result) -> str:
    lines = []
    wide = max((len(entry.host) for entry in result.entries), default=0)
    for entry in result.entries:
        mark, colour = _MARKS[entry.kind]
        who = f"{entry.address} " if entry.address and not entry.address.startswith("host.") else ""
        line = f"{clock_of(entry.at):>7}  {mark} {entry.host:{wide}}  {who}{escaped(entry.message)}"
        lines.append(_painted(line, colour))
    return "\n".join([*lines, ""]) if lines else ""


def _sessions(result: Result) -> str:
    rows = [("SESSION", "HOST", "IN THE END", "DID NOT RUN")]
    rows += [(s.address, s.host, s.state, _outages(s, result)) for s in result.sessions]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(f"{cell:{w}}" for cell, w in zip(row[:3], widths, strict=True)), row[3]]) for row in rows]
    lines[1:] = [
        _painted(line, "" if session.right else "red") + (f"\n  {escaped(session.why)}" if session.why else "")
        for line, session in zip(lines[1:], result.sessions, strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _outages(session: SessionEnd, result: Result) -> str:
    found = [_outage(outage) for outage in result.outages if outage.address == session.address]
    return "; ".join(found) or "-"


def _outage(outage: Outage) -> str:
    why = f" ({outage.cause.split(' at ')[0]})" if outage.cause else ""
    if outage.until is None:
        return f"from {clock_of(outage.since)} on, not healed{why}"
    took = clock_of(outage.until - outage.since)
    return f"{clock_of(outage.since)} to {clock_of(outage.until)}, for {took}{why}"


def _promises(result: Result) -> str:
    lines = []
    for name, state in result.promises.items():
        colour = {"kept": "green", "broken": "red"}.get(state, "yellow")
        line = f"{name}  {state:10}  {PROMISES[name]}"
        why = result.broken.get(name, "").partition(": ")[2]
        lines.append(_painted(line, colour) + (f"\n    {escaped(why)}" if why else ""))
    if result.lasting:
        lines.append(f"Still so at the end: {'; '.join(result.lasting)}.")
    end = "The fleet is as its specs say." if result.reached else "The fleet is not as its specs say."
    return "\n".join([*lines, "", _painted(end, "green" if not result.exit_code else "red")])


def _painted(line: str, colour: str) -> str:
    return typer.style(line, fg=colour) if colour and colours() else line
