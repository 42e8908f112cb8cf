"""The safety contract, checked on files and processes of the hosts and controllers, after the faults have stopped."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.broken import Broken
from chaos.script import Specs
from chaos.watch import whole_lines
from reconciler.runtimes.operations import Credentials, renew_operation
from tests.e2e.moving import STORE
from tests.e2e.program import Site

_TOUCHED = ("ops/*", "sessions/*/record.json", "sessions/*/incarnation", "sessions/*/launch", "fence", "lease")


def reached(sites: Mapping[str, Site], specs: Specs) -> list[Broken]:
    """I1: each session runs where the specs say, once, and what is not to run does not."""
    found = []
    for name, session in specs.items():
        live = _live(sites, name)
        wanted = [session.host] if session.state == "running" else []
        if live != wanted:
            found.append(Broken("I1", f"{name} lives on {live or 'no host'}, not on {wanted or 'none'}"))
    known = {path.parent.name for site in sites.values() for path in site.state.glob("sessions/*/record.json")}
    for name in sorted(known - set(specs)):
        if live := _live(sites, name):
            found.append(Broken("I1", f"{name} left the specs and lives on {live}"))
    return found


def _live(sites: Mapping[str, Site], name: str) -> list[str]:
    """The hosts with a process of a session's conversations, once for each."""
    conversations = set()
    for site in sites.values():
        with contextlib.suppress(OSError, ValueError):
            conversations.add(site.record(name)["conversation"])
    return [
        host
        for host, site in sites.items()
        for _, argv in site.host.processes()
        if "script-agent" in " ".join(argv[:2]) and len(argv) > 3 and argv[3] in conversations
    ]


def alone(sites: Iterable[Site]) -> list[Broken]:
    """I3, by the agents' own records: nothing was started twice, opened beside another process, or told twice."""
    found = []
    for site in sites:
        for path in (site.host.home / STORE).glob("*.jsonl"):
            entries = [json.loads(line) for line in whole_lines(path)]
            opened = [entry for entry in entries if entry["kind"] == "open"]
            if [entry["verb"] for entry in opened].count("start") > 1:
                found.append(Broken("I3", f"{path.name} on {site.host.name} was started twice"))
            if not all(entry["alone"] for entry in opened):
                found.append(Broken("I3", f"{path.name} on {site.host.name} was open in two processes"))
            told = [entry["text"] for entry in entries if entry["kind"] == "user"]
            if twice := sorted({text for text in told if told.count(text) > 1}):
                found.append(Broken("I3", f"{path.name} on {site.host.name} was told twice: {twice}"))
    return found


def touched(site: Site) -> dict[str, bytes]:
    """What a controller could have changed on a host: operations, records, leases."""
    found = {}
    for pattern in _TOUCHED:
        for path in site.state.glob(pattern):
            with contextlib.suppress(OSError):
                found[str(path.relative_to(site.state))] = path.read_bytes()
    return found


def untouched(host: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[Broken]:
    """I4: nothing of that differs, since nothing got there."""
    differs = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [Broken("I4", f"{host} could not be reached, and {', '.join(differs)} changed there")] if differs else []


def planned(output: str) -> list[Broken]:
    """I5: of one apply, only what its plan said was begun."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"type"')]
    allowed = {line["address"] for line in lines if line["type"] == "planned_action"}
    begun = {line["address"] for line in lines if line["type"] == "apply_start"}
    return [Broken("I5", f"{address} was begun and is not in the plan") for address in sorted(begun - allowed)]


def kept(lines: Mapping[str, set[bytes]], roots: Iterable[Path]) -> list[Broken]:
    """I6: all that agents ever wrote is in a store or an archive still."""
    missing = {name: set(found) for name, found in lines.items()}
    for root in roots:
        for path in root.rglob("*"):
            stem = next((name for name in missing if name.partition(".")[0] in str(path)), None)
            if stem is not None and path.is_file() and not path.is_symlink():
                missing[stem] -= set(whole_lines(path))
    return [
        Broken("I6", f"{name}: {len(left)} lines are lost, such as {sorted(left)[0][:200]!r}")
        for name, left in missing.items()
        if left
    ]


def settled(entries: Sequence[Mapping[str, Any]], who: str) -> list[Broken]:
    """I7: each intent in a journal has its outcome."""
    return [
        Broken("I7", f"{who}: {entry['verb']} {entry['address']} has no outcome")
        for entry in entries
        if not entry["outcome"]
    ]


def refuses(site: Site, fleet: str) -> list[Broken]:
    """I8: a controller of an older fence, with no lease in its way, is refused by the host."""
    fence = site.fence()
    text = renew_operation(Credentials(fleet, "chaos", fence=fence - 1), "chaos")
    done: subprocess.CompletedProcess[str] = site.host.exec(["sh"], stdin=text)
    if '"code":"fence-stale"' not in done.stdout:
        return [Broken("I8", f"{site.host.name} has seen fence {fence} and answers {fence - 1} with {done.stdout!r}")]
    return []


def secret(needle: str, roots: Iterable[Path], said: Iterable[str]) -> list[Broken]:
    """I9: the value stands in no file, and in nothing that was said."""
    found = [Broken("I9", f"the secret was said: {text[:200]}") for text in said if needle in text]
    for root in roots:
        for path in root.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and needle.encode() in path.read_bytes():
                    found.append(Broken("I9", f"the secret is in {path}"))
    return found
