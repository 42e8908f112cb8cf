"""`reconciler fmt`: lays out spec files the one way; every comment and every value stays."""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from typing import Annotated

import tomli
import typer

from reconciler.core.collect import read
from reconciler.core.diagnostics import Diagnostic, render_all
from reconciler.core.layout import format_text
from reconciler.errors import SpecError
from reconciler.sources.directory import read_text, spec_files, unreadable


def command(
    path: Annotated[str, typer.Argument(metavar="DIR|FILE", help="What to format.")] = "specs",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 and name the files to format.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
) -> None:
    """Format spec files: order of tables and keys, spacing.

    Names the files it changes. A file that is not valid TOML is never touched (exit 65).
    """
    findings: list[Diagnostic] = []
    changed, failed = 0, False
    for file in _files(path, findings):
        formatted = _format(file, findings)
        if formatted is None:
            continue
        old, new = formatted
        if old != new:
            changed += 1
            _show(file, old, new, diff)
            if not (check or diff):
                failed |= not _write(file, new)
    if findings:
        typer.echo(render_all(findings), err=True)
        raise typer.Exit(65)
    if failed or (check and changed):
        raise typer.Exit(1)


def _files(path: str, findings: list[Diagnostic]) -> list[str]:
    if os.path.isfile(path):
        return [path]
    try:
        return spec_files(path)
    except SpecError as error:
        findings += [d for d in error.diagnostics if isinstance(d, Diagnostic)]
        return []


def _format(file: str, findings: list[Diagnostic]) -> tuple[str, str] | None:
    """The text before and after; None, and a finding, for what is not readable as TOML."""
    try:
        text = read_text(file)
        return text, format_text(text)
    except (tomli.TOMLDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            findings.append(unreadable(file, error))
        else:
            findings += read({file: text}).findings.sorted()[:1]
    except OSError as error:
        findings.append(unreadable(file, error))
    return None


def _show(file: str, old: str, new: str, diff: bool) -> None:
    if not diff:
        typer.echo(file)
        return
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), file, f"{file} (formatted)")
    typer.echo("".join(line if line.endswith("\n") else f"{line}\n" for line in lines), nl=False)


def _write(file: str, text: str) -> bool:
    try:
        _replace(os.path.realpath(file), text)
    except OSError as error:
        typer.echo(f"error: {file} cannot be written: {error.strerror}", err=True)
        return False
    return True


def _replace(target: str, text: str) -> None:
    """All of it or nothing: a new file beside the old one takes its place, with the same mode."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".fmt-")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as output:
            output.write(text)
            output.flush()
            os.fsync(output.fileno())
        os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
