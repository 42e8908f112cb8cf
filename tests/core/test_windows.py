"""Sync windows: when they are open, around changes of the clock too, what they hold, and what goes on meanwhile."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.diagnostics import Diagnostic
from reconciler.core.observed import HostSeen, SessionSeen
from reconciler.core.parse import parse
from reconciler.core.plan import Action
from reconciler.core.schedules import check, fires, open_until, zone
from reconciler.core.spec import Window
from reconciler.core.windows import covers, gate, next_change, open_windows
from reconciler.errors import SpecError
from tests.core.situations import AGENT, action, applied, diff_of, ended, gone, host, plan_of, running, specs

BERLIN = zone("Europe/Berlin")
# Clocks go forward and back there: by an hour, by half an hour, at midnight.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago")
SCHEDULES = (
    "0 22 * * 1-5", "30 2 * * *", "0 2 * * *", "0 0 * * *", "15 1 * * 0", "*/20 * * * *", "0 */3 * * *", "45 23 L * *",
    "59 0 1 4,10 *", "30 1,2,3 * * *",
)  # fmt: skip

SOMETIMES = tuple(schedule for schedule in SCHEDULES if not schedule.startswith("*"))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def window(**keys: Any) -> Window:
    return Window.model_validate({"kind": "deny", "schedule": "0 22 * * *", "duration": "10h", **keys})


instants = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)).map(lambda d: d.replace(tzinfo=UTC))
# Around the last Sundays of March and October, and the first of April, where most clocks are changed.
changes = st.sampled_from(
    [datetime(y, m, d, tzinfo=UTC) for y, m, d in ((2026, 3, 29), (2026, 10, 25), (2026, 3, 8), (2026, 11, 1),
     (2026, 4, 5), (2026, 10, 4), (2026, 9, 6), (2026, 4, 4))]
)  # fmt: skip
near_changes = st.builds(lambda day, minutes: day + timedelta(minutes=minutes), changes, st.integers(-1500, 3000))
moments = st.one_of(instants, near_changes)
durations = st.sampled_from([60, 1800, 3600, 4 * 3600, 10 * 3600, 26 * 3600, 7 * 86400])


class TestOpen:
    @settings(max_examples=60)
    @given(st.sampled_from(SCHEDULES), st.sampled_from(ZONES), durations, moments)
    def test_it_is_open_for_its_duration_from_each_time_that_it_fires(
        self, schedule: str, name: str, duration: int, now: datetime
    ) -> None:
        where, span, sight = zone(name), timedelta(seconds=duration), now + timedelta(days=9)
        before = fires(schedule, where, now - span - timedelta(days=4))  # whenever one begins to look
        starts = list(takewhile(lambda start: start <= sight, before))
        until = open_until(schedule, where, duration, now)
        assert (until is not None) == any(start <= now < start + span for start in starts)
        if until is not None and until < sight:
            assert any(start + span == until for start in starts)
            assert not any(start <= until < start + span for start in starts)

    @given(st.sampled_from(SCHEDULES), st.sampled_from(ZONES), moments)
    def test_no_change_of_the_clock_makes_it_fire_twice_or_never(self, schedule: str, name: str, now: datetime) -> None:
        found = []
        for moment in fires(schedule, zone(name), now):
            found.append(moment)
            if len(found) == 40:
                break
        assert found == sorted(set(found))
        assert all(moment > now for moment in found)
        if schedule == "30 2 * * *":
            days = [moment.astimezone(zone(name)).date() for moment in found]
            assert all((later - first).days == 1 for first, later in pairwise(days))

    @given(
        st.lists(
            st.tuples(st.sampled_from(SOMETIMES), st.sampled_from(ZONES), st.sampled_from([60, 1800, 3600])),
            min_size=1,
            max_size=3,
        ),
        moments,
        st.lists(st.floats(0, 0.999), max_size=4),
    )
    def test_nothing_opens_or_closes_before_the_next_change_and_something_does_then(
        self, kinds: list[tuple[str, str, int]], now: datetime, between: list[float]
    ) -> None:
        every = [window(schedule=s, timezone=z, duration=f"{d}s") for s, z, d in kinds]
        change = next_change(every, now)
        assert change is not None
        assert change > now

        def which(moment: datetime) -> list[int]:
            return [found.index for found in open_windows(every, moment)]

        assert all(which(now + (change - now) * part) == which(now) for part in between)
        assert which(change) != which(now)

    def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens(self) -> None:
        friday = ("0 22 * * 5", BERLIN, 8 * 3600)
        assert open_until(*friday, at("2026-11-21T05:59")) == at("2026-11-21T06:00")  # a Saturday
        assert open_until(*friday, at("2026-11-21T06:00")) is None
        assert open_until(*friday, at("2026-11-20T05:59")) is None

    def test_a_night_in_which_the_clock_is_changed_is_as_long_as_any_other(self) -> None:
        night = ("0 22 * * *", BERLIN, 8 * 3600)
        assert open_until(*night, at("2026-03-29T04:00")) == at("2026-03-29T07:00")  # an hour was skipped
        assert open_until(*night, at("2026-10-25T04:00")) == at("2026-10-25T05:00")

    def test_a_time_that_is_skipped_opens_right_after_the_gap(self) -> None:
        assert open_until("30 2 * * *", BERLIN, 3600, at("2026-03-29T03:10")) == at("2026-03-29T04:00")

    def test_what_is_always_open_is_found_to_be_so_at_once(self) -> None:
        begin = time.perf_counter()
        assert open_until("* * * * *", BERLIN, 366 * 86400, at("2026-11-21T05:59")) is not None
        assert time.perf_counter() - begin < 1

    def test_without_windows_nothing_ever_changes(self) -> None:
        assert next_change((), at("2026-11-21T05:59")) is None


ALWAYS = '\n[[windows]]\nkind = "deny"\nschedule = "* * * * *"\nduration = "1h"\n'
OPEN_AT = at("2026-11-23T03:00")  # a Monday
DENY = '[[windows]]\nkind = "deny"\nschedule = "0 22 * * *"\nduration = "10h"\ntimezone = "Europe/Berlin"\n'
ALLOW = DENY.replace("deny", "allow")
RECORD = applied(specs(AGENT))


def planned(text: str, *hosts: HostSeen, now: datetime = OPEN_AT, name: str = "api", **more: Any) -> Action:
    desired = specs(text)
    return action(plan_of(desired, *hosts, gate=gate(desired, now), **more), name)


class TestHold:
    def test_a_deny_window_says_where_it_is_written_and_until_when_it_holds(self) -> None:
        item = planned(DENY + AGENT, host("local"))
        assert (item.verb, item.reason, item.steps) == ("blocked", "window", ())
        assert item.message == "held by the deny window at fleet.toml:1 until Mon 08:00 Europe/Berlin"
        assert item.remedy == "wait, or reconciler apply --ignore-windows"
        assert planned(DENY + AGENT, host("local"), now=at("2026-11-23T08:00")).verb == "start"

    def test_outside_of_its_allow_windows_a_session_is_held(self) -> None:
        item = planned(ALLOW + AGENT, host("local"), now=at("2026-11-23T12:00"))
        assert item.message == "held until the allow window at fleet.toml:1 opens Mon 22:00 Europe/Berlin"
        assert planned(ALLOW + AGENT, host("local")).verb == "start"

    def test_one_open_allow_window_is_enough_and_an_open_deny_window_wins(self) -> None:
        noon = ALLOW.replace("0 22", "0 12")
        assert planned(noon + ALLOW + AGENT, host("local")).verb == "start"
        assert planned(ALLOW + DENY + AGENT, host("local")).reason == "window"

    def test_a_time_beyond_a_week_is_a_date(self) -> None:
        yearly = ALLOW.replace("0 22 * * *", "30 9 24 12 *")
        assert planned(yearly + AGENT, host("local")).message.endswith("opens 2026-12-24 09:30 Europe/Berlin")

    @pytest.mark.parametrize(
        ("verb", "text", "seen"),
        [
            ("start", AGENT, ()),
            ("resume", AGENT, (gone(applied(specs(AGENT), intent="stopped"), "stopped"),)),
            ("restart", AGENT + 'model = "x"\n', (running(RECORD),)),
            ("update", AGENT + 'labels = { a = "b" }\n', (running(RECORD),)),
            ("stop", AGENT + 'state = "stopped"\n', (running(RECORD),)),
            ("stop", "[hosts.x]\n", (running(RECORD),)),
            ("forget", '[[removed]]\naddress = "session.api"\n', (running(RECORD),)),
        ],
    )
    def test_every_change_is_held(self, verb: str, text: str, seen: tuple[SessionSeen, ...]) -> None:
        assert planned(text, host("local", *seen)).verb == verb
        assert planned(text + ALWAYS, host("local", *seen)).reason == "window"

    def test_a_move_is_held_by_a_window_of_either_host(self) -> None:
        text = "[hosts.gpu]\n" + AGENT + 'host = "gpu"\n'
        seen = (host("local", running(RECORD)), host("gpu"))
        for name in ("gpu", "local"):
            assert planned(text + ALWAYS + f'hosts = ["{name}"]\n', *seen).reason == "window"
        assert planned(text + "[hosts.b]\n" + ALWAYS + 'hosts = ["b"]\n', *seen).verb == "move"

    def test_what_was_asked_for_is_held_too(self) -> None:
        seen = host("local", running(RECORD))
        assert planned(AGENT + ALWAYS, seen, restart=frozenset({"session.api"})).reason == "window"
        dead = host("local", ended(RECORD, 0))
        assert planned(AGENT + ALWAYS, dead, restart=frozenset({"session.api"})).reason == "window"


class TestHeal:
    DEAD = (
        ("crashed", ended(RECORD, 1)), ("lost", gone(RECORD, "lost")), ("rebooted", gone(RECORD, "lost", boot="b0")),
        ("workdir-missing", ended(RECORD, 1, "workdir-missing", "x")),
    )  # fmt: skip

    @pytest.mark.parametrize(("reason", "seen"), DEAD)
    def test_what_died_comes_back_while_changes_are_held(self, reason: str, seen: SessionSeen) -> None:
        item = planned(AGENT + ALWAYS, host("local", seen))
        assert (item.verb, item.reason) == ("resume", reason)
        assert planned(AGENT + ALWAYS + "heal = false\n", host("local", seen)).reason == "window"

    @pytest.mark.parametrize(("reason", "seen"), DEAD)
    @pytest.mark.parametrize("more", ['model = "x"\n', 'labels = { a = "b" }\n', 'prompt = "now this"\n'])
    def test_a_death_carries_no_held_change_through(self, reason: str, seen: SessionSeen, more: str) -> None:
        assert planned(AGENT + more, host("local", seen)).verb == "resume"
        assert planned(AGENT + more + ALWAYS, host("local", seen)).reason == "window"

    def test_a_session_without_a_conversation_comes_back_as_well(self) -> None:
        text = '[sessions.api]\nagent = "shell"\nargs = ["x"]\n'
        seen = gone(applied(specs(text)), "lost")
        assert planned(text + ALWAYS, host("local", seen)).verb == "start"

    def test_it_comes_back_though_a_change_of_what_it_depends_on_is_held(self) -> None:
        text = '[sessions.db]\nagent = "claude-code"\nmodel = "x"\n' + AGENT
        text += 'depends_on = [{ session = "db", until = "started" }]\n'
        db = running(applied(specs('[sessions.db]\nagent = "claude-code"\n'), "db"))
        seen = host("local", db, gone(applied(specs(text)), "lost"))
        assert planned(text + ALWAYS, seen, name="db").reason == "window"
        assert planned(text + ALWAYS, seen).verb == "resume"
        absent = host("local", gone(applied(specs(text)), "lost"))
        assert planned(text + ALWAYS, absent).reason == "dependency"


FLEET = """
[hosts.gpu]
labels = { zone = "eu" }
[sessions.api]
agent = "claude-code"
labels = { team = "web" }
[sessions.db]
agent = "codex"
host = "gpu"
"""


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, {"api", "db", "left"}), ({"sessions": ["api"]}, {"api"}), ({"hosts": ["gpu"]}, {"db"}),
        ({"hosts": ["local"]}, {"api", "left"}), ({"sessions": ["api"], "hosts": ["gpu"]}, {"api", "db"}),
        ({"select": "team=web"}, {"api"}), ({"select": "zone=eu"}, {"db"}), ({"select": "agent=codex"}, {"db", "left"}),
        ({"hosts": ["local"], "select": "agent=codex"}, {"left"}), ({"select": "team=old"}, {"left"}),
    ],
)  # fmt: skip
def test_a_window_covers_what_it_names_and_what_left_the_specs_by_its_record(
    keys: dict[str, Any], found: set[str]
) -> None:
    left = specs('[sessions.left]\nagent = "codex"\nlabels = { team = "old" }\n')
    desired = specs(FLEET)
    diff = diff_of(desired, host("local", running(applied(left, "left"))), host("gpu"))
    assert {entry.name for entry in diff.entries if covers(desired, window(**keys), entry)} == found


class TestSpecs:
    @pytest.mark.parametrize(
        ("line", "column", "summary"),
        [
            ('schedule = "0 25 * * *"', 12, "`schedule` must be a cron expression such as"),
            ('schedule = "0 0 0 * * *"', 12, "five fields"), ('schedule = "0 0 31 2 *"', 12, "`schedule`"),
            ('timezone = "Europe/Berlni"', 12, "`timezone` must be a time zone"),
            ('timezone = "../../../etc/passwd"', 12, "`timezone` must be a time zone"),
            ('sessions = ["apo"]', 13, "unknown session `apo`; did you mean `api`?"),
            ('hosts = ["gpu"]', 10, "unknown host `gpu`"), ('select = "team"', 10, "`select` is no label expression"),
            ('duration = "0s"', 12, "must be longer than nothing"), ('duration = "400d"', 12, "at most 366d"),
            ('kind = "never"', 8, '`kind` must be one of "allow", "deny"'), ("sessions = []", 12, "`sessions`"),
            ("heals = true", 1, "unknown key `heals`; did you mean `heal`?"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said_with_its_place(self, line: str, column: int, summary: str) -> None:
        key = line.partition(" ")[0]
        rest = "".join(row + "\n" for row in DENY.splitlines() if not row.startswith(f"{key} "))
        with pytest.raises(SpecError) as caught:
            parse({"fleet.toml": f"{AGENT}{rest}{line}\n"}, {})
        (found,) = [d for d in caught.value.diagnostics if isinstance(d, Diagnostic)]
        assert summary in found.summary
        assert (found.file, found.line, found.column) == ("fleet.toml", 3 + len(rest.splitlines()), column)

    def test_several_files_may_have_windows(self) -> None:
        desired = specs(DENY + AGENT, other="\n\n" + ALLOW)
        assert [w.kind for w in desired.windows] == ["deny", "allow"]
        second = desired.locate("window.1", None)
        assert second is not None
        assert (second.file, second.line) == ("other.toml", 3)

    @given(st.text(st.sampled_from("0123456789*/,-LW# MONJA"), max_size=24))
    def test_a_schedule_is_one_that_fires_or_is_refused(self, text: str) -> None:
        try:
            check(text)
        except ValueError:
            return
        assert next(fires(text, UTC, datetime(2026, 1, 1, tzinfo=UTC)))
