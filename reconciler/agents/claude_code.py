"""Claude Code: chosen ids, resume by path, and a status file of its own per live process."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from reconciler.agents import _replies, _shared
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
    trustable,
)

_HOME = "{CLAUDE_CONFIG_DIR:-{home}/.claude}"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TRANSCRIPT = re.compile(rf"/({_UUID.pattern})\.jsonl$", re.IGNORECASE)
_RECORD = ('{"type":"', '{"parentUuid":')
_RECORDS = {
    "agent-color", "agent-name", "agent-setting", "ai-title", "assistant", "attachment", "attribution-snapshot",
    "bridge-session", "content-replacement", "custom-title", "file-history-delta", "file-history-snapshot",
    "fork-context-ref", "frame-link", "isolation-latch", "last-prompt", "mode", "permission-mode", "pr-link",
    "progress", "queue-operation", "relocated", "summary", "system", "tag", "user", "worktree-state",
}  # fmt: skip
_SLUG_LIMIT = 200
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# `shell`: the turn is over, a command that it started runs on in the background.
_STATES: dict[str, ActivityState] = {"idle": "idle", "shell": "idle", "busy": "busy", "waiting": "waiting"}
# Whoever asks for bypass has read the specs, so its "are you sure" screen (default: exit) is answered too.
_BYPASS = (
    "--permission-mode", "bypassPermissions", "--settings", '{"skipDangerousModePermissionPrompt":true}',
)  # fmt: skip
_MODES = {
    "ask": ("--permission-mode", "default"),
    "edit": ("--permission-mode", "acceptEdits"),
    "bypass": _BYPASS,
    **{m: ("--permission-mode", m) for m in ("default", "acceptEdits", "auto", "dontAsk", "plan")},
    "bypassPermissions": _BYPASS,
}


# The first two whatever permissions say: tools that are not listed are not there, and a denied one is denied in every
# mode, also where arguments of the session list it again. The last: nobody is there to be asked.
_READ_ONLY = (
    "--tools", "Read,Grep,Glob,WebFetch,WebSearch",
    "--disallowedTools", "Bash,Edit,Write,NotebookEdit,Agent,Workflow,Skill,EnterWorktree,CronCreate,mcp__*",
    "--strict-mcp-config", "--permission-mode", "dontAsk",
)  # fmt: skip


class ClaudeCode:
    """The driver for `claude`."""

    name = "claude-code"
    command = "claude"
    install = "npm install -g @anthropic-ai/claude-code"
    assigns_id = True
    resumable = True
    can_be_read_only = True
    activity_source = True
    version_args: tuple[str, ...] = ("--version",)
    login = Login(
        ("{home}/.claude/.credentials.json",), ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        "claude, then /login",
        ("{home}/.claude/settings.json", "cleanupPeriodDays", "claude deletes conversations after 30 days: "
         'put "cleanupPeriodDays": 3650 into ~/.claude/settings.json'),
        ("projects", "{home}/.claude.json"),
    )  # fmt: skip
    known_versions = "2.1"

    def start(self, request: LaunchRequest) -> Invocation:
        """Interactive, a new conversation with the id of the request."""
        return _interactive(request, ("--session-id", request.session_id or ""))

    def resume(self, request: LaunchRequest) -> Invocation:
        """Interactive, the same conversation; by path where its one file is known, which any cwd can do."""
        return _interactive(request, ("--resume", _target(request)))

    def turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one prompt, one JSON object on stdout."""
        return _headless(request, ("--session-id", request.session_id or ""))

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one more prompt in the same conversation."""
        return _headless(request, ("--resume", _target(request)))

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """From its result; its `subtype` says "success" on errors too."""
        result = _replies.document(out, "result", "is_error")
        text, errors = result.get("result"), result.get("errors")
        failed = result.get("is_error") is not False or not isinstance(text, str)
        told = (text, *(errors if isinstance(errors, list) else ()), result.get("subtype"))
        error = next((words for words in told if isinstance(words, str) and words), "")
        return _replies.made(
            self.name, exit, out, err, "" if failed else str(text), error if failed else "",
            conversation=_replies.matching(_UUID, result.get("session_id")),
            cost=_replies.dollars(result.get("total_cost_usd")),
            tokens=_tokens(result),
            unknown=bool(exit and not result and _replies.said(err, "No conversation found with session ID: ")),
            taken=bool(exit and not result and _replies.said(err, "Error: Session ID [0-9a-fA-F-]+ is already in use")),
        )  # fmt: skip

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """Its status file by pid, and the transcript with what lies beside it."""
        status = Probe("status", "file", _HOME + "/sessions/{pid}.json")
        if session_id is None:
            return (status,)
        base = _HOME + "/projects/*/{session_id}"
        beside = (
            ("subagents", "/subagents/*"), ("subagents-2", "/subagents/*/*"), ("subagents-3", "/subagents/*/*/*"),
            ("tool-results", "/tool-results/*"),
        )  # fmt: skip
        return (status, Probe("store", "store", base + ".jsonl"), *(Probe(k, "store", base + p) for k, p in beside))

    def activity(self, facts: Facts) -> Activity:
        """From its own registry: `sessions/<pid>.json`, which lists only live interactive processes."""
        entry = _entry(facts)
        state = _STATES.get(str(entry.get("status")))
        if state is None:
            return UNKNOWN
        since, waiting = entry.get("statusUpdatedAt"), entry.get("waitingFor")
        return Activity(
            state,
            "registry",
            since / 1000 if isinstance(since, int) and abs(since) < 1e15 else None,
            waiting[:80] if state == "waiting" and isinstance(waiting, str) else "",
        )

    def conversation(self, facts: Facts) -> str | None:
        """`sessionId` of the live process; it changes with `/clear`."""
        session_id = _entry(facts).get("sessionId")
        return session_id if isinstance(session_id, str) and _UUID.fullmatch(session_id) else None

    def works_on(self, facts: Facts) -> str | None:
        """As its registry says; arguments tell where it began, not where a `/clear` has brought it."""
        return self.conversation(facts)

    def exists(self, facts: Facts) -> bool | None:
        """Whether a transcript that is not empty lies there; the files beside it resume nothing."""
        if facts.store is None:
            return None
        return any(file.size > 0 and _TRANSCRIPT.search(file.path) for file in facts.store)

    def ready(self, facts: Facts) -> bool | None:
        """The status file appears once onboarding and dialogs are behind it."""
        return None if facts.pid is None else bool(_entry(facts))

    def paste_text(self, text: str) -> str:
        """A first `!` would run a shell command, `/` one of its own."""
        return _shared.pasteable(text)

    def clean_stop(self) -> Stop:
        """Escape ends a turn or declines a question, ^C empties the composer, `/exit` leaves at any pace of keys."""
        return Stop(("Escape", "C-c", "/exit", "Enter"), "TERM")

    def parse_version(self, output: str) -> str | None:
        """`2.1.197 (Claude Code)`."""
        found = re.search(r"^(\d+\.\d+\.\d+\S*) \(Claude Code\)", output, re.MULTILINE)
        return found[1] if found else None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """`<uuid>.jsonl` and what lies beside it: subagents and large tool results."""
        return _shared.archived(path, f"/projects/[^/]+/({_parts(session_id)})")

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """Below the directory whose name stands for the working directory: a resume by id looks there alone."""
        known = _shared.archived(f"/{name}", f"^/({_parts(session_id)})")
        return f"{_HOME}/projects/{_slug(workdir)}/{name}" if known else None

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
        """By the types of its records, and the version that messages carry."""
        lines = head.splitlines()
        if not lines or not lines[0].startswith(_RECORD):
            return "no transcript of Claude Code"
        records = [_shared.json_object(line) for line in lines]
        kinds = {str(record.get("type")) for record in records if record} - _RECORDS
        if kinds:
            return f"records of an unknown type: {', '.join(sorted(kinds))[:80]}"
        versions = [record["version"] for record in records if isinstance(record.get("version"), str)]
        return _shared.unverified(self.name, versions[0] if versions else None, self.known_versions)


def _tokens(result: dict[str, Any]) -> int | None:
    """Of all models, subagents' too."""
    kinds = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    models = _replies.dictionary(result.get("modelUsage")).values()
    return _replies.count(*(_replies.dictionary(model).get(kind) for model in models for kind in kinds))


