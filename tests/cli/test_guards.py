"""Every guard says what it refuses, who is behind it, since when, and a command that lifts it, which we accept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import application
from reconciler.cli.purge import _refuse_live
from reconciler.cli.sync import _print_one
from reconciler.core.agent import Activity
from reconciler.core.decision import not_idle
from reconciler.core.guards import check_emptiness, check_stops, limit_of
from reconciler.core.holds import Suspension, suspended
from reconciler.core.plan import Plan
from reconciler.core.record import Record
from reconciler.core.spec import Desired, Stop
from reconciler.core.windows import gate
from reconciler.errors import ReconcilerError
from reconciler.leases import refused
from reconciler.reconcile import Pass
from reconciler.sources import open_source
from reconciler.sources.following import Following
from reconciler.sources.notes import Notes
from reconciler.transcripts.archive import Archive
from reconciler.transcripts.carrying import open_archive
from reconciler.transcripts.results import PullResult
from tests.core.situations import (
    AGENT,
    NOW,
    action,
    agents_of,
    applied,
    archived,
    diff_of,
    ended,
    gone,
    host,
    observed,
    plan_of,
    running,
    specs,
    status_file,
)

HOUR = NOW - 3600
SINCE = f"since {datetime.fromtimestamp(HOUR, UTC):%Y-%m-%d %H:%M} UTC"
OFF = AGENT + 'state = "stopped"\n'
TWO = "[hosts.a]\n[hosts.b]\n" + AGENT + 'host = "a"\n'
DB = '[sessions.db]\nagent = "claude-code"\n'
PANEL = '[group_chats.panel]\nmoderator = { agent = "claude-code" }\nparticipants = ["api", "db"]\nprompt = "go"\n'
CHAT = AGENT + DB + PANEL


@dataclass(frozen=True)
class Refusal:
    """What a guard says."""

    message: str
    remedy: str

    @property
    def commands(self) -> list[str]:
        """The commands in its remedy, to copy."""
        return [found.strip() for found in re.findall(r"reconciler [^;,`()]+", self.remedy)]


def planned(plan: Plan) -> Refusal:
    found = action(plan)
    assert found.verb == "blocked", found
    return Refusal(found.message, found.remedy)


def raised(work: Callable[[], object]) -> Refusal:
    with pytest.raises(ReconcilerError) as caught:
        work()
    return Refusal(caught.value.message, caught.value.remedy)


def record(text: str = AGENT, **changes: Any) -> Record:
    return applied(specs(text), **changes)


def protected(**changes: Any) -> Refusal:
    return planned(plan_of(specs(OFF), host("local", running(record(**changes)))))


def held(text: str, *suspensions: Suspension) -> Refusal:
    desired, place = specs(text), host("local")
    return planned(plan_of(desired, place, hold=suspended(desired, diff_of(desired, place), suspensions)))


def window() -> Refusal:
    text = AGENT + '[[windows]]\nkind = "deny"\nschedule = "0 0 * * *"\nduration = "24h"\n'
    desired = specs(text)
    return planned(plan_of(desired, host("local"), gate=gate(desired, datetime(2026, 11, 21, 12, tzinfo=UTC))))


def stops() -> Refusal:
    text = '[fleet]\nname = "default"\nprune = true\nmax_stop = "2"\n[hosts.gpu]\n'
    seen = [running(applied(specs(f"[sessions.s{n}]\nagent='codex'\n"), f"s{n}")) for n in range(5)]
    plan = plan_of(specs(text), host("gpu", *seen))
    return raised(lambda: check_stops(plan, "2", lambda: limit_of(specs(text))))


def busy() -> Refusal:
    return Refusal(*not_idle("api", Stop.model_validate({"timeout": "10m"}), Activity("busy", "registry", HOUR)))


def twice() -> Refusal:
    return planned(plan_of(specs(TWO), host("a", running(record())), host("b", running(record()))))


def diverged() -> Refusal:
    seen = ended(record(), 1)
    return planned(plan_of(specs(AGENT), host("local", seen), archive=[archived()], relations={"api": "diverged"}))


def budget() -> Refusal:
    text = AGENT + 'restart = { policy = "on_failure", budget = 2, per = "2h" }\n'
    seen = ended(applied(specs(text), restarts=(HOUR, NOW - 60)), 1)
    return planned(plan_of(specs(text), host("local", seen)))


def never() -> Refusal:
    text = AGENT + 'restart = { policy = "never" }\n'
    return planned(plan_of(specs(text), host("local", ended(applied(specs(text)), 1))))


def purged() -> Refusal:
    result = PullResult("api", "c", "gpu", "purged", purged_at=float(HOUR))
    return Refusal(result.message, "reconciler purge session.api")


def purging(desired: Desired, seen: Any, archive: Archive) -> Refusal:
    place = host("gpu", seen)
    done = Pass(desired, agents_of(desired), observed(place), diff_of(desired, place), plan_of(desired, place), archive)
    return raised(lambda: _refuse_live(done, seen.name, [place]))


LEASE = "lease: ann@box:machine/boot:12:7:abcd:1763700000 holds the lease for another 42 s"
ANN = Suspension("session.api", None, "the demo", "ann", datetime(2026, 11, 20, 18, tzinfo=UTC))
# What it is; what it has to say of who and since when.
REFUSALS: dict[str, tuple[Callable[[], Refusal], tuple[str, ...]]] = {
    "max_stop": (stops, ("5 of 5", "at fleet.toml:4", "session.s0")),
    "empty specs": (lambda: raised(lambda: check_emptiness(specs(""))), ("the specs declare nothing",)),
    "protected by a person": (lambda: protected(protected_by="ann@box", protected_at=HOUR), ("by ann@box", SINCE)),
    "protected by old specs": (
        lambda: protected(protected=True, revision="4711aa"), ("by the specs that were applied last", "4711aa"),
    ),
    "protected by the specs": (
        lambda: planned(plan_of(specs(OFF + "protect = true\n"), host("local", running(record(protected=True))))),
        ("by the specs at fleet.toml:4",),
    ),
    "busy": (busy, ("still busy after 10m", "registry", SINCE)),
    "restart budget": (budget, ("restarted 2 times in 2h", SINCE)),
    "never restarted": (never, ("restart.policy is never",)),
    "one owner": (twice, ("a: pid 100", "b: pid 100", SINCE)),
    "diverged": (diverged, ("differ",)),
    "suspended": (lambda: held(AGENT, ANN), ("by ann", "since 2026-11-20 18:00", "the demo")),
    "suspended host": (
        lambda: held(AGENT, replace(ANN, address="host.local")), ("host.local is suspended", "by ann", "since"),
    ),
    "suspended fleet": (lambda: held(AGENT, replace(ANN, address="fleet")), ("fleet is suspended", "by ann")),
    "suspended by the specs": (lambda: held(AGENT + "suspend = true\n"), ("by the specs at fleet.toml:3",)),
    "window": (window, ("deny window at fleet.toml:3", "until")),
    "lease": (
        lambda: Refusal(str(refused("gpu", LEASE)), refused("gpu", LEASE).remedy),
        ("ann@box (pid 12)", "since", "until"),
    ),
    "purged": (purged, ("has been purged", SINCE)),
}  # fmt: skip


def accepted(command: str) -> str:
    """The name of the command, if our command line takes it with all its words; raises what it refuses with."""
    app = application()
    words = command.split()[1:]
    context = app.make_context("reconciler", list(words))
    name, found, rest = app.resolve_command(context, words)
    found.make_context(name, rest, parent=context)
    return str(name)


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_says_who_since_when_and_a_command_that_lifts_it(name: str) -> None:
    make, says = REFUSALS[name]
    refusal = make()
    for words in says:
        assert words in refusal.message
    assert refusal.commands, refusal.remedy
    for command in refusal.commands:
        assert accepted(command)


def test_a_command_that_does_not_exist_is_told_from_one_that_does() -> None:
    assert accepted("reconciler apply --max-stop 9") == "apply"
    for command in ("reconciler aply", "reconciler apply --max-stops 9", "reconciler unprotect"):
        with pytest.raises(Exception, match=r"No such|Missing"):
            accepted(command)


async def test_a_mass_loss_of_spec_files_says_since_which_revision_and_how_to_mean_it(tmp_path: Path) -> None:
    directory, notes = tmp_path / "specs", Notes(tmp_path)
    directory.mkdir()
    for name in "abcdef":
        (directory / f"{name}.toml").write_text(f'[sessions.{name}]\nagent = "codex"\n')
    following = Following(open_source(str(directory), state=tmp_path), notes, now=lambda: 0.0)
    await following.refresh()
    assert following.good is not None
    for name in "abcde":
        (directory / f"{name}.toml").unlink()
    await following.refresh()
    await following.source.close()
    assert following.trouble is not None
    refusal = Refusal(following.trouble.message, following.trouble.remedy)
    assert f"5 of 6 spec files are gone since the last good revision {following.good.id}" in refusal.message
    assert [accepted(command) for command in refusal.commands] == ["reconcile"]


class TestPurge:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Archive:
        return open_archive(specs(f'[fleet]\nname = "x"\narchive = "{tmp_path}"\n' + AGENT))

    def test_a_session_that_runs_or_is_protected_is_refused_with_commands(self, archive: Archive) -> None:
        live = purging(specs(AGENT), running(record()), archive)
        assert [accepted(command) for command in live.commands] == ["apply", "purge"]
        kept = gone(record(protected_by="ann@box", protected_at=HOUR), "stopped")
        refusal = purging(specs(AGENT), kept, archive)
        assert f"protected by ann@box {SINCE}" in refusal.message
        assert [accepted(command) for command in refusal.commands] == ["unprotect", "purge"]

    def test_a_group_chat_is_called_one_declared_or_not(self, archive: Archive) -> None:
        chat = running(applied(specs(CHAT), "panel"))
        for desired in (specs(CHAT), specs(AGENT)):
            assert purging(desired, chat, archive).message.startswith("group_chat.panel is running")


def test_sync_calls_a_group_chat_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = open_archive(specs(f'[fleet]\nname = "x"\narchive = "{tmp_path}"\n' + AGENT))
    for desired in (specs(CHAT), specs(AGENT)):
        place = host("local", running(applied(specs(CHAT), "panel")))
        plan, diff = plan_of(desired, place), diff_of(desired, place)
        done = Pass(desired, agents_of(desired), observed(place), diff, plan, archive)
        for outcome in ("synced", "purged"):
            _print_one(PullResult("panel", "c", "local", outcome), done.address("panel"))
        said = capsys.readouterr().out
        assert said.count("group_chat.panel") == 3
        assert "session.panel" not in said


def test_the_plan_says_who_says_that_a_session_is_busy_and_since_when() -> None:
    seen = running(record(), status_file("busy", statusUpdatedAt=HOUR * 1000))
    text = plan_of(specs(OFF), host("local", seen)).actions[0].message
    assert text.endswith(f"busy: waits up to 10m for idle, then interrupts (says its registry {SINCE})")
