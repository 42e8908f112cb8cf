#!/usr/bin/env python3
"""A headless agent CLI for tests of group chats, standard library only: one turn of one conversation a process.

    chat-agent turn ID [MODEL]      the first turn of a conversation; the prompt on stdin
    chat-agent resume ID [MODEL]    another one; exit 4 where there is no such conversation

Every prompt stands in `~/.chat-agent/ID.jsonl` before anything else happens: what an agent was asked, by whom, when,
in which process, and whether another process had the conversation open. A participant answers `NAME answers N`, N
being the turns that the conversation has, and does what words in the message to it say: `SLOW:n` works for n seconds,
`HOLD:x` until there is a file `~/.chat-agent/FLEET.x`, `NEVER` for ever, `DEAF` whatever signal asks for its end,
`SAY:...` says the rest of the line, `BIG:n` n kilobytes, `ESC` escape codes, `EXIT:n` ends so. A moderator does what
the last line `... PLAN:[...]` of a user says, one item for each of its turns since it was first told that line: an
object of messages by name becomes a block that delegates, where the message of `""` holds words for itself; a string
is answered as it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m \x9b5mC1 \x07bell \x00nul \u202etfel\u202c \ud83d\ude00"


def main() -> None:
    """One turn."""
    verb, name, *model = sys.argv[1:]
    directory = Path.home() / ".chat-agent"
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.jsonl"
    if verb == "resume" and not path.exists():
        sys.exit(f"no conversation {name}")
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        prompt = sys.stdin.buffer.read().decode("utf-8")
        entry = {
            "prompt": prompt, "pid": os.getpid(), "at": time.time(), "verb": verb, "model": "".join(model),
            "who": os.environ.get("RECONCILER_SESSION", ""), "fleet": os.environ.get("RECONCILER_FLEET", ""),
            "alone": alone, "cwd": os.getcwd(), "tty": os.isatty(0), "env": sorted(os.environ), "conversation": name,
        }  # fmt: skip
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        asked = [json.loads(line)["prompt"] for line in file]
        moderates = asked[0].startswith("You moderate the group chat")
        answer(*(_moderator(asked) if moderates else _participant(asked)))


def _participant(asked: list[str]) -> tuple[str, str]:
    """What it answers, and the words that say how."""
    words = re.split(r"^\[[^\]\n]*\]\n", asked[-1], flags=re.MULTILINE)[-1]
    return f"{os.environ.get('RECONCILER_SESSION')} answers {len(asked)}", words


def _moderator(asked: list[str]) -> tuple[str, str]:
    lines = [line for prompt in asked for line in prompt.splitlines() if "PLAN:[" in line]
    if not lines:
        return "there is no plan", ""
    plan, _ = json.JSONDecoder().raw_decode(lines[-1].partition("PLAN:")[2])
    first = next(number for number, prompt in enumerate(asked) if lines[-1] in prompt.splitlines())
    turn = len(asked) - 1 - first
    item: Any = plan[turn] if turn < len(plan) else "the plan is over"
    if isinstance(item, str):
        return item, "" if item.startswith("@") else item
    to = [{"name": name, "message": message} for name, message in item.items() if name]
    block = json.dumps({"to": to})
    return f"I ask them.\n\n```route\n{block}\n```", item.get("", "")


def answer(text: str, words: str) -> None:
    """Say it, as the words want it."""
    if slow := re.search(r"SLOW:([\d.]+)", words):
        time.sleep(float(slow[1]))
    for gate in re.findall(r"HOLD:(\S+)", words):
        while not (Path.home() / ".chat-agent" / f"{os.environ.get('RECONCILER_FLEET')}.{gate}").exists():
            time.sleep(0.02)
    if "DEAF" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "NEVER" in words:
        time.sleep(1_000_000)
    out = [text]
    out += re.findall(r"SAY:(.*)", words)
    if big := re.search(r"BIG:(\d+)", words):
        out.append("x" * (int(big[1]) * 1000))
        out.append("the end")
    if "ESC" in words:
        out.append(ESCAPES)
    sys.stdout.buffer.write("\n".join(out).encode("utf-8", "surrogatepass") + b"\n")
    sys.stdout.flush()
    if ending := re.search(r"EXIT:(\d+)", words):
        print("it went wrong", file=sys.stderr)
        sys.exit(int(ending[1]))


if __name__ == "__main__":
    main()
