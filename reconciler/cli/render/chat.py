"""A group chat as people read it: who said what, where and when. With colours and Markdown on a terminal, else plain.

What agents and users write is hostile: nothing of it that a terminal would obey gets there, and none of it can look
like a line of ours, since it is indented.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from reconciler.chat.entries import Entry
from reconciler.chat.routing import prose
from reconciler.cli._chat import Owes, Standing
from reconciler.cli.common import colours
from reconciler.cli.render._written import readable, written
from reconciler.cli.render.table import ago
from reconciler.core.printed import escaped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_COLOURS = ("cyan", "magenta", "yellow", "blue", "bright_green", "bright_red", "bright_blue", "bright_magenta")
WAITING = ("moderating", "gathering", "closing", "waiting")


def clock(at: float | None, form: str) -> str:
    """A moment by the clock of this machine; `-` for what is none."""
    try:
        return datetime.fromtimestamp(at or 0).astimezone().strftime(form) if at else "-"
    except (ValueError, OverflowError, OSError):
        return "-"


def spoken(entry: Entry) -> tuple[str, list[tuple[str, str]]]:
    """What is said to all, and what to each alone."""
    if entry.kind != "moderator" or not entry.said:
        return entry.text, []
    text = prose(entry.text)
    final = entry.data.get("final")
    if isinstance(final, str) and final.strip() not in ("", entry.text.strip()):
        text = f"{text}\n\n{final.strip()}".strip()
    messages = entry.data.get("messages")
    alone = messages.items() if isinstance(messages, Mapping) else ()
    return text, [(str(who), said) for who, said in alone if isinstance(said, str) and said not in ("", entry.text)]


def remark(entry: Entry) -> str:
    """What is to be said of a contribution beside what it says."""
    if entry.kind == "user" or entry.status == "ok":
        return ""
    if entry.status == "unclear":
        return f"cannot be followed: {entry.data.get('trouble', '')}"
    return "too late" if entry.status == "late" else f"no answer: {entry.status}"


def notes(entry: Entry, hosts: Mapping[str, str]) -> list[str]:
    """Where, in which round, for how much."""
    found = [hosts.get(entry.sender, "")] if entry.kind != "user" else []
    found += [f"round {entry.round}"] if entry.round and entry.kind != "user" else []
    found += [money(entry.cost)] if entry.cost else []
    return [escaped(note) for note in found if note]


def addressed(entry: Entry) -> str:
    """To whom, where that says something."""
    return f" → {', '.join(map(escaped, entry.to))}" if entry.kind == "moderator" and entry.to else ""


def money(cost: float) -> str:
    """US dollars; small amounts with enough digits to be some."""
    return f"${cost:.2f}" if cost >= 0.1 or not cost else f"${cost:.4f}"


def plain_entry(entry: Entry, hosts: Mapping[str, str]) -> str:
    """An entry as text for pipes and files."""
    when = clock(entry.at, "%Y-%m-%d %H:%M:%S")
    if entry.kind == "system":
        return f"-- {escaped(entry.text)} · {when}\n"
    lines = [f"{escaped(entry.sender)}{addressed(entry)} · {' · '.join([*notes(entry, hosts), when])}"]
    lines += [f"  ({escaped(said)})" for said in [remark(entry)] if said]
    text, alone = spoken(entry)
    lines += [f"  {line}".rstrip() for line in readable(text.strip("\n"))] if text.strip() else []
    for who, said in alone:
        first, *rest = readable(said)
        lines += [f"  → {escaped(who)}: {first}".rstrip(), *(f"    {line}".rstrip() for line in rest)]
    return "\n".join(lines) + "\n"


class Plain:
    """Entries and heads as plain text."""

    def __init__(self, out: TextIO, hosts: Mapping[str, str]) -> None:
        self._out = out
        self.hosts = hosts
        self._begun = False

    def entry(self, entry: Entry) -> None:
        """One more entry, an empty line between any two."""
        self._out.write(("\n" if self._begun else "") + plain_entry(entry, self.hosts))
        self._out.flush()
        self._begun = True

    def text(self, text: str) -> None:
        """An answer by itself."""
        self._out.write("\n".join(readable(text)).rstrip("\n") + "\n")

    def head(self, name: str, rows: Sequence[tuple[str, str]]) -> None:
        """What a chat is."""
        width = max(len(key) for key, _ in rows)
        self._out.write(f"group_chat.{name}\n" + "".join(f"  {key:<{width}}  {value}\n" for key, value in rows))
        self._begun = True

    @contextmanager
    def waiting(self, look: Callable[[], Standing]) -> Iterator[None]:
        """Nothing is shown while one waits."""
        yield


class Fancy:
    """Entries and heads on a terminal: Markdown, one colour a speaker, and at the bottom who is at work."""

    def __init__(self, out: TextIO, hosts: Mapping[str, str]) -> None:
        from rich.console import Console

        self._console = Console(file=out, no_color=not colours(out), highlight=False, emoji=False, markup=False)
        self.hosts = hosts
        self._day = clock(time.time(), "%Y-%m-%d")
        self._colours = colours_of(hosts)

    def entry(self, entry: Entry) -> None:
        """One more entry, under the day where that is another one."""
        from rich.rule import Rule
        from rich.text import Text

        day = clock(entry.at, "%Y-%m-%d")
        if day != self._day:
            self._console.print(Rule(day, style="dim"))
            self._day = day
        when = clock(entry.at, "%H:%M:%S")
        if entry.kind == "system":
            self._console.print(Text(f"─ {escaped(entry.text)} · {when}\n", style="dim"))
            return
        colour = "green" if entry.kind == "user" else self._colour(entry.sender)
        head = Text.assemble(("● ", colour), (escaped(entry.sender), f"bold {colour}"), addressed(entry))
        self._console.print(head.append(f"  {' · '.join([*notes(entry, self.hosts), when])}", "dim"))
        if said := remark(entry):
            self._console.print(Text(f"  {escaped(said)}", style="yellow"))
        self._said(*spoken(entry))

    def _colour(self, name: str) -> str:
        return self._colours.get(name) or _COLOURS[_index(name)]

    def _said(self, text: str, alone: Sequence[tuple[str, str]]) -> None:
        from rich.padding import Padding
        from rich.text import Text

        if text.strip():
            self._console.print(Padding(written(text), (0, 2, 0, 2)))
        for who, said in alone:
            colour = self._colour(who)
            self._console.print(Text.assemble(("  → ", colour), (escaped(who), f"bold {colour}")))
            self._console.print(Padding(written(said), (0, 2, 0, 4)))
        self._console.print()

    def text(self, text: str) -> None:
        """An answer by itself."""
        self._console.print(written(text))

    def head(self, name: str, rows: Sequence[tuple[str, str]]) -> None:
        """What a chat is."""
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for key, value in rows:
            table.add_row(Text(key, style="dim"), Text(value))
        self._console.print(Panel(table, title=Text(name, style="bold"), title_align="left", expand=False))
        self._console.print()

    @contextmanager
    def waiting(self, look: Callable[[], Standing]) -> Iterator[None]:
        """A line at the bottom that says who is at work, and goes with the last of them."""
        from rich.live import Live

        live = Live(_Working(look), console=self._console, transient=True, refresh_per_second=8)
        try:
            live.start(refresh=True)
            yield
        finally:  # Ctrl-C may come at any moment, and the cursor has to come back
            live.stop()


class _Working:
    """The line at the bottom; it looks again whenever it is drawn."""

    def __init__(self, look: Callable[[], Standing]) -> None:
        from rich.spinner import Spinner

        self._look = look
        self._spinner = Spinner("dots", style="cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        line = working(self._look(), time.time())
        if line:
            self._spinner.update(text=Text(line, style="dim", no_wrap=True, overflow="ellipsis"))
            yield self._spinner


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each: the same for the same names on every machine, and for no two while there are enough."""
    found: dict[str, str] = {}
    for name in sorted(names):
        at = _index(name)
        turned = _COLOURS[at:] + _COLOURS[:at]
        found[name] = next((colour for colour in turned if colour not in found.values()), turned[0])
    return found


