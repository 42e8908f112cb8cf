"""Where a conversation is, and how it gets where the specs want it: moves, the archive's copy, other names."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.decision import Decision
from reconciler.core.diff import fingerprint
from reconciler.core.launching import checks_of, workdir_of
from reconciler.core.observed import Facts, HostSeen, SessionSeen
from reconciler.core.plan import Action
from reconciler.core.printed import plan_json, render
from reconciler.core.record import Record
from reconciler.core.steps import (
    IdleStep,
    LaunchStep,
    PullStep,
    ReadyStep,
    RecordStep,
    RenameStep,
    SendStep,
    Step,
    StopStep,
)
from reconciler.core.transcript import Archived
from tests.core.situations import (
    AGENT,
    CONVERSATION,
    NOW,
    ON_GPU,
    OTHER,
    TRANSCRIPT,
    action,
    agents_of,
    applied,
    archived,
    diff_of,
    gone,
    host,
    plan_of,
    running,
    silent,
    specs,
)

HERE = specs(AGENT)  # on local
THERE = specs(ON_GPU + AGENT)  # the same session, wanted on gpu
SHELL = '[sessions.api]\nagent = "shell"\nargs = ["serve"]\n'
NO_STORE = Facts(store=())


def record(**changes: Any) -> Record:
    return applied(HERE, **changes)


def stopped(**changes: Any) -> SessionSeen:
    return gone(record(intent="stopped", **changes), "stopped")


def planned(*hosts: HostSeen, text: str = ON_GPU + AGENT, **more: Any) -> Action:
    return action(plan_of(specs(text), *hosts, **more))


def one(steps: tuple[Step, ...], kind: type[Step]) -> Any:
    (found,) = [step for step in steps if isinstance(step, kind)]
    return found


class TestWhoHasTheConversation:
    """Where it lives; else where it moved to last; else where it is wanted."""

    def test_the_live_process_has_it_however_often_others_have_moved(self) -> None:
        item = planned(host("gpu", stopped(moves=7)), host("local", running(record(moves=1))))
        assert (item.verb, item.reason) == ("move", "host-changed")
        assert [(c.field, c.before, c.after) for c in item.changes] == [("host", "local", "gpu")]

    def test_the_live_process_where_it_is_wanted_leaves_old_records_alone(self) -> None:
        plan = plan_of(THERE, host("gpu", running(applied(THERE))), host("local", stopped(moves=7)))
        assert plan.actions == ()

    @pytest.mark.parametrize(("here", "there", "verb"), [(1, 2, "move"), (2, 1, "resume"), (1, 1, "resume")])
    def test_without_a_process_the_one_that_moved_last_has_it(self, here: int, there: int, verb: str) -> None:
        item = planned(host("gpu", stopped(moves=here)), host("local", stopped(moves=there)))
        assert item.verb == verb

    def test_a_process_that_may_live_counts_as_alive(self) -> None:
        unsure = replace(stopped(), state="unknown", trouble="who knows")
        item = planned(host("gpu", stopped(moves=3)), host("local", unsure))
        assert (item.verb, item.reason, item.steps) == ("unknown", "unknown", ())

    @pytest.mark.parametrize("state", ["broken", "starting"])
    def test_what_cannot_be_read_elsewhere_blocks(self, state: Any) -> None:
        strange = replace(stopped(), state=state, record=None, trouble="at work")
        item = planned(host("gpu"), host("local", strange))
        assert (item.verb, item.reason, item.host) == ("blocked", state, "local")

    def test_twice_alive_is_blocked_and_names_both(self) -> None:
        item = planned(host("gpu", running(record())), host("local", running(record())))
        assert (item.verb, item.reason, item.steps) == ("blocked", "twice", ())
        assert "gpu and local at once" in item.message

    def test_twice_alive_where_it_is_not_wanted_is_blocked_too(self) -> None:
        text = "[hosts.old]\n" + ON_GPU + AGENT
        item = planned(host("gpu"), host("local", running(record())), host("old", running(record())), text=text)
        assert (item.verb, item.reason) == ("blocked", "twice")

    def test_a_stop_is_done_where_it_runs(self) -> None:
        item = planned(host("gpu"), host("local", running(record())), text=ON_GPU + AGENT + 'state = "stopped"\n')
        assert (item.verb, item.host) == ("stop", "local")
        assert {step.host for step in item.steps} == {"local"}

    def test_what_is_stopped_and_to_be_stopped_is_left_where_it_is(self) -> None:
        plan = plan_of(specs(ON_GPU + AGENT + 'state = "stopped"\n'), host("gpu"), host("local", stopped()))
        assert plan.actions == ()


class TestSilentHosts:
    OLD = "[hosts.old]\n" + ON_GPU + AGENT

    def test_old_records_elsewhere_prove_nothing_while_the_host_where_it_was_last_is_silent(self) -> None:
        hosts = host("gpu", stopped(moves=1)), host("local", stopped(moves=2)), silent("old")
        item = planned(*hosts, text=self.OLD, last_seen={"api": "old"})
        assert (item.verb, item.reason, item.steps) == ("unknown", "last-seen-elsewhere", ())

    def test_a_live_process_elsewhere_proves_it(self) -> None:
        hosts = host("gpu"), host("local", running(record(moves=2))), silent("old")
        assert planned(*hosts, text=self.OLD, last_seen={"api": "old"}).verb == "move"

    def test_a_silent_host_on_which_it_never_was_holds_nothing_up(self) -> None:
        hosts = host("gpu"), host("local", running(record())), silent("old")
        assert planned(*hosts, text=self.OLD, last_seen={"api": "local"}).verb == "move"

    def test_a_silent_target_is_unknown(self) -> None:
        item = planned(silent("gpu"), host("local", running(record())))
        assert (item.verb, item.reason) == ("unknown", "refused")

    def test_who_takes_it_over_outranks_every_count_of_moves(self) -> None:
        item = planned(host("gpu"), silent("old"), text=self.OLD, taken=frozenset({"api"}), archive=[archived()])
        launch = one(item.steps, LaunchStep)
        assert (item.verb, item.reason) == ("resume", "from-archive")
        assert launch.record.moves == NOW


class TestMoves:
    def test_stop_copy_bring_resume_verify(self) -> None:
        item = planned(host("gpu"), host("local", running(record(moves=2))), archive=[archived(size=9000)])
        idle, stop, pull, launch, ready = item.steps
        assert isinstance(idle, IdleStep)
        assert isinstance(stop, StopStep)
        assert isinstance(launch, LaunchStep)
        assert isinstance(ready, ReadyStep)
        assert [step.host for step in item.steps] == ["local", "local", "local", "gpu", "gpu"]
        assert (stop.record.intent, stop.expect) == ("stopped", 1)
        assert pull == PullStep("api", "local", "claude-code", required=True)
        assert (launch.bring, launch.expect, launch.record.conversation) == (CONVERSATION, 0, CONVERSATION)
        assert launch.record.moves == 3
        assert (ready.conversation, ready.at_least) == (CONVERSATION, 9000)
        assert item.to_remote_sync
        assert item.hosts == {"gpu", "local"}
        assert not item.stops_running, "a move is no stop for max_stop"

    def test_what_is_handed_over_goes_with_it(self) -> None:
        text = AGENT + 'prompt = "p"\n'
        old = applied(specs(text), restarts=(NOW - 5,))
        launch = one(planned(host("gpu"), host("local", running(old)), text=ON_GPU + text).steps, LaunchStep)
        assert (launch.record.prompt, launch.record.restarts) == (fingerprint("p"), (NOW - 5,))
        assert "p" not in launch.invocation.argv

    @pytest.mark.parametrize("seen", [stopped(), gone(record(), "lost")], ids=["stopped", "lost"])
    def test_what_does_not_run_is_copied_and_its_record_says_where_it_went(self, seen: SessionSeen) -> None:
        gone_from, pull, launch, _ = planned(host("gpu"), host("local", seen)).steps
        assert isinstance(gone_from, StopStep)
        assert (gone_from.host, gone_from.record.intent, gone_from.record.to) == ("local", "stopped", "gpu")
        assert isinstance(pull, PullStep)
        assert pull.required
        assert isinstance(launch, LaunchStep)
        assert launch.record.to == ""

    def test_a_target_that_knew_it_before_counts_on(self) -> None:
        before = replace(stopped(), incarnation=4)
        launch = one(planned(host("gpu", before), host("local", running(record(moves=1)))).steps, LaunchStep)
        assert (launch.expect, launch.record.incarnation) == (4, 5)
        assert launch.snapshot == (TRANSCRIPT.path,), "what lies there is kept before anything is put in place"

    def test_an_agent_without_conversations_starts_anew(self) -> None:
        item = planned(host("gpu"), host("local", running(applied(specs(SHELL)))), text=ON_GPU + SHELL)
        assert [type(step) for step in item.steps] == [StopStep, LaunchStep, ReadyStep]
        assert (item.to_remote_sync, one(item.steps, LaunchStep).bring) == (False, None)
        assert "no conversation to take along" in item.message

    def test_a_conversation_that_has_not_begun_begins_at_the_target_with_its_prompt(self) -> None:
        text = AGENT + 'prompt = "p"\n'
        there = gone(applied(specs(text)), "lost", facts=NO_STORE)
        launch = one(planned(host("gpu"), host("local", there), text=ON_GPU + text).steps, LaunchStep)
        assert (launch.bring, launch.invocation.argv[-1]) == (None, "p")
        assert launch.record.conversation != CONVERSATION

    def test_a_conversation_whose_place_nobody_knows_stops_nothing(self) -> None:
        mine = '[agents.mine]\ncommand = "x"\nstart = ["{command}"]\nresume = ["{command}", "{session_id}"]\n'
        text = AGENT.replace("claude-code", "mine") + mine
        seen = running(applied(specs(text)), facts=Facts())
        item = planned(host("gpu"), host("local", seen), text=ON_GPU + text)
        assert (item.verb, item.reason, item.steps) == ("blocked", "no-store", ())
        assert "declare `store` in [agents.mine]" in item.remedy
        moved = planned(host("local", seen), text=text + "[sessions.x]\nagent='shell'\nargs=['y']\n"
                        "[defaults.session]\nworkdir='~/w'\n")  # fmt: skip
        assert moved.verb == "restart"
        assert not [step for step in moved.steps if isinstance(step, PullStep) and step.required]

    def test_a_conversation_of_which_only_the_archive_is_left_moves_by_the_archive(self) -> None:
        there = gone(record(), "lost", facts=NO_STORE)
        item = planned(host("gpu"), host("local", there), archive=[archived()])
        assert one(item.steps, LaunchStep).bring == CONVERSATION

    @pytest.mark.parametrize(
        ("lacks", "reason"),
        [
            ({"tmux": ""}, "tmux-missing"),
            ({"commands": {"claude": ""}}, "agent-missing"),
            ({"directories": {"~": ""}}, "workdir-missing"),
        ],
    )
    def test_a_target_that_lacks_something_keeps_it_running_where_it_is(
        self, lacks: dict[str, Any], reason: str
    ) -> None:
        item = planned(host("gpu", **lacks), host("local", running(record())))
        assert (item.verb, item.reason, item.steps) == ("blocked", reason, ())
        assert "gpu" in item.message
        assert [change.field for change in item.changes] == ["host"]

    def test_what_is_protected_does_not_move(self) -> None:
        item = planned(host("gpu"), host("local", running(record(protected=True))))
        assert (item.verb, item.reason, item.steps) == ("blocked", "protected", ())

    def test_host_and_agent_do_not_change_at_once(self) -> None:
        item = planned(
            host("gpu"), host("local", running(record())), text=ON_GPU + AGENT.replace("claude-code", "codex")
        )
        assert (item.verb, item.reason, item.steps) == ("blocked", "two-changes", ())

    @pytest.mark.parametrize(
        "more",
        [{"archive": [archived(diverged="they differ")]}, {"archive": [archived()], "relations": {"api": "diverged"}}],
        ids=["known", "at-the-target"],
    )
    def test_copies_that_are_known_to_differ_stop_nothing(self, more: dict[str, Any]) -> None:
        item = planned(host("gpu", stopped()), host("local", running(record(moves=1))), **more)
        assert (item.verb, item.reason, item.steps) == ("blocked", "diverged", ())


class TestTheWayBack:
    def steps(self, seen: SessionSeen, text: str = AGENT, **more: Any) -> tuple[Step, ...]:
        return planned(host("gpu"), host("local", seen), text=ON_GPU + text, **more).fallback

    def test_ends_what_came_up_and_resumes_where_it_was(self) -> None:
        stop, launch, ready = self.steps(running(record(moves=2)))
        assert isinstance(stop, StopStep)
        assert isinstance(launch, LaunchStep)
        assert isinstance(ready, ReadyStep)
        assert (stop.host, stop.expect, stop.record.intent) == ("gpu", 1, "stopped")
        assert (launch.host, launch.expect, launch.record.incarnation) == ("local", 1, 2)
        assert (launch.record.conversation, launch.bring) == (CONVERSATION, None)
        assert "--resume" in launch.invocation.argv
        assert launch.record.moves > stop.record.moves, "the source has it again"

    def test_a_conversation_that_had_not_begun_begins_at_the_source(self) -> None:
        text = AGENT + 'prompt = "p"\n'
        launch = self.steps(running(applied(specs(text)), facts=NO_STORE), text)[1]
        assert isinstance(launch, LaunchStep)
        assert launch.invocation.argv[-1] == "p"

    def test_what_did_not_run_is_left_where_it_was(self) -> None:
        seen = stopped()
        stop, back = self.steps(seen)
        assert isinstance(stop, StopStep)
        assert stop.host == "gpu"
        assert isinstance(back, RecordStep)
        assert (back.host, back.record) == ("local", seen.record)

    def test_only_a_move_has_one(self) -> None:
        assert action(plan_of(HERE, host("local", gone(record(), "lost")))).fallback == ()


class TestFromTheArchive:
    def plan(self, found: Archived | None, text: str = AGENT, seen: SessionSeen | None = None, **more: Any) -> Action:
        hosts = host("local", *([seen] if seen else []))
        return planned(hosts, text=text, archive=[found] if found else [], **more)

    def test_a_session_that_is_on_no_host_any_more_goes_on_with_what_is_archived(self) -> None:
        item = self.plan(archived(), AGENT + 'prompt = "p"\n')
        launch, ready = item.steps
        assert (item.verb, item.reason) == ("resume", "from-archive")
        assert isinstance(launch, LaunchStep)
        assert isinstance(ready, ReadyStep)
        assert (launch.bring, launch.record.conversation, launch.expect) == (CONVERSATION, CONVERSATION, 0)
        assert "p" not in launch.invocation.argv
        assert launch.record.prompt == fingerprint("p"), "it was handed over before the disk was lost"
        assert ready.at_least == 5000

    @pytest.mark.parametrize(
        ("found", "text"),
        [(None, AGENT), (archived(size=0), AGENT), (archived(agent="codex"), AGENT), (archived(), SHELL)],
        ids=["nothing", "empty", "of-another-agent", "not-resumable"],
    )
    def test_else_it_starts(self, found: Archived | None, text: str) -> None:
        item = self.plan(found, text)
        assert (item.verb, item.reason, item.to_remote_sync) == ("start", "new", False)

    def test_a_stopped_one_stays_stopped(self) -> None:
        assert plan_of(specs(AGENT + 'state = "stopped"\n'), host("local"), archive=[archived()]).actions == ()

    def test_what_the_host_lacks_is_said_first(self) -> None:
        item = planned(host("local", commands={"claude": ""}), text=AGENT, archive=[archived()])
        assert (item.verb, item.reason) == ("blocked", "agent-missing")

    def test_the_archive_is_ahead(self) -> None:
        item = self.plan(archived(), seen=gone(record(), "lost"), relations={"api": "archive-ahead"})
        launch = one(item.steps, LaunchStep)
        assert (item.verb, launch.bring) == ("resume", CONVERSATION)
        assert "the archive has more" in item.message
        assert launch.snapshot == (TRANSCRIPT.path,)

    def test_the_hosts_files_are_gone(self) -> None:
        item = self.plan(archived(), seen=gone(record(), "lost", facts=NO_STORE), relations={"api": "archive-ahead"})
        assert one(item.steps, LaunchStep).bring == CONVERSATION

    @pytest.mark.parametrize("relation", ["equal", "host-ahead"])
    def test_the_host_is_not_behind(self, relation: Any) -> None:
        item = self.plan(archived(), seen=gone(record(), "lost"), relations={"api": relation})
        assert (item.verb, item.to_remote_sync) == ("resume", False)
        assert one(item.steps, ReadyStep).at_least == TRANSCRIPT.size

    def test_another_conversation_of_the_session_in_the_archive_is_none_of_its_business(self) -> None:
        item = self.plan(
            archived(conversation=OTHER, diverged="x"), seen=gone(record(), "lost"), relations={"api": "diverged"}
        )
        assert (item.verb, item.to_remote_sync) == ("resume", False)

    @pytest.mark.parametrize("seen", [None, gone(record(), "lost")], ids=["nothing-there", "both"])
    def test_a_divergence_that_is_written_down_blocks(self, seen: SessionSeen | None) -> None:
        item = self.plan(archived(diverged="each has a line of its own"), seen=seen)
        assert (item.verb, item.reason, item.steps) == ("blocked", "diverged", ())
        assert "each has a line of its own" in item.message
        assert "--take archive" in item.remedy

    def test_a_divergence_that_is_seen_now_blocks(self) -> None:
        item = self.plan(archived(), seen=gone(record(), "lost"), relations={"api": "diverged"})
        assert (item.verb, item.reason) == ("blocked", "diverged")

    def test_a_restart_of_a_diverged_session_stops_nothing(self) -> None:
        item = self.plan(archived(diverged="x"), AGENT + 'model = "opus"\n', running(record()))
        assert (item.verb, item.reason, item.steps) == ("blocked", "diverged", ())

    def test_a_relation_that_nobody_could_tell_is_unknown_and_nothing_is_done(self) -> None:
        item = self.plan(archived(), seen=gone(record(), "lost"), relations={"api": "unknown"})
        assert (item.verb, item.reason, item.steps) == ("unknown", "relation", ())

    def test_a_live_session_is_left_alone_whatever_the_archive_says(self) -> None:
        assert plan_of(HERE, host("local", running(record())), archive=[archived(diverged="x")]).actions == ()


class TestRenames:
    MOVED = AGENT.replace("api", "web") + '[[moved]]\nfrom = "session.api"\nto = "session.web"\n'

    def plan(self, *sessions: SessionSeen, text: str = "") -> Action:
        return action(plan_of(specs(text or self.MOVED), host("local", *sessions)), "web")

    @pytest.mark.parametrize("seen", [running(record()), running(record(), "busy"), stopped(), gone(record(), "lost")])
    def test_a_session_gets_another_name_in_place(self, seen: SessionSeen) -> None:
        item = self.plan(seen)
        assert (item.verb, item.reason) == ("update", "renamed")
        assert item.steps == (RenameStep("api", "local", "tmux", 1, replace(seen.record or record(), name="web")),)
        assert [(c.field, c.before, c.after) for c in item.changes] == [("name", "api", "web")]

    def test_the_old_name_is_no_orphan_then(self) -> None:
        plan = plan_of(specs(self.MOVED), host("local", running(record())))
        assert [item.address for item in plan.actions] == ["session.web"]

    def test_once_done_it_does_nothing(self) -> None:
        assert plan_of(specs(self.MOVED), host("local", running(replace(record(), name="web")))).actions == ()

    def test_where_the_new_name_exists_the_old_one_is_an_orphan(self) -> None:
        plan = plan_of(specs(self.MOVED), host("local", running(record()), running(replace(record(), name="web"))))
        assert [(item.address, item.verb) for item in plan.actions] == [("session.api", "stop")]

    @pytest.mark.parametrize(
        ("state", "verb"), [("broken", "blocked"), ("starting", "blocked"), ("unknown", "unknown")]
    )
    def test_an_old_one_that_cannot_be_told_holds_the_new_one_back(self, state: Any, verb: str) -> None:
        item = self.plan(replace(running(record()), state=state, trouble="who knows"))
        assert (item.verb, item.reason, item.steps) == (verb, state, ())
        assert "session.api" in item.message

    def test_a_session_that_never_was_starts(self) -> None:
        assert self.plan().verb == "start"

    def test_a_silent_host_renames_nothing(self) -> None:
        assert action(plan_of(specs(self.MOVED), silent("local")), "web").verb == "unknown"


class TestRemoved:
    TEXT = "[sessions.other]\nagent = 'claude-code'\nstate = 'stopped'\n[[removed]]\naddress = 'session.api'\n"

    def test_a_live_one_is_let_go(self) -> None:
        assert planned(host("local", running(record())), text=self.TEXT).verb == "forget"

    def test_what_was_stopped_or_is_only_archived_has_nothing_to_say(self) -> None:
        assert plan_of(specs(self.TEXT), host("local", stopped()), archive=[archived()]).actions == ()

    def test_a_host_that_left_the_specs_with_it_is_not_spoken_of_any_more(self) -> None:
        assert diff_of(specs(self.TEXT), host("local"), last_seen={"api": "gpu"}).entries[-1].name == "other"


class TestPrinted:
    def test_a_resume_that_brings_the_archives_copy_has_a_symbol_of_its_own(self) -> None:
        ahead = plan_of(HERE, host("local", gone(record(), "lost")), archive=[archived()],
                        relations={"api": "archive-ahead"})  # fmt: skip
        text = render(ahead)
        assert "   >^  resume the same conversation, with to-remote sync first" in text
        assert "   >^ session.api" in text
        assert plan_json(ahead)["actions"][0]["to_remote_sync"] is True
        plain = plan_of(HERE, host("local", gone(record(), "lost")))
        assert ">^" not in render(plain)
        assert plan_json(plain)["actions"][0]["to_remote_sync"] is False

    def test_both_symbols_stand_in_the_legend_where_both_are_in_use(self) -> None:
        text = AGENT + AGENT.replace("api", "web")
        lost = [gone(applied(specs(text), name), "lost") for name in ("api", "web")]
        plan = plan_of(specs(text), host("local", *lost), archive=[archived()], relations={"api": "archive-ahead"})
        legend = render(plan).split("\n\n")[0].splitlines()
        assert [line.split()[0] for line in legend] == [">", ">^"]
        assert plan.summary["resume"] == 2

    def test_a_move_says_from_where_to_where(self) -> None:
        plan = plan_of(THERE, host("gpu"), host("local", running(record(), "busy")))
        text = render(plan)
        assert "    →  move\n" in text
        assert "→ session.api  from local to gpu; its conversation goes with it; busy: waits up to 10m" in text
        assert "host: local → gpu" in text
        assert "Plan: 1 to move. 0 unchanged." in text
        (item,) = json.loads(json.dumps(plan_json(plan)))["actions"]
        assert (item["verb"], item["host"], item["severity"]) == ("move", "gpu", 5)


class TestPathMap:
    @pytest.mark.parametrize(
        ("table", "workdir", "found"),
        [
            ('{ "/Users/me" = "/home/me" }', "/Users/me/code", "/home/me/code"),
            ('{ "/Users/me" = "/home/me" }', "/Users/me", "/home/me"),
            ('{ "/Users/me" = "/home/me" }', "/Users/melon/code", "/Users/melon/code"),
            ('{ "/Users/me/" = "/home/me/" }', "/Users/me/code", "/home/me/code"),
            ('{ "/Users" = "/a", "/Users/me" = "/b" }', "/Users/me/code", "/b/code"),
            ('{ "/Users/me" = "/b", "/Users" = "/a" }', "/Users/you/code", "/a/you/code"),
            ('{ "~/code" = "/srv" }', "~/code/api", "/srv/api"),
            ("{}", "/Users/me/code", "/Users/me/code"),
        ],
    )
    def test_the_longest_prefix_of_the_host_counts(self, table: str, workdir: str, found: str) -> None:
        desired = specs(f"[hosts.gpu]\npath_map = {table}\n[sessions.api]\nhost = 'gpu'\nagent = 'claude-code'\n"
                        f"workdir = '{workdir}'\n")  # fmt: skip
        assert workdir_of(desired, desired.sessions["api"]) == found
        assert ("directory", found) in checks_of(desired, agents_of(desired))["gpu"]

    def test_a_move_resumes_in_the_directory_of_the_target(self) -> None:
        text = AGENT + "workdir = '/Users/me/code'\n"
        mapped = '[hosts.gpu]\npath_map = { "/Users/me" = "/home/me" }\n[defaults.session]\nhost = "gpu"\n' + text
        there = host("gpu", directories={"/home/me/code": "/data/code"})
        launch = one(planned(there, host("local", running(applied(specs(text)))), text=mapped).steps, LaunchStep)
        assert (launch.workdir, launch.real_workdir, launch.record.workdir) == (
            "/home/me/code", "/data/code", "/home/me/code",
        )  # fmt: skip

    def test_a_directory_that_is_not_there_under_its_other_name_blocks(self) -> None:
        mapped = '[hosts.local]\npath_map = { "/Users/me" = "/home/me" }\n' + AGENT + "workdir = '/Users/me/code'\n"
        item = planned(host("local", directories={"/home/me/code": ""}), text=mapped)
        assert (item.reason, item.message) == ("workdir-missing", "/home/me/code does not exist on local")


def test_a_decision_to_do_nothing_has_no_steps() -> None:
    assert Decision("blocked", "x", "y").steps == ()
    assert SendStep not in {type(step) for step in planned(host("gpu"), host("local", running(record()))).steps}
