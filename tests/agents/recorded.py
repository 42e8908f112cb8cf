"""Texts that the real CLIs wrote, as the facts that a look would have made of them."""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.core.agent import Agent, Facts, StoreFile

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"


def text(agent: Agent, name: str) -> str:
    """One recorded text."""
    return (RECORDINGS / agent.name / name).read_text()


def printed(agent: Agent, case: str) -> tuple[str, str]:
    """What a headless turn wrote to stdout and stderr; an empty stream was not recorded."""
    found = [RECORDINGS / agent.name / f"{case}.{stream}" for stream in ("out", "err")]
    assert any(path.exists() for path in found)
    out, err = (path.read_text() if path.exists() else "" for path in found)
    return out, err


def frames(agent: Agent) -> list[tuple[str, Facts]]:
    """Each change that was seen over a start with a prompt, a question and its answer: what was done, and facts."""
    return [_frame(json.loads(line)) for line in text(agent, "facts.jsonl").splitlines()]


def states(agent: Agent) -> list[str]:
    """The driver's reading of them, without repetitions."""
    seen: list[str] = []
    for _, facts in frames(agent):
        state = agent.activity(facts).state
        if seen[-1:] != [state]:
            seen.append(state)
    return seen


def _frame(line: dict[str, object]) -> tuple[str, Facts]:
    raw = dict(line)
    note, names, store = raw.pop("note"), raw.pop("names"), raw.pop("store")
    assert isinstance(names, dict)
    assert store is None or isinstance(store, list)
    files = None if store is None else tuple(StoreFile(path, size, 0.0) for path, size in store)
    return str(note), Facts(names={key: tuple(value) for key, value in names.items()}, store=files, **raw)  # type: ignore[arg-type]


def tree(agent: Agent) -> tuple[str, list[str], list[str]]:
    """A home after a conversation: its id, the files that are the conversation, and all others."""
    session_id, *lines = text(agent, "tree.txt").splitlines()
    return session_id, [line[2:] for line in lines if line[0] == "*"], [line[2:] for line in lines if line[0] == "-"]
