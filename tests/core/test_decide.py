"""What is done in which situation, and why: one row a situation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from reconciler.core.observed import Facts, HostSeen, SessionSeen
from reconciler.core.plan import Plan
from reconciler.core.printed import plan_json, render
from reconciler.core.record import Record
from reconciler.core.steps import IdleStep, LaunchStep, PullStep, ReadyStep, RecordStep, SendStep, StopStep
from tests.core.situations import (
    AGENT,
    BOOT,
    CONVERSATION,
    NOW,
    ON_GPU,
    OTHER,
    TRANSCRIPT,
    action,
    applied,
    ended,
    gone,
    host,
    plan_of,
    running,
    silent,
    specs,
    status_file,
)

TASK = AGENT + 'lifecycle = "task"\nprompt = "Count the files."\n'
SHELL = '[sessions.api]\nagent = "shell"\nargs = ["serve"]\n'
PRUNED = "[sessions.other]\nagent = 'claude-code'\nstate = 'stopped'\n"

Seen = Callable[[Record], SessionSeen]


@dataclass(frozen=True)
class Situation:
    """Specs now, specs at the last apply (None: the same), what is seen of the session, and what follows.

    `verb` None: there is nothing to do or to say. `says` are pieces of the message and the remedy.
    """

    what: str
    now: str
    verb: str | None
    reason: str = ""
    seen: Seen | None = running
    before: str | None = None
    says: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    restart: bool = False

    def plan(self) -> Plan:
        desired = specs(self.now)
        record = applied(specs(self.before or self.now), **self.record)
        sessions = [self.seen(record)] if self.seen else []
        forced = frozenset({"session.api"}) if self.restart else frozenset[str]()
        return plan_of(desired, host("local", *sessions, **self.host), restart=forced)


def state(word: Any, boot: str = BOOT, **changes: Any) -> Seen:
    return lambda record: replace(gone(record, word, boot), **changes)


def exits(code: int, error: str = "", detail: str = "") -> Seen:
    return lambda record: ended(record, code, error, detail)


def says(status: str) -> Seen:
    return lambda record: running(record, status)


def lost_store(record: Record) -> SessionSeen:
    return gone(record, "lost", facts=Facts(store=()))


STOPPED = {"intent": "stopped"}
HELD = {"protected_by": "ann@desk", "protected_at": NOW - 120}
CRASHES = tuple(range(NOW - 500, NOW, 100))

SITUATIONS = [
    Situation("new", AGENT, "start", "new", None),
    Situation("as declared", AGENT, None),
    Situation("new and declared stopped", AGENT + 'state = "stopped"\n', None, seen=None),
    Situation("declared stopped while it runs", AGENT + 'state = "stopped"\n', "stop", "declared", before=AGENT),
    Situation("declared stopped and stopped", AGENT + 'state = "stopped"\n', None, seen=state("stopped")),
    Situation("declared stopped and crashed", AGENT + 'state = "stopped"\n', None, seen=exits(1)),
    Situation("stopped and wanted again", AGENT, "resume", "returns", state("stopped"), record=STOPPED),
    Situation(
        "the model changed", AGENT + 'model = "opus"\n', "restart", "changed", before=AGENT,
        says=("changed: model", "the conversation goes on"),
    ),
    Situation("the model changed while it was stopped", AGENT + 'model = "opus"\n', "resume", "returns",
              state("stopped"), before=AGENT, record=STOPPED),
    Situation("env changed", AGENT + 'env = { KEY = "new" }\n', "restart", "changed",
              before=AGENT + 'env = { KEY = "old" }\n', says=("changed: env.KEY",)),
    Situation("labels changed", AGENT + 'labels = { team = "a" }\n', "update", "changed", before=AGENT),
    Situation("protection is asked for", AGENT + "protect = true\n", "update", "changed", before=AGENT),
    Situation("protection is given up", AGENT, "update", "changed", before=AGENT + "protect = true\n"),
    Situation("protected and changed", AGENT + 'protect = true\nmodel = "opus"\n', "blocked", "protected",
              before=AGENT + "protect = true\n", says=("would restart", "set protect = false there")),
    Situation("protected and declared stopped", AGENT + 'protect = true\nstate = "stopped"\n', "blocked", "protected",
              before=AGENT + "protect = true\n", says=("would stop",)),
    Situation("protection is given up and the model changes at once", AGENT + 'model = "opus"\n', "restart", "changed",
              before=AGENT + "protect = true\n"),
    Situation("protection is given up in the specs as it is to be stopped", AGENT + 'state = "stopped"\n', "blocked",
              "protected", before=AGENT + "protect = true\n",
              says=("by the specs that were applied last", "reconciler unprotect session.api")),
    Situation("protected by command and changed", AGENT + 'model = "opus"\n', "blocked", "protected", before=AGENT,
              record=HELD, says=("by ann@desk since 2027-01-15 07:58 UTC: it would restart",
                                 "reconciler unprotect session.api")),
    Situation("protected by command and declared stopped", AGENT + 'state = "stopped"\n', "blocked", "protected",
              before=AGENT, record=HELD, says=("it would stop", "reconciler unprotect session.api")),
    Situation("protected by command and asked to restart", AGENT, "blocked", "protected", record=HELD, restart=True),
    Situation("protected by command, and the specs agree", AGENT, None, record=HELD),
    Situation("protected by command, its labels change", AGENT + 'labels = { team = "a" }\n', "update", "changed",
              before=AGENT, record=HELD),
    Situation("protected by command and crashed: it comes back", AGENT, "resume", "crashed", exits(1), record=HELD),
    Situation("protected by command and left the specs", PRUNED, "blocked", "protected", before=AGENT, record=HELD,
              says=("by ann@desk since", "reconciler unprotect session.api, or [[removed]]")),
    Situation("protected by somebody of no time that there is", PRUNED, "blocked", "protected", before=AGENT,
              record={"protected_by": "a\x1b[2Jnn", "protected_at": 10**30}, says=("by a[2Jnn",)),
    Situation("a changed prompt is the next message", AGENT + 'prompt = "b"\n', "update", "changed",
              before=AGENT + 'prompt = "a"\n', says=("next message",)),
    Situation("a changed prompt restarts", AGENT + 'prompt = "b"\non_prompt_change = "restart"\n', "restart",
              "changed", before=AGENT + 'prompt = "a"\n'),
    Situation("a changed prompt is ignored", AGENT + 'prompt = "b"\non_prompt_change = "ignore"\n', None,
              before=AGENT + 'prompt = "a"\n'),
    Situation("a key whose drift is ignored", AGENT + 'model = "opus"\nignore = ["model"]\n', None, before=AGENT),
    Situation("crashed within its budget", AGENT, "resume", "crashed", exits(1), says=("exit code 1",)),
    Situation("crashed, budget spent", AGENT, "blocked", "budget-spent", exits(1), record={"restarts": CRASHES},
              says=("restarted 5 times in 1h", "--restart session.api")),
    Situation("crashed, older crashes do not count", AGENT, "resume", "crashed", exits(1),
              record={"restarts": tuple(at - 7200 for at in CRASHES)}),
    Situation("crashed, restarts in the future of a clock that jumped do not count", AGENT, "resume", "crashed",
              exits(1), record={"restarts": tuple(at + 7200 for at in CRASHES)}),
    Situation("crashed, never restarted", AGENT + 'restart = { policy = "never" }\n', "blocked", "crashed", exits(1),
              says=("restart.policy is never",)),
    Situation("budget spent, but asked for", AGENT, "resume", "asked", exits(1), record={"restarts": CRASHES},
              restart=True),
    Situation("a clean exit is left alone", AGENT, "blocked", "clean-exit", exits(0), says=('policy = "always"',)),
    Situation("a clean exit, always restarted", AGENT + 'restart = { policy = "always" }\n', "resume", "clean-exit",
              exits(0)),
    Situation("rebooted", AGENT, "resume", "rebooted", state("lost", boot="boot-0"), record={"restarts": CRASHES}),
    Situation("lost", AGENT, "resume", "lost", state("lost"), says=("proven gone",)),
    Situation("lost before it had a conversation", AGENT, "start", "lost", lost_store,
              says=("no conversation to resume yet",)),
    Situation("a command is lost", SHELL, "start", "lost", state("lost")),
    Situation("a task is complete", TASK, None, seen=exits(0)),
    Situation("a task failed", TASK, "resume", "crashed", exits(2)),
    Situation("a complete task gets another prompt", TASK.replace("files", "lines"), "resume", "changed", exits(0),
              before=TASK, says=("the next task",)),
    Situation("a complete task becomes a service", AGENT, "resume", "changed", exits(0), before=TASK,
              says=("a service now",)),
    Situation("a complete task whose changed prompt is ignored",
              TASK.replace("files", "lines") + 'on_prompt_change = "ignore"\n', None, seen=exits(0), before=TASK),
    Situation("a complete task becomes a service", AGENT + 'prompt = "Count the files."\n', "resume", "changed",
              exits(0), before=TASK, says=("is a service now",)),
    Situation("agent missing", AGENT, "blocked", "agent-missing", None, host={"commands": {"claude": ""}},
              says=("claude is not on the PATH", "npm install")),
    Situation("agent missing at the last launch, there now", AGENT, "resume", "agent-missing",
              exits(127, "agent-missing", "/usr/bin"), host={"commands": {"claude": "/usr/bin/claude"}}),
    Situation("directory missing", AGENT, "blocked", "workdir-missing", None, host={"directories": {"~": ""}},
              says=("mkdir -p ~",)),
    Situation("a launch that was cut off is no crash", AGENT, "resume", "aborted", exits(1, "aborted"),
              record={"restarts": CRASHES}),
    Situation("tmux missing", AGENT, "blocked", "tmux-missing", None, host={"tmux": ""}, says=("install tmux",)),
    Situation("tmux missing, and not needed", AGENT + 'strategy = "process"\n', "start", "new", None,
              host={"tmux": ""}),
    Situation("what is missing stops no session that runs", AGENT, None, host={"tmux": "", "commands": {"claude": ""}}),
    Situation("what is missing keeps a changed session running", AGENT + 'model = "opus"\n', "blocked",
              "tmux-missing", before=AGENT, host={"tmux": ""}),
    Situation("broken record", AGENT, "blocked", "broken", state("broken", record=None, trouble="cannot be read"),
              says=("cannot be read", "reconciler ls local:", "/sessions/api")),
    Situation("an operation is at work on it", AGENT, "blocked", "starting", state("starting", trouble="at work")),
    Situation("nobody can tell whether it lives", AGENT, "unknown", "unknown", state("unknown", trouble="who knows")),
    Situation("no record was written", AGENT, "start", "new", state("stopped", record=None)),
    Situation("a clean stop of a busy session waits", AGENT + 'state = "stopped"\n', "stop", "declared", says("busy"),
              before=AGENT, says=("busy: waits up to 10m for idle, then interrupts",)),
    Situation("a busy session that must not be interrupted",
              AGENT + 'state = "stopped"\nstop = { timeout = "30s", then = "block" }\n', "stop", "declared",
              says("waiting"), before=AGENT, says=("waiting: waits up to 30s for idle, then leaves it",)),
    Situation("the agent is exchanged", AGENT.replace("claude-code", "codex"), "restart", "changed", before=AGENT,
              says=("changed: agent", "a new conversation begins")),
    Situation("a conversation that the agent named is learnt", AGENT, "update", "changed",
              lambda r: running(r, status_file(session=OTHER))),
    Situation("asked to restart", AGENT, "restart", "asked", restart=True),
    Situation("asked to restart, protected", AGENT + "protect = true\n", "blocked", "protected", restart=True),
    Situation("a permission mode that the agent does not have", AGENT + 'permission_mode = "nonsense"\n', "blocked",
              "refused", None, says=("no permission mode 'nonsense'",)),
    Situation("a prompt for a command without a terminal", SHELL + 'strategy = "process"\nprompt = "hi"\n', "blocked",
              "no-terminal", None),
    Situation("left the specs", PRUNED, "stop", "left-specs", before=AGENT),
    Situation("left the specs while it is busy", PRUNED, "stop", "left-specs", says("busy"), before=AGENT,
              says=("busy: waits up to 10m",)),
    Situation("left the specs, protected", PRUNED, "blocked", "protected", before=AGENT + "protect = true\n"),
    Situation("left the specs without prune", "[fleet]\nprune = false\n" + PRUNED, None, before=AGENT),
    Situation("left the specs after it was stopped", PRUNED, None, seen=state("stopped"), before=AGENT),
    Situation("left the specs after it crashed", PRUNED, None, seen=exits(1), before=AGENT),
    Situation("left the specs, record broken", PRUNED, "blocked", "broken",
              state("broken", record=None, trouble="cannot be read"), before=AGENT),
    Situation("left the specs, life unknown", PRUNED, "unknown", "unknown", state("unknown", trouble="?"),
              before=AGENT),
    Situation("stopped, and its conversation was let go of elsewhere", AGENT, "start", "returns", state("stopped"),
              record={"intent": "stopped"}, host={"forgotten": {CONVERSATION: "100"}},
              says=("it was let go of, and its conversation goes on without us",)),
    Situation("renamed, but for its record", AGENT + 'model = "opus"\n', "update", "renamed",
              lambda record: running(record, called="web"), before=AGENT, says=("still calls it session.web",)),
    Situation("renamed, but for its record, and broken", AGENT, "blocked", "broken",
              state("broken", record=None, trouble="cannot be read", called="web")),
    Situation("removed: forgotten", PRUNED + '[[removed]]\naddress = "session.api"\n', "forget", "removed",
              before=AGENT, says=("it goes on, unmanaged",)),
    Situation("removed and protected: forgotten all the same",
              PRUNED + '[[removed]]\naddress = "session.api"\n', "forget", "removed",
              before=AGENT + "protect = true\n"),
]  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.what.replace(" ", "-"))
def test_each_situation_has_its_verb_its_reason_and_its_sentence(situation: Situation) -> None:
    plan = situation.plan()
    found = [item for item in plan.actions if item.address == "session.api"]
    if situation.verb is None:
        assert found == []
        return
    (item,) = found
    assert (item.verb, item.reason) == (situation.verb, situation.reason), item.message
    for words in situation.says:
        assert words in item.message + " " + item.remedy
    assert item.message, "every step and every non-step says why"
    assert bool(item.steps) == (item.verb not in ("blocked", "unknown"))


class TestHosts:
    DESIRED = specs(ON_GPU + AGENT)

    @pytest.mark.parametrize(
        ("hosts", "verb", "reason"),
        [((silent("gpu"),), "unknown", "refused"), ((), "unknown", "not-observed")],
        ids=["unreachable", "not-looked-at"],
    )
    def test_an_unknown_host_gets_no_action(self, hosts: tuple[HostSeen, ...], verb: str, reason: str) -> None:
        item = action(plan_of(self.DESIRED, *hosts))
        assert (item.verb, item.reason, item.steps) == (verb, reason, ())

    def test_a_session_last_seen_on_a_silent_host_is_not_started_elsewhere(self) -> None:
        desired = specs("[hosts.old]\n" + ON_GPU + AGENT)
        item = action(plan_of(desired, host("gpu"), silent("old"), last_seen={"api": "old"}))
        assert (item.verb, item.reason) == ("unknown", "last-seen-elsewhere")

    def test_a_session_last_seen_on_a_host_that_answers_without_it_starts(self) -> None:
        desired = specs("[hosts.old]\n" + ON_GPU + AGENT)
        assert action(plan_of(desired, host("gpu"), host("old"), last_seen={"api": "old"})).verb == "start"

    def test_a_session_last_seen_on_a_host_that_left_the_specs_is_not_started_elsewhere(self) -> None:
        assert action(plan_of(self.DESIRED, host("gpu"), last_seen={"api": "old"})).reason == "last-seen-elsewhere"

    def test_a_disabled_host_suspends_its_sessions(self) -> None:
        desired = specs("[hosts.gpu]\nenabled = false\n[defaults.session]\nhost = 'gpu'\n" + AGENT)
        assert plan_of(desired, host("local")).actions == ()

    def test_a_live_process_on_another_host_never_becomes_a_second_one(self) -> None:
        here, there = (running(applied(self.DESIRED)) for _ in range(2))
        item = action(plan_of(self.DESIRED, host("gpu", here), host("local", there)))
        assert item.verb == "blocked"


class TestSteps:
    def steps(self, now: str, before: str | None = None, seen: Seen | None = running) -> tuple[object, ...]:
        return action(Situation("", now, "", seen=seen, before=before).plan()).steps

    def test_a_restart_waits_for_idle_stops_and_resumes_the_same_conversation(self) -> None:
        idle, stop, pull, launch, ready = self.steps(AGENT + 'model = "opus"\n', AGENT)
        assert isinstance(idle, IdleStep)
        assert isinstance(stop, StopStep)
        assert pull == PullStep("api", "local", "claude-code")
        assert isinstance(launch, LaunchStep)
        assert isinstance(ready, ReadyStep)
        assert stop.record.intent == "stopped"
        assert (launch.record.conversation, launch.record.incarnation, launch.expect) == (CONVERSATION, 2, 1)
        assert {"--resume", TRANSCRIPT.path, "--model", "opus"} <= set(launch.invocation.argv)
        assert ready.conversation == CONVERSATION

    def test_stop_now_waits_for_nothing(self) -> None:
        stop, pull = self.steps(AGENT + 'state = "stopped"\nstop = { when = "now" }\n', AGENT, says("busy"))
        assert isinstance(stop, StopStep)
        assert isinstance(pull, PullStep)
        assert not pull.required, "a stop does not fail because a copy does"

    def test_an_agent_without_an_activity_source_is_stopped_at_once(self) -> None:
        (stop,) = self.steps(SHELL + 'state = "stopped"\n', SHELL)
        assert isinstance(stop, StopStep)

    def test_the_agent_that_runs_is_stopped_by_its_own_keys_though_another_is_declared(self) -> None:
        steps = self.steps(SHELL, AGENT)
        stop = next(step for step in steps if isinstance(step, StopStep))
        launch = next(step for step in steps if isinstance(step, LaunchStep))
        assert stop.keys[0] == "Escape"
        assert launch.record.conversation is None

    def test_a_crash_is_written_down_for_the_budget_and_a_reboot_is_not(self) -> None:
        crashed = self.steps(AGENT, seen=exits(1))[0]
        rebooted = self.steps(AGENT, seen=state("lost", boot="boot-0"))[0]
        assert isinstance(crashed, LaunchStep)
        assert isinstance(rebooted, LaunchStep)
        assert crashed.record.restarts == (NOW,)
        assert rebooted.record.restarts == ()

    def test_a_changed_prompt_is_pasted_and_written_down(self) -> None:
        (send,) = self.steps(AGENT + 'prompt = "b"\n', AGENT + 'prompt = "a"\n')
        assert isinstance(send, SendStep)
        assert send.message == "b"
        assert send.record.prompt == applied(specs(AGENT + 'prompt = "b"\n')).prompt

    def test_labels_change_in_the_record_alone(self) -> None:
        (step,) = self.steps(AGENT + 'labels = { team = "a" }\n', AGENT)
        assert isinstance(step, RecordStep)
        assert step.record.labels == {"team": "a"}
        assert step.expect == 1

    def test_a_resume_hands_over_a_prompt_that_changed_meanwhile_and_no_other(self) -> None:
        same = self.steps(AGENT + 'prompt = "a"\n', seen=exits(1))[0]
        other = self.steps(AGENT + 'prompt = "b"\n', AGENT + 'prompt = "a"\n', seen=exits(1))[0]
        assert isinstance(same, LaunchStep)
        assert isinstance(other, LaunchStep)
        assert "a" not in same.invocation.argv
        assert other.invocation.argv[-1] == "b"

    def test_a_task_that_failed_or_is_restarted_is_given_its_prompt_again(self) -> None:
        failed = self.steps(TASK, seen=exits(2))[0]
        restarted = next(s for s in self.steps(TASK + 'model = "opus"\n', TASK) if isinstance(s, LaunchStep))
        assert isinstance(failed, LaunchStep)
        for launch in (failed, restarted):
            assert "--resume" in launch.invocation.argv
            assert launch.invocation.argv[-1] == "Count the files."

    def test_a_learnt_conversation_goes_into_the_record(self) -> None:
        (step,) = self.steps(AGENT, seen=lambda r: running(r, status_file(session=OTHER)))
        assert isinstance(step, RecordStep)
        assert step.record.conversation == OTHER


class TestSecrets:
    SECRETS = ("sk-literal-old", "sk-literal-new", "sk-host", "sk-agent")
    BEFORE = AGENT + 'env = { KEY = "sk-literal-old" }\n'
    NOW = (
        '[hosts.local]\nenv = { H = "sk-host" }\n[hosts.local.agents.claude-code]\nenv = { A = "sk-agent" }\n'
        + AGENT
        + 'env = { KEY = "sk-literal-new" }\n'
    )

    def test_no_value_of_an_environment_is_in_the_plan_its_json_or_the_record(self) -> None:
        plan = Situation("", self.NOW, "", before=self.BEFORE).plan()
        records = [step.record.to_json() for step in action(plan).steps if isinstance(step, LaunchStep)]
        for text in (render(plan), json.dumps(plan_json(plan)), *records):
            assert not [secret for secret in self.SECRETS if secret in text]
        assert records
        assert "env.KEY: (set) → (changed)" in render(plan)


def test_the_fields_that_a_record_of_another_shape_holds_do_not_end_the_program() -> None:
    desired = specs(AGENT)
    tables: tuple[dict[str, Any], ...] = ({"env": {"A": {}}}, {"args": 7, "nonsense": None}, {"x\x1b[2J": "\x1b[2J"})
    for strange in tables:
        plan = plan_of(desired, host("local", running(applied(desired, written=strange))))
        assert action(plan).verb == "restart"
        assert "\x1b" not in render(plan)


def test_what_an_orphan_was_forgets_nothing_of_the_agent_that_is_gone() -> None:
    record = replace(applied(specs(AGENT)), agent="no-such-agent")
    plan = plan_of(specs(PRUNED), host("local", running(record)))
    (stop,) = action(plan).steps
    assert isinstance(stop, StopStep)
    assert (stop.keys, stop.signal) == ((), "TERM")
