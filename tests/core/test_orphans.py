"""What is nobody's: sessions that left the specs, agents that were started by hand; each with what to do about it."""

from __future__ import annotations

import json

from reconciler.core.orphans import Orphan, orphans, orphans_json
from reconciler.core.strays import Pane, Stray
from tests.core.situations import (
    AGENT,
    CONVERSATION,
    NOW,
    ON_GPU,
    applied,
    diff_of,
    gone,
    host,
    observed,
    running,
    silent,
    specs,
)

OTHER = "[sessions.other]\nagent = 'claude-code'\n"
HAND = Stray(("claude-code",), 7, 90, Pane("/s", "%1", "fix it", "/x"), directory="/x", conversation=CONVERSATION)


def found(text: str, *hosts: object, strays: dict[str, tuple[Stray, ...]] | None = None) -> tuple[Orphan, ...]:
    desired = specs(text)
    return orphans(desired, observed(*hosts), diff_of(desired, *hosts), strays or {})  # type: ignore[arg-type]


def test_a_session_that_left_the_specs_can_be_let_go_of_or_ended() -> None:
    (orphan,) = found(OTHER, host("local", running(applied(specs(AGENT)))))
    assert (orphan.what, orphan.pid, orphan.conversation) == ("session.api", 100, CONVERSATION)
    assert (orphan.take, orphan.end) == ("reconciler forget session.api", "reconciler apply --target session.api")
    (kept,) = found("[fleet]\nprune = false\n" + OTHER, host("local", running(applied(specs(AGENT)))))
    assert kept.end == ""


def test_what_was_stopped_is_no_orphan_and_nothing_is_known_of_a_silent_host() -> None:
    assert found(OTHER, host("local", gone(applied(specs(AGENT)), "stopped"))) == ()
    assert found(OTHER, silent("local"), strays={"local": (HAND,)}) == ()


def test_a_session_whose_host_left_the_specs_is_remembered() -> None:
    desired = specs(OTHER)
    diff = diff_of(desired, host("local"), last_seen={"api": "away"})
    (orphan,) = orphans(desired, observed(host("local")), diff, {})
    assert (orphan.host, orphan.take, orphan.end) == ("away", "reconciler forget session.api", "")


def test_an_agent_of_nobody_is_offered_to_a_session_that_is_declared_there_and_not_started() -> None:
    declared, made = found(OTHER, host("local"), strays={"local": (HAND, HAND)})
    assert declared.take == "reconciler adopt other --host local --pid 7"
    assert made.take == "reconciler adopt fix-it --host local --pid 7"
    assert (made.end, made.since) == ("reconciler exec local -- kill 7", NOW - 90)
    (elsewhere,) = found(ON_GPU + OTHER, host("local"), host("gpu"), strays={"local": (HAND,)})
    assert elsewhere.take.startswith("reconciler adopt fix-it ")


def test_an_agent_whose_conversation_nobody_knows_cannot_be_taken_over() -> None:
    (orphan,) = found(OTHER, host("local"), strays={"local": (Stray(("codex",), 8),)})
    assert orphan.take == ""
    assert "cannot be told" in orphan.note


def test_the_document_says_which_hosts_did_not_answer() -> None:
    document = orphans_json((), observed(host("local"), silent("gpu")))
    assert json.loads(json.dumps(document))["hosts"] == [
        {"name": "local", "reachable": True, "error": None},
        {"name": "gpu", "reachable": False, "error": "gpu: connection refused"},
    ]
