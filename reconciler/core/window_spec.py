"""`[[windows]]`: when changes are held, as a frozen model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from reconciler.core.expressions import terms
from reconciler.core.host_spec import Model
from reconciler.core.schedules import check, zone
from reconciler.core.values import Argv, Flag, PositiveDuration, Text, fail

_YEAR = 366 * 86400


def _schedule(text: str) -> str:
    try:
        check(text)
    except ValueError as error:
        raise fail(f'must be a cron expression such as "0 22 * * 1-5": {error}') from None
    return text


def _timezone(text: str) -> str:
    try:
        zone(text)
    except ValueError:
        raise fail('must be a time zone that this machine knows, such as "Europe/Berlin" or "UTC"') from None
    return text


def expression(text: str) -> str:
    """Checks a label expression."""
    try:
        terms(text)
    except ValueError as error:
        raise fail(f"is no label expression: {error}") from None
    return text


def _at_most_a_year(seconds: float) -> float:
    if seconds > _YEAR:
        raise fail("must be at most 366d")
    return seconds


class Window(Model):
    """A time in which changes are held (`deny`), or outside of which they are held (`allow`).

    It covers the sessions that it names and those on the hosts that it names, or all where it names none of both; of
    these only what fits `select`. A session is held while a deny window that covers it is open, and while allow windows
    cover it and none of them is open.
    """

    kind: Literal["allow", "deny"] = Field(description="Changes only while it is open, or not while it is open.")
    schedule: Annotated[Text, AfterValidator(_schedule)] = Field(
        description="When it opens: a cron expression of five fields."
    )
    duration: Annotated[PositiveDuration, AfterValidator(_at_most_a_year)] = Field(
        description="How long it stays open, in real time."
    )
    timezone: Annotated[Text, AfterValidator(_timezone)] = Field(
        "UTC", description="IANA name of the time zone of `schedule`."
    )
    sessions: Argv | None = Field(None, description="Sessions that it covers, by name.")
    hosts: Argv | None = Field(None, description="Hosts whose sessions it covers, by name.")
    select: Annotated[Text, AfterValidator(expression)] | None = Field(
        None, description="Covers only what fits this label expression, as in `--select`."
    )
    heal: Flag = Field(True, description="What died is resumed also while changes are held.")
    description: str | None = Field(None, description="For people.")
