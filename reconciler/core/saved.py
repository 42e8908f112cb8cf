"""A saved plan: a permission for these very actions, for a day and one use, as JSON; what is left of it now. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeGuard

from reconciler.core import jsons
from reconciler.core.plan import SEVERITY, Action, Plan
from reconciler.core.printed import plan_json, render
from reconciler.core.report import Outcome

FORMAT = "1.0"
LIFETIME = 24 * 3600.0  # seconds for which a saved plan may be applied
SIZE_LIMIT = 50_000_000  # bytes


@dataclass(frozen=True)
class Approved:
    """One action that somebody approved of: what is done where, and what that rests on."""

    address: str
    host: str
    verb: str
    precondition: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class SavedPlan:
    """A plan as it was saved. `text` is its printed form; `restart` and `take_over` are addresses asked for."""

    id: str
    fleet: str
    revision: str
    at: float
    restart: tuple[str, ...]
    take_over: tuple[str, ...]
    max_stop: str | None
    actions: tuple[Approved, ...]
    text: str

    def expired(self, now: float) -> bool:
        """Whether its day is over, or it is from the future."""
        return not self.at - 300 <= now <= self.at + LIFETIME


def to_json(
    plan: Plan, at: float, restart: tuple[str, ...] = (), take_over: tuple[str, ...] = (), max_stop: str | None = None
) -> str:
    """The plan as a file. Holds no step and no value of an environment: those are worked out again."""
    document = plan_json(plan)
    approved = [asdict(approve(action)) for action in plan.effective]
    saved = {
        "type": "reconciler-plan", "format_version": FORMAT, "id": plan.id, "fleet": plan.fleet,
        "revision": plan.revision, "at": at, "restart": list(restart), "take_over": list(take_over),
        "max_stop": max_stop, "approved": approved, "plan": document, "text": render(plan),
    }  # fmt: skip
    return json.dumps(saved, indent=1) + "\n"


def approve(action: Action) -> Approved:
    """What of an action is approved of."""
    return Approved(action.address, action.host, action.verb, action.precondition, tuple(sorted(action.hosts)))


def parse_saved(text: str) -> SavedPlan:
    """Read a saved plan. Raises ValueError saying what is wrong with it."""
    found = jsons.loads(text)
    if not isinstance(found, dict) or found.get("type") != "reconciler-plan":
        raise ValueError("no saved plan")
    if found.get("format_version") != FORMAT:
        raise ValueError(f"format {found.get('format_version')!r}, this program knows {FORMAT}")
    words = {key: _text(found, key) for key in ("id", "fleet", "revision", "text")}
    at, max_stop = found.get("at"), found.get("max_stop")
    if not _is_time(at) or not (max_stop is None or isinstance(max_stop, str)):
        raise ValueError("`at` or `max_stop` is not what it should be")
    approved = found.get("approved")
    if not isinstance(approved, list):
        raise ValueError("`approved` is no list")
    return SavedPlan(
        at=float(at), restart=_words(found, "restart"), take_over=_words(found, "take_over"), max_stop=max_stop,
        actions=tuple(map(_approved, approved)), **words,
    )  # fmt: skip


def _is_time(value: object) -> TypeGuard[int | float]:
    """Whether it is a moment between 1970 and the year 9999, which a clock can show."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 253_000_000_000


def _text(table: Mapping[str, Any], key: str) -> str:
    if not isinstance(table.get(key), str):
        raise ValueError(f"`{key}` is no text")
    return str(table[key])


def _words(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = table.get(key)
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ValueError(f"`{key}` is no list of texts")
    return tuple(found)


def _approved(item: object) -> Approved:
    if not isinstance(item, dict):
        raise ValueError("an approved action is no table")
    words = {f.name: _text(item, f.name) for f in fields(Approved) if f.name != "hosts"}
    if words["verb"] not in SEVERITY:
        raise ValueError(f"`{words['verb'][:40]}` is no verb")
    return Approved(**words, hosts=_words(item, "hosts"))


def bounded(saved: SavedPlan, fresh: Plan) -> tuple[Plan, dict[str, Outcome]]:
    """What of a fresh plan is approved of; and the outcomes, by `ADDRESS@HOST`, of approved actions not to be begun.

    An action that the fresh plan lacks is done already. One that rests on something else now, or would do something
    else, is stale. What nobody approved of does not happen.
    """
    now = {f"{action.address}@{action.host}": action for action in fresh.actions}
    outcomes: dict[str, Outcome] = {}
    allowed = []
    for approved in saved.actions:
        key = f"{approved.address}@{approved.host}"
        action = now.get(key)
        if action is None:
            done = Outcome(approved.address, approved.host, approved.verb, "done", message="it is so already")
            outcomes[key] = done
        elif approve(action) == approved:
            allowed.append(action)
        else:
            outcomes[key] = stale(approved, f"it would be: {action.verb} ({action.message})")
    kept = {action.address for action in allowed}
    # Whoever comes after something stale is not begun either.
    gone = {approved.address for approved in saved.actions if outcomes.get(f"{approved.address}@{approved.host}")
            and outcomes[f"{approved.address}@{approved.host}"].status != "done"}  # fmt: skip
    ready = []
    for action in allowed:
        if action.anyway or not gone & set(action.after):
            ready.append(replace(action, after=tuple(first for first in action.after if first in kept)))
            continue
        first = next(iter(sorted(gone & set(action.after))))
        outcomes[f"{action.address}@{action.host}"] = stale(approve(action), f"it comes after {first}, which is stale")
        gone.add(action.address)
    return replace(fresh, actions=tuple(ready)), outcomes


def stale(approved: Approved, why: str) -> Outcome:
    """The outcome of an approved action that is not begun."""
    remedy = "reconciler plan -o FILE, then apply that one"
    return Outcome(approved.address, approved.host, approved.verb, "skipped", 0.0, "stale", why, remedy)
