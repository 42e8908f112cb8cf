"""When a cron schedule fires, in a time zone, and what is open for a while each time. Pure: the caller owns the clock.

Schedules mean what they mean to Debian's cron where clocks are changed: a time that is skipped fires right after the
gap, and one that comes twice fires the first time. How long something stays open is counted in real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_MERGED = 700  # overlapping times that are followed to the end of what is open; more is said at the next look


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name; `UTC` needs no database. Raises ValueError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:  # also where the system has no such database
        raise ValueError("no such time zone") from error


@lru_cache(maxsize=4096)
def check(schedule: str) -> None:
    """Raises ValueError saying what is wrong with a schedule, also where it never fires."""
    if len(schedule.split()) != 5:
        raise ValueError("a schedule has five fields: minute, hour, day of month, month, day of week")
    try:
        next(CronSim(schedule, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        raise ValueError("it never fires") from None
    except CronSimError as error:
        raise ValueError(str(error)[:1].lower() + str(error)[1:]) from None
    except (ValueError, TypeError, IndexError, AssertionError, OverflowError):  # of what the library did not expect
        raise ValueError("not a cron expression") from None


def fires(schedule: str, where: tzinfo, after: datetime) -> Iterator[datetime]:
    """The moments later than `after` at which it fires, in order, in UTC."""
    # From noon of the day before: no clock is changed at noon, so every look sees the same moments.
    day = after.astimezone(where).date() - timedelta(days=1)
    last = after.astimezone(UTC)
    for local in CronSim(schedule, datetime.combine(day, time(12), where)):
        found = local.astimezone(UTC)
        if found > last:
            last = found
            yield found


def open_until(schedule: str, where: tzinfo, duration: float, now: datetime) -> datetime | None:
    """When it closes what is open now, each time for `duration` seconds; None where nothing is open."""
    span, now, end = timedelta(seconds=duration), now.astimezone(UTC), None  # of a local time, only the dial would move
    for count, start in enumerate(fires(schedule, where, now - span)):
        if start > (now if end is None else end) or count > _MERGED:
            break
        end = start + span
    return end


def next_opening(schedule: str, where: tzinfo, now: datetime) -> datetime | None:
    """When it fires next; None where that is out of sight."""
    return next(fires(schedule, where, now), None)
