"""Headless turns of the real agent CLIs as a chat asks for them: answers read back, reading turns that cannot write."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.agents import claude_code
from reconciler.core.agent import Agent, Reply
from tests.agents.live import Stage, marks, turns
from tests.agents.test_real import answered, every_agent, stage_of, stopped

pytestmark = [
    pytest.mark.agents,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("tmux") is None or shutil.which("git") is None, reason="needs tmux and git"),
]
UNKNOWN: Mapping[str, str] = {"opencode": "ses_e0473a790ffe7EgMcrzEzd46UO"}
LOOSE: Mapping[str, tuple[str, ...]] = {
    "claude-code": ("--tools", "default", "--allowedTools", "Bash", "Write"),
    "codex": ("--dangerously-bypass-approvals-and-sandbox",),
    "opencode": ("--auto", "--agent", "build"),
    "gemini": ("--yolo",),
}


def taken(stage: Stage, way: str, prompt: str, **changes: object) -> Reply:
    """One turn, read as its driver reads it."""
    done = stage.run(getattr(stage.agent, way)(stage.request(prompt, **changes)))
    return stage.agent.reply(done.returncode, done.stdout, done.stderr)


def elsewhere(stage: Stage) -> None:
    """From now on another state directory, as each turn of a chat has one."""
    stage.session_dir = stage.home / "turns" / uuid.uuid4().hex
    stage.session_dir.mkdir(parents=True)


def put(stage: Stage, path: str, text: str) -> None:
    place = stage.home / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def loosened(stage: Stage) -> None:
    """Settings of a user who allows everything."""
    home = stage.home
    match stage.agent.name:
        case "claude-code":
            rules = {"allow": ["Bash", "Write", "Edit"], "defaultMode": "bypassPermissions"}
            put(stage, ".claude/settings.json", json.dumps({"permissions": rules}))
            stage.env["IS_SANDBOX"] = "1"  # else it refuses to run so as root
        case "codex":
            config = (home / ".codex" / "config.toml").read_text()
            put(
                stage, ".codex/config.toml", 'sandbox_mode = "danger-full-access"\napproval_policy = "never"\n' + config
            )
            put(stage, ".codex/rules/default.rules", 'prefix_rule(pattern=["touch"], decision="allow")\n')
        case "opencode":
            allow = {"*": "allow", "bash": "allow", "edit": "allow"}
            config = json.loads((home / ".config" / "opencode" / "opencode.json").read_text())
            config |= {"permission": allow, "agent": {"build": {"permission": allow}}}
            put(stage, ".config/opencode/opencode.json", json.dumps(config))
        case "gemini":
            rule = '[[rule]]\ntoolName = "*"\ndecision = "allow"\npriority = 999\n'
            put(stage, ".gemini/policies/all.toml", rule)
            settings = json.loads((home / ".gemini" / "settings.json").read_text())
            settings["tools"] = {"allowed": ["run_shell_command", "write_file"]}
            settings["adminPolicyPaths"] = [str(home / ".gemini" / "policies" / "all.toml")]
            put(stage, ".gemini/settings.json", json.dumps(settings))


def call(agent: Agent, tool: str, path: Path) -> str:
    """A prompt that makes the stub call a tool of the agent, whether that offers it or not."""
    tools = {
        "claude-code": {
            "run": ("Bash", {"command": f"touch {path}"}),
            "write": ("Write", {"file_path": str(path), "content": "x"}),
            "read": ("Read", {"file_path": str(path)}),
        },
        "codex": {
            "run": ("exec_command", {"cmd": f"touch {path}"}),
            "write": ("exec_command", {"cmd": f"touch {path}", "sandbox_permissions": "require_escalated",
                                       "justification": "test"}),
            "read": ("exec_command", {"cmd": f"head -1 {path}"}),
        },
        "opencode": {
            "run": ("bash", {"command": f"touch {path}", "description": "test"}),
            "write": ("write", {"filePath": str(path), "content": "x"}),
            "read": ("read", {"filePath": str(path)}),
        },
        "gemini": {
            "run": ("run_shell_command", {"command": f"touch {path}"}),
            "write": ("write_file", {"file_path": str(path), "content": "x"}),
            "read": ("read_file", {"file_path": str(path)}),
        },
    }  # fmt: skip
    name, given = tools[agent.name][tool]
    return f"CALL:{name} {json.dumps(given)}"


@every_agent
def test_a_conversation_of_turns_is_answered_and_goes_on_in_other_processes(agent: Agent) -> None:
    with stage_of(agent) as stage:
        first = taken(stage, "turn", "MARK-one")
        assert (first.text, first.error) == ("STUB turns=1 marks=MARK-one tool=- :: MARK-one", "")
        assert first.conversation is not None
        assert stage.session_id in (None, first.conversation)
        assert first.tokens
        assert (first.cost is not None) == (agent.name in ("claude-code", "opencode"))
        stage.session_id = first.conversation
        elsewhere(stage)
        second = taken(stage, "resume_turn", "MARK-two")
        assert (second.text, second.error) == ("STUB turns=2 marks=MARK-one,MARK-two tool=- :: MARK-two", "")
        assert second.conversation == first.conversation
        assert second.running == (agent.name == "codex" and (second.tokens or 0) > first.tokens)
        assert marks(stage.server) == ["MARK-one", "MARK-two"]
        failed = taken(stage, "resume_turn", "MARK-three ERR:400")
        assert "stub error 400 as asked" in failed.error
        assert failed.text == ""
        assert (failed.unknown, failed.taken) == (False, False)


@every_agent
def test_a_conversation_that_is_not_there_and_an_id_in_use_are_told(agent: Agent) -> None:
    with stage_of(agent) as stage:
        other = UNKNOWN.get(agent.name, str(uuid.uuid4()))
        for _ in range(2):  # in a home without any conversation, and beside another one
            reply = taken(stage, "resume_turn", "MARK-lost", session_id=other)
            assert (reply.unknown, reply.taken, reply.text) == (True, False, "")
            assert reply.error
            assert not turns(stage.server)[1:], "nothing was asked"
            taken(stage, "turn", "MARK-one")
        if agent.assigns_id:
            again = taken(stage, "turn", "MARK-again")
            assert (again.unknown, again.taken, again.text) == (False, True, "")


@every_agent
def test_a_read_only_turn_writes_nothing_whatever_settings_mode_and_arguments_allow(agent: Agent) -> None:
    with stage_of(agent) as stage:
        loosened(stage)
        written = stage.workdir.resolve() / "written"
        (stage.workdir / "there").write_text("to be read\n")
        free = taken(stage, "turn", f"MARK-free {call(agent, 'run', written)}", permission_mode="bypass")
        assert written.exists(), f"this is what is to be held back: {free}"
        written.unlink()
        stage.session_id = free.conversation
        elsewhere(stage)
        for args in ((), LOOSE[agent.name]):
            for tool in ("run", "write"):
                prompt = f"MARK-held {call(agent, tool, written)}"
                held = taken(stage, "resume_turn", prompt, permission_mode="bypass", read_only=True, args=args)
                assert not written.exists()
                assert (held.error, held.conversation) == ("", free.conversation)
                assert held.text.startswith("STUB turns=")
                assert turns(stage.server)[-1].tool_output, "it was asked, and told no"
        seen = taken(
            stage, "resume_turn", f"MARK-read {call(agent, 'read', written.with_name('there'))}", read_only=True
        )
        assert seen.error == ""
        assert "to be read" in (turns(stage.server)[-1].tool_output or "")
        begun = str(uuid.uuid4()) if agent.assigns_id else None
        taken(stage, "turn", f"MARK-new {call(agent, 'run', written)}", read_only=True, session_id=begun)
        assert not written.exists()


def test_a_tool_server_of_the_session_is_no_way_around_in_claude() -> None:
    server = """
