"""The one printed form of a plan, as text and as JSON; nothing that a host says can steer a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.diff import Change
from reconciler.core.plan import Action, Plan
from reconciler.core.printed import MEANINGS, NO_CHANGES, SYMBOLS, escaped, plan_json, recap, render
from reconciler.core.report import Outcome, Report
from tests.core.situations import AGENT, applied, ended, host, plan_of, running, silent, specs

SPECS = """
[hosts.gpu]
[hosts.far]
[sessions.db]
host = "gpu"
agent = "claude-code"
model = "opus"
env = { KEY = "sk-new" }
[sessions.api]
host = "gpu"
agent = "codex"
depends_on = ["db"]
[sessions.web]
agent = "claude-code"
protect = true
state = "stopped"
[sessions.off]
host = "far"
agent = "codex"
"""
GOLDEN = """\
    +  start
  -/+  restart
    -  stop
    !  blocked
    ?  host not observed, no action

host.gpu
  -/+ session.db  changed: env.KEY, model; the conversation goes on; busy: waits up to 10m for idle, \
then interrupts (says its registry)  fleet.toml:8
        env.KEY: (set) → (changed)
        model: (none) → opus
    + session.api  not on the host yet  fleet.toml:9
        after session.db

host.local
    ! session.web  it is protected by the specs at fleet.toml:15: it would stop  fleet.toml:13
        remedy: set protect = false there, then: reconciler unprotect session.web
    - session.old  no spec declares it any more

host.far: far: connection refused
    remedy: start sshd on far
    ? session.off  fleet.toml:17

Plan: 1 to start, 1 to restart, 1 to stop. 1 blocked, 1 unknown, 0 unchanged.
"""


def golden() -> Plan:
    desired = specs(SPECS)
    old_db = specs('[hosts.gpu]\n[sessions.db]\nhost = "gpu"\nagent = "claude-code"\nenv = { KEY = "sk-old" }\n')
    left = applied(specs("[sessions.old]\nagent = 'codex'\n"), "old")
    return plan_of(
        desired,
        host("gpu", running(applied(old_db, "db"), "busy")),
        host("local", running(applied(desired, "web")), running(left)),
        silent("far", "far: connection refused"),
    )


class TestText:
    def test_a_plan_reads_like_this(self) -> None:
        assert render(golden()) == GOLDEN

    def test_nothing_to_do_is_one_sentence(self) -> None:
        assert render(plan_of(specs(AGENT), host("local", running(applied(specs(AGENT)))))) == NO_CHANGES + "\n"

    def test_the_legend_holds_only_what_is_in_use(self) -> None:
        text = render(plan_of(specs(AGENT), host("local")))
        assert text.splitlines()[:2] == ["    +  start", ""]

    def test_a_long_value_is_cut(self) -> None:
        before = applied(specs(AGENT + 'model = "' + "x" * 500 + '"\n'))
        lines = render(plan_of(specs(AGENT), host("local", running(before)))).splitlines()
        assert max(map(len, lines)) < 200

    def test_every_verb_has_a_symbol_and_a_meaning(self) -> None:
        assert list(SYMBOLS) == list(MEANINGS)
        assert len(set(SYMBOLS.values())) == len(SYMBOLS)


class TestJson:
    def test_the_document_has_the_fields_that_scripts_rely_on(self) -> None:
        document: dict[str, Any] = json.loads(json.dumps(plan_json(golden())))
        assert set(document) == {"format_version", "revision", "actions", "summary", "hosts"}
        assert document["format_version"] == "1.0"
        for item in document["actions"]:
            assert {"address", "verb", "host", "reason", "message", "source", "changes", "after", "severity",
                    "to_remote_sync"} <= set(item)  # fmt: skip
            assert all(set(change) == {"field", "before", "after"} for change in item["changes"])
        assert set(document["summary"]) == {
            "start", "resume", "move", "update", "restart", "stop", "adopt", "forget", "blocked", "unknown",
            "unchanged",
        }  # fmt: skip
        assert document["hosts"] == [
            {"name": "gpu", "reachable": True, "error": None},
            {"name": "local", "reachable": True, "error": None},
            {"name": "far", "reachable": False, "error": "far: connection refused"},
        ]

    def test_text_and_json_tell_of_the_same_actions(self) -> None:
        plan = golden()
        assert [item["address"] for item in plan_json(plan)["actions"]] == [item.address for item in plan.actions]
        assert sum(plan_json(plan)["summary"].values()) == len(plan.actions) + plan.unchanged


EVIL = "\x1b]0;pwned\x07\x1b[2J\r\n\u202eevil\x00\x9b"


class TestHostileText:
    def printable(self, text: str) -> None:
        assert all(line.isprintable() for line in text.split("\n"))

    def test_what_a_silent_host_says_is_escaped(self) -> None:
        seen = replace(silent("gpu", EVIL), remedy=EVIL)
        self.printable(render(plan_of(specs("[hosts.gpu]\n[sessions.a]\nhost='gpu'\nagent='codex'\n"), seen)))

    def test_what_a_record_says_is_escaped(self) -> None:
        record = applied(specs(AGENT), written={EVIL: EVIL, "args": [EVIL, {EVIL: 1}]}, labels={EVIL: EVIL})
        self.printable(render(plan_of(specs(AGENT), host("local", running(record)))))

    def test_how_an_agent_ended_is_escaped(self) -> None:
        crashed = ended(applied(specs(AGENT)), 1, EVIL, EVIL)
        self.printable(render(plan_of(specs(AGENT), host("local", crashed, path=EVIL, commands={"claude": ""}))))

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_no_text_of_an_action_or_outcome_reaches_the_terminal_raw(self, one: str, two: str) -> None:
        item = Action("session.a", "gpu", "start", one, two, remedy=one, changes=(Change(one, two, [one, {two: 1}]),))
        plan = Plan("p", "f", "r", (item,), 0, 0, {"gpu": two})
        failed = Outcome("session.a", "gpu", "start", "failed", 0.0, one, two, one)
        self.printable(render(plan))
        self.printable(recap(Report(plan, (failed,))))

    @pytest.mark.parametrize("text", ["plain", "ünï → ✓", "日本"])
    def test_what_can_be_printed_is_left_as_it_is(self, text: str) -> None:
        assert escaped(text) == text
