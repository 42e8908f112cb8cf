"""`reconciler rollback`: the specs as they were, as a new commit; or `run` held at a revision (`--pin`)."""

from __future__ import annotations

import getpass
import re
import sys
from datetime import datetime
from typing import Annotated

import typer

from reconciler.cli.common import Directory, load
from reconciler.core.printed import escaped, render
from reconciler.errors import SpecError, UsageError
from reconciler.journal import open_journal
from reconciler.leases import actor

REFUSED = 8
PIN, WHY = "pin", "pin.why"  # keys of the journal's memory; `run` reads the first: the full id of a commit
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def command(
    directory: Directory = "specs",
    to: Annotated[str | None, typer.Option("--to", metavar="REV", help="Default: before the last change.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; in the message of the commit.")] = "",
    pin: Annotated[str | None, typer.Option("--pin", metavar="REV", help="Only hold `run` at this revision.")] = None,
    unpin: Annotated[bool, typer.Option("--unpin", help="Let `run` follow the newest revision again.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Push the commit, never with force.")] = False,
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Do not ask.")] = False,
) -> None:
    """Commit the spec directory as it was at an earlier revision. Shows what that would do, and asks.

    Nothing is applied: `reconciler apply`, or a loop that follows the repository, does that.
    """
    reason = " ".join(reason.split())
    if sum((pin is not None, unpin, to is not None or push)) > 1:
        raise UsageError("--pin, --unpin, and --to or --push exclude each other")
    if pin is not None or unpin:
        _pin(directory, pin, reason)
        return
    if not auto_approve and not sys.stdin.isatty():
        raise UsageError("rollback asks before it commits, and there is no terminal to ask on", remedy="--auto-approve")
    if not _rollback(directory, to, reason, approved=auto_approve, publish=push):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(REFUSED)


def _rollback(directory: str, to: str | None, reason: str, *, approved: bool, publish: bool) -> bool:
    from reconciler.offline import offline_plan
    from reconciler.sources.at_ref import load_at
    from reconciler.sources.rollback import differs, find_target, push, revert

    target = find_target(directory, to)
    if not differs(directory, target):
        typer.echo(f"{directory} is as it was at {target.short}: nothing to roll back")
        return True
    # A revision that does not validate is refused here: rolling back to it would leave the loop with nothing to follow.
    after = load_at(directory, target.commit)
    try:
        before = load_at(directory, "HEAD")
    except SpecError as error:  # the best of reasons to go back
        typer.echo(f"Back to {target.short}; what that does cannot be shown, at HEAD {error.message}")
    else:
        typer.echo(f"Back to {target.short}, from a fleet that runs as HEAD declares:\n")
        typer.echo(render(offline_plan(before, after)), nl=False)
    if not approved and not _asked():
        return False
    made = revert(directory, target, reason)
    typer.echo(f"Committed {made}: the specs are as at {target.short}")
    if publish:
        push(directory)
        typer.echo("Pushed.")
    return True


def _fleet(directory: str, commit: str | None) -> str:
    """The name of the fleet; where its specs are broken now, which is when one pins, as the pinned commit says."""
    from reconciler.sources.at_ref import load_at

    try:
        return load(directory).fleet.name
    except SpecError:
        if commit is None:
            raise
        return load_at(directory, commit).fleet.name


def _asked() -> bool:
    try:
        return input("\nDo you want this commit? Only `yes` is taken as yes: ").strip() == "yes"
    except EOFError:
        return False


def _pin(directory: str, revision: str | None, reason: str) -> None:
    from reconciler.sources._plumbing import commit_of

    commit = revision if revision is None or _ID.fullmatch(revision) else commit_of(directory, revision)
    why = f"by {getpass.getuser()} at {datetime.now().astimezone():%Y-%m-%d %H:%M}" + (f": {reason}" if reason else "")
    who = actor("rollback")
    with open_journal(_fleet(directory, commit), write=True, actor=who) as journal, journal.together():
        before = journal.recall(PIN)
        journal.keep(PIN, commit)
        journal.keep(WHY, why if commit else None)
        if commit or before:
            verb, held = ("pin", commit) if commit else ("unpin", before)
            journal.record(verb, "source", verb=verb, revision=held or "", message=reason)
    typer.echo(escaped(f"pinned to {commit} {why}") if commit else "not pinned any more")
