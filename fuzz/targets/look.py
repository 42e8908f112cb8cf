"""What hosts answer: looks and what is made of them, processes that are nobody's, `doctor`, answers of operations."""

from __future__ import annotations

import contextlib
import json
import tomllib
from dataclasses import asdict, replace
from functools import cache

from fuzz.oracles import harmless, split, text_of
from fuzz.targets._plans import EMPTY, check_plan
from reconciler import drivers
from reconciler.core.checkup import examined, examined_json
from reconciler.core.diff import compare
from reconciler.core.discovered import Found, spec_text
from reconciler.core.facts import parse_facts
from reconciler.core.observed import Observed, Reached, parse_look, parse_strays
from reconciler.core.orphans import orphans, orphans_json
from reconciler.core.parse import parse
from reconciler.core.printed import escaped
from reconciler.core.record import parse_record
from reconciler.core.spec import BUILT_IN_AGENTS, Desired
from reconciler.core.ssh_aliases import aliases
from reconciler.core.strays import Stray, known, parse_strays_found
from reconciler.errors import HostError
from reconciler.journal import Journal
from reconciler.reconcile import remember
from reconciler.runtimes.operations import parse_answer
from reconciler.transcripts.relations import host_files

NONCE = "c0ffee"
SPECS = """
[hosts.gpu]
[defaults.session]
host = "gpu"
[sessions.api]
agent = "claude-code"
prompt = "go"
protect = true
[sessions.web]
agent = "codex"
[sessions.old]
agent = "gemini"
state = "stopped"
[sessions.sh]
agent = "shell"
args = ["x"]
strategy = "process"
lifecycle = "task"
[sessions.oc]
agent = "opencode"
restart = {policy = "always"}
[[moved]]
from = "session.before"
to = "session.web"
[[removed]]
address = "session.gone"
"""


@cache
def _desired() -> Desired:
    return parse({"a.toml": SPECS}, {})


def _look(data: bytes) -> None:
    """The lines of a look; its trailer is put behind them, so that what they say is read."""
    count = sum(1 for line in data.decode("utf-8", "replace").split("\n") if line)
    answer = data.rstrip(b"\n") + f"\nend\t{NONCE}\t{count}\n".encode()
    try:
        reached = parse_look("gpu", NONCE, answer)
    except HostError as error:
        harmless(escaped(error.message))
        return
    _made_of(reached)


def _made_of(reached: Reached) -> None:
    words = (reached.hostname, reached.user, reached.system, reached.tmux, reached.path, reached.local, reached.boot)
    for word in (*words, *reached.foreign, *reached.commands.values()):
        harmless(word, also="")
    desired = _desired()
    check_plan(desired, reached)
    agents = drivers.agents(desired, frozenset(BUILT_IN_AGENTS))
    for seen in reached.sessions.values():
        harmless(seen.trouble, also="")
        if seen.record is not None:
            assert parse_record(seen.record.to_json()) is not None
            if seen.record.agent in agents:
                host_files(agents[seen.record.agent], seen, seen.record.conversation or "")
    observed = Observed({"gpu": reached})
    found = orphans(desired, observed, compare(desired, observed, {}), {})
    json.dumps(orphans_json(found, observed))
    with Journal(None) as journal:
        remember(journal, observed, desired)
        for seen in reached.sessions.values():
            journal.begin(f"op-{seen.name}", address=seen.name, host="gpu", verb="stop",
                          precondition=str(seen.incarnation), fence=reached.fence, revision="")  # fmt: skip


def _whole(data: bytes) -> None:
    """A look as it stands, with or without a trailer."""
    with contextlib.suppress(HostError):
        _made_of(parse_look("gpu", NONCE, data))


def _record(data: bytes) -> None:
    try:
        record = parse_record(text_of(data))
    except ValueError as error:
        harmless(escaped(str(error)))
        return
    again = parse_record(record.to_json())
    assert asdict(again) == asdict(record) or "NaN" in record.to_json(), "a record is another after it was written"


def _strays(data: bytes) -> None:
    """Processes and terminals; behind a line of dashes, what the host tells of each."""
    first, _, second = data.partition(b"\n----\n")
    agents = {name: drivers.built_in_agent(name) for name in BUILT_IN_AGENTS if name not in ("shell", "moderator")}
    commands = {agent.command: (name,) for name, agent in agents.items()}
    try:
        found = parse_strays_found("gpu", NONCE, _framed(first), commands)
        told = parse_strays("gpu", NONCE, _framed(second))
    except HostError:
        return
    strays = tuple(known(stray, *told[stray.pid], agents) for stray in found if stray.pid in told)
    _declared((*found, *strays))
    seen = Observed({"gpu": EMPTY})
    shown = orphans(_desired(), seen, compare(_desired(), seen, {}), {"gpu": strays})
    json.dumps(orphans_json(shown, seen))
    for orphan in shown:
        for word in asdict(orphan).values():
            if isinstance(word, str):
                harmless(escaped(word))


def _framed(data: bytes) -> bytes:
    return b"begin\t" + NONCE.encode() + b"\n" + data.rstrip(b"\n") + b"\nend\t" + NONCE.encode() + b"\n"


def _declared(strays: tuple[Stray, ...]) -> None:
    """What `init --discover` writes is TOML, and declares nothing that was not found."""
    alias = aliases(["Host gpu"])[0]
    found = tomllib.loads(spec_text([Found(alias, "", ("codex",), strays)], "default"))
    assert set(found) <= {"fleet", "hosts", "sessions"}
    assert all(session["suspend"] is True for session in found.get("sessions", {}).values()), "it would start something"


def _doctor(data: bytes) -> None:
    facts = parse_facts(NONCE, b"doctor\t" + NONCE.encode() + b"\n" + data + b"\nend\t\n")
    agents, host = drivers.agents(_desired()), replace(EMPTY, name="gpu")
    names = ("claude-code", "codex")
    found = examined(_desired(), agents, names, host, facts, 1_800_000_000.0, 10, text_of(data))
    json.dumps(examined_json([found]))
    for said in found.checks:
        harmless(escaped(said.message + said.remedy))


def _answer(data: bytes) -> None:
    with contextlib.suppress(HostError):
        parse_answer("gpu", NONCE, b"answer\t" + NONCE.encode() + b"\t" + data)
    with contextlib.suppress(HostError):
        parse_answer("gpu", NONCE, data)


CASES = {
    "look": _look, "whole": _whole, "record": _record, "strays": _strays, "doctor": _doctor, "answer": _answer,
}  # fmt: skip


def check(data: bytes) -> None:
    """The first line says which reader the rest is for."""
    split(data, CASES)
