"""Sessions of a tmux server of the fleet's own, on a socket in our state directory."""

from __future__ import annotations

from reconciler.runtimes import Runtime
from reconciler.runtimes.scripts import text
from reconciler.transports.quoting import quote


class Tmux:
    """tmux >= 3.2. Exact names (`=name`), so that one session's name may begin with another's."""

    name = "tmux"
    script = text("tmux")
    terminal = True

    def attach(self, state_dir: str, session: str, terminal: tuple[str, ...] = ()) -> tuple[str, ...]:
        """`tmux attach` on the fleet's own socket, or on that of the user's own server."""
        socket, target = terminal or (f"{state_dir}/tmux", f"={session}")
        return ("tmux", "-S", socket, "attach-session", "-t", target)

    def log(self, state_dir: str, session: str, lines: int, terminal: tuple[str, ...] = ()) -> str:
        """The pane with its history where there is one, else what was kept of it."""
        socket, target = terminal or (f"{state_dir}/tmux", f"={session}:")
        pane = quote(["tmux", "-S", socket, "capture-pane", "-p", "-J", "-S", "-", "-t", target])
        if terminal:  # its number is another pane's once its own server has ended: then what was kept is all there is
            pane = f"test -e {quote([f'{state_dir}/sessions/{session}/terminal'])} && {pane}"
        kept = quote([f"{state_dir}/sessions/{session}/log"])
        # A screen ends in empty lines; nobody wants the last twenty of those.
        trim = "awk '/^Pane is dead \\(/ { next } NF { while (blank) { print \"\"; blank-- } print; next } { blank++ }'"
        return f"{{ {pane} 2>/dev/null || cat {kept} 2>/dev/null; }} | {trim} | tail -n {lines}"


RUNTIME: Runtime = Tmux()
