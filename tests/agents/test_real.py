"""The real agent CLIs against a stub of their APIs, run exactly as the drivers say."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.agents import claude_code, codex, gemini, opencode
from reconciler.core.agent import Agent
from tests.agents.live import Pane, Stage, marks, stub, turns, wait_for
from tests.support import agents as support

pytestmark = [
    pytest.mark.agents,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("tmux") is None or shutil.which("git") is None, reason="needs tmux and git"),
]
HOMES: dict[str, Callable[[Path, int], dict[str, str]]] = {
    "claude-code": support.claude_home,
    "codex": support.codex_home,
    "opencode": support.opencode_home,
    "gemini": support.gemini_home,
}
AGENTS: tuple[Agent, ...] = (claude_code.AGENT, codex.AGENT, opencode.AGENT, gemini.AGENT)
# Codex takes at most 1,048,576 characters; Gemini takes an answer that repeats one word for a loop.
MEGABYTE = "MARK-head " + " ".join(f"{number:07d}" for number in range(130_000)) + " MARK-tail"
every_agent = pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)


@contextlib.contextmanager
def stage_of(agent: Agent) -> Iterator[Stage]:
    with stub() as server:
        stage = Stage(agent, HOMES[agent.name], server)
        try:
            yield stage
        finally:
            stage.close()


def answered(stage: Stage, pane: Pane | None, *wanted: str) -> None:
    """The last request held these marks and no others: nothing lost, nothing sent twice."""

    def look() -> bool:
        return marks(stage.server) == list(wanted)

    try:
        wait_for(f"marks {wanted}", look)
    except AssertionError as error:
        seen = [(record.turns, record.marks, record.last) for record in turns(stage.server)]
        raise AssertionError(f"{error}\nstub saw {seen}\n{pane.screen if pane else ''}") from error


def asking(stage: Stage, mark: str) -> str:
    """A prompt whose tool call this agent asks about."""
    outside = stage.home / "outside"
    if stage.agent.name == "codex":
        call = f'{{"cmd":"touch {outside}","sandbox_permissions":"require_escalated","justification":"test"}}'
        return f"{mark} CALL:exec_command {call}"
    return f"{mark} TOOL:touch {outside}"


def stopped(stage: Stage, pane: Pane) -> None:
    stop = stage.agent.clean_stop()
    pane.keys(*stop.keys, pause=1.0)  # the pace of the launcher: no two keys make a double press
    if not stop.keys:
        os.kill(pane.pid, signal.Signals[f"SIG{stop.signal}"])
    wait_for(f"the end of {stage.agent.name}\n{pane.screen}", lambda: pane.dead, 15)


def read_past_dialogs(stage: Stage, pane: Pane) -> None:
    wait_for(f"ready\n{pane.screen}", lambda: stage.agent.ready(stage.facts(pane)) is not False)


@every_agent
def test_a_conversation_goes_on_over_pastes_questions_stops_and_resumes(agent: Agent) -> None:
    with stage_of(agent) as stage:
        first = agent.start(stage.request("-MARK-one 'first' SLOW:2"))
        assert first.delivered == "argv"
        pane = stage.open(first)
        stage.await_state(pane, "busy")
        answered(stage, pane, "MARK-one")
        stage.learn_id(pane)
        stage.await_state(pane, "idle")
        assert agent.ready(stage.facts(pane)) is not False

        pane.paste(agent.paste_text(asking(stage, "MARK-two")))
        assert stage.await_state(pane, "waiting").detail
        answered(stage, pane, "MARK-one", "MARK-two")
        assert not (stage.home / "outside").exists()
        # Gemini forgets the first prompt after a declined question, so there it is allowed.
        pane.keys("Enter" if agent.name == "gemini" else "Escape")
        stage.await_state(pane, "idle")
        assert (stage.home / "outside").exists() == (agent.name == "gemini")
        assert agent.exists(stage.facts(pane)) is not False
        if agent.conversation(stage.facts(pane)):
            assert agent.conversation(stage.facts(pane)) == stage.session_id
        stopped(stage, pane)

        facts = stage.facts()
        assert agent.exists(facts) in (True, None)
        again = agent.resume(stage.request("-MARK-three", store=facts.store or ()))
        pane = stage.open(again)
        if again.delivered == "paste":
            read_past_dialogs(stage, pane)
            stage.await_state(pane, "idle")
            pane.paste(agent.paste_text("-MARK-three"))
        answered(stage, pane, "MARK-one", "MARK-two", "MARK-three")
        stage.await_state(pane, "idle")
        assert stage.learn_id(pane) == stage.session_id
        stopped(stage, pane)


@every_agent
def test_headless_turns_carry_one_conversation(agent: Agent) -> None:
    with stage_of(agent) as stage:
        done = stage.run(agent.turn(stage.request("-MARK-one \"two words\" 'x' $HOME")))
        assert done.returncode == 0, done.stderr
        assert "MARK-one" in done.stdout
        assert turns(stage.server)[-1].last == "-MARK-one \"two words\" 'x' $HOME"
        stage.learn_id()
        done = stage.run(agent.resume_turn(stage.request("-MARK-two", store=stage.facts().store or ())))
        assert done.returncode == 0, done.stderr
        assert marks(stage.server) == ["MARK-one", "MARK-two"]


@every_agent
def test_a_megabyte_goes_by_stdin_headless(agent: Agent) -> None:
    with stage_of(agent) as stage:
        invocation = agent.turn(stage.request(MEGABYTE))
        assert invocation.delivered == "stdin"
        done = stage.run(invocation)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ["MARK-head", "MARK-tail"] in [record.marks for record in turns(stage.server)]


@every_agent
def test_text_that_looks_like_a_command_stays_text(agent: Agent) -> None:
    with stage_of(agent) as stage:
        pane = stage.open(agent.start(stage.request("MARK-one")))
        stage.await_state(pane, "busy")
        answered(stage, pane, "MARK-one")
        wanted = ["MARK-one"]
        for number, text in enumerate(("!touch ran #", "/exit", "/help", "two\nlines\\", "see @no/such")):
            stage.await_state(pane, "idle")
            mark = f"MARK-{number}"
            pane.paste(agent.paste_text(f"{text[:-1]}{mark} #" if text.endswith("#") else f"{text} {mark}"))
            wanted.append(mark)
            answered(stage, pane, *wanted)
        assert not (stage.workdir / "ran").exists()
        stage.await_state(pane, "idle")
        stopped(stage, pane)


def test_claude_takes_a_megabyte_by_paste() -> None:
    agent = claude_code.AGENT
    with stage_of(agent) as stage:
        invocation = agent.start(stage.request(MEGABYTE))
        assert invocation.delivered == "paste"
        pane = stage.open(invocation)
        wait_for("ready", lambda: agent.ready(stage.facts(pane)))
        stage.await_state(pane, "idle")
        pane.paste(agent.paste_text(MEGABYTE))
        answered(stage, pane, "MARK-head", "MARK-tail")
        stopped(stage, pane)
