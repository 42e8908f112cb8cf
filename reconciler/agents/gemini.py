"""Gemini CLI: chosen ids, activity in the terminal title, and its clean-up of sessions off by default."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

from reconciler.agents import _replies, _shared
from reconciler.core.agent import (
    UNKNOWN,
    Activity,
    ActivityState,
    Claim,
    Facts,
    Invocation,
    LaunchRequest,
    Login,
    Probe,
    Reply,
    Stop,
    trustable,
)

_DEFAULTS_FILE = "gemini-defaults.json"
# Its clean-up deletes a session that was resumed in a later minute than it was started (gemini-cli #27368).
_DEFAULTS = json.dumps({"general": {"sessionRetention": {"enabled": False}}})
_STORE = "{GEMINI_CLI_HOME:-{home}}/.gemini"
# Its own order: the registry's name unless that directory is another's, else the directory that says so, else a new
# one. The registry is never written: gemini takes a directory over by its `.project_root`.
_CLAIM = r"""
umask 077; LC_ALL=C; export LC_ALL
own() { [ ! -e "$1" ] || [ "$(cat "$1" 2>/dev/null)" = "$workdir" ]; }
store=$1 workdir=$2 key=$3 dir=
name=$(sed -n 's/^ *'"$key"': "\([a-z0-9-]\{1,\}\)",\{0,1\}$/\1/p' "$store/projects.json" 2>/dev/null | head -n 1)
if [ -n "$name" ] && own "$store/tmp/$name/.project_root" && own "$store/history/$name/.project_root"; then
    dir=$store/tmp/$name