def _index(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "replace")) % len(_COLOURS)


def owes(owed: Owes, moment: Callable[[float], str]) -> str:
    """`web on gpu: asked, for 12s`."""
    where = f" on {owed.host}" if owed.host else ""
    status = f": {owed.status}" if owed.status else ""
    return escaped(f"{owed.who}{where}{status}") + (f", {moment(owed.since)}" if owed.since is not None else "")


def lasting(now: float) -> Callable[[float], str]:
    """`for 12s`, of a moment before `now`."""
    return lambda at: f"for {ago(max(0.0, now - at))}"


def working(standing: Standing, now: float) -> str:
    """Who is at work, in one line; empty where nobody is."""
    if not standing.alive or standing.state not in WAITING:
        return ""
    found = [f"round {standing.round} of {standing.max_rounds}"] if standing.max_rounds else []
    found += [owes(owed, lasting(now)) for owed in standing.owed] or [standing.state]
    found += [escaped(standing.trouble)] if standing.trouble else []
    return " · ".join(found)


def printer(out: TextIO, hosts: Mapping[str, str]) -> Plain | Fancy:
    """What suits this stream."""
    fancy = out.isatty() and os.environ.get("TERM") != "dumb"
    return Fancy(out, hosts) if fancy else Plain(out, hosts)


def stdout(hosts: Mapping[str, str]) -> Plain | Fancy:
    """What suits standard output."""
    return printer(sys.stdout, hosts)
