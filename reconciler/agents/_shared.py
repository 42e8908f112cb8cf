"""The few rules that every agent driver follows alike: prompt length, paste text, trust, modes, events."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from reconciler.core import jsons
from reconciler.core.agent import PROMPT_ARGV_LIMIT, UNKNOWN, Activity, ActivityState, Facts
from reconciler.core.transcript import safe_name
from reconciler.errors import OperationError

_ID = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{5,80}")  # as a record takes it; "latest" and "1" are numbers in a list
_KEPT_CONTROLS = "\n\t"
_STATES: dict[object, ActivityState] = {"busy": "busy", "idle": "idle", "waiting": "waiting"}


def fits_argv(prompt: str) -> bool:
    """Whether the prompt may travel as one argument."""
    return len(prompt.encode("utf-8", "surrogatepass")) <= PROMPT_ARGV_LIMIT


def pasteable(text: str, *, defused: tuple[str, ...] = ("!", "/", "#")) -> str:
    """`text` for a bracketed paste: no control characters, no command, no open completion at its end.

    An escape character could end the paste early and type keys, so control characters are taken out. A
    leading space keeps `!ls` and `/exit` text. A completion popup that a last `@word` opens, or a last
    backslash, would eat the Enter that follows: a trailing space closes them.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(c for c in text if c in _KEPT_CONTROLS or (c >= " " and not "\x7f" <= c <= "\x9f"))
    if text.startswith(defused):
        text = " " + text
    last = text.split(" ")[-1].split("\n")[-1]
    return text + " " if last.endswith("\\") or last.startswith(("@", "$", "/")) else text


def mode_args(agent: str, modes: Mapping[str, tuple[str, ...]], wanted: str | None) -> tuple[str, ...]:
    """The arguments for a permission mode of the specs; none when none was asked for."""
    if wanted is None:
        return ()
    if wanted not in modes:
        known = ", ".join(sorted(modes)) or "none"
        raise ValueError(f"{agent} has no permission mode {wanted!r}; it has: {known}")
    return modes[wanted]


def without(args: tuple[str, ...], flags: frozenset[str], valued: frozenset[str]) -> tuple[str, ...]:
    """`args` without these options; those in `valued` go with their value, in whichever of its forms."""
    kept: list[str] = []
    rest = iter(args)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name in valued:
            if not equals:
                next(rest, None)
        elif name not in flags and not (len(word) > 2 and word[:2] in valued):
            kept.append(word)
    return tuple(kept)


def not_read_only(agent: str, why: str, remedy: str) -> OperationError:
    """What a headless turn is refused with that nothing would keep from changing files."""
    return OperationError(f"agent {agent} cannot take a read-only turn: {why}", code="read-only", remedy=remedy)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in `text`, or an empty one: files on hosts may be half-written or hostile."""
    try:
        value = jsons.loads(text) if text else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def is_id(text: str) -> bool:
    """Whether it can be a conversation's id, and nothing that an agent reads as an option."""
    return _ID.fullmatch(text) is not None


def argv_of(facts: Facts) -> tuple[str, ...]:
    """The arguments of a process that somebody else started."""
    return tuple(facts.texts.get("argv", "").split("\0")[:-1])


def option_of(argv: tuple[str, ...], *names: str) -> str | None:
    """The value of an option in either of its forms, if it is there once and no other option follows it."""
    found = [word.partition("=")[2] for word in argv if "=" in word and word.partition("=")[0] in names]
    found += [value for word, value in itertools.pairwise(argv) if word in names]
    return found[0] if len(found) == 1 and _ID.fullmatch(found[0]) else None


def hook_activity(facts: Facts) -> Activity:
    """What the last line of the session's `events` file says."""
    event = json_object(facts.event)
    state = event.get("state")
    if not isinstance(state, str) or state not in _STATES:
        return UNKNOWN
    at = event.get("at")
    since = float(at) if isinstance(at, int | float) and not isinstance(at, bool) and abs(at) < 1e12 else None
    detail = event.get("event") if state == "waiting" else ""
    return Activity(_STATES[state], "hook", since, detail[:80] if isinstance(detail, str) else "")


@lru_cache(maxsize=16384)
def archived(path: str, pattern: str) -> str | None:
    """What the first group of `pattern` finds at the end of a path, if that may become a name in the archive."""
    found = re.search(rf"(?:{pattern})\Z", path)
    return found[1] if found and safe_name(found[1]) else None


NOTHING = r"(?!)"  # a pattern that matches nothing


def unverified(agent: str, found: str | None, known: str) -> str | None:
    """A sentence for a store that a version wrote which the driver was not verified with."""
    if found is None or found == known or found.startswith(f"{known}."):
        return None
    return f"written by {agent} {found[:40]}, verified with {known}"
