"""What agent programs do on a simulated machine: which conversation they work on, when they end, what they tell."""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

BORN = 0.4  # seconds until a program shows that it is ready
TASK = 2.0  # seconds that a headless turn takes
LIVELY = 8.0  # seconds that a program writes after it was started or told something


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
    begun: bool = False  # before, it is the shell that becomes it
    conversation: str | None = None
    said: list[str] = field(default_factory=list)
    busy_until: float = 0.0
    paths: tuple[str, ...] = ()  # the files of its conversation, the transcript first
    stirred: float = 0.0  # when it last had a reason to write
    written: int = 0  # lines
    torn: bytes = b""  # the rest of a line that was begun

    @property
    def kind(self) -> str:
        """claude, mine, or anything else."""
        return self.argv[0].rpartition("/")[2]

    @property
    def resumes(self) -> bool:
        """Whether it goes on with a conversation that has begun."""
        return "--resume" in self.argv and bool(self.paths)

    def ends(self, files: Container[str]) -> tuple[float, int] | None:
        """After how many seconds the program ends by itself, and how; None: it runs on."""
        if self.resumes and not any(path in files for path in self.paths):
            return 0.3, 1
        if self.kind == "claude":
            if "--print" in self.argv:
                return (TASK, 0) if self.said else (0.3, 1)  # no prompt, no turn
            return None
        if self.kind in ("mine", "bare"):
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


def begin(program: Program, workdir: str) -> None:
    """Read the argv as the agent would: its conversation, the files of it, and what it is told at once."""
    argv = program.argv
    program.begun = True
    program.stirred = program.born
    if program.kind == "claude":
        given = _after(argv, "--session-id") or _after(argv, "--resume")
        program.conversation = _id_of(given) if given else None
        if given is not None:
            slug = workdir.replace("/", "-").replace(".", "-").replace("~", "-")
            program.paths = (given if "/" in given else f"/home/me/.claude/projects/{slug}/{given}.jsonl",)
        program.said = [word for word in argv[argv.index("--") + 1 :] if word] if "--" in argv else []
    elif program.kind in ("mine", "bare"):
        program.conversation = _after(argv, "--id") or _after(argv, "--resume")
        base = f"/home/me/.mine/{program.conversation}"
        program.paths = (f"{base}.main.jsonl", f"{base}.notes.log") if program.kind == "mine" else ()
        told = _after(argv, "--say")
        program.said = [told] if told else []


def _after(argv: tuple[str, ...], option: str) -> str | None:
    return argv[argv.index(option) + 1] if option in argv else None


def _id_of(text: str) -> str:
    return text.rpartition("/")[2].removesuffix(".jsonl")
