"""One phase a resource; `Ready` always, and `Unknown`, never `False`, for what was not observed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from reconciler.core.observed import HostSeen, SessionSeen
from reconciler.core.status import Status, status_json, statuses
from tests.core.situations import (
    AGENT,
    CONVERSATION,
    NOW,
    agents_of,
    applied,
    diff_of,
    ended,
    gone,
    host,
    observed,
    plan_of,
    running,
    silent,
    specs,
    status_file,
)

RECORD = applied(specs(AGENT))
TASK = AGENT + 'lifecycle = "task"\nprompt = "x"\n'


def found(text: str, *hosts: HostSeen, last_seen: Mapping[str, str] | None = None) -> dict[str, Status]:
    desired = specs(text)
    diff, plan = diff_of(desired, *hosts, last_seen=last_seen), plan_of(desired, *hosts, last_seen=last_seen)
    every = statuses(desired, observed(*hosts), diff, plan, agents_of(desired))
    return {status.address: status for status in every}


def conditions(status: Status) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


@pytest.mark.parametrize(
    ("text", "seen", "phase", "ready"),
    [
        (AGENT, None, "absent", "False"),
        (AGENT, running(RECORD, "busy"), "busy", "True"),
        (AGENT, running(RECORD, "idle"), "idle", "True"),
        (AGENT, running(RECORD, "waiting"), "waiting", "True"),
        (AGENT, running(RECORD, None), "running", "True"),
        (AGENT, ended(RECORD, 1), "exited", "False"),
        (AGENT, ended(RECORD, 0), "blocked", "False"),
        (AGENT, gone(RECORD, "lost"), "lost", "False"),
        (AGENT + 'state = "stopped"\n', gone(RECORD, "stopped"), "stopped", "True"),
        (AGENT, gone(RECORD, "starting"), "blocked", "False"),
        (AGENT, replace(gone(RECORD, "broken"), record=None), "blocked", "False"),
        (AGENT, gone(RECORD, "unknown"), "unknown", "Unknown"),
        (TASK, ended(applied(specs(TASK)), 0), "completed", "True"),
    ],
)
def test_every_session_has_one_phase_and_says_whether_it_is_ready(
    text: str, seen: SessionSeen | None, phase: str, ready: str
) -> None:
    status = found(text, host("local", *([seen] if seen else [])))["session.api"]
    assert (status.phase, conditions(status)["Ready"]) == (phase, ready)


def test_what_was_not_observed_is_unknown_and_never_false() -> None:
    text = "[hosts.gpu]\n[sessions.api]\nhost='gpu'\nagent='codex'\n"
    every = found(text, silent("gpu"), host("local"), last_seen={"left": "old"})
    for address in ("session.api", "host.gpu", "session.left"):
        assert every[address].phase == "unknown"
        assert set(conditions(every[address]).values()) == {"Unknown"}
    assert every["host.local"].phase == "ready"


def test_a_disabled_host_suspends() -> None:
    text = "[hosts.gpu]\nenabled=false\n[sessions.api]\nhost='gpu'\nagent='codex'\n"
    assert found(text, host("local"))["session.api"].phase == "suspended"


def test_drifted_and_stalled_are_there_only_when_true() -> None:
    same = found(AGENT, host("local", running(RECORD)))["session.api"]
    drifted = found(AGENT + 'model = "x"\n', host("local", running(RECORD)))["session.api"]
    stalled = found(AGENT, host("local", ended(RECORD, 0)))["session.api"]
    assert set(conditions(same)) == {"Ready", "Reachable"}
    assert conditions(drifted)["Drifted"] == "True"
    assert conditions(stalled)["Stalled"] == "True"


def test_the_document_has_the_fields_that_scripts_rely_on() -> None:
    waiting = running(RECORD, status_file("waiting", waitingFor="permission", statusUpdatedAt=(NOW - 60) * 1000))
    every = found(AGENT, host("local", waiting))
    document = json.loads(json.dumps(status_json(tuple(every.values()))))
    assert document["format_version"] == "1.0"
    session = document["resources"][-1]
    assert set(session) == {"address", "phase", "conditions", "observed", "remedy", "revision"}
    assert {"type", "status", "reason", "message", "last_transition"} == set(session["conditions"][0])
    expected = {"state": "running", "activity": "waiting", "host": "local", "pid": 100,
                "conversation_id": CONVERSATION, "since": NOW - 60, "age": 60, "waiting_for": "permission"}  # fmt: skip
    assert expected.items() <= session["observed"].items()
    assert set(session["revision"]) == {"desired", "attempted", "applied"}


def test_every_resource_is_listed_hosts_first() -> None:
    every = list(found(AGENT + "[sessions.b]\nagent='codex'\n", host("local"), silent("gpu")))
    assert every == ["host.local", "host.gpu", "session.api", "session.b"]
