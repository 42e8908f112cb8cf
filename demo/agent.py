#!/usr/bin/env python3
"""A small scripted agent with a real conversation on disk; what the demo's sessions run. Standard library only.

A conversation is `~/.demo-agent/conversations/ID.jsonl`: one line for each message, written once, synced, never
changed. It works in a terminal and without one, takes up a conversation where it was left, and never shares one.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import fcntl
import json
import os
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

THINKING = 0.4  # seconds that an answer takes
_PASTE, _PASTED = "\x1b[200~", "\x1b[201~"
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.|[^\[O])")
_OPEN_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*|O)?\Z")


class Refused(Exception):
    """The conversation cannot be had as asked; the text says why."""


class Conversation:
    """One append-only file of messages, with at most one writer."""

    def __init__(self, session: str, *, resume: bool) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", session):
            raise Refused(f"{session!r} cannot name a conversation")
        self.session = session
        path = Path.home() / ".demo-agent" / "conversations" / f"{session}.jsonl"
        if resume and not path.exists():
            raise Refused(f"there is no conversation {session} to resume")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # The kernel lets go of the lock when we die, however that comes about.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"conversation {session} is open in another process") from None
        if not resume and os.fstat(self._file).st_size:
            raise Refused(f"conversation {session} exists; take it up with --resume")
        text = path.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            os.write(self._file, b"\n")  # what a power cut left half-written stays, and ends here
        self.messages = [message for line in text.splitlines() if (message := _message(line))]

    def add(self, role: str, text: str) -> None:
        """Write one message down; when this returns, it is on disk."""
        record = {"n": len(self.messages) + 1, "at": int(time.time()), "role": role, "text": text}
        os.write(self._file, (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        os.fsync(self._file)
        self.messages.append({"role": role, "text": text})


def _message(line: str) -> dict[str, str] | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        record = json.loads(line)
        return {"role": str(record["role"]), "text": str(record["text"])}
    return None


class Keys:
    """Turns bytes from a keyboard or a pipe into messages: a line each, or a whole bracketed paste and a line end."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._pasting = False
        self.line = ""

    def feed(self, data: bytes) -> Iterator[str]:
        """The messages that `data` completes."""
        text, self._rest = self._rest + self._decode(data), ""
        while text:
            if self._pasting:
                text = self._paste(text)
            elif text.startswith(_PASTE):
                self._pasting, text = True, text[len(_PASTE) :]
            elif found := _ESCAPE.match(text):
                text = text[found.end() :]  # arrows and the like
            elif _OPEN_ESCAPE.match(text):
                self._rest, text = text, ""
            else:
                key, text = text[0], text[1:]
                if key in "\r\n":
                    message, self.line = self.line, ""
                    yield message
                else:
                    self._press(key)

    def _paste(self, text: str) -> str:
        """Take in what is pasted; returns what follows the paste."""
        inside, mark, after = text.partition(_PASTED)
        if mark:
            self._pasting = False
        else:
            # The mark may come in two parts.
            cut = next((n for n in range(len(_PASTED) - 1, 0, -1) if inside.endswith(_PASTED[:n])), 0)
            inside, self._rest = inside[: len(inside) - cut], inside[len(inside) - cut :]
        self.line += inside
        if mark:
            self.line = self.line.replace("\r\n", "\n").replace("\r", "\n")
        return after

    def _press(self, key: str) -> None:
        if key in "\x7f\b":
            self.line = self.line[:-1]
        elif key == "\x15":
            self.line = ""
        elif key >= " " or key == "\t":
            self.line += key


class Screen:
    """What people see: lines, and in a terminal also a title and a prompt."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._prompt = ""

    def say(self, text: str) -> None:
        """Print whole lines above the prompt."""
        clear = "\r\x1b[2K" if self.terminal else ""
        self._write(f"{clear}{text}\n")

    def title(self, state: str) -> None:
        """Say in the terminal's title what we are at."""
        if self.terminal:
            self._write(f"\x1b]2;demo-agent: {state}\x07")

    def prompt(self, line: str) -> None:
        """Show what is being typed."""
        if self.terminal:
            shown = line.replace("\n", " ⏎ ")
            self._write(f"\r\x1b[2K> {shown}")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class Agent:
    """The loop: read a message, write it down, answer, write that down."""

    def __init__(self, conversation: Conversation, wake: int) -> None:
        self.conversation = conversation
        self.screen = Screen()
        self.keys = Keys()
        self._wake = wake  # readable as soon as somebody wants us to end
        self._input: int | None = sys.stdin.fileno() if sys.stdin else None

    def run(self, prompt: str) -> None:
        """Until /exit or TERM; the end of the input is no reason to end."""
        if prompt and not self.turn(prompt):
            return
        self.screen.title("idle")
        while True:
            self.screen.prompt(self.keys.line)
            for message in self._read():
                if not self.turn(message.strip()):
                    return
            if self._asked_to_end(0):
                return

    def _read(self) -> Iterator[str]:
        watched = [self._wake] if self._input is None else [self._wake, self._input]
        ready, _, _ = select.select(watched, [], [])
        if self._input in ready and self._input is not None:
            data = b""
            with contextlib.suppress(OSError):  # a terminal that went away
                data = os.read(self._input, 65536)
            if data == b"" or data == b"\x04":
                self._input = None
            yield from self.keys.feed(data)

    def turn(self, message: str) -> bool:
        """Take one message and answer it. False: it is time to go."""
        if message in ("/exit", "/quit"):
            return False
        if not message:
            return True
        self.screen.title("busy")
        remembered = len(self.conversation.messages)
        self.conversation.add("user", message)
        self.screen.say(f"> {message}")
        if self._asked_to_end(THINKING):
            return False
        reply = self._reply(message, remembered)
        self.conversation.add("assistant", reply)
        self.screen.say(reply)
        self.screen.title("idle")
        return True

    def _reply(self, message: str, remembered: int) -> str:
        words = len(message.split())
        if not remembered:
            return f"Understood ({words} words). I keep at it."
        first = next((m["text"] for m in self.conversation.messages if m["role"] == "user"), "")
        return f"Understood ({words} words). I remember {remembered} earlier messages; the first was: {first}"

    def _asked_to_end(self, seconds: float) -> bool:
        return bool(select.select([self._wake], [], [], seconds)[0])


@contextlib.contextmanager
def _keyboard() -> Iterator[None]:
    """Keys one by one and pastes in brackets, where there is a terminal; as it was before, afterwards."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    now = termios.tcgetattr(keyboard)
    now[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(keyboard, termios.TCSANOW, now)
    sys.stdout.write("\x1b[?2004h")
    try:
        yield
    finally:
        with contextlib.suppress(termios.error, OSError):
            sys.stdout.write("\x1b[?2004l\n")
            sys.stdout.flush()
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _end_on_signals() -> int:
    """A file that becomes readable when we are told to end."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--session", metavar="ID", help="begin a new conversation under this id")
    which.add_argument("--resume", metavar="ID", help="take up an existing conversation")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="the first message")
    options = parser.parse_args(argv)
    wake = _end_on_signals()
    try:
        conversation = Conversation(options.resume or options.session or "", resume=options.resume is not None)
    except Refused as refused:
        print(f"demo-agent: {refused}", file=sys.stderr)
        return 1
    agent = Agent(conversation, wake)
    if options.resume is None:
        agent.screen.say(f"new conversation {conversation.session}")
    else:
        agent.screen.say(f"resumed conversation {conversation.session}, {len(conversation.messages)} messages")
    with _keyboard():
        agent.run(options.prompt.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
