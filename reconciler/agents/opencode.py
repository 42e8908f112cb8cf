"""OpenCode: ids of its own, reported with its activity by a plugin that is given at each launch."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Literal
from urllib.parse import quote

from reconciler.agents import _replies, _shared
from reconciler.core.agent import WORKDIR, Activity, Facts, Invocation, LaunchRequest, Login, Probe, Reply, Stop

Delivered = Literal["argv", "stdin", "paste", "none"]
_DATA = "{XDG_DATA_HOME:-{home}/.local/share}/opencode"
_DATABASES = ("database", "database-xdg")
_SESSION = re.compile(r"ses_[A-Za-z0-9]{6,64}")
_PLUGIN_FILE = "opencode-plugin.js"
# Runs inside opencode. A child that the agent's own shell starts inherits the configuration, so the plugin
# works for the first process only; sessions of subagents say nothing about the conversation.
_PLUGIN = """\
import { appendFileSync } from "node:fs"

const states = {
  "session.idle": "idle", "session.error": "idle",
  "permission.asked": "waiting", "permission.replied": "busy",
  "question.asked": "waiting", "question.replied": "busy", "question.rejected": "busy",
}

export const Reconciler = async () => {
  const owner = process.env.RECONCILER_OPENCODE_PID
  if (owner && owner !== String(process.pid)) return {}
  process.env.RECONCILER_OPENCODE_PID = String(process.pid)
  if (process.env.npm_config_fetch_retries === "0") delete process.env.npm_config_fetch_retries
  const children = new Set()
  const note = (event, state, session) => {
    const line = JSON.stringify({ at: Date.now() / 1000, event, state, session })
    try { appendFileSync(EVENTS, line + "\\n", { mode: 0o600 }) } catch {}
  }
  note("plugin.loaded", "idle", null)
  return {
    event: async ({ event }) => {
      const p = event.properties ?? {}
      if (event.type === "session.created" && p.info?.parentID) children.add(p.info.id)
      if (!p.sessionID || children.has(p.sessionID)) return
      if (event.type === "session.status") note(event.type, p.status?.type === "idle" ? "idle" : "busy", p.sessionID)
      else if (event.type in states) note(event.type, states[event.type], p.sessionID)
    },
  }
}
"""
_MODES: dict[str, tuple[str, ...]] = {
    "default": (), "ask": (), "edit": (), "plan": ("--agent", "plan"), "bypass": ("--auto",), "auto": ("--auto",),
}  # fmt: skip
_PERMISSIONS = {"ask": {"edit": "ask", "bash": "ask", "webfetch": "ask"}, "edit": {"edit": "allow", "bash": "ask"}}


# Rules of an agent come behind those of the configuration, and the last one that matches counts.
_READING = {
    "*": "deny", "bash": "deny", "edit": "deny", "task": "deny",
    "read": {"*": "allow", "*.env": "deny", "*.env.*": "deny", "*.env.example": "allow"},
    "glob": "allow", "grep": "allow", "list": "allow", "todoread": "allow", "todowrite": "allow",
}  # fmt: skip
_READER = {"mode": "primary", "permission": _READING}
# Another agent, another agent's command, or another process that knows nothing of ours.
_ELSEWHERE = frozenset(("--agent", "--command", "--attach"))


class OpenCode:
    """The driver for `opencode`."""

    name = "opencode"
    command = "opencode"
    install = "npm install -g opencode-ai"
    assigns_id = False
    resumable = True
    can_be_read_only = True
    activity_source = True
    version_args: tuple[str, ...] = ("--version",)
    login = Login(("{home}/.local/share/opencode/auth.json",), (), "opencode auth login")
    known_versions = "1.18"

    def start(self, request: LaunchRequest) -> Invocation:
        """Interactive, a new conversation; its id appears in the events."""
        prompt = request.prompt or ""
        if prompt and _shared.fits_argv(prompt):
            return _invocation(request, (), (f"--prompt={prompt}",), delivered="argv")
        return _invocation(request, (), (), delivered="paste" if prompt else "none")

    def resume(self, request: LaunchRequest) -> Invocation:
        """Interactive, the same conversation. `--prompt` is ignored beside `--session`, so it is pasted."""
        delivered: Delivered = "paste" if request.prompt else "none"
        return _invocation(request, (), (f"--session={request.session_id or ''}",), delivered=delivered)

    def turn(self, request: LaunchRequest) -> Invocation:
        """Headless, by stdin always: `run` puts quotes around an argument that holds spaces."""
        return _invocation(*_run(request), delivered="stdin")

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """Headless, the same conversation. Without its directory it hangs for ever, though the turn runs."""
        return _invocation(*_run(request, f"--session={request.session_id or ''}", "--dir", WORKDIR), delivered="stdin")

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """The texts of its last step that has some; each step says what it cost."""
        text, error, lost = "", "", False
        session: str | None = None
        parts: list[str] = []
        tokens: list[object] = []
        costs: list[float] = []
        for event in _replies.events(out):
            if event is None:
                lost = True
                continue
            session = session or _replies.matching(_SESSION, event.get("sessionID"))
            part = _replies.dictionary(event.get("part"))
            match event.get("type"), part.get("text"):
                case "step_start", _:
                    parts, error, lost = [], "", False
                case "text", str(found):
                    parts.append(found)
                    text = "\n".join(parts)
                case "step_finish", _:
                    tokens.append(_replies.dictionary(part.get("tokens")).get("total"))
                    costs += [cost] if (cost := _replies.dollars(part.get("cost"))) is not None else []
                case "error", _:
                    error = _replies.own_words(event.get("error")) or "opencode told an error without a message"
        if lost and not error:
            text, error = "", "a part of what opencode printed is missing, and its answer with it"
        failure = _replies.said(err if exit else "", "Error: ")
        return _replies.made(
            self.name, exit, out, err, text, error or failure,
            conversation=session, tokens=_replies.count(*tokens), cost=sum(costs) if costs else None,
            unknown=bool(exit and not session and failure.startswith("Error: Session not found")),
        )  # fmt: skip

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """Only whether there is a database: what is in it, `opencode export` alone can tell."""
        places = ("{OPENCODE_DB:-{home}/.local/share/opencode/opencode.db}", _DATA + "/opencode.db")
        return tuple(Probe(key, "names", path) for key, path in zip(_DATABASES, places, strict=True))

    def activity(self, facts: Facts) -> Activity:
        """From the plugin's last event."""
        return _shared.hook_activity(facts)

    def conversation(self, facts: Facts) -> str | None:
        """The session that the last event is about."""
        session = _shared.json_object(facts.event).get("session")
        return session if isinstance(session, str) and _SESSION.fullmatch(session) else None

    def works_on(self, facts: Facts) -> str | None:
        """As its arguments say: nothing else tells of one that was started without our plugin."""
        found = _shared.option_of(_shared.argv_of(facts), "-s", "--session")
        return found if found and _SESSION.fullmatch(found) else None

    def exists(self, facts: Facts) -> bool | None:
        """Not where there is no database; else only opencode itself can tell."""
        return False if all(facts.names.get(key) == () for key in _DATABASES) else None

    def ready(self, facts: Facts) -> bool | None:
        """Its title is set when its screen is drawn; there are no dialogs."""
        return facts.title == "OpenCode" or facts.title.startswith("OC | ") if facts.title else None

    def paste_text(self, text: str) -> str:
        """`/exit` and its like would run; `!` opens its shell mode when typed."""
        return _shared.pasteable(text)

    def clean_stop(self) -> Stop:
        """^C leaves at once, also mid-turn, and keeps the partial text; the first may only empty the composer."""
        return Stop(("C-c", "C-c"), "TERM")

    def parse_version(self, output: str) -> str | None:
        """`1.18.33`, alone on its line."""
        found = re.search(r"^(\d+\.\d+\.\d+\S*)$", output.strip(), re.MULTILINE)
        return found[1] if found else None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """No file of its store is one conversation's."""
        return None

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """Its store is a database."""
        return None

    def claim(self, workdir: str) -> None:
        """Its store is a database."""

    def export_args(self, session_id: str) -> tuple[str, ...] | None:
        """One conversation as JSON, from a live session too. Into a file: a pipe gets no more than its first 64 kB."""
        return ("export", session_id) if _SESSION.fullmatch(session_id) else None

    def import_args(self, file: str) -> tuple[str, ...] | None:
        """Takes in what is new by id, removes nothing, and ties the conversation to the directory it runs in."""
        return ("import", file)

    def transfer_env(self, session_dir: str) -> dict[str, str]:
        """To be set for export and import, over the environment of the agent.

        At each start opencode installs packages into its configuration directory, under a lock. These two end before
        that is done and leave the lock behind, for which the next terminal would wait a minute; so theirs is another.
        """
        return {"XDG_CONFIG_HOME": f"{session_dir}/opencode-transfer", "OPENCODE_DISABLE_PROJECT_CONFIG": "1"}

    def store_version(self, head: str) -> str | None:
        """Of an export."""
        if not re.match(r'\s*\{\s*"info":\s*\{\s*"id":\s*"ses_', head):
            return "no export of OpenCode"
        version = re.search(r'"version":\s*"([^"]*)"', head)
        return _shared.unverified(self.name, version[1] if version else None, self.known_versions)