def _entry(facts: Facts) -> dict[str, Any]:
    """The status file, if it is this very process's: a killed one leaves its file, and pids come again."""
    entry = _shared.json_object(facts.texts.get("status", ""))
    if facts.pid is None or entry.get("pid") != facts.pid:
        return {}
    born = entry.get("procStart")
    return {} if born and facts.started and str(born) != facts.started else entry


def _parts(session_id: str) -> str:
    if not _UUID.fullmatch(session_id):
        return _shared.NOTHING
    return rf"{session_id}(?:\.jsonl|/(?:subagents|tool-results)(?:/[^/]+){{1,4}})"


def _slug(workdir: str) -> str:
    """The directory name for a working directory; a long one is cut and ends with a hash of the whole."""
    raw = workdir.encode("utf-16-le", "surrogatepass")
    units = [int.from_bytes(raw[at : at + 2], "little") for at in range(0, len(raw), 2)]
    slug = "".join(chr(unit) if unit < 128 and chr(unit).isalnum() else "-" for unit in units)
    if len(slug) <= _SLUG_LIMIT:
        return slug
    value = 0
    for unit in units:
        value = (value * 31 + unit) & 0xFFFFFFFF
    return f"{slug[:_SLUG_LIMIT]}-{_base36(min(value, (1 << 32) - value))}"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def _target(request: LaunchRequest) -> str:
    wanted = f"/{request.session_id}.jsonl"
    paths = [file.path for file in request.store if file.size > 0 and file.path.endswith(wanted)]
    # Two copies: which one is meant only the cwd tells, and the id looks there.
    return paths[0] if len(paths) == 1 else request.session_id or ""


