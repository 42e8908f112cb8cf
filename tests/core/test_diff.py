"""What differs, what a digest covers, and what it never covers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.diff import Change, Diff, Entry, changes_between, digest, fingerprint, written
from tests.core.situations import AGENT, ON_GPU, applied, diff_of, gone, host, running, silent, specs

FIXED = """
[hosts.gpu]
address = "gpu.example.com"
env = { REGION = "eu" }
[agents.claude-code]
model = "sonnet"
[sessions.api]
host = "gpu"
agent = "claude-code"
workdir = "~/code/api"
args = ["--verbose"]
env = { TOKEN = "${env:TOKEN}" }
prompt = "Keep the tests green."
labels = { team = "a" }
"""


def kinds(diff: Diff) -> dict[str, str]:
    return {entry.name: entry.kind for entry in diff.entries}


def entry(diff: Diff, name: str = "api") -> Entry:
    (found,) = [item for item in diff.entries if item.name == name]
    return found


class TestTheDigest:
    def test_of_a_fixed_spec_never_changes(self) -> None:
        # When this fails, an upgrade of the program would restart every session of every fleet.
        assert digest(written(specs(FIXED), "api")) == "sha256:746daf0109a80fc6299fa9fd10167019"

    def test_holds_what_a_person_wrote_and_nothing_else(self) -> None:
        assert written(specs(FIXED), "api") == {
            "agent": "claude-code", "workdir": "~/code/api", "args": ["--verbose"],
            "env": {"TOKEN": fingerprint("${env:TOKEN}")}, "host.env": {"REGION": fingerprint("eu")},
            "agent.model": "sonnet",
        }  # fmt: skip

    def test_holds_no_default(self) -> None:
        assert written(specs(AGENT), "api") == {"agent": "claude-code"}

    @pytest.mark.parametrize("line", ['state = "running"', "protect = false", 'labels = { a = "b" }', "depends_on = []",
                                      'description = "x"', 'stop = { when = "now" }', 'prompt = "x"',
                                      'restart = { policy = "never" }', "ready = { port = 80 }"])  # fmt: skip
    def test_does_not_cover_what_leaves_the_process_alone(self, line: str) -> None:
        assert written(specs(AGENT + line + "\n"), "api") == written(specs(AGENT), "api")

    @pytest.mark.parametrize(
        "line", ['model = "m"', 'permission_mode = "plan"', 'args = ["x"]', 'env = { A = "1" }', 'workdir = "/x"',
                 'strategy = "process"', 'lifecycle = "task"\nprompt = "x"']
    )  # fmt: skip
    def test_covers_what_the_launch_depends_on(self, line: str) -> None:
        assert digest(written(specs(AGENT + line + "\n"), "api")) != digest(written(specs(AGENT), "api"))

    @pytest.mark.parametrize(
        "host", ['env = { A = "1" }', 'shell = "/bin/zsh"', 'workdir = "/x"', 'strategy = "process"',
                 '[hosts.local.agents.claude-code]\ncommand = "/opt/claude"',
                 '[hosts.local.agents.claude-code]\nenv = { B = "1" }']
    )  # fmt: skip
    def test_covers_what_its_host_adds(self, host: str) -> None:
        assert written(specs(f"[hosts.local]\n{host}\n{AGENT}"), "api") != written(specs(AGENT), "api")

    def test_what_the_session_says_itself_hides_what_its_host_says(self) -> None:
        own = AGENT + 'workdir = "/mine"\n'
        assert written(specs('[hosts.local]\nworkdir = "/x"\n' + own), "api") == written(specs(own), "api")


def masked(table: Mapping[str, object]) -> dict[str, object]:
    return {key: {"A": str(value)} if key.endswith("env") else value for key, value in table.items()}


values = st.text(max_size=3) | st.lists(st.text(max_size=2))
tables = st.dictionaries(st.sampled_from(["model", "args", "env", "host.env"]), values).map(masked)


class TestChanges:
    @given(tables)
    def test_a_table_does_not_differ_from_itself(self, table: Mapping[str, object]) -> None:
        assert changes_between(table, table) == ()

    @given(tables, tables)
    def test_two_tables_differ_both_ways_in_the_same_fields(
        self, one: Mapping[str, object], two: Mapping[str, object]
    ) -> None:
        forth, back = changes_between(one, two), changes_between(two, one)
        assert [c.field for c in forth] == [c.field for c in back]

    def test_environments_are_compared_name_by_name_without_their_values(self) -> None:
        before, after = {"env": {"A": "x", "B": "y"}}, {"env": {"B": "z", "C": "w"}}
        assert changes_between(before, after) == (
            Change("env.A", "(set)", None), Change("env.B", "(set)", "(changed)"), Change("env.C", None, "(changed)"),
        )  # fmt: skip


class TestCompare:
    def test_every_kind_of_entry(self) -> None:
        desired = specs(
            "[hosts.gpu]\n" + AGENT
            + "[sessions.new]\nagent='codex'\n[sessions.far]\nhost='gpu'\nagent='codex'\n"
            + "[sessions.old]\nagent='codex'\nmodel='x'\n"
        )  # fmt: skip
        old = applied(specs("[sessions.old]\nagent='codex'\n"), "old")
        left = applied(specs("[sessions.left]\nagent='codex'\n"), "left")
        diff = diff_of(desired, silent("gpu"), host("local", running(applied(desired)), running(old), running(left)))
        assert kinds(diff) == {
            "api": "in-sync", "new": "missing", "far": "unknown", "old": "drifted", "left": "orphaned",
        }  # fmt: skip

    def test_two_changes_are_named_in_one_sentence(self) -> None:
        before = applied(specs(AGENT))
        desired = specs(AGENT + 'model = "opus"\nlabels = { a = "b" }\n')
        found = entry(diff_of(desired, host("local", running(before))))
        assert found.message == "changed: model, labels"
        assert [[c.field for c in part] for part in (found.changes, found.live)] == [["model"], ["labels"]]

    def test_nothing_on_a_silent_host_is_ever_missing_or_orphaned(self) -> None:
        diff = diff_of(specs(ON_GPU + AGENT), silent("gpu"), host("local"), last_seen={"gone": "gpu"})
        assert set(kinds(diff).values()) == {"unknown"}

    def test_a_session_that_left_the_specs_with_its_host_is_said_to_be_unknown(self) -> None:
        found = entry(diff_of(specs(AGENT), host("local"), last_seen={"gone": "gpu"}), "gone")
        assert (found.kind, found.reason, found.host) == ("unknown", "host-undeclared", "gpu")

    def test_a_stopped_record_is_no_orphan(self) -> None:
        kept = gone(applied(specs("[sessions.left]\nagent='codex'\n"), "left", intent="stopped"), "stopped")
        assert "left" not in kinds(diff_of(specs(AGENT), host("local", kept)))

    def test_the_same_arguments_give_the_same_entries(self) -> None:
        desired = specs(FIXED)
        seen = host("gpu", running(applied(desired)))
        assert diff_of(desired, seen, host("local")) == diff_of(desired, seen, host("local"))
