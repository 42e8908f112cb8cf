"""Which part of a fleet a command is about: targets, exclusions, label expressions; all become holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.core.diff import Diff
from reconciler.core.expressions import fits
from reconciler.core.spec import Desired, name_of
from reconciler.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """`targets` and `exclude` are addresses; `select` is a list of `key=value` and `key!=value`, all of which hold."""

    targets: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    select: str | None = None

    def __bool__(self) -> bool:
        return bool(self.targets or self.exclude or self.select)


def address(desired: Desired, text: str) -> str:
    """`session.NAME`, `group_chat.NAME` or `host.NAME` of what a person typed; a bare name is a session's, or else a
    group chat's. Raises UsageError."""
    kind, dot, _ = text.partition(".")
    if not dot:
        return desired.address(text)
    if kind not in ("session", "group_chat", "host"):
        raise UsageError(f"{text}: an address is session.NAME, group_chat.NAME or host.NAME")
    return text


def hold_for(desired: Desired, diff: Diff, selection: Selection, silent: Iterable[str] = ()) -> dict[str, None]:
    """The addresses that are not selected, each held with None: neither acted on nor shown.

    A target brings the sessions that it depends on. What left the specs is selected when nothing narrower than
    an exclusion is asked for, or by its address. `silent` are hosts that did not answer.
    """
    if not selection:
        return {}
    targets = {address(desired, text) for text in selection.targets}
    excluded = {address(desired, text) for text in selection.exclude}
    known = {entry.address for entry in diff.entries} | {f"host.{name}" for name in (*desired.hosts, *silent)}
    for text in sorted((targets | excluded) - known):
        raise UsageError(f"{text} is neither in the specs nor on a host", remedy="reconciler status")
    wanted = _with_dependencies(desired, targets)
    held: dict[str, None] = {}
    for entry in diff.entries:
        on = {entry.address, f"host.{entry.host}"}
        chosen = not targets or bool(on & wanted)
        if selection.select:
            chosen = chosen and entry.desired is not None and matches(desired, entry.name, selection.select)
        if not chosen or on & excluded:
            held[entry.address] = None
    for name in silent:
        if f"host.{name}" in excluded or selection.select or (targets and f"host.{name}" not in targets):
            held[f"host.{name}"] = None
    return held


def _with_dependencies(desired: Desired, targets: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(targets)
    while waiting:
        item = waiting.pop()
        if item in found:
            continue
        found.add(item)
        session = desired.sessions.get(name_of(item))
        if session is not None:
            waiting += [f"session.{dependency.session}" for dependency in session.depends_on]
        elif item.startswith("host."):
            for name, other in desired.sessions.items():
                if f"host.{other.host}" == item:
                    waiting.append(desired.address(name))
    return found


def matches(desired: Desired, name: str, expression: str) -> bool:
    """Whether a session fits `key=value,key!=value,...`. Keys: labels (its own, then its host's), `host`, `agent`."""
    session = desired.sessions[name]
    values = {
        **desired.hosts[session.host].labels, **session.labels,
        "host": session.host, "agent": session.agent, "name": name,
    }  # fmt: skip
    try:
        return fits(values, expression)
    except ValueError as error:
        raise UsageError(f"--select {error}") from None
