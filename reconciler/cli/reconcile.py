"""`reconciler reconcile`: asks the running controller to look and act now, whatever failed before."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from reconciler.cli.common import AsJson, Specs, load, run
from reconciler.core.printed import escaped
from reconciler.core.selection import address
from reconciler.core.spec import Desired
from reconciler.errors import ReconcilerError, UsageError

TIMED_OUT, STALLED = 9, 3


def command(
    which: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS]...", help="Only these; all else.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is done, or stalled.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="T", help="How long to wait.")] = "10m",
    restart: Annotated[bool, typer.Option("--restart", help="Restart them, though nothing changed.")] = False,
    accept: Annotated[
        str | None, typer.Option("--accept", metavar="REVISION", help="It is meant, though most of its files are gone.")
    ] = None,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Ask `reconciler run` to read its source and look at the hosts now, and to try again what failed."""
    from reconciler.core.values import parse_duration

    try:
        seconds = parse_duration(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout {timeout}: {error}") from None
    desired = load(directory)
    addresses = [address(desired, text) for text in which or ()]
    if restart and not addresses:
        raise UsageError("--restart is for sessions that are named")
    answer = run(_ask(desired, addresses, restart, seconds if wait else 0.0, accept))
    if as_json:
        typer.echo(json.dumps({"format_version": "1.0", **answer}, indent=2))
    stalled = _tell(answer, quiet=as_json)
    if wait and not answer["settled"]:
        raise typer.Exit(TIMED_OUT)
    raise typer.Exit(STALLED if wait and stalled else 0)


async def _ask(
    desired: Desired, addresses: list[str], restart: bool, wait: float, accept: str | None
) -> dict[str, Any]:
    from reconciler.asking import controller_of

    controller = await controller_of(desired.fleet.name)
    if controller is None:
        raise ReconcilerError(
            f"no reconciler run keeps the fleet {desired.fleet.name} on this machine", code="no-controller",
            remedy="reconciler run, or reconciler apply",
        )  # fmt: skip
    try:
        if accept is not None:
            await controller.ask("accept", revision=accept)
        return await controller.ask(
            "reconcile", lambda words: typer.echo(f"  {escaped(words)}", err=True), addresses=addresses,
            restart=restart, wait=wait,
        )  # fmt: skip
    finally:
        await controller.close()


def _tell(answer: dict[str, Any], *, quiet: bool) -> bool:
    """Print how each is now; whether one of them is stalled."""
    stalled = False
    for status in answer["statuses"]:
        reasons = [c for c in status["conditions"] if c["type"] == "Stalled" and c["status"] == "True"]
        stalled = stalled or bool(reasons)
        if not quiet and (reasons or len(answer["statuses"]) <= 20):
            words = f": {escaped(str(reasons[0]['message']))}" if reasons else ""
            typer.echo(f"{status['address']} on {status['host']}: {status['phase']}{words}")
    return stalled
