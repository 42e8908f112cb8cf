"""What the tests of moves share: specs, messages, the archive's copies, and who is alive."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.fleet import Host
from tests.e2e.program import Program, Site, until

STORE = ".script-agent"


def session(name: str, host: str, agent: str = "script", more: str = "") -> str:
    """The spec of one session, without a terminal unless `more` says otherwise."""
    strategy = "" if "strategy" in more or agent == "telling" else 'strategy = "process"\n'
    return f'[sessions.{name}]\nhost = "{host}"\nagent = "{agent}"\n{strategy}{more}\n'


def on_screen(name: str, host: str, more: str = "", agent: str = "script") -> str:
    """The same in a terminal, so that it takes messages."""
    return session(name, host, agent, f'strategy = "tmux"\n{more}')


def tell(site: Site, name: str, text: str) -> None:
    """Type a message and wait for its answer: from then on the agent has acknowledged it."""
    before = len(answers(site, name))
    site.tmux("send-keys", "-t", f"={name}:", "-l", text)
    site.tmux("send-keys", "-t", f"={name}:", "Enter")
    until(f"the answer to {text}", lambda: len(answers(site, name)) > before)


def answers(site: Site, name: str) -> list[int]:
    """How many turns the agent said that the conversation has, answer by answer."""
    return [int(entry["turns"]) for entry in whole(site, name) if entry["kind"] == "answer"]


def whole(site: Site, name: str) -> list[dict[str, Any]]:
    """The conversation on a host, whatever process writes to it now."""
    path = transcript(site, name)
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def transcript(site: Site, name: str) -> Path:
    """The file of the conversation that the record on this host names."""
    return site.host.home / STORE / f"{site.record(name)['conversation']}.jsonl"


def archive(program: Program) -> Path:
    """Where the archive of a fleet lies on the controller."""
    return program.fleet.controller_home / ".local/share/reconciler" / program.name / "archive"


def archived(program: Program, site: Site, name: str) -> Path:
    """The archive's copy of that file."""
    conversation = site.record(name)["conversation"]
    return archive(program) / name / str(conversation) / "files" / f"{conversation}.jsonl"


def same(program: Program, site: Site, name: str) -> None:
    """The archive has what the host has, byte for byte, up to the last newline."""
    data = transcript(site, name).read_bytes()
    assert archived(program, site, name).read_bytes() == data[: data.rfind(b"\n") + 1]


def alive(sites: Iterable[Site], conversation: str) -> list[str]:
    """The hosts on which a process has the conversation, once for each, by `ps`."""
    return [
        site.host.name
        for site in sites
        for _, argv in site.host.processes()
        if conversation in argv and "script-agent" in " ".join(argv[:2])
    ]


def only_on(sites: Sequence[Site], host: str, name: str) -> None:
    """One process, there and nowhere else."""
    (site,) = (site for site in sites if site.host.name == host)
    assert alive(sites, str(site.record(name)["conversation"])) == [host]


def broken_agent(host: Host, text: str = "exit 3") -> None:
    """Something is in the place of the agent that does not work."""
    host.write("~/bin/script-agent", f"#!/bin/sh\n{text}\n", mode=0o755)


def at_rest(sites: Iterable[Site]) -> None:
    """No operation of a dead controller is under way any more."""
    until("the last operations are over", lambda: not any(site.at_work() for site in sites), 40)
    time.sleep(0.05)
