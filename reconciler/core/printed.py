"""The one printed form of a plan: people read it, logs keep it, tests compare it. And its JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reconciler.core.diff import Change
from reconciler.core.plan import Action, Plan
from reconciler.core.report import Report

SYMBOLS = {
    "start": "+", "resume": ">", "move": "→", "update": "~", "restart": "-/+", "stop": "-", "adopt": "=",
    "forget": ".", "blocked": "!", "unknown": "?",
}  # fmt: skip
MEANINGS = {
    "start": "start", "resume": "resume the same conversation", "move": "move", "update": "update in place",
    "restart": "restart", "stop": "stop", "adopt": "take under management", "forget": "stop managing",
    "blocked": "blocked", "unknown": "host not observed, no action",
}  # fmt: skip
NO_CHANGES = "No changes. The fleet matches the specs."


def escaped(text: str) -> str:
    """Text that may come from a host or a spec, on one line and without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def render(plan: Plan) -> str:
    """The plan as people read it: the symbols in use, the actions by host, one summary line."""
    if not plan.actions:
        return NO_CHANGES + "\n"
    lines = [*_legend(plan.actions), ""]
    hosts = dict.fromkeys(action.host for action in plan.actions)
    for host in hosts:
        error = plan.hosts.get(host)
        lines.append(f"host.{host}" + (f": {escaped(error)}" if error else ""))
        remedies = dict.fromkeys(a.remedy for a in plan.actions if a.host == host and _of_host(a, error))
        lines += [f"    remedy: {escaped(remedy)}" for remedy in remedies if remedy]
        for action in plan.actions:
            if action.host == host:
                lines += _action(action, error)
        lines.append("")
    return "\n".join([*lines, summary_line(plan)]) + "\n"


def symbol(action: Action) -> str:
    """`>` and its kin; `>^` for a resume that brings the archive's copy along."""
    return SYMBOLS[action.verb] + ("^" if action.verb == "resume" and action.to_remote_sync else "")


def _legend(actions: Iterable[Action]) -> list[str]:
    used = dict.fromkeys((action.verb, symbol(action)) for action in actions)
    found = []
    for verb, meaning in MEANINGS.items():
        for sign in sorted(sign for word, sign in used if word == verb):
            note = ", with to-remote sync first" if sign.endswith("^") else ""
            found.append(f"  {sign:>3}  {meaning}{note}")
    return found


def _of_host(action: Action, host_error: str | None) -> bool:
    """Whether it says what is wrong with its host: that stands above; each of its sessions need not say it again."""
    return host_error is not None and action.message == host_error


def _action(action: Action, host_error: str | None) -> list[str]:
    where = f"  {escaped(action.source.file)}:{action.source.line}" if action.source else ""
    known = _of_host(action, host_error)
    message = "" if known else f"  {escaped(action.message)}"
    lines = [f"  {symbol(action):>3} {action.address}{message}{where}"]
    lines += [f"        {_change(change)}" for change in action.changes]
    if action.after:
        lines.append(f"        after {', '.join(action.after)}")
    if action.remedy and not known:
        lines.append(f"        remedy: {escaped(action.remedy)}")
    return lines


def _change(change: Change) -> str:
    return f"{escaped(change.field)}: {_value(change.before)} → {_value(change.after)}"


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, str):
        return escaped(value if len(value) <= 60 else value[:57] + "...")
    return escaped(str(value))[:120]


def summary_line(plan: Plan) -> str:
    """`Plan: 1 to start, 1 to stop. 1 blocked, 36 unchanged.`, computed from the actions."""
    counts = plan.summary
    effects = [f"{counts[verb]} to {verb}" for verb in SYMBOLS if verb not in ("blocked", "unknown") and counts[verb]]
    rest = [f"{counts[word]} {word}" for word in ("blocked", "unknown") if counts[word]]
    rest.append(f"{counts['unchanged']} unchanged")
    return f"Plan: {', '.join(effects) or 'nothing to do'}. {', '.join(rest)}."


def plan_json(plan: Plan) -> dict[str, Any]:
    """The document that `plan --json` prints, format 1.0."""
    return {
        "format_version": "1.0",
        "revision": plan.revision,
        "actions": [action_json(action) for action in plan.actions],
        "summary": plan.summary,
        "hosts": [{"name": n, "reachable": e is None, "error": e} for n, e in plan.hosts.items()],
    }


def action_json(action: Action) -> dict[str, Any]:
    """One action of it."""
    return {
        "address": action.address,
        "verb": action.verb,
        "host": action.host,
        "reason": action.reason,
        "message": action.message,
        "remedy": action.remedy,
        "source": {"file": action.source.file, "line": action.source.line} if action.source else None,
        "changes": [{"field": c.field, "before": c.before, "after": c.after} for c in action.changes],
        "after": list(action.after),
        "severity": action.severity,
        "to_remote_sync": action.to_remote_sync,
    }


def recap(report: Report) -> str:
    """What came of it, in one line, and each thing that did not work with its remedy."""
    counts = report.counts
    words = {"done": "done", "failed": "failed", "skipped": "skipped", "unknown": "unknown"}
    line = ", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status] or status == "done")
    lines = []
    for outcome in report.outcomes:
        if outcome.status != "done":
            lines.append(f"  {outcome.address} {outcome.status}: {escaped(outcome.message)}")
            if outcome.remedy:
                lines.append(f"      remedy: {escaped(outcome.remedy)}")
    for action in report.plan.actions:
        if action.verb in ("blocked", "unknown"):
            lines.append(f"  {action.address} {action.verb}: {escaped(action.message)}")
    return "\n".join([f"Apply: {line}.", *lines])
