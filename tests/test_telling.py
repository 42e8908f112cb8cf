"""Telling: many changes are one message, what was not taken is tried again, and nothing is said twice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.parse import parse
from reconciler.core.spec import Desired
from reconciler.core.status import Condition, Status
from reconciler.core.verdicts import Verdict
from reconciler.journal import Journal, open_journal
from reconciler.telling import Teller
from tests.support.receiver import Receiver, receiver

STALLED = [
    Status(f"session.s{n}", "gpu", "blocked", (Condition("Stalled", "True", "stalled", "failed 5 times", 1.0),))
    for n in range(3)
]
FINE = [Status(f"session.s{n}", "gpu", "idle", (Condition("Ready", "True", "unchanged"),)) for n in range(3)]


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with open_journal("acme", write=True) as found:
        yield found


def specs(port: int, forge: bool = False) -> Desired:
    more = (
        f'[notifiers.forge]\nkind = "gitea"\nurl = "http://127.0.0.1:{port}"\nrepository = "a/b"\ntoken = "t"\n'
        if forge
        else f'[notifiers.me]\nurl = "json://127.0.0.1:{port}"\n'
    )
    return parse({"f.toml": f'[fleet]\nname = "acme"\n[sessions.s0]\nagent = "codex"\n{more}'}, {})


async def arrived(server: Receiver, count: int) -> None:
    for _ in range(1000):
        if len(server.requests) >= count:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(server.requests) == count


async def test_what_happens_together_is_one_message_and_its_end_another(server: Receiver, journal: Journal) -> None:
    said: list[str] = []
    teller = Teller(journal, said.append, collect=0.05)
    teller.revised(specs(server.port))
    for _ in range(3):
        teller.published(STALLED, {}, 2.0)
    await arrived(server, 1)
    assert server.requests[0].document["title"] == "acme: 3 × crash-looping"
    teller.published(FINE, {}, 3.0)
    await arrived(server, 2)
    assert server.requests[1].document["type"] == "success"
    await teller.close()
    assert said == []
    assert teller.counts == {("me", "sent"): 2}


async def test_a_restart_of_the_program_says_nothing_again(server: Receiver, journal: Journal) -> None:
    for _ in range(2):
        teller = Teller(journal, lambda _: None, collect=0.01)
        teller.revised(specs(server.port))
        teller.published(STALLED, {}, 2.0)
        await teller.close()
    assert len(server.requests) == 1


async def test_what_was_not_taken_is_tried_again_and_in_the_end_given_up_aloud(
    server: Receiver, journal: Journal
) -> None:
    said: list[str] = []
    teller = Teller(journal, said.append, collect=0.01, retries=(0.05, 0.05))
    teller.revised(specs(server.port))
    server.answers = [500]
    teller.published(STALLED, {}, 2.0)
    await arrived(server, 2)
    assert said == []
    server.code = 500
    teller.published(FINE, {}, 3.0)
    await arrived(server, 5)
    await teller.close()
    assert said == ["notifier me: the message was not taken"]
    assert teller.counts == {("me", "sent"): 1, ("me", "failed"): 1}


async def test_a_forge_hears_the_last_word_on_a_commit_and_each_only_once(server: Receiver, journal: Journal) -> None:
    teller = Teller(journal, lambda _: None, collect=0.05)
    teller.revised(specs(server.port, forge=True))
    for _ in range(2):
        teller.verdict(Verdict("c" * 40, "pending", "soon"))
    teller.verdict(Verdict("c" * 40, "success", "done"))
    await arrived(server, 1)
    assert server.requests[0].document["state"] == "success"
    teller.verdict(Verdict("c" * 40, "success", "done"))
    await teller.close()
    assert len(server.requests) == 1


async def test_the_commit_in_force_and_one_that_is_refused_are_told_once_each(
    server: Receiver, journal: Journal
) -> None:
    teller = Teller(journal, lambda _: None, collect=0.01)
    teller.revised(specs(server.port, forge=True))
    for _ in range(5):
        teller.verdict(Verdict("a" * 40, "success", "done"))
        teller.verdict(Verdict("b" * 40, "failure", "refused"))
        await asyncio.sleep(0.05)
    await teller.close()
    assert sorted(request.document["state"] for request in server.requests) == ["failure", "success"]


async def test_the_end_of_the_program_does_not_wait_for_who_never_answers(journal: Journal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # takes connections, and says nothing
        teller = Teller(journal, lambda _: None, collect=0.01)
        teller.revised(specs(hanging.getsockname()[1]))
        teller.published(STALLED, {}, 2.0)
        begun = asyncio.get_running_loop().time()
        await teller.close()
        assert asyncio.get_running_loop().time() - begun < 8
