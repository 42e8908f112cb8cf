"""`reconciler chat`: talk to a group chat, read along, close it. The chat itself goes on without any of this."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated

import typer

from reconciler.chat import log as chat_log
from reconciler.chat.entries import Entry
from reconciler.chat.turns import Limits, fold
from reconciler.cli._chat import POLL, Place, Standing, Tail, find, incarnation, standing
from reconciler.cli.common import Specs, load
from reconciler.cli.render._chat_overview import document, overview, stamp
from reconciler.cli.render.chat import lasting, owes, printer, spoken, stdout
from reconciler.core.spec import Desired
from reconciler.errors import OperationError, ReconcilerError, UsageError

TIMED_OUT = 9
group = typer.Typer(
    name="chat", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Talk to a group chat, read along, close it. `apply` starts it; it goes on by itself.",
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name or address.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="T", help="Wait no longer; then exit 9.")]


@group.command("send")
def send(
    name: Name,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The message; `-` reads it from standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until it is closed; prints the answer.")] = False,
    timeout: Timeout = "1h",
    directory: Specs = "specs",
) -> None:
    """Send a message to a group chat. Prints the message's id; with --wait the answer, and the id on stderr.

    Exit 0: it is sent, with --wait also answered; 1: closed without a final answer; 9: --timeout has passed.
    """
    place = find(load(directory), name)
    end = time.monotonic() + _seconds(timeout)
    message = _message(text)
    now = standing(place)
    tail = Tail(place)
    tail.news()
    identity = chat_log.send(place.folder, message, _user())
    typer.echo(identity, err=wait)
    _say_why_it_waits(place, now)
    if wait:
        _wait_for_answer(place, tail, identity, end)


def _message(text: str) -> str:
    limit = chat_log.MESSAGE_LIMIT
    raw = sys.stdin.buffer.read(limit + 1) if text == "-" else text.encode("utf-8", "surrogateescape")
    if len(raw) > limit:
        raise UsageError(f"a message has at most {limit} bytes", remedy="put it into a file, and say where that is")
    message = raw.decode("utf-8", "replace")
    if not message.strip():
        raise UsageError("there is no message to send")
    return message


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user"


def _seconds(timeout: str) -> float:
    from reconciler.core.values import parse_duration

    try:
        return parse_duration(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout {timeout}: {error}") from None


def _say_why_it_waits(place: Place, now: Standing) -> None:
    if now.state == "closed":
        typer.echo(f"group_chat.{place.name} is closed: the message waits until it is opened again", err=True)
        typer.echo('  remedy: state = "open" in the specs, then reconciler apply', err=True)
    elif not now.alive:
        typer.echo(f"group_chat.{place.name} does not run: the message waits until it runs again", err=True)
        typer.echo("  remedy: reconciler apply", err=True)


def _wait_for_answer(place: Place, tail: Tail, identity: str, end: float) -> None:
    answer, closed = "", None
    asked: int | None = None
    with printer(sys.stderr, place.hosts).waiting(lambda: standing(place)):
        for entry in _new_entries(tail, end):
            if entry.kind == "user" and entry.turn_id == identity:
                asked = entry.seq
            elif entry.kind == "moderator" and entry.said:
                answer = spoken(entry)[0]
            elif entry.kind == "system" and entry.status in ("idle", "closed"):
                if asked is not None and entry.data.get("message") == asked:
                    closed = entry
                    break
                answer = ""
    if closed is None:
        typer.echo(f"no answer yet; reconciler chat log -f {place.name} reads on", err=True)
        raise typer.Exit(TIMED_OUT)
    if answer:
        stdout(place.hosts).text(answer)
    if closed.data.get("reason") != "final":
        raise ReconcilerError(f"without a final answer: {closed.text}", code="no-answer")


def _new_entries(tail: Tail, end: float) -> Iterator[Entry]:
    while True:
        for _, entry in tail.news():
            yield entry
        if time.monotonic() >= end:
            return
        time.sleep(POLL)


@group.command("log")
def log(
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows, until Ctrl-C.")] = False,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", min=0, help="The last so many entries, not all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The JSON lines of the log as they are.")] = False,
    directory: Specs = "specs",
) -> None:
    """Read along: who said what, where, in which round. With -f also who is at work, on a terminal."""
    place = find(load(directory), name)
    tail = Tail(place)
    out = stdout(standing(place).hosts)

    def tell(news: list[tuple[bytes, Entry]]) -> None:
        for raw, entry in news:
            _json_line(raw) if as_json else out.entry(entry)

    found = tail.news()
    try:
        tell(found[max(0, len(found) - lines) :] if lines is not None else found)
        if follow:
            with nullcontext() if as_json else out.waiting(lambda: standing(place)):
                while True:
                    time.sleep(POLL)
                    tell(tail.news())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    if not found and not as_json:
        typer.echo("nothing has been said yet", err=True)


def follow_until_it_rests(place: Place, since: float) -> None:
    """Show what is said from that moment on, until the chat waits for nobody but its user; Ctrl-C leaves it running."""
    tail = Tail(place)
    out = stdout(place.hosts)
    patience = time.monotonic() + 2.0  # until its process has taken a changed prompt up
    try:
        with out.waiting(lambda: standing(place)):
            while True:
                now = standing(place)
                for _, entry in tail.news():
                    if entry.at >= since:
                        patience = time.monotonic() + 0.5  # its state file follows its log
                        out.entry(entry)
                if time.monotonic() > patience and (not now.alive or now.state in ("idle", "closed")):
                    return
                time.sleep(POLL)
    except KeyboardInterrupt:
        typer.echo(f"it goes on: reconciler chat log {place.name} -f", err=True)


def _json_line(raw: bytes) -> None:
    """As it stands in the log; on a terminal with escapes of JSON for what that would obey, which comes to the same."""
    if not sys.stdout.isatty():
        typer.echo(raw)
        return
    text = raw.decode("utf-8", "replace")
    typer.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


@group.command("show")
def show(
    name: Name,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown document.")] = False,
    directory: Specs = "specs",
) -> None:
    """Show a whole chat: its members, state and round, who owes a turn and since when, its cost; then what was said."""
    place = find(load(directory), name)
    entries = chat_log.read(place.folder)
    now = standing(place)
    chat = fold(entries, Limits(place.spec.max_rounds, place.spec.max_cost))
    if markdown:
        rows = overview(place, now, chat, lambda at: f"since {stamp(at)}")
        typer.echo(document(place, rows, entries, now.hosts), nl=False)
        return
    out = stdout(now.hosts)
    out.head(place.name, overview(place, now, chat, lasting(time.time())))
    for entry in entries:
        out.entry(entry)


@group.command("close")
def close(name: Name, timeout: Timeout = "15m", directory: Specs = "specs") -> None:
    """Close a chat: turns that run may end within their time, nothing new begins. Its log stays.

    `reconciler apply` opens it again, unless the specs say state = "closed".
    """
    desired = load(directory)
    place = find(desired, name)
    end = time.monotonic() + _seconds(timeout)
    now = standing(place)
    if now.state != "closed":
        if not now.alive:
            raise OperationError(
                f"group_chat.{place.name} does not run: there is nothing to close", code="stale",
                remedy='state = "closed" in the specs keeps it closed',
            )  # fmt: skip
        _ask_to_close(desired, place, now)
    _wait_until_closed(place, end)
    typer.echo(f"group_chat.{place.name} is closed")


def _ask_to_close(desired: Desired, place: Place, now: Standing) -> None:
    from reconciler.journal import open_journal
    from reconciler.leases import actor

    wanted = incarnation(place)
    with open_journal(desired.fleet.name, write=True, actor=actor("chat close")) as journal:
        journal.record(
            "chat-close", f"group_chat.{place.name}", host="local", revision=desired.revision,
            evidence=f"{now.state}, round {now.round} of {now.max_rounds}, incarnation {wanted}",
            message="asked to close",
        )  # fmt: skip
        chat_log.replace_file(place.folder / chat_log.CLOSE, wanted + "\n")


def _wait_until_closed(place: Place, end: float) -> None:
    said, ended = "", False
    while (now := standing(place)).state != "closed":
        if ended:
            raise OperationError(
                f"group_chat.{place.name} ended before it was closed", code="exited", remedy="reconciler apply"
            )
        ended = not now.alive  # what it said last may be newer than what was just read
        words = ", ".join(owes(replace(owed, since=None), str) for owed in now.owed) or "its process"
        if words != said:
            typer.echo(f"waiting for {words}", err=True)
            said = words
        if time.monotonic() >= end:
            typer.echo(f"group_chat.{place.name} is not closed yet; it will be, without this command", err=True)
            raise typer.Exit(TIMED_OUT)
        time.sleep(POLL)


__all__ = ["close", "group", "log", "send", "show"]
