"""What the tests of group chats share: specs, messages, the log, and what the agents were asked, on every machine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reconciler.chat import log
from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import REPOSITORY, SCRIPT_AGENT, Program, install_script_agent, until

CHAT_AGENT = REPOSITORY / "tests" / "support" / "chat_agent.py"
# The interactive session is the script agent's; turns are another program's, so that the two cannot be confused.
AGENT = """
[agents.chatty]
command = "script-agent"
start = ["script-agent", "start", "{session_id}", "{prompt}", "{model}"]
resume = ["script-agent", "resume", "{session_id}", "{prompt}", "{model}"]
turn = ["chat-agent", "turn", "{session_id}", "{model}"]
resume_turn = ["chat-agent", "resume", "{session_id}", "{model}"]
store = ["{home}/.script-agent/{session_id}.jsonl"]
"""
HOLDS = ("ok", "unclear", "failed", "timeout", "lost")  # outcomes of turns that reached the agent


def install_agents(home: Path, host: Host | None = None) -> None:
    """Both agents below a home, on the PATH of login shells only."""
    if host is not None:
        install_script_agent(host)
        host.write("~/bin/chat-agent", CHAT_AGENT.read_text(encoding="utf-8"), mode=0o755)
        return
    (home / "bin").mkdir(exist_ok=True)
    for name, source in (("script-agent", SCRIPT_AGENT), ("chat-agent", CHAT_AGENT)):
        (home / "bin" / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        (home / "bin" / name).chmod(0o755)
    (home / ".profile").write_text('PATH="$HOME/bin:$PATH"\n', encoding="utf-8")


def member(name: str, host: str, more: str = "") -> str:
    """The spec of a session that takes part; its own conversation costs nothing."""
    strategy = "" if "strategy" in more else 'strategy = "process"\n'
    return f'[sessions.{name}]\nhost = "{host}"\nagent = "chatty"\n{strategy}{more}\n'


def chat(name: str, participants: str, moderator: str = '{ agent = "chatty" }', more: str = "") -> str:
    """The spec of a chat; `participants` as words."""
    timeout = "" if "turn_timeout" in more else 'turn_timeout = "30s"\n'
    names = json.dumps(participants.split())
    return f"[group_chats.{name}]\nmoderator = {moderator}\nparticipants = {names}\n{timeout}{more}\n"


def opening(*items: str | Mapping[str, str]) -> str:
    """The same as the prompt of a chat."""
    return f"prompt = {json.dumps(plan(*items))}\n"


def plan(*items: str | Mapping[str, str]) -> str:
    """A message that tells the moderator what to answer, turn by turn."""
    return f"PLAN:{json.dumps(items)}"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One thing that an agent was asked."""

    who: str
    prompt: str
    at: float
    alone: bool
    host: str
    rest: Mapping[str, Any]


