"""What agent programs do on a simulated machine: which conversation they work on, when they end, what they tell.

A program is of a kind: `claude`, `codex`, `opencode`, `gemini`, `moderator`, or anything else, which tells nothing.
`mine` and `bare` are agents of tests that read their conversation from their arguments, as `claude` does.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

BORN = 0.4  # seconds until a program shows that it is ready
TASK = 2.0  # seconds that a headless turn takes
LIVELY = 8.0  # seconds that a program writes after it was started or told something
TURN = "(a headless turn)"
_ARGUMENTS = ("claude", "mine", "bare", "job", "broken", "serve")
_DAY = "2027/01/15"
_GLOBBED = {"codex": _DAY.split("/"), "gemini": ["project"]}

Kinds = Callable[[str, tuple[str, ...]], str]  # a session's record and the arguments of its program -> its kind


def kind_of(_record: str, argv: tuple[str, ...]) -> str:
    """By the name of the program."""
    return argv[0].rpartition("/")[2]


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
    kind: str = ""
    task: bool = False
    begun: bool = False  # before, it is the shell that becomes it
    conversation: str | None = None
    said: list[str] = field(default_factory=list)
    busy_until: float = 0.0
    paths: tuple[str, ...] = ()  # the files of its conversation, the transcript first
    stirred: float = 0.0  # when it last had a reason to write
    written: int = 0  # lines
    torn: bytes = b""  # the rest of a line that was begun

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
        if self.kind not in _ARGUMENTS and self.task:
            return TASK, 0
        return {"job": (TASK, 0), "broken": (0.6, 1)}.get(self.kind)

    def title(self, now: float) -> str:
        """That of its terminal."""
        if now - self.born < BORN or self.task:
            return ""
        busy = now < self.busy_until
        match self.kind:
            case "codex":
                return f"{'Working' if busy else 'Ready'} | {(self.conversation or '')[:29]}..."
            case "gemini":
                return f"{'✦  Working…' if busy else '◇  Ready'} ({self.session})"
            case "opencode":
                return "OpenCode"
        return ""

    def lines(self, now: float) -> list[tuple[str, dict[str, object]]]:
        """What a look finds of it."""
        if now - self.born < BORN:
            return []
        status = "busy" if now < self.busy_until else "idle"
        match self.kind:
            case "claude" if "--print" not in self.argv:
                entry = {"pid": self.pid, "procStart": self.start, "sessionId": self.conversation, "status": status}
                return [_file("status", entry)]
            case "codex":
                return [("names", {"key": "locks", "base": f"{self.conversation}.lock"})]
            case "opencode":
                event: dict[str, object] = {"event": f"session.{status}", "state": status, "session": self.conversation}
                return [("names", {"key": "database", "base": "opencode.db"}), ("event", event)]
            case "moderator":
                return [_file("chat", {"pid": self.pid, "state": "idle"})]
        return []


def _file(key: str, entry: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    return "fact", {"key": key, "data": base64.b64encode(json.dumps(entry).encode()).decode()}


def begin(program: Program, workdir: str, conversation: str = "", stores: tuple[str, ...] = ()) -> None:
    """Read the argv as the agent would: its conversation, the files of it, and what it is told at once.

    Of an agent that does not say its conversation there, it is the one of its record, or one of its own making; its
    files lie where `stores`, the templates of its probes, would find them.
    """
    argv = program.argv
    program.begun = True
    program.stirred = program.born
    if program.kind == "claude":
        given = _after(argv, "--session-id") or _after(argv, "--resume")
        program.conversation = _id_of(given) if given else conversation or None
        if given is None or (stores and "/projects/" not in stores[0]):  # its table in the specs says otherwise
            program.paths = _paths(program, stores)
        else:
            slug = workdir.replace("/", "-").replace(".", "-").replace("~", "-")
            program.paths = (given if "/" in given else f"/home/me/.claude/projects/{slug}/{given}.jsonl",)
        program.said = [word for word in argv[argv.index("--") + 1 :] if word] if "--" in argv else []
    elif program.kind in ("mine", "bare"):
        program.conversation = _after(argv, "--id") or _after(argv, "--resume")
        base = f"/home/me/.mine/{program.conversation}"
        program.paths = (f"{base}.main.jsonl", f"{base}.notes.log") if program.kind == "mine" else ()
        told = _after(argv, "--say")
        program.said = [told] if told else []
    elif program.kind not in _ARGUMENTS:
        program.conversation = conversation or _own_id(program)
        program.paths = _paths(program, stores)
        program.said = [TURN] if program.paths else []


def _own_id(program: Program) -> str | None:
    """The name that an agent gives its conversation itself."""
    made = uuid.uuid5(uuid.NAMESPACE_OID, f"{program.session}/{program.incarnation}/{program.start}")
    return {"codex": str(made), "opencode": f"ses_{made.hex[:24]}"}.get(program.kind)


def _paths(program: Program, stores: tuple[str, ...]) -> tuple[str, ...]:
    """The first store alone: what else may lie beside a conversation, most have not."""
    if not stores or not program.conversation:
        return ()
    words = list(_GLOBBED.get(program.kind, ()))
    path = stores[0].replace("{session_id_8}", program.conversation[:8]).replace("{session_id}", program.conversation)
    parts = []
    for part in path.split("/"):
        if part == "*" and words:
            part = words.pop(0)
        parts.append(part.replace("*", "2027-01-15T08-00" if program.kind in _GLOBBED else "1").replace("?", "1"))
    return ("/".join(parts),)


def _after(argv: tuple[str, ...], option: str) -> str | None:
    return argv[argv.index(option) + 1] if option in argv else None


def _id_of(text: str) -> str:
    return text.rpartition("/")[2].removesuffix(".jsonl")
