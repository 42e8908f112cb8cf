"""`reconciler simulate`: what the specs would do when things go wrong; touches no network and no machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import _completion
from reconciler.cli.common import AsJson, Directory, load
from reconciler.errors import UsageError

if TYPE_CHECKING:
    from reconciler.simulation.mishaps import Mishap, Stage

_DEFAULT = "power-cut all at 5m for 10m"


def command(
    directory: Directory = "specs",
    faults: Annotated[
        list[str] | None,
        typer.Option(
            "--faults",
            "-f",
            metavar="SCRIPT|@FILE",
            autocompletion=_completion.fault_words,
            help=f"What goes wrong, as in 'power-cut gpu at 5m for 15m; kill-agent api at 10m'. [{_DEFAULT}]",
        ),
    ] = None,
    random: Annotated[int, typer.Option("--random", metavar="N", help="N faults more, drawn by --seed.", min=0)] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of what is drawn.", min=0)] = 0,
    lasts: Annotated[str, typer.Option("--for", metavar="T", help="How long the fleet is watched.")] = "30m",
    empty: Annotated[bool, typer.Option("--empty", help="Begin with hosts on which nothing runs yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what your specs do when a host dies: the loop of `run` on simulated machines, in virtual time.

    Faults are KIND [TARGET] [at T] [for D], with `;` between two; kinds: power-cut, reboot, cable, hang, slow,
    half-answers, disk-full, clock-jump (by A), kill-tmux, kill-sshd HOST; kill-agent SESSION; kill-controller,
    second-controller; random [seed N] [count K]. The target `all` is every host, or every session.

    Exits 0 when the fleet is as the specs say in the end and every promise was kept, else 1.
    """
    from reconciler.cli.render.simulation import text
    from reconciler.core.values import parse_duration
    from reconciler.simulation.outcome import to_json
    from reconciler.simulation.rehearsal import rehearse
    from reconciler.simulation.simulate import Script, simulate, stage_of

    try:
        seconds = parse_duration(lasts)
    except ValueError:
        raise UsageError(f"--for {lasts}: no duration such as 30m or 2h") from None
    desired = load(directory)
    if not desired.sessions:
        raise UsageError(f"{directory} declares no session: there is nothing to simulate", remedy="reconciler init")
    mishaps = _mishaps(faults, random, stage_of(desired, seconds, seed))
    result = simulate(rehearse(desired), Script(mishaps, seconds, empty, seed))
    if as_json:
        typer.echo(json.dumps(to_json(result), indent=2))
    typer.echo(text(result), err=as_json, nl=False)
    raise typer.Exit(result.exit_code)


def _mishaps(faults: list[str] | None, random: int, stage: Stage) -> tuple[Mishap, ...]:
    from reconciler.simulation.mishaps import parse_mishaps

    scripts = [_script(given) for given in faults or ([] if random else [_DEFAULT])]
    scripts += [("--random", f"random count {random}")] if random else []
    found = [mishap for file, script in scripts for mishap in parse_mishaps(script, stage, file)]
    return tuple(sorted(found, key=lambda mishap: mishap.at))


def _script(given: str) -> tuple[str, str]:
    """Where it is written, for errors, and its text."""
    if not given.startswith("@"):
        return "--faults", given
    try:
        with open(given[1:], encoding="utf-8") as file:
            return given[1:], file.read(1_000_000)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"--faults {given}: {why}") from None
