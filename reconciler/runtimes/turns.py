"""The shell texts of headless turns as detached jobs (scripts/turns.sh), made from data. Quotes; decides nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.core.agent import Invocation
from reconciler.core.record import Record
from reconciler.runtimes.operations import Credentials, Launch, exports, launch_text, script
from reconciler.runtimes.process import RUNTIME
from reconciler.runtimes.scripts import text

LEASE = 120  # seconds for which a chat's lease on a host holds


@dataclass(frozen=True)
class Caller:
    """Whose turns they are: fleet and chat by name, what the ids of its turns begin with, who runs it."""

    fleet: str
    chat: str
    id: str
    holder: str


@dataclass(frozen=True)
class Job:
    """One turn: whose directory it is in, its id, what runs, for at most `limit` seconds.

    `environment` holds resolved secrets: it travels on stdin and a FIFO only.
    """

    owner: str
    turn: str
    agent: str
    invocation: Invocation
    workdir: str
    limit: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    shell: str = ""


def _script(caller: Caller, nonce: str, body: str, **more: str | int) -> str:
    credentials = Credentials(caller.fleet, caller.holder, ttl=LEASE)
    chat = {"CHAT": caller.chat, "ID": caller.id}
    return script(RUNTIME, credentials, "turn", nonce, body, text("turns"), **chat, **more)


def begin_turn(caller: Caller, nonce: str, job: Job) -> str:
    """Begin a turn; nothing where it was begun."""
    end = secrets.token_hex(16)
    record = Record(caller.fleet, job.owner, job.agent, "process", "", incarnation=1)
    launch = Launch(
        job.owner, 0, record, job.invocation.argv[0], job.invocation, job.workdir, environment=job.environment,
        shell=job.shell,
    )  # fmt: skip
    return _script(
        caller, nonce, "op_turn",
        OWNER=job.owner, TURN=job.turn, END=end, EXPORTS=exports(job.environment),
        LAUNCH=launch_text(caller.fleet, launch, end, "turn", limit=job.limit), RECONCILER_SHELL=job.shell,
        INCARNATION=1, WAIT=30,
    )  # fmt: skip


def look_at_turns(caller: Caller, nonce: str, seconds: int) -> str:
    """What became of the turns: as soon as one is over, or after `seconds`."""
    return _script(caller, nonce, "op_turns", SECONDS_LEFT=seconds)


def end_turn(caller: Caller, nonce: str, owner: str, turn: str) -> str:
    """End a turn."""
    return _script(caller, nonce, "op_turn_end", OWNER=owner, TURN=turn)


def put_away(caller: Caller, nonce: str, turns: Iterable[tuple[str, str]]) -> str:
    """Turns (owner, id) whose outcome is written down."""
    return _script(caller, nonce, "op_turns_done", TURNS=" ".join(f"{owner}/{turn}" for owner, turn in turns))
