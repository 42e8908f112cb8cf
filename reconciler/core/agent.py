"""What the program must know of an agent CLI, as pure functions: specs in, argv out; text in, facts out.

An agent never does I/O. What it wants to know of a live session it declares as `Probe`s; the look
collects them and hands the text back as `Facts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from reconciler.core.observed import Facts, StoreFile

__all__ = [
    "PROMPT_ARGV_LIMIT", "UNKNOWN", "WORKDIR", "Activity", "ActivityState", "Agent", "Claim", "Facts", "Invocation",
    "LaunchRequest", "Login", "Probe", "Reply", "Stop", "StoreFile",
]  # fmt: skip

ActivityState = Literal["busy", "idle", "waiting", "unknown"]


@dataclass(frozen=True, slots=True)
class Activity:
    """What a live agent does, from which source, since when (seconds by the host's clock, None if untold)."""

    state: ActivityState
    source: str = ""  # "registry", "hook", "title", "screen": where it was read
    since: float | None = None
    detail: str = ""  # "permission prompt"


UNKNOWN = Activity("unknown")


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to read on the host at every look, under `key`.

    `path` is a template: `{home}`, `{workdir}`, `{session_id}`, `{session_id_8}` (its first 8 characters),
    `{session_dir}` (our state directory of this
    session), `{pid}` (the live agent's), `{NAME:-default}` (environment variable of the *agent's* environment,
    with a default that may itself hold `{home}`). `*` and `?` glob; everything else is literal.

    kind  "file"  the first 4 KiB of the file (no glob)
          "tail"  the last 4 KiB of the file
          "store" the files that make up the conversation: path, size and mtime of each, no content
          "names" base names of the files that match, at most 200
    """

    key: str
    kind: Literal["file", "tail", "store", "names"]
    path: str


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What a session wants of its agent for one launch. Strings may hold any character but NUL."""

    command: str  # the program, as written in the specs or the agent's own name
    workdir: str  # as written; `~/` allowed. Use the marker WORKDIR in argv where the real path is needed
    session_dir: str  # our state directory of the session on the host (absolute)
    session_id: str | None = None  # None: the CLI insists on its own
    prompt: str | None = None
    model: str | None = None
    permission_mode: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    store: tuple[StoreFile, ...] = ()  # where the conversation lies, when resuming
    chat: str = ""  # what a moderator is given, see core.chats
    read_only: bool = False  # for headless turns: it may change no file, whatever mode, args or settings say


@dataclass(frozen=True, slots=True)
class Invocation:
    """How to run the agent once.

    `files` are written to the session's directory before the launch (name -> text, no secrets), so argv and env
    name them as `request.session_dir + "/NAME"`. `delivered` says whether the prompt is part of this invocation
    ("argv", "stdin") or still has to be pasted ("paste") or was not asked for ("none").
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    stdin: str | None = None
    delivered: Literal["argv", "stdin", "paste", "none"] = "none"
    inherits: tuple[str, ...] = ()  # variables of the program that launches it that go along, where they are set


@dataclass(frozen=True, slots=True)
class Reply:
    """What a headless turn answered. There is a `text` or an `error`, and both where a turn failed half-way.

    Both come from outside, without control characters but newline and tab (`error`: one line); whoever shows them
    escapes the rest.
    """

    text: str = ""
    conversation: str | None = None  # the id that the agent names in its output
    cost: float | None = None  # US dollars of this turn
    tokens: int | None = None  # read and written
    running: bool = False  # `tokens` counts the conversation so far, not this turn alone
    error: str = ""  # one sentence, in the agent's words where it has some
    unknown: bool = False  # it does not know the conversation that it was to resume
    taken: bool = False  # the id that we chose is another conversation's


@dataclass(frozen=True, slots=True)
class Stop:
    """How the agent ends cleanly: keys for a terminal (tmux names, one send each), then the signal."""

    keys: tuple[str, ...] = ()
    signal: Literal["TERM", "INT", "HUP"] = "TERM"


# A value that only the host knows, inside a string of `argv`, `env` or `files`: the real path of the working
# directory. It holds a NUL, which no text of a user can hold, so no prompt is ever mistaken for it.
WORKDIR = "\0workdir\0"
PROMPT_ARGV_LIMIT = 100_000  # bytes of UTF-8; Linux takes at most 128 KiB per argument


def trustable(workdir: str) -> bool:
    """Whether a trust dialog may be answered for this directory: never for `/` or for a whole home directory."""
    parts = [part for part in workdir.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        return False
    if not workdir.startswith("/"):
        return not (len(parts) == 1 and parts[0].startswith("~"))
    homes = parts[0] in ("home", "Users") and len(parts) <= 2
    return not homes and parts not in (["root"], ["var", "root"])


@dataclass(frozen=True, slots=True)
class Login:
    """Where an agent's login shows: files of its own (templates with `{home}`), or variables that hold a key.

    `retention` is advice about conversations that the agent deletes by itself: the file of its settings, what stands
    in it where somebody has seen to it, and what to do. `trust` is the agent's own list of directories that it works
    in without asking: its kind (`projects`, `folders`: JSON; `toml`) and its file.
    """

    files: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    command: str = ""  # what a person runs to log in
    retention: tuple[str, str, str] | None = None
    trust: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The directory that an agent ties to a working directory, where only the host knows its name.

    Before files are put in place, `sh -c SCRIPT claim STORE ARGS...` runs there: STORE is `store`, a path template as
    in `Probe`, filled in; `args` are plain text. It finds the directory or makes one and prints its path, or exits 3
    with a sentence on stderr where it would have to guess. What it prints stands for `directory`, with which every
    restore path begins.
    """

    directory: str
    store: str
    script: str
    args: tuple[str, ...]


class Agent(Protocol):
    """A driver: one file in `reconciler/agents`, found by its name. Pure."""

    name: str
    command: str  # default program
    install: str  # the command that installs it, for remedies
    assigns_id: bool  # True: we choose the conversation id; False: it is read back with `conversation`
    resumable: bool  # False: there is no conversation (shell)
    can_be_read_only: bool  # False: a turn with `read_only` is refused
    activity_source: bool  # False: activity is never known
    version_args: tuple[str, ...]
    login: Login
    known_versions: str  # what the driver was verified with, e.g. "2.1"

    def start(self, request: LaunchRequest) -> Invocation:
        """Interactive, a new conversation with the id of the request."""

    def resume(self, request: LaunchRequest) -> Invocation:
        """Interactive, the same conversation; a prompt in the request is the next message."""

    def turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one prompt, then exit 0. Raises OperationError (read-only) where it cannot be `read_only`."""

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """Headless: one more prompt in the same conversation. Raises as `turn` does."""

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """What such a turn answered: its exit code, stdout and stderr, which may be anything and cut anywhere."""

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """What to read at each look. `session_id` is None until it is known."""

    def activity(self, facts: Facts) -> Activity:
        """busy, idle, waiting or unknown, from the best source among the facts."""

    def conversation(self, facts: Facts) -> str | None:
        """The conversation id that the live process works on, where the agent says so."""

    def works_on(self, facts: Facts) -> str | None:
        """The conversation of a live process that somebody else started; None where that cannot be told for certain.

        The facts are those of `probes(None)`; besides, the text `argv` has its arguments, each with a NUL at its end,
        and the names `open` are those of the lock files that it has open.
        """

    def exists(self, facts: Facts) -> bool | None:
        """Whether the conversation can be resumed here; None when the facts do not tell."""

    def ready(self, facts: Facts) -> bool | None:
        """Past start-up and dialogs. None: no source, a live process is all that can be known."""

    def paste_text(self, text: str) -> str:
        """`text` as it must be pasted into the TUI so that the agent reads it as a message."""

    def clean_stop(self) -> Stop:
        """How to end it so that nothing is lost."""

    def parse_version(self, output: str) -> str | None:
        """The version in what `command version_args` printed."""

    def archive_name(self, path: str, session_id: str) -> str | None:
        """The name in the archive of a file that the store probes found; None: not part of this conversation.

        Relative, with `/`; the same for every host, home and working directory the conversation lives in.
        """

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """Where a file of the archive belongs on a host: a path template as in `Probe` (`{home}`, `{NAME:-default}`).

        `workdir` is the real path of the session's working directory there. None: this agent's store takes no
        files (see `export_args`), or the name is none of its own.
        """

    def claim(self, workdir: str) -> Claim | None:
        """How a host finds the directory of its store that belongs to a working directory, where only the host knows
        its name; None where `restore_path` says all."""

    def export_args(self, session_id: str) -> tuple[str, ...] | None:
        """Arguments after the program that print the conversation on stdout, for stores that are no append-only
        files; None otherwise. The output is archived whole under `archive_name` of the driver's choosing: `export`."""

    def import_args(self, file: str) -> tuple[str, ...] | None:
        """Arguments after the program, run in the working directory, that take such an export in from `file`."""

    def transfer_env(self, session_dir: str) -> Mapping[str, str]:
        """What has to be set for exports and imports, over the environment of the agent."""

    def store_version(self, head: str) -> str | None:
        """What is unknown about a store, from the first 4 KiB of a conversation's main file; None: all is known."""
