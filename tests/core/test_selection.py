"""Targets, exclusions and label expressions: which part of the fleet a command is about."""

from __future__ import annotations

import pytest

from reconciler.core.selection import Selection, address, hold_for, matches
from reconciler.errors import UsageError
from tests.core.situations import applied, diff_of, host, running, silent, specs

TEXT = """
[hosts.gpu]
labels = { zone = "eu", tier = "host" }
[sessions.db]
agent = "codex"
labels = { team = "core" }
[sessions.api]
host = "gpu"
agent = "claude-code"
depends_on = ["db"]
labels = { team = "web", tier = "front" }
[sessions.web]
host = "gpu"
agent = "codex"
depends_on = ["api"]
"""
DESIRED = specs(TEXT)
LEFT = running(applied(specs("[sessions.left]\nagent='codex'\n"), "left"))
EVERYTHING = {"db", "api", "web", "left"}


def chosen(*targets: str, exclude: tuple[str, ...] = (), select: str | None = None) -> set[str]:
    diff = diff_of(DESIRED, host("gpu"), host("local", LEFT))
    held = hold_for(DESIRED, diff, Selection(targets, exclude, select))
    assert set(held.values()) <= {None}
    return {entry.name for entry in diff.entries if entry.address not in held}


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ((), EVERYTHING), (("db",), {"db"}), (("session.api",), {"api", "db"}), (("web",), {"web", "api", "db"}),
        (("host.gpu",), {"api", "web", "db"}), (("host.local",), {"db", "left"}), (("left",), {"left"}),
        (("db", "left"), {"db", "left"}),
    ],
)  # fmt: skip
def test_a_target_brings_what_it_depends_on(targets: tuple[str, ...], found: set[str]) -> None:
    assert chosen(*targets) == found


def test_an_exclusion_takes_away_that_alone() -> None:
    assert chosen(exclude=("api",)) == {"db", "web", "left"}
    assert chosen(exclude=("host.gpu",)) == {"db", "left"}
    assert chosen("web", exclude=("db",)) == {"web", "api"}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("team=core", {"db"}), ("team!=core", {"api", "web"}), ("zone=eu", {"api", "web"}),
        ("zone=eu,agent=codex", {"web"}), ("tier=front", {"api"}), ("tier = host", {"web"}), ("host==local", {"db"}),
        ("name=web", {"web"}), ("team=", {"web"}), ("nothing=here", set()),
    ],
)  # fmt: skip
def test_an_expression_selects_by_labels_host_agent_and_name(expression: str, found: set[str]) -> None:
    assert chosen(select=expression) == found
    assert {name for name in DESIRED.sessions if matches(DESIRED, name, expression)} == found


@pytest.mark.parametrize("expression", ["", "team", "team~core", "a=b,", "=x"])
def test_an_expression_that_is_none_is_a_usage_error(expression: str) -> None:
    with pytest.raises(UsageError):
        matches(DESIRED, "db", expression)


@pytest.mark.parametrize("target", ["nobody", "session.nobody", "host.nowhere", "agent.codex", "chat.x"])
def test_what_does_not_exist_is_a_usage_error(target: str) -> None:
    for selection in (Selection(targets=(target,)), Selection(exclude=(target,))):
        with pytest.raises(UsageError) as caught:
            hold_for(DESIRED, diff_of(DESIRED, host("gpu"), host("local")), selection)
        assert caught.value.exit_code == 64


def test_no_selection_holds_nothing() -> None:
    assert hold_for(DESIRED, diff_of(DESIRED, host("gpu"), host("local")), Selection()) == {}


def test_a_silent_host_is_spoken_of_only_where_it_was_asked_for() -> None:
    diff = diff_of(DESIRED, silent("gpu"), host("local"))
    assert "host.gpu" in hold_for(DESIRED, diff, Selection(targets=("db",)), ["gpu"])
    assert "host.gpu" not in hold_for(DESIRED, diff, Selection(targets=("host.gpu",)), ["gpu"])
    assert "host.gpu" not in hold_for(DESIRED, diff, Selection(exclude=("db",)), ["gpu"])


def test_a_bare_name_is_a_sessions() -> None:
    assert address(DESIRED, "db") == "session.db"
    assert address(DESIRED, "host.gpu") == "host.gpu"
