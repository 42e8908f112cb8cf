"""`reconciler plan`: shows what would happen, and why; changes nothing anywhere."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from reconciler.asking import controller_of
from reconciler.cli.common import AsJson, Directory, Exclude, Restart, Select, Target, load, run, selection
from reconciler.cli.render.progress import looking
from reconciler.cli.render.text import coloured, warn_of_stops
from reconciler.core.guards import limit_of
from reconciler.core.plan import Plan
from reconciler.core.printed import plan_json, render
from reconciler.core.report import plan_exit_code
from reconciler.core.spec import Desired
from reconciler.errors import ReconcilerError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import open_journal
from reconciler.reconcile import Options, preview


def command(
    directory: Directory = "specs",
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when something would change, 4 when a host is unknown.")
    ] = False,
    target: Target = None,
    exclude: Exclude = None,
    select: Select = None,
    restart: Restart = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Look, though reconciler run could answer.")] = False,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="REF", help="Ask no host: what this does to a fleet as the git REF says."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Save it, for `reconciler apply FILE`.")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Markdown, for a pull request.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what would happen, and why. Looks once at every host; changes nothing anywhere.

    While `reconciler run` keeps the fleet by the same specs it answers at once, from what it saw last.
    """
    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other")
    if out is not None and against is not None:
        raise UsageError("--out and --against exclude each other: a plan that asked no host permits nothing")
    desired = load(directory)
    options = Options(selection(target, exclude, select), tuple(restart or ()))
    askable = not (fresh or against or as_markdown or out) and options == Options()
    if askable and (known := run(_asked(desired.fleet.name, desired.revision))):
        _show(known["plan"], known["text"], as_json)
        raise typer.Exit(known["detailed"] if detailed_exitcode else known["code"])
    if against is None:
        plan = _observed(desired, options)
    else:
        from reconciler.offline import offline_plan
        from reconciler.sources.at_ref import load_at

        plan = offline_plan(load_at(directory, against), desired, options.selection, options.restart)
    if as_markdown:
        from reconciler.core.markdown import markdown

        typer.echo(markdown(plan, against or ""), nl=False)
    else:
        _show(plan_json(plan), render(plan), as_json)
    if out is not None:
        from reconciler.core.saved import to_json

        save(out, to_json(plan, time.time(), options.restart))
    warn_of_stops(plan, desired.fleet.max_stop, lambda: limit_of(desired))
    raise typer.Exit(plan_exit_code(plan, detailed=detailed_exitcode))


def save(path: str, text: str) -> None:
    """A whole file that only its owner reads, or an error and what was there before. Raises ReconcilerError."""
    import tempfile

    target = Path(path)
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(beside).replace(target)
    except OSError as error:
        raise ReconcilerError(f"{path}: {error.strerror}", code="file") from None


def _observed(desired: Desired, options: Options) -> Plan:
    """The plan for what the hosts say now."""

    async def work() -> Plan:
        async with Hosts() as hosts:
            with open_journal(desired.fleet.name, write=False) as journal, looking(desired) as seen:
                return (await preview(desired, hosts, journal, options, seen)).plan

    return run(work())


def _show(document: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        typer.echo(text, err=True, nl=False)
    else:
        typer.echo(coloured(text), nl=False)


async def _asked(fleet: str, revision: str) -> dict[str, Any] | None:
    """The plan of the running controller; None where there is none, or it has other specs."""
    controller = await controller_of(fleet)
    if controller is None:
        return None
    try:
        answer = await controller.ask("plan", revision=revision)
    except ReconcilerError:
        return None
    finally:
        await controller.close()
    if answer["plan"] is None:
        return None
    oldest = min((at for at in answer["looked"].values() if at is not None), default=None)
    age = f"; hosts looked at up to {time.time() - oldest:.0f} s ago" if oldest is not None else ""
    typer.echo(f"as the running controller knows it{age} (--fresh looks again)", err=True)
    return answer
