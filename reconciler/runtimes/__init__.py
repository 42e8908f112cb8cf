"""What keeps a session alive on a host (the spec's `strategy`): one file each, found by its name.

A runtime is a shell text with the functions `runtime_needs`, `runtime_start`, `runtime_key`, `runtime_end`,
`runtime_load` and `runtime_send` for the guard, and the argv by which people attach to it and read it.
"""

from __future__ import annotations

from typing import Protocol


class Runtime(Protocol):
    """A driver of one strategy."""

    name: str
    script: str  # the shell functions, see scripts/
    terminal: bool  # whether there is one to attach and send to

    def attach(self, state_dir: str, session: str, terminal: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The argv, on the host, that attaches a terminal. Raises OperationError(no-terminal).

        `terminal` is that of the record: where a session that was adopted is.
        """

    def log(self, state_dir: str, session: str, lines: int, terminal: tuple[str, ...] = ()) -> str:
        """A line of sh that prints the last `lines` lines of output, also of a session that has ended."""
