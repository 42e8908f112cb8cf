#!/usr/bin/env python3
"""A small agent CLI for tests, standard library only: one JSONL file a conversation, and a screen that takes pastes.

    script-agent start ID [PROMPT]     a new conversation
    script-agent resume ID [PROMPT]    the same one goes on; exit 4 where there is none
    script-agent turn ID [PROMPT]      headless: the prompt from argv, else from stdin

Everything that happened stands in `~/.script-agent/ID.jsonl`: each process that opened the conversation (how, and
whether another one held it), each message as it arrived, each end. Words in a message: `SLOW:n` works for n
seconds, `EXIT:n` ends with that code. `~/.claude/sessions/PID.json` says busy or idle, as Claude Code's does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PASTE, END_OF_PASTE = b"\x1b[200~", b"\x1b[201~"
BUSY_AT_LEAST = 0.05


class Conversation:
    """One file; who opens it takes a lock, and whoever cannot says so in it."""

    def __init__(self, verb: str, name: str) -> None:
        directory = Path.home() / ".script-agent"
        directory.mkdir(exist_ok=True)
        self.name = name
        self.path = directory / f"{name}.jsonl"
        if verb == "resume" and not self.path.exists():
            sys.exit(4)
        self._file = self.path.open("a", encoding="utf-8")
        alone = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            alone = False
        self.add("open", verb=verb, pid=os.getpid(), alone=alone, argv=sys.argv, cwd=os.getcwd(), umask=_umask(),
                 path=os.environ.get("PATH", ""), tty=os.isatty(0), at=time.time())  # fmt: skip

    def add(self, kind: str, **fields: Any) -> None:
        """One line, on the disk when this returns."""
        self._file.write(json.dumps({"kind": kind, **fields}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def turns(self) -> int:
        """How many messages it holds, whichever process took them."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return sum(json.loads(line)["kind"] == "user" for line in lines)


class Agent:
    """Takes messages; each answer says how many turns the conversation has."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self._registry = Path.home() / ".claude" / "sessions" / f"{os.getpid()}.json"

    def say(self, state: str) -> None:
        """busy, idle or waiting, where the driver of Claude Code looks for it."""
        self._registry.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "pid": os.getpid(), "procStart": _started(), "sessionId": self.conversation.name, "cwd": os.getcwd(),
            "status": state, "statusUpdatedAt": int(time.time() * 1000),
        }  # fmt: skip
        temporary = self._registry.with_suffix(".tmp")
        temporary.write_text(json.dumps(entry), encoding="utf-8")
        temporary.replace(self._registry)

    def take(self, text: str) -> None:
        """One message, and its answer."""
        self.say("busy")
        self.conversation.add("user", text=text)
        slow = re.search(r"SLOW:([\d.]+)", text)
        time.sleep(float(slow[1]) if slow else BUSY_AT_LEAST)
        turns = self.conversation.turns
        self.conversation.add("answer", turns=turns)
        print(f"turns={turns}", end="\r\n", flush=True)
        if ending := re.search(r"EXIT:(\d+)", text):
            sys.exit(int(ending[1]))
        self.say("idle")

    def gone(self) -> None:
        """Its last act."""
        self.conversation.add("end", pid=os.getpid())
        self._registry.unlink(missing_ok=True)


class Screen:
    """Keys and bracketed pastes become messages: Enter submits, ^C on an empty line and ^D leave."""

    def __init__(self, submit: Callable[[str], None]) -> None:
        self._submit = submit
        self._raw, self._line, self._pasting = b"", b"", False

    def feed(self, data: bytes) -> bool:
        """Take what was typed; False once it asks to leave."""
        self._raw += data
        while self._raw:
            if self._pasting:
                text, found, rest = self._raw.partition(END_OF_PASTE)
                if not found:
                    return True
                self._line += text.replace(b"\r", b"\n")
                self._raw, self._pasting = rest, False
            elif self._raw.startswith(PASTE):
                self._raw, self._pasting = self._raw[len(PASTE) :], True
            elif self._raw.startswith(b"\x1b") and len(self._raw) < len(PASTE) and PASTE.startswith(self._raw):
                return True
            else:
                key, self._raw = self._raw[:1], self._raw[1:]
                if not self._key(key):
                    return False
        return True

    def _key(self, key: bytes) -> bool:
        if key in (b"\x03", b"\x04"):
            empty, self._line = not self._line, b""
            return not empty
        if key == b"\r":
            line, self._line = self._line, b""
            if line:
                self._submit(line.decode("utf-8"))
        elif key != b"\x1b":
            self._line += key
        return True


def interactive(agent: Agent, prompt: str) -> None:
    """On a terminal until it is told to leave; without one until a signal comes."""
    if os.isatty(0):
        import tty

        tty.setraw(0)
        print("\x1b[?2004h", end="")
    print("script-agent is ready", end="\r\n", flush=True)
    agent.say("idle")
    if prompt:
        agent.take(prompt)
    if not os.isatty(0):
        while True:
            signal.pause()
    screen = Screen(agent.take)
    while data := os.read(0, 1 << 16):
        if not screen.feed(data):
            return


def main() -> None:
    """Run one process of one conversation."""
    verb, name, *rest = sys.argv[1:]
    prompt = rest[0] if rest else ""
    agent = Agent(Conversation(verb, name))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(143))
    try:
        if verb == "turn":
            agent.take(prompt or sys.stdin.buffer.read().decode("utf-8"))
        else:
            interactive(agent, prompt)
    finally:
        with contextlib.suppress(OSError):
            agent.gone()


def _umask() -> str:
    mask = os.umask(0o022)
    os.umask(mask)
    return f"{mask:03o}"


def _started() -> str:
    return Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


if __name__ == "__main__":
    main()
