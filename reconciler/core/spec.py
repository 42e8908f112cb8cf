"""What people declare, as frozen models whose fields are the keys of the spec files; and `Desired`, all of it.

The order of the fields is the canonical order of the keys (`fmt`), and the descriptions are the spec reference
and the JSON Schema. Checks that need more than one value are in `core.checks`, where positions are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from reconciler.core.host_spec import (
    BUILT_IN_AGENTS,
    AgentAuth,
    AgentSpec,
    Auth,
    Fleet,
    Host,
    HostAgent,
    KeyAuth,
    Model,
    NodeOptions,
    PasswordAuth,
    Strategy,
)
from reconciler.core.notifier_spec import Notifier
from reconciler.core.values import (
    Argv,
    CommandLine,
    Count,
    Duration,
    Env,
    Flag,
    FlagOrNames,
    Labels,
    Port,
    PositiveCount,
    PositiveDuration,
    Text,
    Words,
)
from reconciler.core.window_spec import Window

__all__ = [
    "BUILT_IN_AGENTS", "AgentAuth", "AgentSpec", "Auth", "Dependency", "Desired", "Fleet", "GroupChat", "Host",
    "HostAgent", "KeyAuth", "Model", "Moderator", "Moved", "NodeOptions", "Notifier", "PasswordAuth", "Playbook",
    "Ready", "Removed", "Restart", "Session", "Source", "Stop", "Strategy", "Sync", "Window", "Workspace",
]  # fmt: skip

OnPromptChange = Literal["send", "restart", "ignore"]
MODERATOR = "moderator"  # the agent of the session that a group chat is
Until = Literal["started", "ready", "idle", "completed"]


class Workspace(Model):
    """A worktree or clone made for one session."""

    repo: Text = Field(description="Repository URL, or path on the host.")
    branch: Text | None = Field(None, description="Branch of the session.")
    base: Text = Field("main", description="Where a new branch starts.")
    kind: Literal["worktree", "clone"] = Field("worktree", description="A worktree of a shared clone, or a clone.")
    setup: Words = Field((), description="Commands to run once in a new workspace.")
    links: Mapping[str, str] = Field({}, description="Links to make in the workspace: name to target.")


class Dependency(Model):
    """Another session that has to come first."""

    session: Text = Field(description="Its name.")
    until: Until = Field("ready", description="What it has to be before this session starts.")


class Ready(Model):
    """When a session counts as ready. At most one of `pattern`, `command` and `port`; default: the agent's way."""

    pattern: Text | None = Field(None, description="Regular expression: on the screen.")
    command: CommandLine | None = Field(None, description="Exits 0 on the host. An argv, or one string for `sh`.")
    port: Port | None = Field(None, description="Accepts connections on the host.")
    timeout: PositiveDuration = Field(60.0, description="Not ready by then is a failed start.")


class Restart(Model):
    """What happens when the agent's process ends by itself."""

    policy: Literal["always", "on_failure", "never"] = Field("on_failure", description="When to start it again.")
    budget: Count = Field(5, description="Restarts allowed per `per`; then the session is stalled.")
    per: PositiveDuration = Field(3600.0, description="The window of the budget.")


class Stop(Model):
    """How a session is stopped. Only an *observed* busy or waiting agent delays a stop."""

    when: Literal["idle", "now"] = Field("idle", description="Wait until it is idle, or not.")
    timeout: Duration = Field(600.0, description="How long to wait for idle.")
    then: Literal["interrupt", "block"] = Field(
        "interrupt", description="Past the timeout: stop all the same, or leave it and say so."
    )


class Sync(Model):
    """What is copied between the archive and the host."""

    transcript: Flag = Field(True, description="Keep the transcript in the archive.")
    history: Flag = Field(False, description="Keep the agent's prompt history too.")
    interval: PositiveDuration = Field(30.0, description="How often.")


