"""`reconciler run`: keeps the fleet as the specs say, until it is told to end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.common import AsJson, colours, run
from reconciler.core.printed import SYMBOLS, escaped
from reconciler.core.report import Event
from reconciler.core.transitions import Transition
from reconciler.errors import UsageError

if TYPE_CHECKING:
    from reconciler.running import Settings

INTERRUPTED = 130
_SECRET_LENGTH = 16  # bytes; what is shorter can be guessed


def command(
    source: Annotated[str, typer.Argument(metavar="DIR|URL", help="The spec directory, or a git URL.")] = "specs",
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="T", help="Between two looks at a host. [fleet.interval]")
    ] = None,
    verify: Annotated[
        str | None, typer.Option("--verify", metavar="head|strict", help="Only revisions that somebody signed.")
    ] = None,
    allowed_signers: Annotated[
        str | None, typer.Option("--allowed-signers", metavar="FILE", help="Who may sign; ssh-keygen's format.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="[HOST:]PORT", help="Serve /healthz, /readyz, /metrics, /webhook. [loopback]"),
    ] = None,
    webhook_secret: Annotated[
        Path | None, typer.Option("--webhook-secret-file", metavar="FILE", help="What webhooks have to prove.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write a service that runs this, and print how to start it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="--install: also over a file changed by hand.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep the fleet as the specs say: look, compare, act, for ever; at once when the specs change.

    SIGTERM or Ctrl-C begins nothing more, lets what runs finish, and ends with 0; sessions go on. SIGHUP reads the
    specs again.
    """
    from reconciler.core.values import parse_duration
    from reconciler.running import Settings, Voice, keep

    try:
        every = parse_duration(interval) if interval is not None else None
    except ValueError as error:
        raise UsageError(f"--interval {interval}: {error}") from None
    out = _Json() if as_json else _Text()
    settings = Settings(source, every, verify, allowed_signers, listen, _secret(webhook_secret, listen))
    if install:
        _install(settings, sys.argv[1:], force)
        return
    voice = Voice(out.event, out.transition, out.say)
    try:
        run(_until_told(lambda ended, reload: keep(settings, voice, ended, reload)))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def _secret(file: Path | None, listen: str | None) -> bytes:
    if file is None:
        return b""
    if listen is None:
        raise UsageError("--webhook-secret-file needs --listen")
    try:
        found = file.expanduser().read_bytes().strip()
    except OSError as error:
        raise UsageError(f"--webhook-secret-file {file}: {error.strerror}") from None
    if len(found) < _SECRET_LENGTH:
        raise UsageError(
            f"--webhook-secret-file {file}: a secret has at least {_SECRET_LENGTH} bytes", remedy="openssl rand -hex 32"
        )
    return found


def _install(settings: Settings, arguments: list[str], force: bool) -> None:
    """The service runs this very command line, from this directory."""
    from reconciler.cli._service import install
    from reconciler.running import first_look

    fleet = run(first_look(settings)).fleet.name
    install([word for word in arguments if word not in ("--install", "--force")], fleet, force=force)


async def _until_told(work: Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]) -> None:
    """Run until a signal sets the first event; another one cuts it off. SIGHUP sets the second."""
    ended, reload = asyncio.Event(), asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def told() -> None:
        if ended.is_set():
            task.cancel()
        else:
            typer.echo("nothing more begins; what runs is allowed to finish", err=True)
            ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    await work(ended, reload)


class _Text:
    """A line for everything that happens, with the time."""

    def say(self, words: str) -> None:
        """Something about the program itself."""
        typer.echo(f"{_now()} {escaped(words)}")

    def event(self, event: Event) -> None:
        """A step of an action."""
        action, words = event.action, escaped(event.message)
        text = {
            "apply_start": f"{action.verb}: {escaped(action.message)}",
            "apply_progress": words,
            "apply_complete": f"{action.verb} done in {event.seconds:.1f} s",
            "apply_skipped": f"{action.verb} skipped: {words}",
            "apply_errored": f"{action.verb} failed: {words}",
        }[event.type]
        self._print(f"{_now()} {SYMBOLS[action.verb]:>3} {action.address} on {action.host}: {text}", event.type)

    def transition(self, transition: Transition) -> None:
        """A resource that is another than it was."""
        self._print(f"{_now()}     {transition_line(transition)}", transition.type)

    def _print(self, line: str, kind: str) -> None:
        style = {"apply_complete": "green", "apply_errored": "red", "Stalled": "yellow"}.get(kind)
        typer.echo(typer.style(line, fg=style) if style and colours() else line)


class _Json:
    """The same as JSON lines."""

    def say(self, words: str) -> None:
        """Something about the program itself."""
        self._print({"type": "message", "message": words})

    def event(self, event: Event) -> None:
        """A step of an action."""
        from reconciler.cli.render.progress import event_json

        self._print(event_json(event))

    def transition(self, transition: Transition) -> None:
        """A resource that is another than it was."""
        t = transition
        self._print({
            "type": "condition", "address": t.address, "host": t.host, "condition": t.type, "before": t.before,
            "after": t.after, "reason": t.reason, "message": t.message,
            **({"heard": round(t.heard, 3)} if t.heard is not None else {}),
        })  # fmt: skip

    def _print(self, document: dict[str, Any]) -> None:
        typer.echo(json.dumps({"at": round(time.time(), 3), **document}))


def transition_line(transition: Transition) -> str:
    """A change in words."""
    words = f": {escaped(transition.message)}" if transition.message else ""
    if transition.type == "Phase":
        before = f"{transition.before} → " if transition.before else ""
        return f"{transition.address}: {before}{transition.after}{words}"
    state = {"True": transition.type, "False": f"not {transition.type} any more"}.get(
        transition.after, f"{transition.type} unknown"
    )
    return f"{transition.address}: {state} ({transition.reason}){words}"


def _now() -> str:
    return time.strftime("%H:%M:%S")
