"""`reconciler audit`: what was done, by whom and why, as a log of which nothing can go or change unnoticed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.common import AsJson, Directory, Specs, load
from reconciler.errors import UsageError

BROKEN = 1
group = typer.Typer(
    name="audit", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="What was done, by whom and why, as a log of which nothing can go or change unnoticed.",
)  # fmt: skip

Since = Annotated[str | None, typer.Option("--since", metavar="T", help="From then on: 7d, 2h, 2026-12-01T08:00.")]
Head = Annotated[str | None, typer.Option("--head", metavar="HASH", help="A hash that was kept: it has to turn up.")]
_HASH = re.compile(r"[0-9a-f]{64}")


@group.command("verify")
def verify(
    what: Annotated[
        str, typer.Argument(metavar="DIR|FILE", help="The spec directory; or an export, or a journal's file.")
    ] = "specs",
    since: Since = None,
    head: Head = None,
    as_json: AsJson = False,
) -> None:
    """Check every link of the chain, and the journal's intents against it. Exit 0: it holds; 1: it is broken.

    Whoever may write the file could make all of it anew. The head says otherwise: kept elsewhere and given with
    --head, it proves that nothing up to it was changed or cut off.
    """
    from reconciler.audit import reading, verify_export
    from reconciler.cli.render.audit import verdict_json, verdict_lines
    from reconciler.core.audit import Check, Verdict

    start = parse_since(since)
    if head is not None and not _HASH.fullmatch(head):
        raise UsageError("--head expects the 64 digits that `audit verify` prints")
    path = Path(what)
    if path.is_file() and not _is_database(path):
        found: Verdict = verify_export(path, start, head)
    else:
        with reading(path if path.is_file() else _journal(what)) as log:
            found = log.verify(start, head) if log is not None else Check(head=head).verdict()
    if as_json:
        typer.echo(json.dumps(verdict_json(found), indent=2))
    else:
        for line in verdict_lines(found):
            typer.echo(line)
    if found.broken:
        raise typer.Exit(BROKEN)


@group.command("show")
def show(
    which: Annotated[str | None, typer.Argument(metavar="ADDRESS", help="Only of this.")] = None,
    limit: Annotated[int, typer.Option("-n", "--lines", min=1, help="The last so many.")] = 50,
    since: Since = None,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """The newest entries, oldest first: intents and outcomes, approvals, lifted guards, and what was done at once."""
    from reconciler.audit import reading
    from reconciler.cli.render.audit import entry_json, line
    from reconciler.core.selection import address
    from reconciler.journal import journal_path

    desired = load(directory)
    wanted = which if which in (None, "fleet", "source") else address(desired, str(which))
    with reading(journal_path(desired.fleet.name)) as log:
        entries = log.last(limit, wanted, parse_since(since)) if log is not None else []
    if as_json:
        document = {"format_version": "1.0", "entries": [entry_json(entry) for entry in entries]}
        typer.echo(json.dumps(document, indent=2))
        return
    for entry in entries:
        typer.echo(line(entry))
    if not entries:
        typer.echo("the audit log has no entries of that yet", err=True)


@group.command("export")
def export(directory: Directory = "specs", since: Since = None) -> None:
    """All entries as JSON lines, oldest first, with their hashes: `audit verify FILE` checks them on any machine."""
    from reconciler.audit import reading
    from reconciler.core.audit import exported

    start = parse_since(since)
    with reading(_journal(directory)) as log:
        if log is None:
            return
        previous = log.before(start)[1]
        for entry in log.entries(start):
            typer.echo(exported(previous, entry))
            previous = entry.hash


def parse_since(text: str | None, now: datetime | None = None) -> str:
    """The moment that `--since` names, as entries have it; a span before now, or a time of the local zone.

    "" for None. Raises UsageError for what is neither.
    """
    from pydantic_core import PydanticCustomError

    from reconciler.audit import utc
    from reconciler.core.values import parse_duration

    if text is None:
        return ""
    try:
        at = (now or datetime.now(UTC)) - timedelta(seconds=parse_duration(text.strip()))
    except (PydanticCustomError, OverflowError):
        try:
            at = datetime.fromisoformat(text.strip()).astimezone()
        except (ValueError, OverflowError, OSError):
            raise UsageError(
                f"--since {text}: neither a span nor a time", remedy="such as 2h, 7d, 2026-12-01 or 2026-12-01T08:00"
            ) from None
    return utc(at.timestamp())


def _journal(directory: str) -> Path:
    from reconciler.journal import journal_path

    return journal_path(load(directory).fleet.name)


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


__all__ = ["export", "group", "parse_since", "show", "verify"]
