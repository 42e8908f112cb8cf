"""Which conversation a real agent works on that somebody else started: told by the host, without any hint of ours."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from reconciler.agents import claude_code, codex, gemini, opencode
from reconciler.core.agent import Agent, Invocation
from reconciler.core.observed import parse_strays
from reconciler.runtimes.operations import stray_facts_script
from tests.agents.live import Stage, stub, wait_for
from tests.agents.test_real import HOMES

pytestmark = [
    pytest.mark.agents,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("tmux") is None or shutil.which("git") is None, reason="needs tmux and git"),
]
BY_HAND: tuple[Agent, ...] = (claude_code.AGENT, codex.AGENT)
BY_ARGV: tuple[Agent, ...] = (gemini.AGENT,)
UNTOLD: tuple[Agent, ...] = (opencode.AGENT,)


def told(agent: Agent, pid: int) -> str | None:
    """What the host says of a process to whoever knows nothing but its pid."""
    path = os.environ["PATH"]
    script = stray_facts_script(path, "n", [(pid, agent.probes(None))])
    done = subprocess.run(
        ["sh"], input=script.encode(), capture_output=True, timeout=60, check=True,
        env={"PATH": path, "HOME": "/nonexistent"},
    )  # fmt: skip
    found = parse_strays("here", "n", done.stdout)
    return agent.works_on(found[pid][1]) if pid in found else None


@pytest.mark.parametrize("agent", [*BY_HAND, *BY_ARGV, *UNTOLD], ids=lambda agent: agent.name)
def test_the_conversation_of_an_agent_that_was_started_by_hand_is_told_or_nothing_is(agent: Agent) -> None:
    with stub() as server:
        stage = Stage(agent, HOMES[agent.name], server)
        try:
            ours = agent.start(stage.request("MARK-one"))
            # As a person does it: no title, no plugin, no events of ours; trust and prompt only where it needs them.
            pane = stage.open(Invocation(ours.argv, ours.env, ours.files))
            stage.await_state(pane, "idle")
            conversation = stage.learn_id(pane)
            if agent in UNTOLD:
                assert told(agent, pane.pid) is None
            else:
                assert wait_for("an answer", lambda: told(agent, pane.pid)) == conversation
        finally:
            stage.close()
