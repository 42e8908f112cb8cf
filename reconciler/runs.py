"""The runs of one controller, in its journal: what each apply was approved of and has not done yet."""

from __future__ import annotations

from reconciler.core.resuming import Progress, Run, parse_run, remaining, to_json
from reconciler.core.saved import SavedPlan
from reconciler.errors import UsageError
from reconciler.execute import operation_id
from reconciler.journal import Journal

KEPT = 20  # runs that are remembered
_KEY = "run "
_FEWEST = 4  # characters that name a run


def keep(journal: Journal, run: Run) -> None:
    """Remember it as it is now; the oldest are forgotten."""
    journal.keep(_KEY + run.id, to_json(run))
    for old in known(journal)[KEPT:]:
        journal.keep(_KEY + old.id, None)


def known(journal: Journal) -> list[Run]:
    """All that are remembered, the latest first. What cannot be read is none."""
    found = []
    for text in journal.kept(_KEY).values():
        try:
            found.append(parse_run(text))
        except ValueError:
            continue
    return sorted(found, key=lambda run: run.at, reverse=True)


def find(journal: Journal, text: str) -> Run:
    """The run that a person means by its id or how that begins. Raises UsageError naming those that are known."""
    runs = known(journal)
    found = [run for run in runs if run.id == text or (len(text) >= _FEWEST and run.id.startswith(text))]
    if len(found) == 1:
        return found[0]
    lines = [f"{run.short} ({left(journal, run)} of {run.count} left)" for run in found or runs]
    what = "more than one run begins with" if found else "there is no run"
    names = ", ".join(lines) or "none"
    raise UsageError(f"{what} {text}; runs that are known: {names}", remedy=_remedy(found or runs))


def _remedy(runs: list[Run]) -> str:
    return f"reconciler apply --resume {runs[0].short}" if runs else "reconciler apply"


def left(journal: Journal, run: Run) -> int:
    """How many of its actions are not done."""
    return len(remaining(run, progress(journal, run).done).left.actions)


def unfinished(journal: Journal) -> list[tuple[Run, int]]:
    """The runs of which something is left, and how much, the latest first."""
    return [(run, count) for run in known(journal) if (count := left(journal, run))]


def of_saved(journal: Journal, saved: SavedPlan) -> Run:
    """The run that carries out a saved plan: what is left of it, where it was begun before."""
    for run in known(journal):
        if run.id == saved.id:
            return run
    return Run(saved, saved.at, len(saved.actions))


def progress(journal: Journal, run: Run) -> Progress:
    """What the intents say of the actions that are left, also where the controller was killed in the middle."""
    done: set[str] = set()
    begun: set[str] = set()
    failures: dict[str, int] = {}
    waiting = [action.key for action in run.left.actions]
    attempt = 0
    while waiting:
        again = str(attempt) if attempt else ""
        ops = {operation_id(run.id, key, again): key for key in waiting}
        found = journal.outcomes(ops)
        begun |= {ops[op] for op in found}
        done |= {ops[op] for op, outcome in found.items() if outcome == "done"}
        waiting = [ops[op] for op, outcome in found.items() if outcome == "failed"]
        attempt += 1
        failures |= dict.fromkeys(waiting, attempt)
    return Progress(frozenset(done), frozenset(begun), failures)


__all__ = ["find", "keep", "known", "left", "of_saved", "progress", "unfinished"]