def _options(request: LaunchRequest, conversation: tuple[str, str]) -> tuple[str, ...]:
    model = ("--model", request.model) if request.model else ()
    mode = _shared.mode_args(ClaudeCode.name, _MODES, request.permission_mode)
    return (*conversation, *model, *mode, *request.args)


def _headless_options(request: LaunchRequest, conversation: tuple[str, str]) -> tuple[str, ...]:
    if not request.read_only:
        return _options(request, conversation)
    return (*_options(replace(request, permission_mode=None), conversation), *_READ_ONLY)


def _interactive(request: LaunchRequest, conversation: tuple[str, str]) -> Invocation:
    argv = (request.command, *_options(request, conversation))
    # Read at one place in the program: "is this cwd trusted". Permission rules and modes do not look at it.
    env = {"CLAUDE_CODE_SANDBOXED": "1"} if trustable(request.workdir) else {}
    env.update(request.env)
    if not request.prompt:
        return Invocation(argv, env)
    if not _shared.fits_argv(request.prompt):
        return Invocation(argv, env, delivered="paste")
    return Invocation((*argv, "--", request.prompt), env, delivered="argv")


def _headless(request: LaunchRequest, conversation: tuple[str, str]) -> Invocation:
    argv = (request.command, "--print", "--output-format", "json", *_headless_options(request, conversation))
    prompt = request.prompt or ""
    if not _shared.fits_argv(prompt):
        return Invocation(argv, dict(request.env), stdin=prompt, delivered="stdin")
    return Invocation((*argv, "--", prompt), dict(request.env), delivered="argv")


AGENT = ClaudeCode()
