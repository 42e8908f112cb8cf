"""Group chats of five agents on two hosts and this machine; what their models were asked, by the stub's requests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.chats import Chat, plan
from tests.e2e.fleet import Fleet
from tests.e2e.program import PATIENCE, REPOSITORY, Program, Site, until
from tests.support import agents as support
from tests.support.stub_llm import Conversation, Server, route

LONG = 120.0  # seconds; programs of 200 MB on a small machine
WORK = "work/project"
STUB_AGENT = REPOSITORY / "tests" / "support" / "stub_agent.py"
HOMEMADE = """
[agents.homemade]
command = "stub-agent"
start = ["stub-agent", "new", "{session_id}"]
resume = ["stub-agent", "resume", "{session_id}"]
turn = ["stub-agent", "new", "{session_id}"]
resume_turn = ["stub-agent", "resume", "{session_id}"]
read_only = ["--read-only"]
"""
BAD_KEY = "bad-key-0000000000000"


def homemade_home(home: Path, port: int) -> dict[str, str]:
    """A home in which the agent by a template is installed, and knows where its model is."""
    path = home / "bin" / "stub-agent"
    path.parent.mkdir(exist_ok=True)
    path.write_text(STUB_AGENT.read_text(encoding="utf-8"), encoding="utf-8")
    path.chmod(0o755)
    return {**support.base_env(home), "STUB_KEY": support.KEY, "STUB_AGENT_URL": f"http://127.0.0.1:{port}"}


HOMES: Mapping[str, Callable[[Path, int], dict[str, str]]] = {
    "claude-code": support.claude_home,
    "codex": support.codex_home,
    "opencode": support.opencode_home,
    "gemini": support.gemini_home,
    "homemade": homemade_home,
}
# Which shell tool each has, as the stub is to call it.
SHELLS = {
    "claude-code": ("Bash", "command", {}),
    "codex": ("exec_command", "cmd", {}),
    "opencode": ("bash", "command", {"description": "test"}),
    "gemini": ("run_shell_command", "command", {}),
    "homemade": ("bash", "command", {}),
}


@dataclass(frozen=True)
class Member:
    """A session: its agent, its host, and whether it is open in a terminal meanwhile."""

    agent: str
    host: str
    terminal: bool = False
    more: str = 'permission_mode = "bypass"'


MEMBERS = {
    "clio": Member("claude-code", "one", terminal=True),
    "cody": Member("codex", "two", terminal=True),
    "opal": Member("opencode", "one"),
    "gems": Member("gemini", "two"),
    "home": Member("homemade", "local", more=""),
    "lead": Member("opencode", "two", more=""),
    "deny": Member("claude-code", "one", more=f'env = {{ ANTHROPIC_AUTH_TOKEN = "{BAD_KEY}" }}'),
}
OPEN = tuple(name for name, member in MEMBERS.items() if member.terminal)
_INTRODUCED = re.compile(r"You (?:are `(?P<who>[^`]+)` in|moderate) the group chat `(?P<chat>[^`]+)`")


@dataclass(frozen=True)
class Asked:
    """A request of an agent to its model: all prompts of that conversation, and what a tool answered last."""

    user: tuple[str, ...]
    tool_output: str | None
    status: int


class Stage:
    """Everybody is set up on every machine; `declare` adds chats, `ask` sends messages as a user does."""

    def __init__(self, fleet: Fleet, stub: Server) -> None:
        self.fleet, self.stub = fleet, stub
        self.program = Program(fleet, "real")
        self.program.env = {"THE_KEY": support.KEY}
        self.homes = {"local": fleet.controller_home, **{name: host.home for name, host in fleet.hosts.items()}}
        self.env = {name: self._set_up(name, home) for name, home in self.homes.items()}["local"]
        self._chats: dict[str, str] = {}

    def _set_up(self, name: str, home: Path) -> dict[str, dict[str, str]]:
        address, port = self.stub.server_address[:2]
        (home / WORK).mkdir(parents=True)
        (home / ".profile").write_text(f'PATH="{support.agent_bin()}:$HOME/bin:$PATH"\n', encoding="utf-8")
        found = {agent: made(home, int(port)) for agent, made in HOMES.items()}
        for path in [home, *home.rglob("*")]:
            if path.is_file() and path.suffix in (".json", ".toml"):
                path.write_text(path.read_text(encoding="utf-8").replace("127.0.0.1", str(address)), encoding="utf-8")
            if name in self.fleet.hosts:
                self.fleet.hosts[name].own(path)
        ours = support.base_env(home)
        return {
            agent: {key: value.replace("127.0.0.1", str(address)) for key, value in env.items() if key not in ours}
            for agent, env in found.items()
        }

    # -- as a user ---------------------------------------------------------------------------------------------------

    def declare(self, name: str, moderator: str, participants: Sequence[str], more: str = "") -> Chat:
        """One more chat, applied with all that were; the key is in the environment of the controller only."""
        names = json.dumps(list(participants))
        spec = f"[group_chats.{name}]\nmoderator = {moderator}\nparticipants = {names}\n"
        if name not in self._chats:
            self._chats[name] = f'{spec}turn_timeout = "90s"\n{more}'
            self.program.write("\n".join([HOMEMADE, *self._hosts(), *self._sessions(), *self._chats.values()]))
            self.program.apply()
        return Chat(self.program, name)

    def _hosts(self) -> list[str]:
        words = []
        for host in self.homes:
            words.append(f"[hosts.{host}]\n{PATIENCE if host != 'local' else ''}")
            for agent, env in self.env.items():
                hidden = {key: "${env:THE_KEY}" if value == support.KEY else value for key, value in env.items()}
                table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in hidden.items())
                words.append(f"[hosts.{host}.agents.{agent}]\nenv = {{ {table} }}")
        return words

    def _sessions(self) -> list[str]:
        return [
            f'[sessions.{name}]\nagent = "{member.agent}"\nhost = "{member.host}"\nworkdir = "~/{WORK}"\n'
            + f"{member.more}\n"
            + ('prompt = "MARK-own"' if member.terminal else 'state = "stopped"')
            for name, member in MEMBERS.items()
        ]

    def ask(self, name: str, words: str, *items: str | Mapping[str, str]) -> list[dict[str, Any]]:
        """Send a message with a plan, and wait for its answer, the plan's last item; the entries that it led to."""
        chat = Chat(self.program, name)
        before = len(chat.entries)
        text = f"{words} {plan(*items)}"
        done = self.program.run("chat", "send", name, "--wait", "--timeout", f"{LONG:g}s", text, timeout=LONG + 30)
        entries = chat.entries[before:]
        told = "\n".join(str((entry["from"], entry["status"], entry["text"][:300])) for entry in entries)
        assert (done.returncode, done.stdout.strip()) == (0, items[-1]), f"{done.stdout}\n{done.stderr}\n{told}"
        return entries

    def idle(self, name: str) -> dict[str, Any]:
        """Wait until the session's own screen waits for its user; what was observed."""
        observed: dict[str, Any] = {}

        def look() -> bool:
            nonlocal observed
            observed = self.program.status()[f"session.{name}"]["observed"]
            return bool(observed["activity"] == "idle")

        until(f"{name} idle", look, LONG)
        return observed

    # -- what is so --------------------------------------------------------------------------------------------------

    def site(self, name: str) -> Site:
        """Of the host of a session."""
        return Site(self.fleet.hosts[MEMBERS[name].host], self.program.name)

    def pid(self, name: str) -> int:
        """The process of a session that is open, from what its launch noted."""
        record = self.site(name).state / "sessions" / name
        (path,) = record.glob("process.[0-9]*")
        return int(path.read_text(encoding="ascii").split()[0])

    def conversations(self) -> list[tuple[Conversation, int]]:
        """All that models were asked, and how it was answered; without the side requests of the CLIs."""
        found = []
        for record, body in zip(list(self.stub.records), list(self.stub.bodies), strict=False):
            path = record.path.partition("?")[0]
            api = route(path)
            conv = api.parse(body, path) if api else None
            if conv and conv.user and conv.tools:
                found.append((conv, record.status))
        return found

    def asked(self, words: str) -> list[list[str]]:
        """All prompts of each request whose last one holds these words, once there is one."""

        def look() -> list[list[str]]:
            return [conv.user for conv, _ in self.conversations() if words in conv.last]

        return until(words, look, LONG)

    def requests(self, chat: str, who: str) -> list[Asked]:
        """What the model of one was asked for a chat."""
        found = []
        for conv, status in self.conversations():
            match = _INTRODUCED.match(conv.user[0])
            if match and (match["chat"], match["who"] or "moderator") == (chat, who):
                found.append(Asked(tuple(conv.user), conv.tool_output, status))
        return found

    def turns(self, chat: str, who: str) -> list[tuple[str, ...]]:
        """The prompts of its conversation as each turn that went well sent them."""
        return [asked.user for asked in self.requests(chat, who) if asked.tool_output is None and asked.status == 200]

    def path(self, name: str, file: str) -> tuple[Path, str]:
        """A file in the working directory of a session: where the test sees it, and where the agent does."""
        host = MEMBERS[name].host
        inside = str(self.homes[host]) if host == "local" else self.fleet.hosts[host].inner_home
        return self.homes[host] / WORK / file, f"{inside}/{WORK}/{file}"

    def touch(self, name: str, file: str) -> str:
        """Words that make the agent of a session try to make a file."""
        tool, key, more = SHELLS[MEMBERS[name].agent]
        return f"CALL:{tool} {json.dumps({key: f'touch {self.path(name, file)[1]}', **more})}"


def said_to(prompt: str) -> str:
    """What a prompt says to its reader alone."""
    return re.split(r"^\[[^\]\n]* to you\]\n", prompt, flags=re.MULTILINE)[-1]
