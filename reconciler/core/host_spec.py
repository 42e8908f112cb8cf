"""The tables `[fleet]`, `[hosts.NAME]` and `[agents.NAME]`, as frozen models whose fields are the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from reconciler.core.values import (
    Argv,
    Duration,
    Env,
    Fingerprint,
    Flag,
    HostToken,
    Labels,
    LeaseDuration,
    MaxStop,
    Name,
    Port,
    PositiveCount,
    PositiveDuration,
    Scalar,
    SshConfig,
    Text,
    Words,
)

Strategy = Literal["tmux", "process", "tmate", "remote_control", "node"]
BUILT_IN_AGENTS = ("claude-code", "codex", "opencode", "gemini", "shell")


class Model(BaseModel):
    """Base of all spec models: frozen, unknown keys refused; made ready when first needed, since few specs need all."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


class Fleet(Model):
    """The fleet as a whole. At most one per directory."""

    name: Name = Field(
        "default",
        description="Ownership label: what this fleet's sessions are marked with on hosts. Two fleets "
        "never touch each other's.",
    )
    prune: Flag = Field(
        True,
        description="A session that we own and that left the specs is stopped; its transcript, workspace "
        "and record are kept.",
    )
    max_stop: MaxStop = Field(
        "20%",
        description="A run that would stop more of the running sessions than this (and at least 2) is "
        "refused without an override. A percentage or a number.",
    )
    parallelism: PositiveCount = Field(32, description="Hosts acted on at once.")
    interval: PositiveDuration = Field(30.0, description="Of observation and of source polling in `run`.")
    notify_after: PositiveDuration = Field(
        300.0, description="How long a session waits for a person, or a host is silent, until notifiers hear of it."
    )
    lease: LeaseDuration | None = Field(
        None,
        description="How long hosts keep other controllers out once they hear no more of the one that acts, "
        "`5s` to `10m`. Default: `60s` for commands, `3m` for `run`.",
    )
    archive: str | None = Field(
        None, description="Where conversations are kept: a folder or an fsspec URL. Default: below ~/.local/share."
    )


class KeyAuth(Model):
    """Authentication with one private key file."""

    type: Literal["key"] = Field(description="A private key file.")
    path: Text = Field(description="The private key, on the machine that the program runs on. `~/` is allowed.")
    passphrase: SecretStr | None = Field(
        None,
        description="Of the key. Secret-capable: `${env:NAME}`, `${file:PATH}`, `${cmd:COMMAND}`, "
        "`${keyring:SERVICE/USER}`.",
    )


class AgentAuth(Model):
    """Authentication with the keys that an SSH agent holds."""

    type: Literal["agent"] = Field(description="The running SSH agent.")


class PasswordAuth(Model):
    """Authentication with a password."""

    type: Literal["password"] = Field(description="A password.")
    password: SecretStr = Field(description="The password. Secret-capable.")


Auth = Annotated[KeyAuth | AgentAuth | PasswordAuth, Field(discriminator="type")]


class NodeOptions(Model):
    """The node daemon on a host."""

    port: Port = Field(9100, description="Port the daemon listens on.")
    idle_timeout: Duration = Field(3600.0, description="The daemon ends after this long without work.")
    workspace_root: str | None = Field(None, description="Where the daemon keeps workspaces.")
    binary_path: str | None = Field(None, description="The daemon's program on the host.")
    auth_token: SecretStr | None = Field(None, description="Shared secret. Secret-capable.")


class HostAgent(Model):
    """What is special about one agent on one host."""

    command: Text | None = Field(None, description="The program to run on this host.")
    env: Env = Field({}, description="Environment of this agent on this host. Secret-capable.")