class Chat:
    """One group chat of a program, read from its files and from what its agents wrote down."""

    def __init__(self, program: Program, name: str = "team") -> None:
        self.program, self.name = program, name
        self.state = program.fleet.controller_home / ".local/state/reconciler" / program.name
        self.folder = self.state / "sessions" / name

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The log: whole lines."""
        path = self.folder / "log.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The entries of some kinds, or with a status."""
        return [entry for entry in self.entries if entry["kind"] in kinds or entry["status"] in kinds]

    @property
    def said(self) -> list[tuple[str, str]]:
        """Who said what, see `said`."""
        return said(self.entries)

    @property
    def now(self) -> dict[str, Any]:
        """What its process says of itself."""
        return log.state(self.folder)

    @property
    def closings(self) -> list[str]:
        """Why messages, or the chat, were closed."""
        return [entry["data"]["reason"] for entry in self.of("idle", "closed")]

    def send(self, *items: str | Mapping[str, str], sender: str = "ann") -> str:
        """A message with a plan for the moderator, unlike any other."""
        return log.send(self.folder, f"{time.time_ns()} {plan(*items)}", sender)

    def closed(self, count: int = 1, patience: float = 60.0) -> list[dict[str, Any]]:
        """The log once so many messages are closed, and nothing is owed any more."""
        try:
            until(f"{count} closed messages", lambda: len(self.closings) >= count, patience)
        except AssertionError as error:
            story = "\n".join(json.dumps(entry)[:400] for entry in self.entries)
            raise AssertionError(f"{error}\n{story}\n{self.now}") from None
        until("what it says of itself", lambda: self.now.get("state") in ("idle", "closed"))
        assert len(self.closings) == count, self.closings
        return self.entries

    def ask(self, *items: str | Mapping[str, str], patience: float = 60.0) -> list[dict[str, Any]]:
        """Send a message with a plan; the entries that it led to, its own and the closing one included."""
        before, count = len(self.entries), len(self.closings)
        self.send(*items)
        return self.closed(count + 1, patience)[before:]

    @property
    def pid(self) -> int:
        """The process that the runtime knows of, alive; 0 for none."""
        for path in sorted(self.folder.glob("process.[0-9]*")):
            pid = int((path.read_text(encoding="ascii").split() or ["0"])[0])
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if str(self.folder).encode() in words and b"reconciler.chat" in words:
                    return pid
        return 0

    def release(self, *gates: str) -> None:
        """Let those go on who wait for `HOLD:gate`, wherever they are."""
        fleet = self.program.fleet
        for home in (fleet.controller_home, *(host.home for host in fleet.hosts.values())):
            for gate in gates if (home / ".chat-agent").exists() else ():
                (home / ".chat-agent" / f"{self.program.name}.{gate}").touch()

    def at_work(self, *names: str) -> bool:
        """Whether these have been asked and owe the answer, and nobody else does."""
        working = [turn for turn in self.asked if turn.who in names]
        owed = {item["who"] for item in self.now.get("owed", ()) if item["status"] == "asked"}
        return owed == set(names) == {turn.who for turn in working}

    def ended_unheard(self, who: str, where: Path) -> bool:
        """Whether a turn of `who` has ended on a host with that home, and lies there."""
        state = where / ".local/state/reconciler" / self.program.name
        return bool(list(state.glob(f"sessions/{who}/turns/*/exit.1")))

    def kill(self) -> None:
        """As the kernel does where memory is short."""
        os.kill(self.pid, signal.SIGKILL)
        until("its end", lambda: not self.pid)

    @property
    def asked(self) -> list[Turn]:
        """Everything that agents of this program were asked, on all machines, in the order of time."""
        fleet = self.program.fleet
        homes = {"local": fleet.controller_home, **{name: host.home for name, host in fleet.hosts.items()}}
        found = []
        for host, home in homes.items():
            for path in (home / ".chat-agent").glob("*.jsonl"):
                lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                found += [
                    Turn(line["who"], line["prompt"], line["at"], line["alone"], host, line)
                    for line in lines
                    if line["fleet"] == self.program.name
                ]
        return sorted(found, key=lambda turn: turn.at)

    def asked_of(self, who: str) -> list[str]:
        """The prompts of one."""
        return [turn.prompt for turn in self.asked if turn.who == who]

    def exactly_once(self) -> None:
        """Each turn that has an outcome for which its agent was asked stands for one prompt, and the other way round;
        nobody was asked twice at once; no conversation was begun twice."""
        asked = self.asked
        assert all(turn.alone for turn in asked), asked
        outcomes = [e for e in self.of("participant", "moderator") if e["status"] in HOLDS]
        assert len({entry["turn_id"] for entry in outcomes}) == len(outcomes)
        for who in {turn.who for turn in asked} | {entry["from"] for entry in outcomes}:
            prompts = [turn.prompt for turn in asked if turn.who == who]
            ours = [entry for entry in outcomes if entry["from"] == who]
            assert len(prompts) == len(ours), f"{who}: asked {len(prompts)} times for {len(ours)} outcomes"
        begun = [turn.rest["conversation"] for turn in asked if turn.rest["verb"] == "turn"]
        assert len(set(begun)) == len(begun), "a conversation was begun twice"

    def in_place(self) -> None:
        """The program sees nothing to do."""
        assert self.program.plan() == {}

    def processes(self, marker: str = "") -> list[int]:
        """Processes of this machine that belong to this fleet here: runner, wrappers, turns; of one session only, where
        `marker` says its name."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environ = (path / "environ").read_bytes().split(b"\0")
                words = (path / "cmdline").read_bytes()
                home = f"HOME={self.program.fleet.controller_home}".encode()
                ours = home in environ and f"RECONCILER_FLEET={self.program.name}".encode() in environ
                wrapper = f"{self.state}/".encode() in words
                if (ours or wrapper) and (not marker or f"RECONCILER_SESSION={marker}".encode() in environ):
                    found.append(int(path.name))
        return found

    def end(self) -> None:
        """Nothing of it is left on this machine."""
        for _ in range(200):
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return
            time.sleep(0.02)
        raise AssertionError(f"what is left does not end: {left}")


def said(entries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Who said what, by its first line; without messages of users and of the chat itself; outcomes in brackets."""
    found = []
    for entry in entries:
        if entry["kind"] in ("participant", "moderator"):
            text = entry["text"] if entry["status"] in ("ok", "unclear") else f"[{entry['status']}]"
            found.append((entry["from"], text.partition("\n")[0]))
    return found


def prepared(fleet: Fleet) -> Fleet:
    """With the agents on every machine, this one too."""
    install_agents(fleet.controller_home)
    for host in fleet.hosts.values():
        install_agents(host.home, host)
    return fleet
