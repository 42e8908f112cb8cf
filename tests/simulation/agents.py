"""What agent programs do on a simulated machine: which conversation they work on, when they end, what they tell."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

BORN = 0.4  # seconds until a program shows that it is ready
TASK = 2.0  # seconds that a headless turn takes


@dataclass
class Program:
    """One live agent process."""

    pid: int
    start: str
    session: str
    incarnation: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    born: float
    conversation: str | None = None
    said: list[str] = field(default_factory=list)
    busy_until: float = 0.0

    @property
    def kind(self) -> str:
        """claude, mine, or anything else."""
        return self.argv[0].rpartition("/")[2]

    def ends(self, transcripts: Mapping[str, list[str]]) -> tuple[float, int] | None:
        """After how many seconds the program ends by itself, and how; None: it runs on."""
        if self.kind == "claude":
            resumed = _after(self.argv, "--resume")
            if resumed is not None and _id_of(resumed) not in transcripts:
                return 0.3, 1
            if "--print" in self.argv:
                return (TASK, 0) if self.said else (0.3, 1)  # no prompt, no turn
            return None
        if self.kind == "mine":
            return (TASK, 0) if "--once" in self.argv else None
        return {"job": (TASK, 0), "broken": (0.6, 1)}.get(self.kind)

    def lines(self, now: float) -> list[tuple[str, dict[str, object]]]:
        """What a look finds of it."""
        if self.kind != "claude" or "--print" in self.argv or now - self.born < BORN:
            return []
        status = "busy" if now < self.busy_until else "idle"
        entry = {"pid": self.pid, "procStart": self.start, "sessionId": self.conversation, "status": status}
        data = base64.b64encode(json.dumps(entry).encode()).decode()
        return [("fact", {"key": "status", "data": data})]


def begin(program: Program) -> None:
    """Read the argv as the agent would: its conversation, and what it is told at once."""
    argv = program.argv
    if program.kind == "claude":
        given = _after(argv, "--session-id") or _after(argv, "--resume")
        program.conversation = _id_of(given) if given else None
        program.said = [word for word in argv[argv.index("--") + 1 :] if word] if "--" in argv else []
    elif program.kind == "mine":
        program.conversation = _after(argv, "--id") or _after(argv, "--resume")
        told = _after(argv, "--say")
        program.said = [told] if told else []


def _after(argv: tuple[str, ...], option: str) -> str | None:
    return argv[argv.index(option) + 1] if option in argv else None


def _id_of(text: str) -> str:
    return text.rpartition("/")[2].removesuffix(".jsonl")