class Host(Model):
    """A machine that sessions run on. `local`, this machine, always exists."""

    address: HostToken | None = Field(
        None, description="Host name, IP address, or a `Host` alias of the SSH config. Default: the name."
    )
    transport: Literal["ssh", "openssh", "local"] = Field(
        "ssh", description="How to reach it: built-in SSH, the system's `ssh`, or not at all (this machine)."
    )
    ssh_config: SshConfig = Field(True, description="Read `~/.ssh/config`, or the file given; what is set here wins.")
    port: Port | None = Field(None, description="SSH port. Default: the SSH config's, else 22.")
    user: HostToken | None = Field(None, description="Login name. Default: the SSH config's, else yours.")
    auth: Auth | None = Field(None, description="How to log in. Default: key files and agent, as `ssh` does.")
    host_key_policy: Literal["strict", "accept_new", "accept_all"] = Field(
        "accept_new",
        description="`accept_new` stores an unknown key and refuses a changed one; `strict` refuses both; "
        "`accept_all` accepts both and is warned about on every run.",
    )
    host_key: Fingerprint | None = Field(None, description='Pinned host key, `"SHA256:…"`; wins over the policy.')
    known_hosts_path: Text = Field("~/.ssh/known_hosts", description="File of known host keys.")
    connection_timeout: PositiveDuration = Field(10.0, description="For connecting and logging in.")
    keepalive_interval: Duration = Field(30.0, description="Between keepalive messages.")
    keepalive_count: PositiveCount = Field(
        3, description="Unanswered keepalives until the connection counts as dropped."
    )
    compression: Flag = Field(False, description="Compress the connection.")
    ssh_options: Mapping[str, Scalar] = Field({}, description="Further options, in ssh_config's names.")
    workdir: Text = Field("~", description="Default working directory of its sessions.")
    path_map: Mapping[str, str] = Field({}, description="Local prefix to prefix on this host.")
    env: Env = Field({}, description="Environment of every session on it. Secret-capable.")
    shell: Text | None = Field(None, description="Shell whose login profile sets PATH. Default: the login shell.")
    strategy: Strategy = Field("tmux", description="What keeps its sessions alive, by default.")
    node: NodeOptions | None = Field(None, description="Node daemon.")
    max_parallel_starts: PositiveCount = Field(2, description="Sessions that may be starting or resuming at once.")
    enabled: Flag = Field(
        True, description="`false`: observe and act on nothing there; its sessions are suspended, not stopped."
    )
    labels: Labels = Field({}, description="For `--select`.")
    agents: Mapping[str, HostAgent] = Field({}, description="Per agent on this host: `command` and `env`.")
    tmux_conf: Text | None = Field(None, description="Config of our tmux server there. Default: none.")


class AgentSpec(Model):
    """Overrides parts of a built-in agent, or declares a new one by templates.

    Templates are argv lists with `{session_id}`, `{prompt}`, `{model}` and `{workdir}`; a placeholder without a
    value becomes an empty argument.
    """

    extends: Text | None = Field(None, description="Built-in agent to start from.")
    command: Text | None = Field(None, description="Program, looked up with the host's login PATH.")
    args: Words = Field((), description="Added to every launch.")
    env: Env = Field({}, description="Added to every launch. Secret-capable.")
    model: Text | None = Field(None, description="Default model of its sessions.")
    permission_mode: Text | None = Field(None, description="Default permission mode of its sessions.")
    start: Argv | None = Field(None, description="Template: interactive, a new conversation.")
    resume: Argv | None = Field(None, description="Template: interactive, the same conversation.")
    turn: Argv | None = Field(None, description="Template: headless, one prompt.")
    resume_turn: Argv | None = Field(None, description="Template: headless, one more prompt in the same conversation.")
    read_only: Words = Field(
        (),
        description="Added to a headless turn that may change no file, where the agent has no way of its own.",
    )
    prompt_via: Literal["argv", "stdin", "paste"] | None = Field(
        None,
        description="How the first prompt gets in: an argument (up to 100 kB), standard input (headless), "
        "or pasted into a TUI that is proven idle.",
    )
    store: Words = Field(
        (), description="Globs of the files of one conversation, with `{home}`, `{workdir}` and `{session_id}`."
    )
    version_args: Words = Field((), description="Arguments that make the program print its version.")
    ready_pattern: Text | None = Field(None, description="Regular expression: on the screen once it is ready.")
    stop_keys: Words = Field((), description="Keys (tmux names) that end it cleanly.")
    install: Text | None = Field(None, description="Command that installs it, for remedies and when asked to.")
