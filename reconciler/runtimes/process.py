"""A detached process group whose output goes to a log."""

from __future__ import annotations

from reconciler.errors import OperationError
from reconciler.runtimes import Runtime
from reconciler.runtimes.scripts import text
from reconciler.transports.quoting import quote


class Process:
    """Needs nothing but sh. There is no terminal: nothing to attach or send to."""

    name = "process"
    script = text("process")
    terminal = False

    def attach(self, state_dir: str, session: str, terminal: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Always refused."""
        raise OperationError(
            f"session.{session} has no terminal: its strategy is process",
            code="no-terminal",
            remedy=f"reconciler logs {session} -f",
        )

    def log(self, state_dir: str, session: str, lines: int, terminal: tuple[str, ...] = ()) -> str:
        """The end of the log."""
        return f"tail -n {lines} {quote([f'{state_dir}/sessions/{session}/log'])} 2>/dev/null"


RUNTIME: Runtime = Process()
