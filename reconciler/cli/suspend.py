"""`reconciler suspend`: nothing is done at an address, for a while or until further notice; it is observed only."""

from __future__ import annotations

import getpass
from datetime import datetime, timedelta
from typing import Annotated

import typer
from pydantic_core import PydanticCustomError

from reconciler.cli.common import Specs, load
from reconciler.core.holds import FLEET, Suspension
from reconciler.core.printed import escaped
from reconciler.core.selection import address
from reconciler.core.spec import Desired
from reconciler.core.values import parse_duration
from reconciler.errors import UsageError
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor


def command(
    which: Annotated[str, typer.Argument(metavar="ADDRESS", help="session.NAME, host.NAME or fleet.")],
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="2h, 30m, 2026-12-01, 2026-12-01T08:00. Default: ever.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who see it.")] = "",
    directory: Specs = "specs",
) -> None:
    """Do nothing to a session, to a host and what is on it, or to the whole fleet. Plan and status go on."""
    desired = load(directory)
    end = parse_until(until, datetime.now().astimezone()) if until is not None else None
    with open_journal(desired.fleet.name, write=True, actor=actor("suspend")) as journal:
        wanted = _known(desired, journal, which)
        found = Suspension(wanted, end, reason.strip(), getpass.getuser())
        journal.suspend(found)
    sentence = found.sentence()
    typer.echo(escaped(sentence if sentence.startswith(wanted) else f"{wanted} is {sentence}"))


def target(desired: Desired, text: str) -> str:
    """The address that a person means; `fleet` is the fleet. Raises UsageError for what is no address."""
    return FLEET if text == FLEET else address(desired, text)


def _known(desired: Desired, journal: Journal, text: str) -> str:
    """An address that is in the specs, or of a session that was seen on a host. Raises UsageError."""
    wanted = target(desired, text)
    kind, _, name = wanted.partition(".")
    known = {"session": {*desired.sessions, *journal.places()}, "host": set(desired.hosts), FLEET: {""}}[kind]
    if name not in known:
        from difflib import get_close_matches

        close = get_close_matches(name, known, 1)
        hint = f"did you mean {kind}.{close[0]}?" if close else "reconciler status"
        raise UsageError(f"{wanted} is neither in the specs nor on a host", remedy=hint)
    return wanted


def parse_until(text: str, now: datetime) -> datetime:
    """The moment that `--until` names: a span from now, or a date or time of the local zone where it names none.

    Raises UsageError for what is neither, and for what is past.
    """
    end = _moment(text.strip(), now)
    if end is None:
        raise UsageError(
            f"--until {text}: neither a span nor a time", remedy="such as 30m, 2h, 7d, 2026-12-01 or 2026-12-01T08:00"
        )
    if end <= now:
        raise UsageError(f"--until {text}: that is past ({end:%Y-%m-%d %H:%M})")
    return end


def _moment(text: str, now: datetime) -> datetime | None:
    try:
        return (now + timedelta(seconds=parse_duration(text))).astimezone()
    except PydanticCustomError:
        pass
    except OverflowError:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


__all__ = ["command", "parse_until", "target"]
