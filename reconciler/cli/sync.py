"""`reconciler sync`: brings the archive up to date, and settles which copy counts where two have parted."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from reconciler.cli._acting import acting
from reconciler.cli.common import AsJson, Specs, load, run
from reconciler.cli.render.progress import looking
from reconciler.core.evidence import facts_of_host
from reconciler.core.observed import Reached
from reconciler.core.printed import escaped
from reconciler.core.readiness import busy
from reconciler.core.spec import Desired, name_of
from reconciler.core.transcript import Followed, is_due
from reconciler.errors import ReconcilerError, UsageError
from reconciler.hosts import Hosts
from reconciler.journal import Journal, open_journal
from reconciler.leases import actor
from reconciler.reconcile import Pass, archive_all, preview
from reconciler.transcripts.deciding import take_archive
from reconciler.transcripts.sync import Fork, PullResult

REFUSED, PARTIAL, UNREACHED = 8, 3, 4
_PAUSE = 2.0  # seconds between two looks of --watch
Address = Callable[[str], str]
_SIGNS = {"synced": "↓", "unchanged": "=", "archive-ahead": "↑", "diverged": "!", "failed": "!"}


def command(
    sessions: Annotated[list[str] | None, typer.Argument(metavar="[SESSION]...", help="Only these; all else.")] = None,
    take: Annotated[
        str | None, typer.Option("--take", metavar="archive|host", help="Which copy counts, where two have parted.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Go on: after each turn, and every sync.interval while it works.")
    ] = False,
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Do not ask.")] = False,
    directory: Specs = "specs",
    as_json: AsJson = False,
) -> None:
    """Copy what is new of every conversation into the archive: fast-forward only, whatever the clocks say.

    Where the copies on a host and in the archive have parted, both are kept and shown, and nothing is decided until
    --take says which one counts; the other stays beside it.
    """
    desired = load(directory)
    names = frozenset(name_of(text) for text in sessions or ()) or None
    if take is not None and (take not in ("archive", "host") or names is None):
        raise UsageError("--take archive|host is for sessions that are named", remedy="reconciler sync SESSION")
    if take is not None and not auto_approve and (as_json or not sys.stdin.isatty()):
        raise UsageError("--take asks before it acts, and there is no terminal to ask on", remedy="--auto-approve")
    if watch:
        if take is not None or as_json:
            raise UsageError("--watch goes with neither --take nor --json")
        run(_watch(desired, names))
    results, silent, address = run(_sync(desired, names, take, auto_approve))
    _print(results, silent, address, as_json)
    if any(result.outcome in ("failed", "diverged") for result in results):
        raise typer.Exit(PARTIAL)
    raise typer.Exit(UNREACHED if silent else 0)


async def _sync(
    desired: Desired, names: frozenset[str] | None, take: str | None, approved: bool
) -> tuple[list[PullResult], list[str], Address]:
    async with Hosts() as hosts:
        with open_journal(desired.fleet.name, write=False) as journal, looking(desired) as seen:
            done = await preview(desired, hosts, journal, seen=seen)
        if sys.stderr.isatty():
            typer.echo("copies what is new...", err=True)
        results = await archive_all(done, hosts, names)
        silent = [name for name, host in done.observed.hosts.items() if not isinstance(host, Reached)]
        missing = (names or frozenset()) - {result.session for result in results}
        if missing and not silent:
            raise UsageError(
                f"no conversation of {', '.join(sorted(missing))} is on any host", remedy="reconciler status"
            )
        if take is not None:
            results = [await _decide(done, hosts, result, take, approved) for result in results]
    return results, silent, done.address


async def _watch(desired: Desired, names: frozenset[str] | None) -> None:
    """Copy again and again, until Ctrl-C. What is unchanged costs one look."""
    known: dict[str, Followed] = {}
    async with Hosts() as hosts:
        while True:
            with open_journal(desired.fleet.name, write=False) as journal:
                done = await preview(desired, hosts, journal)
            now = time.monotonic()
            due = frozenset(_due(done, known, now)) & (names or frozenset(done.desired.sessions))
            for result in await archive_all(done, hosts, due) if due else ():
                if result.outcome != "unchanged":
                    _print_one(result, done.address(result.session))
            await asyncio.sleep(_PAUSE)


def _due(done: Pass, known: dict[str, Followed], now: float) -> Iterator[str]:
    for host in done.observed.hosts.values():
        for name, seen in host.sessions.items() if isinstance(host, Reached) else ():
            session, agent = done.desired.sessions.get(name), done.agents.get(seen.record.agent if seen.record else "")
            if session is None or agent is None or not session.sync.transcript:
                continue
            size = sum(file.size for file in seen.facts.store or ())
            last = known.get(name)
            if is_due(last, size, busy=busy(agent, seen), interval=session.sync.interval, now=now):
                known[name] = Followed(size, now)
                yield name


async def _decide(done: Pass, hosts: Hosts, result: PullResult, take: str, approved: bool) -> PullResult:
    """One session: nothing to decide where the copies have not parted."""
    if result.outcome != "diverged":
        return result
    typer.echo(f"{done.address(result.session)}: {escaped(result.message)}", err=True)
    whose = "the archive's" if take == "archive" else f"{result.host}'s"
    if not approved and not await asyncio.to_thread(asked, f"Shall {whose} copy count? Only `yes` is yes: ", "yes"):
        raise typer.Exit(REFUSED)
    with open_journal(done.desired.fleet.name, write=True, actor=actor("sync")) as journal:
        if take == "host":
            journal.record(
                "sync-take", done.desired.address(result.session), host=result.host, verb="take-host",
                revision=done.desired.revision, evidence=result.message, message=f"{whose} copy counts",
            )  # fmt: skip
            await asyncio.to_thread(done.archive.adopt, result.session, result.conversation)
        else:
            kept = await _placed(done, hosts, journal, result)
            typer.echo(f"what {result.host} had is kept there in {escaped(kept)}", err=True)
    again = await archive_all(await _look_again(done, hosts, result.host), hosts, frozenset({result.session}))
    return next((found for found in again if found.host == result.host), result)


async def _placed(done: Pass, hosts: Hosts, journal: Journal, result: PullResult) -> str:
    reached = done.observed.hosts[result.host]
    assert isinstance(reached, Reached)
    at, evidence = done.desired.address(result.session), f"{facts_of_host(reached, result.session)}; {result.message}"
    async with acting(done.desired, hosts, journal, result.host, at, "take-archive", evidence) as work:
        credentials = work.leases.credentials(result.host)
        return await take_archive(work.connection, reached, credentials, done.archive, result)


async def _look_again(done: Pass, hosts: Hosts, host: str) -> Pass:
    from dataclasses import replace

    reached = await hosts.connection(host, done.desired.hosts[host]).look(done.desired.fleet.name)
    return replace(done, observed=replace(done.observed, hosts={host: reached}))


def asked(question: str, wanted: str) -> bool:
    """Whether the person types exactly what is wanted."""
    try:
        return input(question).strip() == wanted
    except EOFError:
        return False


def _print(results: list[PullResult], silent: list[str], address: Address, as_json: bool) -> None:
    if as_json:
        document = {
            "format_version": "1.0",
            "sessions": [_json(result) for result in results],
            "unreached": silent,
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for result in results:
        _print_one(result, address(result.session))
    for name in silent:
        typer.echo(f"  ? host.{name} was not reached")
    new = sum(result.new for result in results)
    typer.echo(f"Sync: {len(results)} sessions, {new} new bytes.")


def _print_one(result: PullResult, address: str) -> None:
    typer.echo(f"  {_SIGNS.get(result.outcome, '?')} {address}  {escaped(result.message)}")
    if result.error is not None and result.error.remedy:
        typer.echo(f"      remedy: {escaped(result.error.remedy)}")
    elif result.outcome == "diverged":
        choice = f"reconciler sync {result.session} --take"
        typer.echo(f"      remedy: {choice} archive, or {choice} host")
    elif result.outcome == "purged":
        typer.echo(f"      remedy: delete that copy too: reconciler purge {address}")


def _json(result: PullResult) -> dict[str, Any]:
    error: ReconcilerError | None = result.error
    return {
        "session": result.session, "host": result.host, "conversation": result.conversation,
        "outcome": result.outcome, "new": result.new, "message": result.message,
        "code": error.code if error else "", "remedy": error.remedy if error else "",
        "forks": [_fork(fork) for fork in result.forks],
    }  # fmt: skip


def _fork(fork: Fork) -> dict[str, Any]:
    heads = {"host": fork.host, "archive": fork.archive}
    return {"name": fork.name} | {
        word: {"size": head.size, "sha256": head.sha256, "last": head.last} for word, head in heads.items()
    }
