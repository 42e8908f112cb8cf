"""Colour for the printed form of a plan, where there is a terminal to show it."""

from __future__ import annotations

import re
from collections.abc import Callable

import typer

from reconciler.cli.common import colours
from reconciler.core.guards import check_stops
from reconciler.core.plan import Plan
from reconciler.core.printed import SYMBOLS
from reconciler.errors import GuardError

_COLOURS = {
    "start": "green", "resume": "green", "move": "cyan", "update": "yellow", "restart": "yellow", "stop": "red",
    "adopt": "cyan", "forget": "cyan", "blocked": "magenta", "unknown": "bright_black",
}  # fmt: skip
_LINE = re.compile(r"^( *)(\S+)( (?:session|group_chat|host)\.\S+| {2}\S)")


def coloured(text: str) -> str:
    """The same text with the symbols and addresses of its lines in colour."""
    return "\n".join(_paint(line) for line in text.split("\n")) if colours() else text


def _paint(line: str) -> str:
    match = _LINE.match(line)
    verbs = {symbol: verb for verb, symbol in SYMBOLS.items()}
    if match is None or match[2] not in verbs:
        return typer.style(line, bold=True) if line.startswith(("Plan:", "No changes", "host.")) else line
    end = match.end() if match[3].startswith((" session.", " group_chat.", " host.")) else match.end(2)
    return typer.style(line[:end], fg=_COLOURS[verbs[match[2]]]) + line[end:]


def warn_of_stops(plan: Plan, max_stop: str, where: Callable[[], str] = str) -> None:
    """Say already at the plan that apply would refuse it."""
    try:
        check_stops(plan, max_stop, where)
    except GuardError as error:
        typer.echo(f"warning: apply will refuse this: {error.message}\n  remedy: {error.remedy}", err=True)