import json, sys
TOOL = {"name": "touch", "description": "x", "inputSchema": {"type": "object"}}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {}
    if asked["method"] == "initialize":
        answer = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "x", "version": "1"}}
    elif asked["method"] == "tools/list":
        answer = {"tools": [TOOL]}
    elif asked["method"] == "tools/call":
        open("written", "w").close()
        answer = {"content": [{"type": "text", "text": "done"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"""
    with stage_of(claude_code.AGENT) as stage:
        loosened(stage)
        put(stage, "server.py", server)
        config = {"mcpServers": {"own": {"command": "python3", "args": [str(stage.home / "server.py")]}}}
        args = ("--mcp-config", json.dumps(config), "--allowedTools", "mcp__own__touch")
        prompt = "MARK-one CALL:mcp__own__touch {}"
        held = taken(stage, "turn", prompt, read_only=True, args=args)
        assert held.error == ""
        assert not (stage.workdir / "written").exists()
        taken(stage, "resume_turn", prompt, args=args)
        assert (stage.workdir / "written").exists(), "the server works where it may"


@every_agent
def test_turns_beside_a_live_session_leave_it_alone(agent: Agent) -> None:
    with stage_of(agent) as stage:
        pane = stage.open(agent.start(stage.request("MARK-live SLOW:3")))
        stage.await_state(pane, "busy")
        own, home = stage.learn_id(pane), stage.session_dir
        stage.session_id = str(uuid.uuid4()) if agent.assigns_id else None
        elsewhere(stage)
        first = taken(stage, "turn", "MARK-chat", read_only=True)
        assert "marks=MARK-chat " in first.text
        stage.session_id = first.conversation
        assert stage.session_id != own
        elsewhere(stage)
        assert "marks=MARK-chat,MARK-more " in taken(stage, "resume_turn", "MARK-more", read_only=True).text
        stage.session_id, stage.session_dir = own, home
        stage.await_state(pane, "idle")
        assert agent.conversation(stage.facts(pane)) in (None, own)
        pane.paste(agent.paste_text("MARK-after"))
        answered(stage, pane, "MARK-live", "MARK-after")
        stage.await_state(pane, "idle")
        assert agent.conversation(stage.facts(pane)) in (None, own)
        stopped(stage, pane)
