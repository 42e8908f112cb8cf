"""The plan of a change of specs, for a fleet that is imagined to run as the specs before it declare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.plan import Plan
from reconciler.offline import offline_plan
from tests.core.situations import action, specs
from tests.simulation.specs import AGENTS

GPU = "[hosts.gpu]\n[hosts.b]\n"
API = '[sessions.api]\nagent = "claude-code"\nhost = "gpu"\n'


def change(before: str, after: str) -> Plan:
    return offline_plan(specs(before), specs(after))


AGENT_NAMES = ("claude-code", "codex", "gemini", "opencode", "shell", "mine", "bare", "careful")
sessions = st.builds(
    lambda name, agent, host, state, lifecycle, prompt, model, enabled: (
        f'[sessions.{name}]\nagent = "{agent}"\nhost = "{host}"\nstate = "{state}"\nlifecycle = "{lifecycle}"\n'
        f'args = ["x"]\nprompt = "{prompt}"\nmodel = "{model}"\nsuspend = {str(enabled).lower()}\n'
    ),
    st.sampled_from("abcd"), st.sampled_from(AGENT_NAMES), st.sampled_from(("gpu", "b", "local")),
    st.sampled_from(("running", "stopped")), st.sampled_from(("service", "task")), st.sampled_from(("p", "q")),
    st.sampled_from(("m", "n")), st.booleans(),
)  # fmt: skip
fleets = st.lists(sessions, max_size=4, unique_by=lambda text: text[10]).map(
    lambda found: AGENTS.replace("FROM_AGENT", "X") + GPU + "".join(found)
)


@given(fleets)
def test_specs_that_do_not_change_change_nothing(text: str) -> None:
    assert change(text, text).actions == ()


@given(fleets, fleets)
def test_every_change_has_a_plan_and_nothing_in_it_is_unknown(before: str, after: str) -> None:
    plan = change(before, after)
    assert {item.verb for item in plan.actions}.isdisjoint({"unknown"})
    assert set(plan.hosts.values()) == {None}


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("start", GPU, GPU + API),
        ("stop", GPU + API, GPU),
        ("stop", GPU + API, GPU + API + 'state = "stopped"\n'),
        ("resume", GPU + API + 'state = "stopped"\n', GPU + API),
        ("restart", GPU + API, GPU + API + 'model = "x"\n'),
        ("restart", GPU + API, GPU.replace("[hosts.gpu]", '[hosts.gpu]\nenv = { A = "b" }') + API),
        ("update", GPU + API, GPU + API + 'prompt = "x"\n'),
        ("move", GPU + API, GPU + API.replace('"gpu"', '"b"')),
        ("forget", GPU + API, GPU + '[[removed]]\naddress = "session.api"\n'),
        ("blocked", GPU + API, GPU + API + 'suspend = true\nmodel = "x"\n'),
        ("start", GPU, "[hosts.new]\n" + GPU + API.replace("gpu", "new")),
        ("unknown", GPU + API, "[hosts.b]\n"),
        ("unknown", GPU + API, "[hosts.b]\n" + API.replace("gpu", "b")),
    ],
)
def test_a_change_gives_what_it_would_do(verb: str, before: str, after: str) -> None:
    assert action(change(before, after)).verb == verb


@pytest.mark.parametrize("agent", ["claude-code", "codex", "gemini", "opencode"])
def test_a_move_takes_the_conversation_of_every_agent_along(agent: str) -> None:
    before = GPU + API.replace("claude-code", agent)
    assert "its conversation goes with it" in action(change(before, before.replace('"gpu"', '"b"'))).message


def test_a_complete_task_is_not_done_again_and_its_changed_prompt_is_the_next() -> None:
    task = GPU + API + 'lifecycle = "task"\nprompt = "p"\n'
    after = task + '[sessions.web]\nagent = "codex"\ndepends_on = [{ session = "api", until = "completed" }]\n'
    assert [(item.address, item.verb) for item in change(task, after).actions] == [("session.web", "start")]
    assert action(change(task, task.replace('"p"', '"q"'))).verb == "resume"
