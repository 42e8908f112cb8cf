"""`reconciler graph`: which sessions run on which hosts, and what waits for what; offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from reconciler.core.diagnostics import Diagnostic, render_all
from reconciler.core.spec import Desired, Host, Session
from reconciler.errors import SpecError
from reconciler.sources.directory import load

FORMAT_VERSION = "1.0"


def command(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The spec directory.")] = "specs",
    dot: Annotated[bool, typer.Option("--dot", help="Print Graphviz's language.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show hosts, their sessions, and the order that `depends_on` asks for."""
    if dot and as_json:
        typer.echo("error: --dot and --json exclude each other", err=True)
        raise typer.Exit(64)
    try:
        desired = load(directory)
    except SpecError as error:
        typer.echo(render_all([d for d in error.diagnostics if isinstance(d, Diagnostic)]), err=True)
        raise typer.Exit(error.exit_code) from None
    form = to_dot if dot else to_json if as_json else to_tree
    typer.echo(form(desired))


def to_tree(desired: Desired) -> str:
    """Hosts, sessions below them, and behind each what it waits for."""
    lines: list[str] = []
    for host, sessions in _by_host(desired):
        lines.append(f"host.{host}{_notes(desired.hosts[host], host)}")
        addresses = {name: desired.address(name) for name in sessions}
        width = max((len(address) for address in addresses.values()), default=0)
        lines += [f"  {addresses[name]:<{width}}  {_describe(s)}" for name, s in sessions.items()]
    return "\n".join(lines)


def to_json(desired: Desired) -> str:
    """`{format_version, revision, nodes: [{address, kind, …}], edges: [{from, to, until}]}`; `from` waits for `to`."""
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    for host, sessions in _by_host(desired):
        nodes.append({"address": f"host.{host}", "kind": "host"})
        for name, session in sessions.items():
            address = desired.address(name)
            nodes.append({"address": address, "kind": address.partition(".")[0], "host": host, "agent": session.agent})
            edges += [{"from": address, "to": f"session.{d.session}", "until": d.until} for d in session.depends_on]
    document = {"format_version": FORMAT_VERSION, "revision": desired.revision, "nodes": nodes, "edges": edges}
    return json.dumps(document, indent=2)


def to_dot(desired: Desired) -> str:
    """A box per host around its sessions, an arrow from each session to what it waits for."""
    lines = ["digraph fleet {", "  rankdir = LR;", "  node [shape = box];"]
    edges: list[str] = []
    for index, (host, sessions) in enumerate(_by_host(desired)):
        lines += [f"  subgraph cluster_{index} {{", f"    label = {_quote(host)};"]
        for name, session in sessions.items():
            label = _quote(f"{name}\n{session.agent}")
            lines.append(f"    {_quote(desired.address(name))} [label = {label}];")
            for d in session.depends_on:
                ends = f"{_quote(desired.address(name))} -> {_quote(f'session.{d.session}')}"
                edges.append(f"  {ends} [label = {_quote(d.until)}];")
        lines.append("  }")
    return "\n".join([*lines, *edges, "}"])


def _by_host(desired: Desired) -> Iterator[tuple[str, dict[str, Session]]]:
    """Hosts by name, with their sessions in the order of the specs; `local` only where it is used."""
    placed: dict[str, dict[str, Session]] = {host: {} for host in sorted(desired.hosts)}
    for name, session in desired.sessions.items():
        placed[session.host][name] = session
    for host, sessions in placed.items():
        if sessions or host != "local":
            yield host, sessions


def _notes(host: Host, name: str) -> str:
    address = "" if host.transport == "local" or host.address in (None, name) else f" ({host.address})"
    return address + ("" if host.enabled else " disabled")


def _describe(session: Session) -> str:
    words = [session.agent]
    if session.lifecycle == "task":
        words.append("task")
    if session.state == "stopped":
        words.append("stopped")
    if session.depends_on:
        words.append("after " + ", ".join(f"{d.session} ({d.until})" for d in session.depends_on))
    return "  ".join(words)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