def _config(request: LaunchRequest) -> str:
    """The session's own configuration with our plugin in it; what cannot be read is left as it is."""
    theirs = request.env.get("OPENCODE_CONFIG_CONTENT", "{}")
    config = _shared.json_object(theirs)
    if not config and theirs.strip() != "{}":
        return theirs
    plugins = config.get("plugin")
    url = "file://" + quote(f"{request.session_dir}/{_PLUGIN_FILE}")
    config["plugin"] = [*(plugins if isinstance(plugins, list) else []), url]
    if request.permission_mode in _PERMISSIONS:
        config["permission"] = _PERMISSIONS[request.permission_mode]
    return json.dumps(config)


def _run(request: LaunchRequest, *tail: str) -> tuple[LaunchRequest, tuple[str, ...], tuple[str, ...]]:
    if request.read_only:
        # A name that no configuration can know, and add to.
        reader = "read-only-" + hashlib.sha256(request.session_dir.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        args = _shared.without(request.args, frozenset(), _ELSEWHERE)
        request = replace(request, permission_mode=None, args=args, env=_reading(request, reader))
        tail = (f"--agent={reader}", *tail)
    return request, ("run", "--format", "json"), tail


def _reading(request: LaunchRequest, reader: str) -> dict[str, str]:
    theirs = request.env.get("OPENCODE_CONFIG_CONTENT", "{}")
    config = _shared.json_object(theirs)
    if not config and theirs.strip() != "{}":
        why = "OPENCODE_CONFIG_CONTENT is no JSON object, so that no permission can be added to it"
        raise _shared.not_read_only(OpenCode.name, why, "a JSON object there, or a file that OPENCODE_CONFIG names")
    agents = config.get("agent")
    config["agent"] = {**(agents if isinstance(agents, dict) else {}), reader: _READER}
    return {**request.env, "OPENCODE_CONFIG_CONTENT": json.dumps(config)}


def _invocation(
    request: LaunchRequest, head: tuple[str, ...], tail: tuple[str, ...], *, delivered: Delivered
) -> Invocation:
    mode = _shared.mode_args(OpenCode.name, _MODES, request.permission_mode)
    model = ("--model", request.model) if request.model else ()
    # Beside a plugin opencode waits for an npm download at start; unreachable, it would be retried for minutes.
    env = {"npm_config_fetch_retries": "0", **request.env, "OPENCODE_CONFIG_CONTENT": _config(request)}
    plugin = _PLUGIN.replace("EVENTS", json.dumps(f"{request.session_dir}/events"), 1)
    argv = (request.command, *head, *model, *mode, *request.args, *tail)
    files = {_PLUGIN_FILE: plugin}
    if delivered == "stdin":
        return Invocation(argv, env, files, stdin=request.prompt or "", delivered="stdin")
    return Invocation(argv, env, files, delivered=delivered)


AGENT = OpenCode()
