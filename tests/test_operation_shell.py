"""The shell that carries operations, against a host that says anything at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.spec import Host
from reconciler.errors import HostError
from reconciler.hosts import Connection
from reconciler.operating import ANSWER_LIMIT, TEXT_LIMIT, OperationShell, factored, fixed_texts
from reconciler.runtimes.operations import parse_answer
from reconciler.transports import Channel, Completed, Room, Transport


class FakeHost:
    """A host whose shell says what a test makes it say; it notes what it was sent, and on how many channels."""

    def __init__(self, *, room: int = 10) -> None:
        self.room = Room()
        self.free = room
        self.written: list[str] = []
        self.ran: list[bytes] = []
        self.opened = 0
        self.ended = False
        self.arrived = asyncio.Semaphore(0)
        self.said: asyncio.Queue[bytes] = asyncio.Queue()

    async def spare(self, argv: Sequence[str]) -> Channel | None:
        await asyncio.sleep(0)
        if self.opened >= self.free:
            return None
        self.opened += 1
        return self

    async def sessions_at_once(self, most: int) -> int:
        return most

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 1) -> Completed:
        self.ran.append(stdin)
        return Completed(0, b'answer\tn\t{"ok":true}\n', b"")

    async def write(self, data: bytes) -> None:
        if self.ended:
            raise HostError("gone", code="dropped")
        self.written.append(data.decode())
        self.arrived.release()

    async def read(self, limit: int = 65536) -> bytes:
        return await self.said.get()

    async def close(self) -> None:
        self.ended = True


def operation(shell: OperationShell, host: FakeHost, nonce: str, script: str = "true") -> asyncio.Task[bytes | None]:
    return asyncio.create_task(shell.run(cast("Any", host), script, nonce, 5.0))


async def sent(host: FakeHost, count: int) -> None:
    for _ in range(count):
        await host.arrived.acquire()


@given(st.lists(st.sampled_from([*fixed_texts(), "secret", "'", '"', "$operate_1", "\n", "x"]), max_size=12))
def test_what_is_cut_into_pieces_is_the_same_text(parts: list[str]) -> None:
    script = "".join(parts)
    known = fixed_texts()
    pieces = factored(script, known)
    assert "".join(known[piece] if isinstance(piece, int) else piece for piece in pieces) == script
    assert not any(text in piece for piece in pieces if isinstance(piece, str) for text in known[:-1])


async def test_answers_reach_those_who_asked_whatever_stands_between_them() -> None:
    host, shell = FakeHost(), OperationShell("h")
    first, second = operation(shell, host, "aa"), operation(shell, host, "bb")
    await sent(host, 2)
    said = (
        b"welcome\nanswer\tcc\t{}\nanswer\t\xff\t1\n\nanswer\tbb\t{\"ok\":true}\n\n"
        b'answer\taa\t{"ok":false}\nanswer\taa\t{"ok":true}\n'
    )  # fmt: skip
    for byte in said:
        host.said.put_nowait(bytes([byte]))
    assert parse_answer("h", "aa", await first or b"") == {"ok": False}
    assert parse_answer("h", "bb", await second or b"") == {"ok": True}
    assert host.opened == 1
    await shell.drop()


async def test_an_answer_that_another_one_broke_in_two_is_an_error_and_the_other_one_whole() -> None:
    host, shell = FakeHost(), OperationShell("h")
    first, second = operation(shell, host, "aa"), operation(shell, host, "bb")
    await sent(host, 2)
    host.said.put_nowait(b'\nanswer\taa\t{"ok":true,"lo\nanswer\tbb\t{"ok":true}\nng":1}\n')
    with pytest.raises(HostError):
        parse_answer("h", "aa", await first or b"")
    assert parse_answer("h", "bb", await second or b"") == {"ok": True}
    await shell.drop()


async def test_the_end_of_the_shell_is_an_error_for_all_who_wait() -> None:
    host, shell = FakeHost(), OperationShell("h")
    tasks = [operation(shell, host, nonce) for nonce in ("aa", "bb")]
    await sent(host, 2)
    host.said.put_nowait(b"")
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(found, HostError)
        assert found.code == "dropped"
        assert found.retry
    await shell.drop()


async def test_a_host_that_never_stops_talking_is_an_error() -> None:
    host, shell = FakeHost(), OperationShell("h")
    task = operation(shell, host, "aa")
    await sent(host, 1)
    for _ in range(ANSWER_LIMIT // 50_000 + 1):
        host.said.put_nowait(b"x" * 49_999 + b"\n")
    with pytest.raises(HostError) as caught:
        await task
    assert caught.value.code == "protocol"
    await shell.drop()


async def test_silence_is_an_error_after_the_time() -> None:
    host, shell = FakeHost(), OperationShell("h")
    with pytest.raises(HostError) as caught:
        await shell.run(cast("Any", host), "true", "aa", 0.05)
    assert caught.value.code == "timed-out"
    await shell.drop()


async def test_what_is_told_once_is_not_told_again() -> None:
    host, shell = FakeHost(), OperationShell("h")
    script = "NAME=x\n" + fixed_texts()[3] + fixed_texts()[0] + "op\n"
    for nonce in ("aa", "bb"):
        task = operation(shell, host, nonce, script)
        await sent(host, 1)
        host.said.put_nowait(f"\nanswer\t{nonce}\t{{}}\n".encode())
        await task
    assert len(host.written[0]) > len(script)
    assert len(host.written[1]) < 100
    await shell.drop()


@pytest.mark.parametrize("why", ["room", "transport", "long", "unfit", "same", "ended"])
async def test_what_the_shell_cannot_carry_goes_another_way_and_nothing_was_begun(why: str) -> None:
    host, shell = FakeHost(room=0 if why == "room" else 10), OperationShell("h")
    script = "#" * (TEXT_LIMIT + 1) if why == "long" else "true"
    transport: Any = cast("Any", object()) if why == "transport" else host
    before = operation(shell, host, "aa") if why == "same" else None
    if before is not None:
        await sent(host, 1)
    if why == "unfit":
        host.said.put_nowait(b"\nunfit\taa\n")
    host.ended = why == "ended"
    assert await shell.run(transport, script, "aa", 5.0) is None
    if before is not None:
        host.said.put_nowait(b"\nanswer\taa\t{}\n")
        assert await before
    await shell.drop()


async def test_it_gives_way_for_good_but_not_while_an_operation_is_under_way() -> None:
    host, shell = FakeHost(), OperationShell("h")
    assert not await shell.give_way()
    shell = OperationShell("h")
    task = operation(shell, host, "aa")
    await sent(host, 1)
    assert not await shell.give_way()
    host.said.put_nowait(b"\nanswer\taa\t{}\n")
    assert await task
    assert await shell.give_way()
    assert host.ended
    assert await shell.run(cast("Any", host), "true", "bb", 5.0) is None


async def test_an_operation_that_is_to_be_alone_or_finds_no_room_has_a_channel_of_its_own() -> None:
    for room, alone in ((10, True), (0, False)):
        host = FakeHost(room=room)

        async def connect(name: str, spec: Host, host: FakeHost = host) -> Transport:
            return cast("Transport", host)

        connection = Connection("h", Host(), connect)
        assert await connection.operate("true", "n", alone=alone) == {"ok": True}
        assert host.ran == [b"true"]
        assert not host.written
        await connection.close()
