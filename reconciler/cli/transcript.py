"""`reconciler transcript`: an archived conversation in readable form."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from reconciler.cli.common import AsJson, Specs, load
from reconciler.core.printed import escaped
from reconciler.core.spec import name_of
from reconciler.core.transcript import Archived
from reconciler.errors import UsageError
from reconciler.transcripts.archive import EXPORT, Archive
from reconciler.transcripts.carrying import open_archive
from reconciler.transcripts.render import Rendered, as_markdown, as_text, parse_export, parse_lines


def command(
    session: Annotated[str, typer.Argument(help="Its name or address; it need not be in the specs any more.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Print the archived conversation of a session: who said what, when, and the tools in one line each.

    It reads the copy on this machine only: no host is asked. `reconciler sync` brings it up to date.
    """
    archive = open_archive(load(directory))
    name = name_of(session)
    heads = archive.heads()
    if name not in heads:
        archived = ", ".join(sorted(heads)) or "none"
        raise UsageError(
            f"no conversation of session.{name} is archived", remedy=f"reconciler sync; archived: {archived}"
        )
    archived_head = heads[name]
    rendered = read(archive, archived_head)
    if as_json:
        typer.echo(json.dumps(_document(archived_head, rendered), indent=2))
        return
    typer.echo(as_markdown(rendered) if markdown else as_text(rendered), nl=False)
    if rendered.skipped:
        typer.echo(f"{rendered.skipped} lines are torn or of no known kind, and are not shown", err=True)
    if archived_head.diverged:
        typer.echo(f"this is the archive's copy: {escaped(archived_head.diverged)}", err=True)


def read(archive: Archive, archived: Archived) -> Rendered:
    """The main file of a conversation: its export, or the largest file of lines that lies at the top."""
    if EXPORT in archived.files:
        return parse_export(b"".join(archive.read(archived.session, archived.conversation, EXPORT)))
    lines = [file for file in archived.files.values() if file.name.endswith(".jsonl")]
    main = min(lines, key=lambda file: ("subagents/" in file.name, -file.size), default=None)
    if main is None:
        return Rendered((), 0)
    return parse_lines(archive.read(archived.session, archived.conversation, main.name))


def _document(archived: Archived, rendered: Rendered) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "session": archived.session,
        "conversation": archived.conversation,
        "agent": archived.agent,
        "host": archived.host,
        "at": archived.at,
        "diverged": archived.diverged,
        "entries": [{"who": e.who, "when": e.when, "kind": e.kind, "text": e.text} for e in rendered.entries],
        "skipped": rendered.skipped,
    }
