"""Progress: rows on a terminal, a line per change elsewhere, JSON lines when asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from reconciler.cli.common import colours
from reconciler.core.observed import HostSeen, Unreached
from reconciler.core.printed import SYMBOLS, escaped
from reconciler.core.report import Event
from reconciler.core.spec import Desired

_PATIENCE = 1.0  # seconds that may pass in silence


@contextmanager
def looking(desired: Desired) -> Iterator[Callable[[HostSeen], None]]:
    """Show how many hosts have answered, once it takes longer than a second; on a terminal only."""
    total = sum(1 for host in desired.hosts.values() if host.enabled)
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    begun, answered, silent, shown = time.monotonic(), 0, 0, False

    def seen(host: HostSeen) -> None:
        nonlocal answered, silent, shown
        answered += 1
        silent += isinstance(host, Unreached)
        if time.monotonic() - begun > _PATIENCE:
            shown = True
            trouble = f", {silent} not reached" if silent else ""
            sys.stderr.write(f"\r\x1b[K{answered} of {total} hosts have answered{trouble}")
            sys.stderr.flush()

    try:
        yield seen
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def event_line(event: Event) -> str:
    """An event as one line of text."""
    action = event.action
    head = f"  {SYMBOLS[action.verb]:>3} {action.address} on {action.host}"
    match event.type:
        case "apply_start":
            return f"{head}: {action.verb}"
        case "apply_progress":
            return f"{head}: {escaped(event.message)}"
        case "apply_complete":
            return f"{head}: done in {event.seconds:.1f} s"
        case "apply_skipped":
            return f"{head}: skipped: {escaped(event.message)}"
        case "apply_errored":
            return f"{head}: failed: {escaped(event.message)}"


def event_json(event: Event) -> dict[str, Any]:
    """An event as one of the JSON lines of `apply --json`."""
    return {
        "type": event.type, "address": event.action.address, "host": event.action.host, "verb": event.action.verb,
        "message": event.message, "seconds": round(event.seconds, 3), "code": event.code, "remedy": event.remedy,
    }  # fmt: skip


class Lines:
    """One line per change: for logs and pipes."""

    def __enter__(self) -> Callable[[Event], None]:
        return lambda event: typer.echo(event_line(event))

    def __exit__(self, *_: object) -> None:
        pass


class JsonLines:
    """One JSON object per change on stdout."""

    def __enter__(self) -> Callable[[Event], None]:
        return lambda event: typer.echo(json.dumps(event_json(event)))

    def __exit__(self, *_: object) -> None:
        pass


class Rows:
    """A live row for each action at work, with its phase and elapsed time; finished ones scroll by above."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(no_color=not colours(), highlight=False)
        self._rows: dict[str, tuple[Event, float]] = {}
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=8, transient=True)

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        now = time.monotonic()
        for event, begun in list(self._rows.values())[:30]:
            words = event.message or event.action.verb
            table.add_row(
                Text(f"  {SYMBOLS[event.action.verb]:>3}"),
                Text(event.action.address),
                Text(escaped(words), style="dim"),
                Text(f"{now - begun:.0f} s", style="dim"),
            )
        return table

    def _tell(self, event: Event) -> None:
        from rich.text import Text

        if event.type in ("apply_start", "apply_progress"):
            begun = self._rows.get(event.action.address, (event, time.monotonic()))[1]
            self._rows[event.action.address] = (event, begun)
            return
        self._rows.pop(event.action.address, None)
        style = {"apply_complete": "green", "apply_skipped": "yellow"}.get(event.type, "red")
        self._console.print(Text(event_line(event), style=style))

    def __enter__(self) -> Callable[[Event], None]:
        self._live.__enter__()
        return self._tell

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)


def progress(as_json: bool) -> Rows | Lines | JsonLines:
    """The way to show progress that fits where stdout goes."""
    if as_json:
        return JsonLines()
    return Rows() if sys.stdout.isatty() else Lines()
