"""A plan as Markdown, for pull requests. Pure.

The specs of a public repository are hostile: all that comes from them stands in code spans and one fenced block, where
neither Markdown nor HTML nor mentions nor links are read, and out of which no text can get.
"""

from __future__ import annotations

import re

from reconciler.core.plan import Action, Plan
from reconciler.core.printed import NO_CHANGES, escaped, render, summary_line, symbol

ROWS = 200  # of the table
DETAILS = 40_000  # characters; a comment on GitHub takes 65,536
_CELL = 160


def markdown(plan: Plan, against: str = "") -> str:
    """The summary, a table of the actions, and the printed plan to unfold. `against`: what it was compared with."""
    title = "### Plan" + (f" against {code(against)}" if against else "")
    if not plan.actions:
        return f"{title}\n\n{NO_CHANGES}\n"
    rows = [_row(action) for action in plan.actions[:ROWS]]
    left = len(plan.actions) - len(rows)
    more = [f"\n{left} more below." if left > 0 else ""]
    table = ["| | address | host | why | changed |", "|---|---|---|---|---|", *rows, *more]
    return "\n".join([title, "", f"**{summary_line(plan)}**", "", *table, "", *_details(render(plan))]) + "\n"


def code(text: str, limit: int = _CELL) -> str:
    """Any text as a code span that may stand in a cell of a table; empty text stays empty."""
    text = escaped(text if len(text) <= limit else text[: limit - 3] + "...").strip()
    # A table is cut at `|` before anything else is read, and what escapes the `|` can itself be escaped.
    text = text.replace("|", "¦")
    fence = "`" * (_longest(text) + 1)
    return f"{fence} {text} {fence}" if text else ""


def _row(action: Action) -> str:
    fields = ", ".join(change.field for change in action.changes)
    cells = (symbol(action), action.address, action.host, action.message, fields)
    return "| " + " | ".join(code(cell) for cell in cells) + " |"


def _details(text: str) -> list[str]:
    lines = "\n".join(escaped(line) for line in text.rstrip("\n").split("\n"))
    if len(lines) > DETAILS:
        lines = lines[:DETAILS] + "\n... (the rest is left out here)"
    fence = "`" * max(3, _longest(lines) + 1)
    return ["<details><summary>Details</summary>", "", f"{fence}text", lines, fence, "", "</details>"]


def _longest(text: str) -> int:
    """The length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