else
    for marker in "$store"/tmp/*/.project_root; do
        [ -f "$marker" ] && own "$marker" || continue
        [ -z "$dir" ] || { echo "two directories below $store/tmp claim $workdir" >&2; exit 3; }
        dir=${marker%/.project_root}
    done
fi
dir=${dir:-$store/tmp/$4}
mkdir -p "$dir/chats" || exit 1
own "$dir/.project_root" || { echo "$dir belongs to another project" >&2; exit 3; }
[ -e "$dir/.project_root" ] || (set -C; printf %s "$workdir" >"$dir/.project_root") || exit 1
printf '%s\n' "$dir"
"""
_TITLES: dict[str, ActivityState] = {"◇": "idle", "✦": "busy", "⏲": "busy", "✋": "waiting"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CHATS_FILE = re.compile(r"/chats/session-[^/]*\.jsonl$")
_MODES = {
    "ask": ("--approval-mode", "default"),
    "edit": ("--approval-mode", "auto_edit"),
    "bypass": ("--approval-mode", "yolo"),
    **{mode: ("--approval-mode", mode) for mode in ("default", "auto_edit", "yolo", "plan")},
}


_POLICY_FILE = "gemini-read-only.toml"
_POLICY = """\
[[rule]]
toolName = "*"
decision = "deny"
priority = 998

[[rule]]
toolName = ["glob", "grep_search", "list_directory", "read_file", "read_many_files", "update_topic"]
decision = "allow"
priority = 999
"""
_LOOSE = frozenset(("-y", "--yolo"))
_LOOSE_VALUED = frozenset(("--approval-mode", "--allowed-tools", "--policy", "--admin-policy"))


class Gemini:
    """The driver for `gemini`."""

    name = "gemini"
    command = "gemini"
    install = "npm install -g @google/gemini-cli"
    assigns_id = True
    resumable = True
    can_be_read_only = True
    activity_source = True
    version_args: tuple[str, ...] = ("--version",)
    login = Login(
        ("{home}/.gemini/oauth_creds.json",), ("GEMINI_API_KEY",), "gemini, then /auth",
        ("{home}/.gemini/settings.json", "sessionRetention", "gemini deletes old conversations: "
         'put "general": {"sessionRetention": {"enabled": false}} into ~/.gemini/settings.json'),
        ("folders", "{home}/.gemini/trustedFolders.json"),
    )  # fmt: skip
    known_versions = "0.61"

    def start(self, request: LaunchRequest) -> Invocation:
        """Interactive, a new conversation with the id of the request."""
        return _interactive(request, f"--session-id={request.session_id or ''}")

    def resume(self, request: LaunchRequest) -> Invocation:
        """Interactive, the same conversation; only from the working directory that it was started in."""
        return _interactive(request, f"--resume={request.session_id or ''}")

    def turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one prompt, one JSON object on stdout."""
        return _headless(request, f"--session-id={request.session_id or ''}")

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one more prompt in the same conversation."""
        return _headless(request, f"--resume={request.session_id or ''}")

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """One object on stdout, or on stderr behind whatever else it says there."""
        answer = _replies.document(out, "response", "error")
        failure = answer if answer.get("error") else _replies.document(err, "error") if exit or not answer else {}
        error = _replies.own_words(failure.get("error"))
        text, warnings = answer.get("response"), answer.get("warnings")
        if not text and not error and isinstance(warnings, list):
            error = next((words for words in warnings if isinstance(words, str)), "")  # as of its own loop detection
        models = _replies.dictionary(_replies.dictionary(answer.get("stats")).get("models")).values()
        totals = [_replies.dictionary(_replies.dictionary(model).get("tokens")).get("total") for model in models]
        lost = exit and not answer and not failure
        unknown = lost and _replies.said(err, "Error resuming session: (?:Invalid session identifier|No previous)")
        taken = lost and _replies.said(err, 'Error starting session: Session ID "[^"]*" already exists')
        found = (_replies.matching(_UUID, told.get("session_id")) for told in (answer, failure))
        return _replies.made(
            self.name, exit, out, err, text if isinstance(text, str) else "", error or unknown or taken or "",
            conversation=next((session for session in found if session), None),
            tokens=_replies.count(*totals), unknown=bool(unknown), taken=bool(taken),
        )  # fmt: skip

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """The chats file, whose name holds the first eight characters of the id."""
        if session_id is None:
            return ()
        chats = f"{_STORE}/tmp/*/chats"
        return (
            Probe("store", "store", chats + "/session-*-{session_id_8}.jsonl"),
            Probe("subagents", "store", chats + "/{session_id}/*.jsonl"),
        )

    def activity(self, facts: Facts) -> Activity:
        """From the sign that its title begins with."""
        state = _TITLES.get(facts.title[:1])
        if state is None:
            return UNKNOWN
        return Activity(state, "title", detail="action required" if state == "waiting" else "")

    def conversation(self, facts: Facts) -> str | None:
        """It does not say; the id is ours."""
        return None

    def works_on(self, facts: Facts) -> str | None:
        """As its arguments say; a number or `latest` is no id."""
        found = _shared.option_of(_shared.argv_of(facts), "--session-id", "--resume", "-r")
        return found if found and _UUID.fullmatch(found) else None

    def exists(self, facts: Facts) -> bool | None:
        """Whether a chats file of it lies there."""
        if facts.store is None:
            return None
        return any(file.size > 0 and _CHATS_FILE.search(file.path) for file in facts.store)

    def ready(self, facts: Facts) -> bool | None:
        """Not before its title is set. "Ready" also stands over its login dialog, so that proves nothing."""
        if not facts.title:
            return None
        return {"idle": None, "unknown": False}.get(self.activity(facts).state, True)

    def paste_text(self, text: str) -> str:
        """`/quit` and its like would run, behind spaces too; an invisible word joiner is not trimmed."""
        text = _shared.pasteable(text, defused=())
        return "\u2060" + text if text.lstrip().startswith(("/", "!", "?")) else text

    def clean_stop(self) -> Stop:
        """By signal, in any state.

        A declined question or an interrupted turn would rewrite the record, and a resume lose the first prompt.
        """
        return Stop((), "TERM")

    def parse_version(self, output: str) -> str | None:
        """`0.61.0`, alone on its line."""
        found = re.search(r"^(\d+\.\d+\.\d+\S*)$", output.strip(), re.MULTILINE)
        return found[1] if found else None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """The chats file, the empty twin that each resume leaves, and chats of its subagents."""
        return _shared.archived(path, f"/tmp/[^/]+/({_chats(session_id)})")

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """Below the project's directory; `claim` says which one that is on a host."""
        return f"{_project(workdir)}/{name}" if re.fullmatch(_chats(session_id), name) else None

    def claim(self, workdir: str) -> Claim:
        """How the host finds the project's directory: as gemini does itself, which then registers it."""
        key = re.sub(r"[][\\.*^$/]", r"\\\g<0>", json.dumps(workdir, ensure_ascii=False))
        name = _project(workdir).rpartition("/")[2]
        return Claim(_project(workdir), _STORE, _CLAIM, (workdir, key, name))

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
        """By its first record, which says no version."""
        first = _shared.json_object(head.partition("\n")[0])
        if not {"sessionId", "projectHash", "startTime"} <= first.keys():
            return "no chats file of Gemini CLI"
        return None if first.get("kind", "main") == "main" else "the chats file of a subagent"


