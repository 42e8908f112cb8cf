"""`reconciler validate`: checks the specs of a directory, offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from reconciler.core.diagnostics import Diagnostic, render_all
from reconciler.core.spec import Desired
from reconciler.errors import SpecError
from reconciler.sources.directory import load

FORMAT_VERSION = "1.0"


def command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The spec directory.")] = "specs",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Check the specs: every error with file, line, column and the line itself.

    Looks at no host. Exits 0 when valid, 65 when not.
    """
    try:
        desired = load(directory)
    except SpecError as error:
        found = tuple(d for d in error.diagnostics if isinstance(d, Diagnostic))
        if as_json:
            typer.echo(to_json(found))
        typer.echo(render_all(found), err=True)
        raise typer.Exit(error.exit_code) from None
    if as_json:
        typer.echo(to_json(()))
    typer.echo(f"{directory} is valid: {counts(desired)}.", err=as_json)


def to_json(diagnostics: Sequence[Diagnostic]) -> str:
    """The document of `validate --json`."""
    errors = sum(d.severity == "error" for d in diagnostics)
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "valid": not errors,
        "error_count": errors,
        "diagnostics": [d.to_json() for d in diagnostics],
    }
    return json.dumps(document, indent=2)


def counts(desired: Desired) -> str:
    """How much is declared: "2 hosts, 1 session"."""
    amounts = {
        "host": len(desired.hosts),
        "agent": len(desired.agents),
        "session": len(desired.sessions),
        "group chat": len(desired.group_chats),
        "playbook": len(desired.playbooks),
    }
    always = ("host", "session")
    return ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in amounts.items() if n or what in always)
