"""Sync windows: which are open, whose changes they hold, when that changes next. Pure: the caller owns the clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.core.decision import Decision
from reconciler.core.diff import Entry
from reconciler.core.expressions import fits
from reconciler.core.holds import Gate, Hold, hosts_of
from reconciler.core.schedules import next_opening, open_until, zone
from reconciler.core.spec import Desired, Window


@dataclass(frozen=True)
class Moment:
    """A window at one moment: `until` is when it closes, None where it is not open."""

    window: Window
    index: int  # its place in the specs, for `Desired.locate`
    until: datetime | None


def moments(windows: Iterable[Window], now: datetime) -> tuple[Moment, ...]:
    """All windows as they are at `now`."""
    return tuple(
        Moment(window, index, open_until(window.schedule, zone(window.timezone), window.duration, now))
        for index, window in enumerate(windows)
    )


def open_windows(windows: Iterable[Window], now: datetime) -> tuple[Moment, ...]:
    """Those that are open at `now`."""
    return tuple(moment for moment in moments(windows, now) if moment.until is not None)


def next_change(windows: Iterable[Window], now: datetime) -> datetime | None:
    """The next moment at which a window opens or closes; None without windows."""
    found = [
        moment.until or next_opening(moment.window.schedule, zone(moment.window.timezone), now)
        for moment in moments(windows, now)
    ]
    return min((at for at in found if at is not None), default=None)


def gate(desired: Desired, now: datetime) -> Gate:
    """What `make_plan` asks: whether the windows hold a decision at `now`. Computes the windows once."""
    every = moments(desired.windows, now)
    return lambda entry, decision: _held(desired, every, entry, decision, now)


def held_by(desired: Desired, entry: Entry, decision: Decision, now: datetime) -> Hold | None:
    """Why the windows hold this decision at `now`; None where it may go on."""
    return gate(desired, now)(entry, decision)


def covers(desired: Desired, window: Window, entry: Entry) -> bool:
    """Whether a window is about a session, declared or left behind."""
    named = window.sessions is None and window.hosts is None
    named = named or entry.name in (window.sessions or ()) or bool(hosts_of(entry) & set(window.hosts or ()))
    return named and (window.select is None or fits(_labels(desired, entry), window.select))


def heals(entry: Entry, decision: Decision) -> bool:
    """Whether a decision only brings back what died by itself, as it was: nothing of its spec changed with it."""
    died = entry.seen is not None and entry.seen.record is not None and entry.seen.state in ("exited", "lost")
    # Any other reason is a wish: it is asked for, returns to the specs, has another prompt.
    by_itself = decision.verb in ("resume", "start") and decision.reason == entry.reason
    return died and by_itself and not (entry.changes or entry.live)


def _labels(desired: Desired, entry: Entry) -> Mapping[str, str]:
    """What a label expression is about; of a session that left the specs, what its record remembers."""
    host = desired.hosts.get(entry.host)
    record = entry.seen.record if entry.seen else None
    if entry.desired is not None:
        host, labels, agent = desired.hosts[entry.desired.host], entry.desired.labels, entry.desired.agent
        place = entry.desired.host
    else:
        labels, agent, place = record.labels if record else {}, record.agent if record else "", entry.host
    return {**(host.labels if host else {}), **labels, "host": place, "agent": agent, "name": entry.name}


def _held(desired: Desired, every: tuple[Moment, ...], entry: Entry, decision: Decision, now: datetime) -> Hold | None:
    healing = heals(entry, decision)
    about = [m for m in every if covers(desired, m.window, entry) and not (healing and m.window.heal)]
    denied = [m for m in about if m.window.kind == "deny" and m.until is not None]
    if denied:
        last = max(denied, key=lambda m: m.until.timestamp() if m.until else 0.0)
        until = f" until {_when(last.until, last.window, now)}" if last.until else ""
        return _hold(f"held by the deny window{_place(desired, last)}{until}")
    allowing = [m for m in about if m.window.kind == "allow"]
    if not allowing or any(m.until is not None for m in allowing):
        return None
    openings = [(next_opening(m.window.schedule, zone(m.window.timezone), now), m) for m in allowing]
    opening, first = min(openings, key=lambda item: item[0].timestamp() if item[0] else float("inf"))
    when = f" opens {_when(opening, first.window, now)}" if opening else " does not open"
    return _hold(f"held until the allow window{_place(desired, first)}{when}")


def _hold(message: str) -> Hold:
    return Hold("window", message, "wait, or reconciler apply --ignore-windows")


def _place(desired: Desired, moment: Moment) -> str:
    source = desired.locate(f"window.{moment.index}", None)
    return f" at {source.file}:{source.line}" if source else ""


def _when(at: datetime, window: Window, now: datetime) -> str:
    """`Mon 08:00 Europe/Berlin` within a week, the date beyond."""
    local = at.astimezone(zone(window.timezone))
    near = 0 <= (local.date() - now.astimezone(zone(window.timezone)).date()).days < 7
    return f"{_DAYS[local.weekday()] if near else f'{local:%Y-%m-%d}'} {local:%H:%M} {window.timezone}"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")  # whatever the locale