def _chats(session_id: str) -> str:
    if not _UUID.fullmatch(session_id):
        return _shared.NOTHING
    return rf"chats/(?:session-[0-9T-]+-{session_id[:8]}|{session_id}/[A-Za-z0-9_-]+)\.jsonl"


def _project(workdir: str) -> str:
    """A directory of our own making: a name that no other project can have."""
    plain = re.sub(r"[^a-z0-9]+", "-", workdir.rpartition("/")[2].lower()).strip("-")[:40].strip("-") or "project"
    digest = hashlib.sha256(workdir.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_STORE}/tmp/{plain}-{digest[:16]}"


def _base(request: LaunchRequest, conversation: str) -> tuple[tuple[str, ...], dict[str, str], dict[str, str]]:
    trust = ("--skip-trust",) if trustable(request.workdir) else ()
    model = ("--model", request.model) if request.model else ()
    mode = _shared.mode_args(Gemini.name, _MODES, request.permission_mode)
    argv = (request.command, *trust, conversation, *model, *mode, *request.args)
    env = {
        # One process instead of a wrapper that ignores TERM and a child that outlives its terminal.
        "GEMINI_CLI_NO_RELAUNCH": "true",
        # Defaults only: whatever the user, the project or the administrator sets still wins.
        "GEMINI_CLI_SYSTEM_DEFAULTS_PATH": f"{request.session_dir}/{_DEFAULTS_FILE}",
        **request.env,
    }
    return argv, env, {_DEFAULTS_FILE: _DEFAULTS}


def _read_only(request: LaunchRequest) -> tuple[str, ...]:
    """Arguments of the session, then a policy in the highest tier; in the user's tier too, since an administrator's
    own switches `--admin-policy` off."""
    path = f"{request.session_dir}/{_POLICY_FILE}"
    if "," in path:  # it would be read as two paths, and a policy that is not found is passed over
        raise _shared.not_read_only(Gemini.name, f"{path} has a comma", "a state directory without one")
    args = _shared.without(request.args, _LOOSE, _LOOSE_VALUED)
    return (*args, "--approval-mode=default", f"--admin-policy={path}", f"--policy={path}")


def _interactive(request: LaunchRequest, conversation: str) -> Invocation:
    argv, env, files = _base(request, conversation)
    if not request.prompt:
        return Invocation(argv, env, files)
    if not _shared.fits_argv(request.prompt):
        return Invocation(argv, env, files, delivered="paste")
    return Invocation((*argv, f"--prompt-interactive={request.prompt}"), env, files, delivered="argv")


def _headless(request: LaunchRequest, conversation: str) -> Invocation:
    if request.read_only:
        request = replace(request, permission_mode=None, args=_read_only(request))
    argv, env, files = _base(request, conversation)
    if request.read_only:
        files = {**files, _POLICY_FILE: _POLICY}
    argv = (*argv, "--output-format", "json")
    prompt = request.prompt or ""
    if not prompt or not _shared.fits_argv(prompt):
        return Invocation(argv, env, files, stdin=prompt, delivered="stdin")
    return Invocation((*argv, f"--prompt={prompt}"), env, files, delivered="argv")


AGENT = Gemini()
