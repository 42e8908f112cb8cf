"""The built-in agent of group chats: this very program, which leads one. People cannot name it in the specs."""

from __future__ import annotations

import sys

from reconciler.agents import _shared
from reconciler.core.agent import (
    UNKNOWN,
    Activity,
    ActivityState,
    Facts,
    Invocation,
    LaunchRequest,
    Login,
    Probe,
    Reply,
    Stop,
)
from reconciler.core.chats import CONFIG
from reconciler.errors import OperationError

# It connects to hosts as its caller does, with that one's SSH agent; and finds the program where its caller found it.
INHERITS = ("SSH_AUTH_SOCK", "KRB5CCNAME", "PYTHONPATH")
STATE_FILE, LOG_FILE = "chat-state.json", "log.jsonl"
_STATES: dict[str, ActivityState] = {
    "idle": "idle", "closed": "idle", "moderating": "busy", "gathering": "busy", "closing": "busy", "waiting": "busy",
}  # fmt: skip


class Moderator:
    """The driver for the process of a chat. It starts by the interpreter that runs the program, not by the PATH."""

    name = "moderator"
    command = sys.executable
    install = ""
    assigns_id = True
    resumable = True
    can_be_read_only = False
    activity_source = True
    version_args: tuple[str, ...] = ()
    login = Login()
    known_versions = ""

    def start(self, request: LaunchRequest) -> Invocation:
        """The process of a new chat."""
        # -P: what lies in the working directory is no module of ours.
        argv = (request.command, "-P", "-m", "reconciler.chat", request.session_dir)
        return Invocation(argv, dict(request.env), {CONFIG: request.chat}, inherits=INHERITS)

    def resume(self, request: LaunchRequest) -> Invocation:
        """The same: it goes on from its log."""
        return self.start(request)

    def turn(self, request: LaunchRequest) -> Invocation:
        """Never: a chat is no task."""
        raise OperationError("a group chat takes no headless turn", code="failed")

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """Never: a chat is no task."""
        return self.turn(request)

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """Never asked: a chat is no task."""
        return Reply(error="a group chat takes no headless turn")

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """What it says of itself, and its log."""
        return (
            Probe("chat", "file", f"{{session_dir}}/{STATE_FILE}"),
            Probe("store", "store", f"{{session_dir}}/{LOG_FILE}"),
        )

    def activity(self, facts: Facts) -> Activity:
        """Its state; who owes a turn is the detail."""
        entry = _entry(facts)
        state = _STATES.get(str(entry.get("state")))
        if state is None:
            return UNKNOWN
        since = entry.get("since")
        told = isinstance(since, int | float) and not isinstance(since, bool) and abs(since) < 1e12
        at = float(since) if told else None  # type: ignore[arg-type]
        return Activity(state, "chat", at, _detail(entry))

    def conversation(self, facts: Facts) -> str | None:
        """The id is ours."""
        return None

    def works_on(self, facts: Facts) -> str | None:
        """Never one that somebody else started."""
        return None

    def exists(self, facts: Facts) -> bool | None:
        """Whether it has a log."""
        return None if facts.store is None else any(file.size > 0 for file in facts.store)

    def ready(self, facts: Facts) -> bool | None:
        """Once it says what it does."""
        return None if facts.pid is None else bool(_entry(facts))

    def paste_text(self, text: str) -> str:
        """It has no terminal."""
        return text

    def clean_stop(self) -> Stop:
        """By signal: turns go on, and what they come to is picked up by the next process."""
        return Stop((), "TERM")

    def parse_version(self, output: str) -> str | None:
        """It is of this program's version."""
        return None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """Its log."""
        return LOG_FILE if path.endswith(f"/{LOG_FILE}") else None

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """The log, in the directory of the session."""
        return f"{{session_dir}}/{LOG_FILE}" if name == LOG_FILE else None

    def claim(self, workdir: str) -> None:
        """`restore_path` says all."""

    def export_args(self, session_id: str) -> tuple[str, ...] | None:
        """Its log is the conversation."""
        return None

    def import_args(self, file: str) -> tuple[str, ...] | None:
        """Its log is the conversation."""
        return None

    def transfer_env(self, session_dir: str) -> dict[str, str]:
        """Its log is the conversation."""
        return {}

    def store_version(self, head: str) -> str | None:
        """By its first line."""
        return None if head.startswith('{"seq":1,') else "no log of a group chat"


def _entry(facts: Facts) -> dict[str, object]:
    """What the live process says of itself, not one before it."""
    entry = _shared.json_object(facts.texts.get("chat", ""))
    return entry if facts.pid is not None and entry.get("pid") == facts.pid else {}


def _detail(entry: dict[str, object]) -> str:
    owed, cost = entry.get("owed"), entry.get("cost")
    names = [str(item.get("who", "")) for item in owed if isinstance(item, dict)] if isinstance(owed, list) else []
    words = []
    if entry.get("state") in ("moderating", "gathering", "closing", "waiting"):
        words.append(f"round {entry.get('round')} of {entry.get('max_rounds')}")
    if names:
        words.append(f"waits for {', '.join(names)}")
    if entry.get("trouble"):
        words.append(str(entry["trouble"]))
    if isinstance(cost, int | float) and 0 < cost < 1e9:
        words.append(f"${cost:.2f}")
    return "; ".join(words)[:400]


AGENT = Moderator()