def _dependency(value: object) -> object:
    return {"session": value} if isinstance(value, str) else value


class Session(Model):
    """One agent session."""

    host: Text = Field("local", description="Where it runs. Editing it *moves* the session.")
    agent: Text = Field(
        description="A built-in agent (`claude-code`, `codex`, `opencode`, `gemini`, `shell`) or a declared one."
    )
    state: Literal["running", "stopped"] = Field("running", description="What it should be.")
    suspend: Flag = Field(False, description="Nothing is done to it, whatever the specs say; observed only.")
    lifecycle: Literal["service", "task"] = Field(
        "service", description="Kept running; or one headless prompt, where exit 0 is *complete*."
    )
    workdir: Text | None = Field(None, description="Working directory. Default: the host's.")
    workspace: Workspace | None = Field(None, description="Worktree or clone to make and work in.")
    prompt: Text | None = Field(None, description="First message.")
    prompt_file: Text | None = Field(
        None, description="File with the first message, relative to the file that names it."
    )
    on_prompt_change: OnPromptChange = Field(
        "send", description="An edited prompt is the next message, a reason to restart, or ignored."
    )
    model: Text | None = Field(None, description="Model. Changing it resumes the conversation under a new process.")
    permission_mode: Text | None = Field(None, description="The agent's permission mode.")
    args: Words = Field((), description="Further arguments. For the agent `shell`: its command.")
    env: Env = Field({}, description="Environment. Secret-capable.")
    strategy: Strategy | None = Field(None, description="What keeps it alive. Default: the host's.")
    depends_on: tuple[
        Annotated[Dependency, BeforeValidator(_dependency, json_schema_input_type=str | Dependency)], ...
    ] = Field((), description="Sessions to wait for: a name (until ready), or a table.")
    ready: Ready | None = Field(None, description="When it counts as ready. Default: the agent's way.")
    restart: Restart = Field(Restart(), description="When its process ends by itself.")
    stop: Stop = Field(Stop(), description="How it is stopped.")
    sync: Sync = Field(Sync(), description="What is copied to and from the archive.")
    protect: Flag = Field(False, description="Never stopped, moved or restarted until unprotected.")
    ignore: Words = Field((), description="Keys of this table whose drift is not acted on.")
    labels: Labels = Field({}, description="For `--select`.")
    description: str | None = Field(None, description="For people.")


class Moderator(Model):
    """Who leads a group chat: a session by its name (`session`), or an agent of its own."""

    session: Text | None = Field(None, description="A session's name.")
    host: Text = Field("local", description="Where it runs.")
    agent: Text | None = Field(None, description="Its agent.")
    workdir: Text | None = Field(None, description="Its working directory.")
    model: Text | None = Field(None, description="Its model.")


def _moderator(value: object) -> object:
    return {"session": value} if isinstance(value, str) else value


class GroupChat(Model):
    """A conversation among sessions, led by a moderator."""

    moderator: Annotated[Moderator, BeforeValidator(_moderator, json_schema_input_type=str | Moderator)] = Field(
        description="A session's name, or `{host, agent, workdir, model}`."
    )
    participants: Argv = Field(description="Sessions' names, at least one.")
    prompt: Text | None = Field(None, description="Opens the chat.")
    prompt_file: Text | None = Field(None, description="File with the prompt, relative to the file that names it.")
    state: Literal["open", "closed"] = Field("open", description="What it should be.")
    max_rounds: PositiveCount = Field(8, description="Moderator rounds for one message.")
    turn_timeout: PositiveDuration = Field(600.0, description="One participant's turn.")
    read_only: FlagOrNames = Field(
        False, description="Participants may not change files: all of them, or those in a list of names."
    )
    max_cost: Annotated[float, Field(gt=0, strict=False)] | None = Field(
        None, description="US dollars for one message, as far as agents tell their cost; then it is closed."
    )
    on_prompt_change: Literal["send", "ignore"] = Field(
        "send", description="An edited prompt is the next message, or ignored."
    )

    @property
    def readers(self) -> tuple[str, ...]:
        """The participants that may not change files."""
        if isinstance(self.read_only, bool):
            return self.participants if self.read_only else ()
        return tuple(self.read_only)


