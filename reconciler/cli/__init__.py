"""The command line: one file a command, loaded only when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from reconciler import __version__, garbage
from reconciler.cli import _plugins
from reconciler.errors import ReconcilerError

USAGE = 64
BUG = 70

# In the order in which people need them.
COMMANDS = {
    "init": "Write a starter spec.",
    "import": "Hosts of your SSH config as tables of the specs.",
    "validate": "Check the specs, offline; every error with its place.",
    "doctor": "What each host lacks, with the command that fixes it.",
    "plan": "Show what would happen, and why.",
    "apply": "Make it happen.",
    "show": "Show a saved plan; asks no host.",
    "run": "Keep the fleet as the specs say, continuously.",
    "status": "Who does what, where, since when, and who waits for a human.",
    "simulate": "What the specs do when a host dies, on simulated machines.",
    "suspend": "Do nothing to a session, a host or the whole fleet, for a while or until further notice.",
    "unsuspend": "Lift a suspension.",
    "protect": "Nothing stops, moves or restarts a session, whatever the specs say.",
    "unprotect": "Lift a protection.",
    "adopt": "Take an agent that runs already under management, as it runs.",
    "forget": "Stop managing a session; it goes on.",
    "take-over": "Take the leases of hosts from a controller that is gone.",
    "orphans": "What runs on hosts that no spec declares.",
    "why": "Why a session is as it is, down to the evidence.",
    "logs": "What a session has printed.",
    "attach": "Attach this terminal to a session; detaching leaves it running.",
    "exec": "Run a command on a host.",
    "shell": "A login shell on a host.",
    "ls": "List a directory of a host.",
    "cat": "Print a file of a host.",
    "cp": "Copy a file from or to a host.",
    "edit": "Edit a file of a host here.",
    "send": "Send a message to a session.",
    "chat": "Talk to a group chat, read along, close it.",
    "transcript": "Read the conversation of a session.",
    "sync": "Copy what is new in the conversations into the archive; settle a divergence.",
    "purge": "Delete a conversation for good. The only command that does; it asks.",
    "reconcile": "Ask the running controller to look and act now.",
    "events": "What the running controller saw change.",
    "rollback": "The specs as they were, as a new commit; or hold `run` at a revision.",
    "history": "What was done, and what came of it.",
    "audit": "Check, show or export the log of all that was done, by whom and why.",
    "graph": "The order of things, as a picture.",
    "fmt": "Put specs in canonical form.",
    "schema": "JSON Schema of spec files, for editors.",
}


class Commands(TyperGroup):
    """Imports a command's file when it is asked for, not before."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"reconciler.cli.{cmd_name}")
        garbage.started()
        if hasattr(module, "group"):  # several commands in one file
            return get_command(module.group)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(cmd_name)(module.command)
        return get_command(app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The table, without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"reconciler {__version__}")
        raise typer.Exit


def _directory(value: str | None) -> None:
    if value is not None:
        try:
            os.chdir(value)
        except OSError as error:
            raise typer.BadParameter(f"cannot change to {value}: {error.strerror}") from None


def _colour(value: bool) -> None:
    if value:
        os.environ["NO_COLOR"] = "1"


def application() -> Any:
    """The whole command line."""
    app = typer.Typer(
        cls=Commands,
        name="reconciler",
        help="Keeps AI agent sessions running on machines as TOML specs in git say.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        directory: str = typer.Option(None, "-C", metavar="DIR", help="Change to DIR first.", callback=_directory),
        no_color: bool = typer.Option(False, "--no-color", help="No colours (also NO_COLOR=1).", callback=_colour),
        verbose: int = typer.Option(0, "-v", "--verbose", count=True, help="Say what goes on; twice: all of it."),
        log_format: str = typer.Option("text", "--log-format", metavar="text|json", help="How -v says it."),
        version: bool = typer.Option(False, "--version", "-V", help="Print the version.", callback=_version),
    ) -> None:
        if log_format not in ("text", "json"):
            raise typer.BadParameter(f"--log-format {log_format}: text or json")
        if verbose:
            from reconciler.cli.logging import start

            start(verbose, log_format)

    return get_command(app)


def run(arguments: list[str]) -> int:
    """Run one command line; its exit code. Errors that a user can act on are printed with their remedy."""
    if arguments[:1] not in ([], ["-h"], ["--help"]):  # those come without pydantic
        _plugins.leave_out()
    if "_RECONCILER_COMPLETE" in os.environ:
        from reconciler.cli._completion import completed

        completed(lambda: application().main(args=arguments, prog_name="reconciler", standalone_mode=False))
        return 0
    try:
        result = application().main(args=arguments, prog_name="reconciler", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return 130
    except ReconcilerError as error:
        return report_error(error)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does: no error, and nothing more to say.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except Exception as error:  # the last resort
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # the library's own errors about usage
            error.show()
            return USAGE if error.exit_code == 2 else int(error.exit_code)
        return _bug()
    return result if isinstance(result, int) else 0


def _bug() -> int:
    """Say that it is a bug, in one line; all of it where that is asked for."""
    import traceback

    if os.environ.get("RECONCILER_TRACEBACK"):
        traceback.print_exc()
        return BUG
    lines = traceback.format_exc().strip().splitlines()
    typer.echo(
        f"reconciler: this is a bug: {lines[-1]}\n  {' | '.join(line.strip() for line in lines[-3:-1])}", err=True
    )
    typer.echo("  RECONCILER_TRACEBACK=1 shows all of it; please report it", err=True)
    return BUG


def report_error(error: ReconcilerError) -> int:
    """Print an error with its remedy on stderr; the exit code that stands for it."""
    from reconciler.core.diagnostics import Diagnostic, render_all
    from reconciler.core.printed import escaped
    from reconciler.errors import SpecError

    if isinstance(error, SpecError) and error.diagnostics:
        typer.echo(render_all([d for d in error.diagnostics if isinstance(d, Diagnostic)]), err=True)
    else:
        typer.echo(f"error: {escaped(error.message)}", err=True)
        if error.remedy:
            typer.echo(f"  remedy: {escaped(error.remedy)}", err=True)
    return error.exit_code
