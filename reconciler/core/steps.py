"""The steps of a plan: a union of small types, each of which already holds every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reconciler.core.agent import Invocation, Probe
from reconciler.core.record import Record
from reconciler.core.spec import Ready, Stop, Until


@dataclass(frozen=True, slots=True)
class LaunchStep:
    """Start the agent's process. `environment` holds references such as `${env:KEY}`, resolved only at the launch.

    `bring` is the conversation whose files the archive puts in place first, fast-forward only (to-remote sync), in
    the store of the working directory `real_workdir`. `snapshot` are files of the host to keep a copy of before.
    """

    session: str
    host: str
    strategy: str
    expect: int
    record: Record
    command: str
    invocation: Invocation
    workdir: str
    probes: tuple[Probe, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    shell: str = ""
    tmux_conf: str = ""
    bring: str | None = None
    real_workdir: str = ""
    snapshot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadyStep:
    """Wait until the launched session is ready, learn its conversation id, and check that it is the one resumed.

    `conversation` is what must be found again; `learn` says that the id is the agent's own and has to be read.
    """

    session: str
    host: str
    agent: str
    incarnation: int
    ready: Ready
    conversation: str | None
    learn: bool
    record: Record
    at_least: int = 0  # bytes that the conversation has to have again


@dataclass(frozen=True, slots=True)
class IdleStep:
    """Wait until a session is not observed to be busy or waiting, as `stop` says, before it is stopped."""

    session: str
    host: str
    agent: str
    stop: Stop


@dataclass(frozen=True, slots=True)
class StopStep:
    """End the agent's process cleanly; then write the record."""

    session: str
    host: str
    strategy: str
    expect: int
    keys: tuple[str, ...]
    signal: str
    record: Record


@dataclass(frozen=True, slots=True)
class SendStep:
    """Paste one message into a session that is idle, within `timeout` seconds."""

    session: str
    host: str
    agent: str
    strategy: str
    expect: int
    message: str
    record: Record
    timeout: float = 600.0
    before: str | None = None  # the digest of the prompt that was handed over last; another one makes this stale


@dataclass(frozen=True, slots=True)
class RecordStep:
    """Write the record of a session that goes on as it is; before it the text of a file in its directory."""

    session: str
    host: str
    expect: int
    record: Record
    file: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class PullStep:
    """Copy the conversation into the archive (from-remote). A failure matters only where it is `required`."""

    session: str
    host: str
    agent: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class ForgetStep:
    """Let go of a session that goes on."""

    session: str
    host: str
    strategy: str
    expect: int


@dataclass(frozen=True, slots=True)
class RenameStep:
    """Give a session that goes on another name; `record` bears the new one."""

    session: str
    host: str
    strategy: str
    expect: int
    record: Record


Step = LaunchStep | ReadyStep | IdleStep | StopStep | PullStep | SendStep | RecordStep | ForgetStep | RenameStep


@dataclass(frozen=True, slots=True)
class Need:
    """Another session that has to be `until` before the action begins, for at most `timeout` seconds."""

    session: str
    host: str
    agent: str
    until: Until
    ready: Ready
    timeout: float


Verb = Literal[
    "start", "resume", "move", "update", "restart", "stop", "adopt", "forget", "blocked", "unknown"
]  # fmt: skip
