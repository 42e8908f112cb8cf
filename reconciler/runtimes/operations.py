"""The shell texts of a look and of the operations under the guard, made from data. Quotes; decides nothing."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reconciler.core import jsons
from reconciler.core.agent import WORKDIR, Invocation, Probe
from reconciler.core.record import Record
from reconciler.errors import HostError, OperationError
from reconciler.runtimes import Runtime
from reconciler.runtimes.scripts import text
from reconciler.transports.quoting import quote

_PLACEHOLDER = re.compile(
    r"\{(?:(?P<name>home|workdir|session_dir)|(?P<variable>[A-Za-z_][A-Za-z0-9_]*):-(?P<default>(?:[^{}]|\{home\})*))\}"
)
_HERE = {"home": "$HOME", "workdir": "$workdir", "session_dir": "$dir"}


@dataclass(frozen=True)
class Credentials:
    """Under which name an operation acts: fleet, controller, the fence it carries, seconds its lease lasts."""

    fleet: str
    holder: str
    fence: int = 0
    ttl: int = 60


@dataclass(frozen=True)
class Place:
    """A staged file (`incoming/<number>` in the session's directory) and the path template where it belongs."""

    number: int
    size: int
    sha256: str
    path: str


@dataclass(frozen=True)
class Claim:
    """How the host finds the directory that stands for `directory` in the paths of places: `sh -c script` says it."""

    directory: str
    store: str
    script: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """All that one launch needs. `environment` holds resolved secrets: it travels on stdin and a FIFO only."""

    session: str
    expect: int
    record: Record
    command: str
    invocation: Invocation
    workdir: str
    probes: tuple[Probe, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    shell: str = ""
    tmux_conf: str = ""
    conversation: str = ""
    snapshot: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    claim: Claim | None = None
    imports: tuple[tuple[str, ...], ...] = ()  # arguments of the agent's own import, one call each
    import_env: Mapping[str, str] = field(default_factory=dict)


def look_definition() -> str:
    """What a long-lived shell is told once; it defines `reconciler_look`."""
    return "".join(map(text, ("common", "look", "sessions", "probes")))


def glance_definition() -> str:
    """What it is told before it looks for the second time: how to tell that nothing has changed."""
    return text("glance")


def look_call(
    fleet: str, nonce: str, checks: Sequence[tuple[str, str]] = (), since: str = "", *, panes: bool = True
) -> str:
    """One line that makes that shell look. `checks` are pairs of "command" or "directory" and a value.

    `since` is the nonce of an answer that it may say still holds (`same`); without `panes` it does not ask tmux.
    """
    ways = [nonce, *(() if panes else ("panes", "elsewhere")), *(("since", since) if since else ())]
    head, tail = _quoted(("reconciler_look", fleet)), _quoted(tuple(word for check in checks for word in check))
    return f"{head} {quote(ways)} {tail}".rstrip(" ") + "\n"


@lru_cache(maxsize=1024)
def _quoted(words: tuple[str, ...]) -> str:
    """Each look at a host asks for the same."""
    return quote(words)


_PANES = "#{session_name}\t#{pane_pid}\t#{pane_dead}\t#{session_attached}\t#{pane_title}"
CONTROL = "_ctl"  # the hidden session of control clients; no session of a fleet can have this name
NEWS_OF_END = "news"  # what its window is called once an agent has ended; run.sh does the same


def pane_question() -> str:
    """What a control client is asked for all panes of its server."""
    return f"list-panes -a -F '{_PANES}'\n"


def control_command(path: str, state_dir: str) -> tuple[str, ...]:
    """A control client of the fleet's tmux server, under the login PATH. Starts no server; ends with its channel.

    The death of a pane that is kept is pushed to nobody; a hook renames our own window then, which is. In a hook
    nothing is pushed either, hence `run-shell -b`; it looks first whether we are there, since tmux shows errors to
    whoever attaches next.
    """
    here = f"#{{S:#{{?#{{==:#{{session_name}},{CONTROL}}},1,}}}}"
    hook = f"if-shell -F '{here}' 'run-shell -b -C \"rename-window -t ={CONTROL}: {NEWS_OF_END}\"'"
    argv = [
        "tmux", "-u", "-N", "-S", f"{state_dir}/tmux", "-C", "new-session", "-A", "-s", CONTROL, "-x", "20", "-y", "5",
        "-f", "no-output,ignore-size", "exec cat", ";",
        "set-option", "-t", f"={CONTROL}:", "destroy-unattached", "on", ";",
        "set-option", "-t", f"={CONTROL}:", "status", "off", ";", "set-hook", "-g", "pane-died[77]", hook,
    ]  # fmt: skip
    return "sh", "-c", f"PATH={quote([path])}; export PATH; unset TMUX; umask 077; exec {quote(argv)}"


def doctor_script(path: str, nonce: str, words: Sequence[str]) -> str:
    """What tells what a host is like, under the login PATH; `words` are those of `reconciler_doctor`."""
    return settings(PATH=path) + "export PATH\n" + text("doctor") + quote(["reconciler_doctor", nonce, *words]) + "\n"


def strays_script(path: str, nonce: str) -> str:
    """What tells which processes run on a host and in which terminals, under the login PATH."""
    body = f"LC_ALL=C\nexport LC_ALL PATH\nstrays {quote([nonce])}\n"
    return settings(PATH=path) + look_definition() + text("strays") + body


def stray_facts_script(path: str, nonce: str, found: Sequence[tuple[int, Sequence[Probe]]]) -> str:
    """What tells of each of these processes what its agent's probes find; lines as a look's, the name is `pPID`."""
    lines = [f"LC_ALL=C\nexport LC_ALL PATH\nlook_count=0\nprintf 'begin\\t%s\\n' {quote([nonce])}"]
    for pid, probes in found:
        lines.append(f"stray_probes() {{ :\n{probe_lines(probes)}}}")
        lines.append(quote(["stray", str(pid), "stray_probes", *variables_of(probes)]))
    lines.append(f"printf 'end\\t%s\\n' {quote([nonce])}\n")
    return settings(PATH=path) + look_definition() + text("strays") + "\n".join(lines)


def probe_lines(probes: Sequence[Probe]) -> str:
    """Lines of sh that print probes for the look, one `kind TAB key TAB path` each."""
    return "".join(
        f"printf '%s\\t%s\\t%s\\n' {quote([probe.kind, probe.key])} {probe_path(probe.path)}\n" for probe in probes
    )


def variables_of(probes: Sequence[Probe]) -> tuple[str, ...]:
    """The environment variables that the paths of probes name."""
    found = (match["variable"] for probe in probes for match in _PLACEHOLDER.finditer(probe.path))
    return tuple(dict.fromkeys(name for name in found if name))


def _value(value: str) -> str:
    """A shell word for `value`, with the marker of the working directory as the variable that holds it."""
    return '"$workdir"'.join(quote([part]) for part in value.split(WORKDIR))


def settings(**values: str | int) -> str:
    """Lines of sh that set variables."""
    return "".join(f"{name}={quote([str(value)])}\n" for name, value in values.items())


def script(
    runtime: Runtime | None, credentials: Credentials, op: str, nonce: str, body: str, library: str = "",
    **more: str | int,
) -> str:  # fmt: skip
    """The whole text of an operation; `library` comes after those that all have."""
    words = settings(
        FLEET=credentials.fleet,
        HOLDER=credentials.holder,
        FENCE=credentials.fence,
        TTL=credentials.ttl,
        OP=op,
        NONCE=nonce,
        **more,
    )
    # One compound command, so that the shell has read all of it before it begins: nothing of the text is left
    # on stdin when the connection breaks.
    before = text("common") + text("guard") + (runtime.script if runtime else "") + library
    return words + before + "{\n" + body + "\nexit 0\n}\n"


def lease_operation(
    credentials: Credentials, nonce: str, dead: str = "", local: str = "", take_local: bool = False
) -> str:
    """Acquire the lease, which raises the fence. `dead` names a holder whose death is proven, or that a person says
    is gone.

    `local` says which machine the fleet's host `local` is (`machine-id host-name`); the first to say so is kept,
    unless `take_local`.
    """
    take = {"TAKE": "y"} if take_local else {}
    return script(None, credentials, "lease", nonce, "guard ''", DEAD=dead, LOCAL=local, **take)


def holder_question(fleet: str, nonce: str) -> str:
    """Who holds the lease, and which machine `local` is; changes nothing."""
    return script(None, Credentials(fleet, ""), "holder", nonce, "op_holder", text("holder"))


def renew_operation(credentials: Credentials, nonce: str) -> str:
    """Keep the lease for another `ttl` seconds."""
    return script(None, credentials, "renew", nonce, "guard ''")


def release_operation(credentials: Credentials, nonce: str) -> str:
    """Give the lease back."""
    return script(None, credentials, "unlease", nonce, "guard ''")


def launch_operation(runtime: Runtime, credentials: Credentials, op: str, nonce: str, launch: Launch) -> str:
    """Write the record, then start the agent through its wrapper."""
    end = secrets.token_hex(16)
    return script(
        runtime,
        credentials,
        op,
        nonce,
        f"guard session-{launch.session}\nop_launch",
        NAME=launch.session,
        EXPECT=launch.expect,
        INCARNATION=launch.record.incarnation,
        RECORD=launch.record.to_json(),
        LAUNCH=launch_text(credentials.fleet, launch, end),
        EXPORTS=exports(launch.environment),
        END=end,
        CONVERSATION=launch.conversation,
        WAIT=110 if launch.imports else 25,  # an import starts a whole agent; within the time of an operation
        RECONCILER_SHELL=launch.shell,
        TMUX_CONF=launch.tmux_conf,
    )


def stop_operation(
    runtime: Runtime,
    credentials: Credentials,
    op: str,
    nonce: str,
    *,
    session: str,
    expect: int,
    keys: Sequence[str],
    signal: str,
    record: Record,
) -> str:
    """End the agent: its keys, then the signal, then KILL; then write the record."""
    return script(
        runtime,
        credentials,
        op,
        nonce,
        f"guard session-{session}\nop_stop",
        NAME=session,
        EXPECT=expect,
        KEYS=" ".join(keys),
        SIGNAL=signal,
        RECORD=record.to_json(),
    )


def send_operation(
    runtime: Runtime,
    credentials: Credentials,
    op: str,
    nonce: str,
    *,
    session: str,
    expect: int,
    message: str,
    record: Record | None,
    before: str | None = None,
) -> str:
    """Paste one message into the session's terminal and submit it, unless another prompt than `before` was sent."""
    return script(
        runtime,
        credentials,
        op,
        nonce,
        f"guard session-{session}\nop_send",
        NAME=session,
        EXPECT=expect,
        TEXT=message,
        HAS=f'"prompt":{json.dumps(before)},',
        RECORD=record.to_json() if record else "",
    )


def record_operation(
    credentials: Credentials, op: str, nonce: str, record: Record, expect: int, file: tuple[str, str] = ("", "")
) -> str:
    """Replace the record of a session that goes on as it is; first a file (name, text) in its directory."""
    return script(
        None,
        credentials,
        op,
        nonce,
        f"guard session-{record.name}\nop_record",
        NAME=record.name,
        EXPECT=expect,
        RECORD=record.to_json(),
        CONVERSATION=record.conversation or "",
        FILE=file[0],
        TEXT=file[1],
    )


def rename_operation(
    runtime: Runtime, credentials: Credentials, op: str, nonce: str, *, session: str, expect: int, record: Record
) -> str:
    """Give a session that goes on the name that its record bears."""
    return script(
        runtime,
        credentials,
        op,
        nonce,
        f"guard session-{session}\nop_rename",
        NAME=session,
        TO=record.name,
        EXPECT=expect,
        RECORD=record.to_json(),
    )


def forget_operation(runtime: Runtime, credentials: Credentials, op: str, nonce: str, session: str, expect: int) -> str:
    """Stop managing a session; it goes on."""
    return script(runtime, credentials, op, nonce, f"guard session-{session}\nop_forget", NAME=session, EXPECT=expect)


def adopt_operation(
    credentials: Credentials, op: str, nonce: str, *, record: Record, pid: int, start: str, probes: Sequence[Probe]
) -> str:
    """Take the process `pid`, if it is still the one that began at `start`, under management as it runs."""
    socket, pane = record.terminal or ("", "")
    return script(
        None,
        credentials,
        op,
        nonce,
        f"session_probes() {{ :\n{probe_lines(probes)}}}\nguard session-{record.name}\nop_adopt",
        text("strays") + text("adopt"),
        NAME=record.name,
        EXPECT=record.incarnation - 1,
        INCARNATION=record.incarnation,
        RECORD=record.to_json(),
        CONVERSATION=record.conversation or "",
        PID=pid,
        START=start,
        SOCKET=socket,
        PANE=pane,
        VARIABLES=" ".join(variables_of(probes)),
    )


def exports(environment: Mapping[str, str]) -> str:
    """Lines of sh that export an environment."""
    for name in environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise OperationError(f"{name!r} cannot name an environment variable", code="failed")
    return "\n".join(f"export {name}={_value(value)}" for name, value in environment.items())


def probe_path(path: str) -> str:
    """A double-quoted shell expression for a probe's path template; `{pid}`, `{session_id}` stay for the look."""

    def literal(part: str) -> str:
        return re.sub(r'([\\"$`])', r"\\\1", part)

    out, at = [], 0
    for match in _PLACEHOLDER.finditer(path):
        out.append(literal(path[at : match.start()]))
        if match["name"]:
            out.append("${" + _HERE[match["name"]][1:] + "}")
        else:
            default = "${HOME}".join(literal(part) for part in match["default"].split("{home}"))
            out.append("${" + match["variable"] + ":-" + default + "}")
        at = match.end()
    out.append(literal(path[at:]))
    return '"' + "".join(out) + '"'


def launch_text(fleet: str, launch: Launch, end: str, ending: str = "run", **more: str | int) -> str:
    """The launch script of one incarnation: settings, the wrapper, the agent's argv. No secret.

    `ending` is the script that runs the agent and notes how it ended; `more` are settings for it.
    """
    invocation = launch.invocation
    head = "#!/bin/sh\n" + f"# session {launch.session}, incarnation {launch.record.incarnation}\n"
    words = settings(
        name=launch.session,
        fleet=fleet,
        incarnation=launch.record.incarnation,
        shell=launch.shell,
        workdir=launch.workdir,
        command=launch.command,
        end=end,
        **more,
    )
    here = 'dir=${0%/*}\ncase $dir in /*) ;; *) dir=$(cd -- "$dir" && pwd) ;; esac\n'
    files = dict(invocation.files)
    if invocation.stdin is not None:
        files["stdin"] = invocation.stdin
    writes = "".join(f'(umask 077; emit {_value(body)} >"$dir/"{quote([name])})\n' for name, body in files.items())
    lines = (
        f'(umask 077; {{ :\n{probe_lines(launch.probes)}}} >"$dir/probe.tmp") && mv -f "$dir/probe.tmp" "$dir/probe"\n'
    )
    lines += _conversation_lines(launch)
    argv = " ".join(['set -- "$command"', *(_value(arg) for arg in invocation.argv[1:])])
    return head + words + here + text("common") + text("launch") + writes + lines + argv + "\n" + text(ending)


def _conversation_lines(launch: Launch) -> str:
    """The lines that keep a copy of the conversation's files and put the archive's in place."""
    lines = ['rm -rf "$dir/snapshot"'] if launch.snapshot else []
    lines += [f"keep {quote([path, str(number)])}" for number, path in enumerate(launch.snapshot)]
    if launch.claim is not None:
        found = launch.claim
        words = f"{quote(['sh', '-c', found.script, 'claim'])} {probe_path(found.store)} {quote(found.args)}"
        why = '$(head -c 400 "$dir/claim.err")'
        lines.append(f'claimed=$({words} 2>"$dir/claim.err") || {{ over 1 sync-failed "{why}"; exit 1; }}')
    lines += [f"place {p.number} {p.size} {p.sha256} {_place_path(launch, p.path)}" for p in launch.places]
    lines += [exports(launch.import_env)] if launch.imports and launch.import_env else []
    lines += [f"take_in {' '.join(_value(arg) for arg in arguments)}" for arguments in launch.imports]
    if launch.places or launch.imports:
        lines.append('rm -rf "$dir/incoming"')
    return "(umask 077\n:" + "\n".join(["", *lines]) + "\n) || exit 1\n" if lines else ""


def _place_path(launch: Launch, path: str) -> str:
    """Where a place lies; below what the host has claimed, where it has to find that out itself."""
    if launch.claim is not None and path.startswith(launch.claim.directory + "/"):
        return '"$claimed"' + probe_path(path[len(launch.claim.directory) :])
    return probe_path(path)


def restore_operation(
    runtime: Runtime, credentials: Credentials, op: str, nonce: str, *, session: str, expect: int, record: Record
) -> str:
    """After a resume that failed: end what came up, and put the snapshot of the conversation back."""
    return script(
        runtime,
        credentials,
        op,
        nonce,
        f"guard session-{session}\nop_restore",
        NAME=session,
        EXPECT=expect,
        KEYS="",
        SIGNAL="TERM",
        RECORD=record.to_json(),
    )


def parse_answer(host: str, nonce: str, output: bytes) -> dict[str, Any]:
    """The answer of an operation, refusals included. Raises HostError(look-truncated) where there is none."""
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        # What a login prints to everybody may stand before it, and end without a newline.
        text = line.partition(f"answer\t{nonce}\t")[2]
        if text:
            try:
                answer = jsons.loads(text)
            except ValueError:
                break
            if isinstance(answer, dict):
                return answer
    raise HostError(f"{host}: an operation was cut short; what it did shows at the next look", code="look-truncated")
