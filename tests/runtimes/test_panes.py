"""What a control client of tmux says, however it comes in."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconciler.panes import Panes

LISTED = b"api\t1\t0\t0\t%end of it\n%x\nweb\t2\t0\t0\t50 % done"
SAID = (
    b"%begin 1 1 0\n%end 1 1 0\n%session-changed $1 _ctl\n"
    b"%begin 1 2 1\n" + LISTED + b"\n%end 1 2 1\n"
    b"%output %1 nothing\n%unlinked-window-renamed @1 news\n"
    b"%begin 1 3 1\nno such\n%end 1 2 1\n%error 1 3 1\n%begin 1 4 1\n%end 1 4 1\n"
)


class Said:
    """A channel on which all of it has been said, in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.asked = 0
        self.all_asked = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.asked += 1
        if self.asked == 3:
            self.all_asked.set()

    async def read(self, limit: int = 65536) -> bytes:
        await self.all_asked.wait()
        return self.pieces.pop(0) if self.pieces else b""

    async def close(self) -> None:
        """Nothing is open."""


async def heard(pieces: list[bytes]) -> tuple[list[bytes | None], int]:
    news: list[None] = []
    panes = Panes("gpu", Said(pieces), lambda: news.append(None))
    answers = [await panes.ask() for _ in range(3)]
    try:
        async with asyncio.timeout(5):
            return [await answer for answer in answers], len(news)
    finally:
        await panes.close()


@given(st.lists(st.integers(1, len(SAID) - 1), max_size=6, unique=True).map(sorted))
def test_answers_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    ends = [0, *cuts, len(SAID)]
    pieces = [SAID[start:end] for start, end in pairwise(ends)]
    answers, news = asyncio.run(heard(pieces))
    assert answers == [LISTED, None, b""]
    assert 1 <= news <= 2, "once for each piece with something new in it"


async def test_what_is_not_answered_when_it_ends_has_no_answer() -> None:
    assert await heard([b"%begin 1 1 1\nx\n%end 1 1 1\n%begin 1 2 1\ny\n"]) == ([b"x", None, None], 0)