class Playbook(Model):
    """Markdown checklists to work through until no box is open."""

    session: Text | None = Field(None, description="The session that works on it; or `host`, `agent`, `workdir`.")
    host: Text = Field("local", description="Where it runs.")
    agent: Text | None = Field(None, description="Its agent.")
    workdir: Text | None = Field(None, description="Its working directory.")
    documents: Argv = Field(description="Markdown checklists on the host.")
    fresh_context: Literal["task", "document"] | None = Field(
        None, description="A new conversation per task or document."
    )
    loop: Flag = Field(False, description="Start again when all is done.")
    max_loops: PositiveCount | None = Field(None, description="At most so often.")
    reset_on_completion: Flag = Field(False, description="Uncheck all boxes when done.")
    prompt: Text | None = Field(None, description="What to tell the agent about the documents.")


class Moved(Model):
    """A rename without a restart."""

    from_: Text = Field(alias="from", description="The old address, `session.NAME`.")
    to: Text = Field(description="The new address.")


class Removed(Model):
    """A resource that left the specs and is not to be stopped."""

    address: Text = Field(description="Its address, `session.NAME`.")
    action: Literal["forget"] = Field("forget", description="`forget`: leave it running, unmanaged.")


@dataclass(frozen=True, slots=True)
class Source:
    """Where something is written: file as shown to people, line and column from 1."""

    file: str
    line: int
    column: int = 1


def address_of(name: str, agent: str) -> str:
    """`session.NAME`, or `group_chat.NAME` where the session's agent is the moderator of one."""
    return f"group_chat.{name}" if agent == MODERATOR else f"session.{name}"


def name_of(address: str) -> str:
    """The name of the session, or group chat, that an address is of; other addresses stay as they are."""
    return address.removeprefix("session.").removeprefix("group_chat.")


def _nowhere(address: str, field: str | None) -> Source | None:
    return None


@dataclass(frozen=True)
class Desired:
    """Everything that a spec directory declares, merged and checked.

    `prompts` holds the text of each session's `prompt` or `prompt_file`, `openings` that of each group chat.
    `sessions` also holds a session of the agent `moderator` for each group chat, under the chat's name. `revision`
    is a SHA-256 (hex) over the names and texts of all files. `locate(address, field)` reads the files' texts for
    positions only when called.
    """

    fleet: Fleet
    hosts: Mapping[str, Host]
    agents: Mapping[str, AgentSpec]
    sessions: Mapping[str, Session]
    group_chats: Mapping[str, GroupChat]
    playbooks: Mapping[str, Playbook]
    moved: tuple[Moved, ...]
    removed: tuple[Removed, ...]
    prompts: Mapping[str, str]
    revision: str
    windows: tuple[Window, ...] = ()
    openings: Mapping[str, str] = field(default_factory=dict)
    notifiers: Mapping[str, Notifier] = field(default_factory=dict)
    locate: Callable[[str, str | None], Source | None] = field(default=_nowhere, compare=False, repr=False)

    def address(self, name: str) -> str:
        """The address of a session or group chat; of a session where nothing of that name is declared."""
        return f"group_chat.{name}" if name in self.group_chats else f"session.{name}"

    @property
    def empty(self) -> bool:
        """Whether no resource of any kind is declared; a fleet of hosts alone is not empty."""
        resources: tuple[Any, ...] = (
            self.agents,
            self.sessions,
            self.group_chats,
            self.playbooks,
            self.moved,
            self.removed,
        )
        local = self.hosts.get("local")
        declared = set(self.hosts) - {"local"} or (local is not None and local.model_fields_set)
        return not any(resources) and not declared
