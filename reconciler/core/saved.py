"""A saved plan: a permission for these very actions, for a day and one use, as JSON; what is left of it now. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeGuard

from reconciler.core import jsons
from reconciler.core.plan import SEVERITY, Action, Plan
from reconciler.core.printed import plan_json, render
from reconciler.core.report import Outcome

FORMAT = "1.0"
LIFETIME = 24 * 3600.0  # seconds for which a saved plan may be applied
SIZE_LIMIT = 50_000_000  # bytes
MAKE_ANEW = "reconciler plan -o FILE, then apply that one"
_CODES = {"unknown": "unreached", "blocked": "blocked"}  # of what may be begun another time
Verdict = Literal["begin", "done", "stale"]


@dataclass(frozen=True)
class Approved:
    """One action that somebody approved of: what is done where, and what that rests on."""

    address: str
    host: str
    verb: str
    precondition: str
    hosts: tuple[str, ...]

    @property
    def key(self) -> str:
        """What tells it apart within its plan: an orphan may bear the same name on two hosts."""
        return f"{self.address}@{self.host}"


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
    saved = saved_of(plan, at, restart, take_over, max_stop)
    table = {**to_table(saved), "plan": plan_json(plan), "text": render(plan)}
    return json.dumps(table, indent=1) + "\n"


def saved_of(
    plan: Plan, at: float, restart: tuple[str, ...] = (), take_over: tuple[str, ...] = (), max_stop: str | None = None
) -> SavedPlan:
    """What of a plan is approved of, without its printed form."""
    approved = tuple(map(approve, plan.effective))
    return SavedPlan(plan.id, plan.fleet, plan.revision, at, restart, take_over, max_stop, approved, "")


def to_table(saved: SavedPlan) -> dict[str, Any]:
    """The same as JSON data, for `parse_table`."""
    return {
        "type": "reconciler-plan", "format_version": FORMAT, "id": saved.id, "fleet": saved.fleet,
        "revision": saved.revision, "at": saved.at, "restart": list(saved.restart),
        "take_over": list(saved.take_over), "max_stop": saved.max_stop, "approved": list(map(asdict, saved.actions)),
        "text": saved.text,
    }  # fmt: skip


def approve(action: Action) -> Approved:
    """What of an action is approved of."""
    return Approved(action.address, action.host, action.verb, action.precondition, tuple(sorted(action.hosts)))


def parse_saved(text: str) -> SavedPlan:
    """Read a saved plan. Raises ValueError saying what is wrong with it."""
    return parse_table(jsons.loads(text))


def parse_table(found: object) -> SavedPlan:
    """The same of JSON data. Raises ValueError."""
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


def strict(approved: Approved, action: Action) -> Verdict:
    """An action is begun where it is the very one that was approved of."""
    return "begin" if approve(action) == approved else "stale"


def bounded(
    saved: SavedPlan,
    fresh: Plan,
    judge: Callable[[Approved, Action], Verdict] = strict,
    anew: str = MAKE_ANEW,
) -> tuple[Plan, dict[str, Outcome]]:
    """What of a fresh plan is approved of; and the outcomes, by `ADDRESS@HOST`, of approved actions not to be begun.

    An action that the fresh plan lacks is done already. One that rests on something else now, or would do something
    else, is stale, as `judge` says. What nobody approved of does not happen. `anew` is the command for what is stale.
    """
    now = {f"{action.address}@{action.host}": action for action in fresh.actions}
    outcomes: dict[str, Outcome] = {}
    allowed = []
    for approved in saved.actions:
        action = now.get(approved.key)
        verdict = judge(approved, action) if action is not None else "done"
        silent = [name for name in approved.hosts if fresh.hosts.get(name) is not None]
        if action is None and silent:  # nobody knows what left the specs there
            why = f"{silent[0]} was not observed: {fresh.hosts[silent[0]]}"
            outcomes[approved.key] = stale(approved, why, f"reconciler status host.{silent[0]}", "unreached")
        elif action is None or verdict == "done":
            done = Outcome(approved.address, approved.host, approved.verb, "done", message="it is so already")
            outcomes[approved.key] = done
        elif verdict == "begin":
            allowed.append((approved, action))
        else:
            outcomes[approved.key] = _not_begun(approved, action, anew)
    return _ready(fresh, allowed, outcomes, anew), outcomes


def _ready(fresh: Plan, allowed: list[tuple[Approved, Action]], outcomes: dict[str, Outcome], anew: str) -> Plan:
    """The allowed actions, but those that come after something that is not begun: they get their outcomes here."""
    kept = {action.address for _, action in allowed}
    others = {action.address: action for action in fresh.effective if action.address not in kept}
    gone = {outcome.address: outcome for outcome in outcomes.values() if outcome.status != "done"}
    ready = []
    for approved, action in allowed:
        names = () if action.anyway else sorted(action.after)
        first = next((gone[name] for name in names if name in gone), None)
        other = next((others[name] for name in names if name in others), None)
        if first is not None:
            word = {"unreached": "not observed", "blocked": "blocked"}.get(first.code, "stale")
            late = stale(approved, f"it comes after {first.address}, which is {word}", first.remedy, first.code)
        elif other is not None:
            why = f"it comes after {other.address}, and nobody approved of that: {other.verb} ({other.message})"
            late = stale(approved, why, anew, "blocked")
        else:
            ready.append(replace(action, after=tuple(name for name in action.after if name in kept)))
            continue
        outcomes[approved.key] = gone[action.address] = late
    return replace(fresh, actions=tuple(ready))


def _not_begun(approved: Approved, action: Action, anew: str) -> Outcome:
    code = _CODES.get(action.verb, "stale")
    remedy = action.remedy if code != "stale" else anew
    return stale(approved, f"it would be: {action.verb} ({action.message})", remedy, code)


def stale(approved: Approved, why: str, remedy: str = MAKE_ANEW, code: str = "stale") -> Outcome:
    """The outcome of an approved action that is not begun. Codes: stale; unreached and blocked, which may pass."""
    return Outcome(approved.address, approved.host, approved.verb, "skipped", 0.0, code, why, remedy)
