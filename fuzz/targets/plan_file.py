"""A saved plan: what `show` and `apply FILE` read."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from fuzz.oracles import harmless, scratch
from fuzz.targets._plans import EMPTY, plan_of
from reconciler.cli.show import command as show
from reconciler.core.parse import parse
from reconciler.core.plan import Plan
from reconciler.core.printed import escaped
from reconciler.core.saved import FORMAT, bounded, parse_saved
from reconciler.errors import ReconcilerError

SPECS = """
[sessions.api]
agent = "shell"
args = ["x"]
[sessions.web]
agent = "claude-code"
depends_on = [{session = "api"}]
"""


@cache
def _fresh() -> Plan:
    return plan_of(parse({"a.toml": SPECS}, {}), {"local": EMPTY})


@cache
def _file() -> Path:
    return scratch() / "plan"


def check(data: bytes) -> None:
    """All of it is the file."""
    file = _file()
    file.write_bytes(data)
    shown = io.StringIO()
    with contextlib.suppress(ReconcilerError), contextlib.redirect_stdout(shown):
        show(str(file))
    harmless(shown.getvalue())
    try:
        saved = parse_saved(data.decode("utf-8"))
    except ValueError:
        return
    kept, outcomes = bounded(saved, _fresh())
    allowed = {(a.address, a.host, a.verb) for a in saved.actions}
    assert all((a.address, a.host, a.verb) in allowed for a in kept.actions), "more than was approved of"
    for outcome in outcomes.values():
        harmless(escaped(outcome.message))
    saved.expired(1_800_000_000.0)
    words = asdict(saved)
    again = {"type": "reconciler-plan", "format_version": FORMAT, **words, "approved": words["actions"]}
    assert parse_saved(json.dumps(again)) == saved, "a plan is another after it was written and read"
