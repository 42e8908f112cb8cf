"""G2: the client's CPU for each host of a look while nothing happens, over that of an asyncio TCP echo."""

from __future__ import annotations

from benchmarks import noop
from benchmarks.figure import Figure, against

HOSTS = noop.HOSTS


def measure(full: bool = False) -> list[Figure]:
    """One figure, of the very runs of G1."""
    hosts = noop.MANY if full else noop.HOSTS
    ours, floor, _ = noop.cycles(hosts)
    note = f"{hosts} hosts, for each of them."
    return [
        against(
            "client CPU of a look over a TCP echo", ours, floor, 5.0, note, target="G2", unit="µs",
            what=lambda sample: sample.client / hosts,
        )
    ]  # fmt: skip
