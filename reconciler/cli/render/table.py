"""The table of `status`: who does what, where, since when, and who waits for a human."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reconciler.core.printed import escaped
from reconciler.core.status import Status

_STYLES = {
    "idle": "green", "running": "green", "busy": "cyan", "waiting": "bold yellow", "completed": "green",
    "ready": "green", "unknown": "magenta", "blocked": "bold red", "lost": "red", "exited": "red", "absent": "yellow",
}  # fmt: skip


def ago(seconds: float | None) -> str:
    """A span of time in one short word: `12s`, `5m`, `3h`, `2d`."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def short_revision(revision: str | None) -> str:
    """Enough of a revision to tell it from others: seven digits of a commit, or of a digest."""
    if not revision:
        return "-"
    branch, at, rest = revision.rpartition("@")
    return f"{branch}{at}{rest.removeprefix('sha1:')[:7]}"


def _state(status: Status) -> Any:
    """The phase, and where that is known from."""
    from rich.text import Text

    source = status.seen.get("source")
    text = Text(status.phase, style=_STYLES.get(status.phase, ""))
    return text.append(f" ({escaped(str(source))})", style="dim") if source else text


def status_table(found: Iterable[Status]) -> Any:
    """Sessions in a table; hosts appear only where something is the matter with them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("SESSION", "HOST", "AGENT", "STATE", "FOR", "REVISION", ""):
        table.add_column(heading, overflow="fold" if not heading else "ellipsis", no_wrap=bool(heading))
    for status in found:
        if not status.address.startswith(("session.", "group_chat.")) and status.phase == "ready":
            continue
        note = status.seen.get("waiting_for") or status.message or status.seen.get("detail") or ""
        table.add_row(
            status.address.removeprefix("session."),
            status.host,
            status.seen.get("agent") or "-",
            _state(status),
            ago(status.seen.get("age")),
            short_revision(status.revision.get("applied") or status.revision.get("desired")),
            Text(escaped(str(note)), style="dim"),
        )
    return table
