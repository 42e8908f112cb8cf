"""Codex: ids of its own, read back from its terminal title and its lock file, and no daemon."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from reconciler.agents import _replies, _shared
from reconciler.core.agent import (
    UNKNOWN,
    WORKDIR,
    Activity,
    ActivityState,
    Facts,
    Invocation,
    LaunchRequest,
    Login,
    Probe,
    Reply,
    Stop,
    trustable,
)

_HOME = "{CODEX_HOME:-{home}/.codex}"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_META = re.compile(r'\{"timestamp":"[^"]*",(?:"ordinal":\d+,)?"type":"session_meta",')
_TITLE_CONFIG = 'tui.terminal_title=["activity","run-state","thread-id"]'
# "⠙ Working | 01a1fb77-5368-7ec2-800d-20ff5...", "[ ! ] Action Required | 01a1..", "Ready | 01a1.."
_TITLE = re.compile(
    r"(?:\[ [!.] \] (?P<waiting>Action Required)|(?:\S )?(?P<state>\w+)\S*) \| (?P<id>[0-9a-f-]{20,36})(?:\.\.\.|…)?"
)
# Codex calls it at the end of a turn with one JSON argument, too long to keep. An inner quote in a JSON text is
# escaped, so that the pattern finds the real key only.
_NOTIFY = (
    r"""id=$(printf %s "$2" | sed -n 's/.*"thread-id":"\([0-9a-f-]\{36\}\)".*/\1/p'); [ -z "$id" ] || """
    r"""printf '{"at":%s,"event":"turn-complete","state":"idle","session":"%s"}\n' "$(date +%s)" "$id" >>"$1" """
)
_STATES: dict[str | None, ActivityState] = {
    "Ready": "idle", "Starting": "busy", "Working": "busy", "Thinking": "busy",
}  # fmt: skip


def _mode(sandbox: str, approval: str) -> tuple[str, ...]:
    # `-c` rather than -s and -a: `exec` and `exec resume` lack those.
    return ("-c", f'sandbox_mode="{sandbox}"', "-c", f'approval_policy="{approval}"')


_MODES = {
    "ask": _mode("workspace-write", "on-request"),
    "edit": _mode("workspace-write", "on-request"),
    "plan": _mode("read-only", "on-request"),
    "read-only": _mode("read-only", "on-request"),
    "auto": _mode("workspace-write", "never"),
    "bypass": ("--dangerously-bypass-approvals-and-sandbox",),
    "danger-full-access": ("--dangerously-bypass-approvals-and-sandbox",),
}


# A rule of the user's that allows a command would run it outside of the sandbox; apps and plugins bring tools of their
# own, agents of its own might outlive the turn. `-c` says the last word on all but the options below.
_READ_ONLY = (
    "--ignore-rules", *_mode("read-only", "never"), "-c", "features.apps=false", "-c", "features.plugins=false",
    "-c", "features.multi_agent=false", "-c", "features.multi_agent_v2=false",
)  # fmt: skip
_LOOSE = frozenset(
    ("--dangerously-bypass-approvals-and-sandbox", "--yolo", "--approve-for-me", "--full-auto", "--trust",
     "--dangerously-bypass-hook-trust", "--ignore-rules")
)  # fmt: skip
_LOOSE_VALUED = frozenset(("-s", "--sandbox"))


class Codex:
    """The driver for `codex`."""

    name = "codex"
    command = "codex"
    install = "npm install -g @openai/codex"
    assigns_id = False
    resumable = True
    can_be_read_only = True
    activity_source = True
    version_args: tuple[str, ...] = ("--version",)
    login = Login(
        ("{home}/.codex/auth.json",), ("CODEX_API_KEY",), "codex login", trust=("toml", "{home}/.codex/config.toml")
    )
    known_versions = "0.169"

    def start(self, request: LaunchRequest) -> Invocation:
        """Interactive, a new conversation; its id appears in the title."""
        return _interactive(request, (request.command, "--no-daemon"), ())

    def resume(self, request: LaunchRequest) -> Invocation:
        """Interactive, the same conversation. `-C` answers the question that another cwd raises."""
        head = (request.command, "resume", "--no-daemon", "-C", WORKDIR)
        return _interactive(request, head, (request.session_id or "",))

    def turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one prompt, JSON lines on stdout, the first of them with the id."""
        return _headless(request, (request.command, "exec"), ())

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one more prompt in the same conversation; an id that is no UUID would start a new one."""
        return _headless(request, (request.command, "exec", "resume"), (request.session_id or "",))

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """The last message of its events. What it counts is the whole conversation, at every turn."""
        text, error, thread, tokens, lost = "", "", None, None, False
        for event in _replies.events(out):
            match event:
                case None:
                    lost = True
                case {"type": "thread.started", "thread_id": found} if thread is None:
                    thread = _replies.matching(_UUID, found)
                case {"type": "item.completed", "item": {"type": "agent_message", "text": str(found)}}:
                    text, lost = found, False
                case {"type": "turn.completed", "usage": {"input_tokens": read, "output_tokens": written}}:
                    tokens, error = _replies.count(read, written), ""
                case {"type": "error" | "turn.failed"}:
                    error = _replies.own_words(event.get("error") or event.get("message")) or error
        if lost and not error:
            text, error = "", "a part of what codex printed is missing, and its answer with it"
        unknown = "Error: thread/resume: .*no rollout found for thread id "
        return _replies.made(
            self.name, exit, out, err, text, error or _replies.said(err if exit else "", "Error: "),
            conversation=thread, tokens=tokens, running=tokens is not None,
            unknown=bool(exit and not thread and _replies.said(err, unknown)),
        )  # fmt: skip

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """Which threads are held by live processes, the output of a headless run, and the rollout."""
        told = (
            Probe("locks", "names", _HOME + "/thread-writer-locks/*.lock"),
            Probe("log", "file", "{session_dir}/log"),
        )
        if session_id is None:
            return told
        return (*told, Probe("store", "store", _HOME + "/sessions/*/*/*/rollout-*-{session_id}.jsonl"))

    def activity(self, facts: Facts) -> Activity:
        """From the title that the driver asked for; without a terminal, from the end of a turn."""
        title = _TITLE.fullmatch(facts.title)
        if title is None:
            return UNKNOWN if facts.title else _shared.hook_activity(facts)
        if title["waiting"]:
            return Activity("waiting", "title", detail="action required")
        return Activity(_STATES.get(title["state"], "unknown"), "title")

    def conversation(self, facts: Facts) -> str | None:
        """The title holds the first 29 characters of the id; the lock of a thread that begins so has the rest.

        Without a terminal: the first event of `exec --json` while that thread is held, then the end of its turn.
        """
        held = {name.removesuffix(".lock") for name in facts.names.get("locks", ())}
        if facts.title:
            title = _TITLE.fullmatch(facts.title)
            full = {name for name in held if title and _UUID.fullmatch(name) and name.startswith(title["id"])}
            return full.pop() if len(full) == 1 else None
        ended = _shared.json_object(facts.event).get("session")
        if isinstance(ended, str) and _UUID.fullmatch(ended):
            return ended
        begun = _first_event(facts.texts.get("log", ""))
        return begun if begun in held else None  # the log may still begin with an earlier run

    def works_on(self, facts: Facts) -> str | None:
        """The thread whose lock this very process has open."""
        held = {*facts.names.get("locks", ())} & {*facts.names.get("open", ())}
        found = [name.removesuffix(".lock") for name in held]
        return found[0] if len(found) == 1 and _UUID.fullmatch(found[0]) else None

    def exists(self, facts: Facts) -> bool | None:
        """Whether its rollout lies there; nothing else is needed to resume it."""
        return None if facts.store is None else any(file.size > 0 for file in facts.store)

    def ready(self, facts: Facts) -> bool | None:
        """Its title has a thread id once login, trust and other dialogs are behind it."""
        return None if not facts.title else _TITLE.fullmatch(facts.title) is not None

    def paste_text(self, text: str) -> str:
        """A first `!` would run a shell command, `/quit` and its like one of its own."""
        return _shared.pasteable(text)

    def clean_stop(self) -> Stop:
        """A signal would leave no trace of the open turn, so keys: Escape interrupts, ^C twice leaves."""
        return Stop(("Escape", "C-c", "C-c", "C-c"), "TERM")

    def parse_version(self, output: str) -> str | None:
        """`codex-cli 0.169.0`."""
        found = re.search(r"^codex-cli (\d+\.\d+\.\d+\S*)", output, re.MULTILINE)
        return found[1] if found else None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """The path below `sessions/`."""
        return _shared.archived(path, f"/sessions/({_rollout(session_id)})")

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """The same path below `sessions/`: a host that knows the thread remembers where it lay."""
        return f"{_HOME}/sessions/{name}" if re.fullmatch(_rollout(session_id), name) else None

    def claim(self, workdir: str) -> None:
        """`restore_path` says all."""

    def export_args(self, session_id: str) -> tuple[str, ...] | None:
        """Its files are the conversation."""
        return None

    def import_args(self, file: str) -> tuple[str, ...] | None:
        """Its files are the conversation."""
        return None

    def transfer_env(self, session_dir: str) -> dict[str, str]:
        """Its files are the conversation."""
        return {}

    def store_version(self, head: str) -> str | None:
        """By its first record. It is longer than the head, so it is searched: keys inside of texts are escaped."""
        if not _META.match(head):
            return "no rollout of Codex"
        parent = re.search(r'"forked_from_id":"([0-9a-f-]{36})"', head)
        if parent:
            return f"a fork of {parent[1]}: it cannot be resumed where the rollout of that conversation is missing"
        version = re.search(r'"cli_version":"([^"]*)"', head)
        return _shared.unverified(self.name, version[1] if version else None, self.known_versions)


def _rollout(session_id: str) -> str:
    if not _UUID.fullmatch(session_id):
        return _shared.NOTHING
    return rf"\d{{4}}/\d\d/\d\d/rollout-[0-9T-]+-{session_id}\.jsonl"


def _first_event(log: str) -> str | None:
    for line in log.splitlines():
        event = _shared.json_object(line) if line.startswith("{") else {}
        if event:
            thread = event.get("thread_id") if event.get("type") == "thread.started" else None
            return thread if isinstance(thread, str) and _UUID.fullmatch(thread) else None
    return None


def _options(request: LaunchRequest) -> tuple[str, ...]:
    model = ("--model", request.model) if request.model else ()
    return (*model, *_shared.mode_args(Codex.name, _MODES, request.permission_mode), *request.args)


def _read_only(request: LaunchRequest) -> tuple[str, ...]:
    args = _shared.without(request.args, _LOOSE, _LOOSE_VALUED)
    return (*_options(replace(request, permission_mode=None, args=args)), *_READ_ONLY)


def _interactive(request: LaunchRequest, head: tuple[str, ...], conversation: tuple[str, ...]) -> Invocation:
    # A dotted key with quotes is not understood, so the whole table is given, for this one directory.
    trust = ("-c", f'projects={{"{WORKDIR}"={{trust_level="trusted"}}}}') if trustable(request.workdir) else ()
    argv = (*head, *trust, "-c", _TITLE_CONFIG, *_options(request))
    env = dict(request.env)
    positional = ("--", *conversation) if conversation else ()
    if not request.prompt:
        return Invocation((*argv, *positional), env)
    if not _shared.fits_argv(request.prompt):
        return Invocation((*argv, *positional), env, delivered="paste")
    return Invocation((*argv, "--", *conversation, request.prompt), env, delivered="argv")


def _headless(request: LaunchRequest, head: tuple[str, ...], conversation: tuple[str, ...]) -> Invocation:
    notify = json.dumps(["sh", "-c", _NOTIFY, "notify", f"{request.session_dir}/events"], ensure_ascii=False)
    told = ("-c", f"notify={notify}")
    options = _read_only(request) if request.read_only else _options(request)
    argv = (*head, "--json", "--skip-git-repo-check", *told, *options, "--", *conversation)
    prompt = request.prompt or ""
    # "-" means stdin even behind `--`.
    if prompt in ("", "-") or not _shared.fits_argv(prompt):
        return Invocation((*argv, "-"), dict(request.env), stdin=prompt, delivered="stdin")
    return Invocation((*argv, prompt), dict(request.env), delivered="argv")


AGENT = Codex()
