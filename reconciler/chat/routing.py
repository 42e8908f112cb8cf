"""Whom a moderator's reply goes to: fenced blocks, else `@name` mentions, else it is the final answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.chat._prose import Block, blocks, shortened, without_code
from reconciler.core import jsons

# Not behind a letter, digit or one of `.%+/@-`, nor before `@`, `.x` or `/x`: that is an e-mail address, a path or a
# package. The name is taken whole or not at all (`*+`).
_MENTION = re.compile(r"(?<![^\W_])(?<![.%+/@-])@([A-Za-z0-9][A-Za-z0-9_-]*+)(?!@|[./][A-Za-z])")
EVERYBODY = ("all", "everyone", "everybody")
_NOBODY = ("user", "human", "me", "moderator")  # whoever answers them answers
_TAG = "route"
REPLY_LIMIT = 200_000  # characters of a reply; what is in the middle of a longer one is not read
_TOLD = 5  # names that are told of many
_NAME_LIMIT = 80  # characters of a name that nobody has


@dataclass(frozen=True)
class Route:
    """What follows from a reply: messages by participant; or a final answer; or why neither can be."""

    messages: Mapping[str, str] = field(default_factory=dict)
    final: str | None = None
    trouble: str = ""


class _Names:
    """Who may be addressed: by the very name, or as people may write it."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = tuple(dict.fromkeys(names))
        self._loose = {_plain(name): name for name in reversed(self.all)}

    def meant(self, written: str) -> tuple[str, ...]:
        """The participants that somebody means; empty where there is none of that name."""
        exact = written.strip(" @").lower()
        if exact in self.all:
            return (exact,)
        if _plain(written) in self._loose:
            return (self._loose[_plain(written)],)
        return self.all if _plain(written) in EVERYBODY else ()


def route(text: str, participants: Iterable[str], moderator: str = "") -> Route:
    """What the moderator's reply `text` asks for. `participants` are the names that may be addressed."""
    names = _Names(participants)
    text = shortened(text.rstrip(), REPLY_LIMIT)
    routing = _routing(blocks(text))
    if not routing:
        return _by_mentions(text, names, moderator)
    values = [_object(block) for block in routing]
    if None in values:
        return Route(trouble="the block is no JSON object with `to` or `final`")
    return _by_blocks([value for value in values if value is not None], names)


def prose(text: str) -> str:
    """A moderator's reply without the blocks that only say where it goes."""
    found = list(blocks(text))
    routing = {id(block) for block in _routing(found)}
    return "\n".join(line for block in found if id(block) not in routing for line in block.lines).strip()


def _plain(name: str) -> str:
    """A name as people may write it: case, and hyphens or spaces, make no difference."""
    return re.sub(r"[\s_]+", "-", name.strip(" \t\n@").lower()).rstrip("-.,;:!?")


def _routing(found: Iterable[Block]) -> list[Block]:
    """The blocks that say where a reply goes: those that are called so, else objects that look like it."""
    fenced = [block for block in found if block.fenced]
    called = [block for block in fenced if block.tag == _TAG]
    return called or [block for block in fenced if block.tag in ("", "json") and _object(block) is not None]


def _object(block: Block) -> Mapping[str, object] | None:
    """The JSON object in a fenced block, if it has `to` or `final`."""
    if not block.body.lstrip().startswith("{"):
        return None
    try:
        value = jsons.loads(block.body)
    except ValueError:
        return None
    return value if isinstance(value, dict) and ("to" in value or "final" in value) else None


def _by_blocks(found: Sequence[Mapping[str, object]], names: _Names) -> Route:
    """Several blocks are followed together."""
    finals = [final.strip() for value in found if isinstance(final := value.get("final"), str) and final.strip()]
    if finals and any(value.get("to") for value in found):
        return Route(trouble="it both delegates and is final")
    if finals:
        return Route(final="\n\n".join(finals))
    wanted: list[tuple[str, str]] = []
    for value in found:
        if value.get("to") is None:
            return Route(trouble="the block has neither `to` nor a text as `final`")
        pairs = _wanted(value)
        if pairs is None:
            return Route(trouble="`to` has to be a list of names, or of {name, message}")
        wanted += pairs
    return _checked(wanted, names)


def _wanted(value: Mapping[str, object]) -> list[tuple[str, str]] | None:
    """Pairs of a name as written and its message."""
    to, common = value["to"], value.get("message")
    if isinstance(to, str):
        to = [to]
    if isinstance(to, Mapping):
        to = [to] if "name" in to else [{"name": name, "message": message} for name, message in to.items()]
    if not isinstance(to, list):
        return None
    found = []
    for item in to:
        name = item.get("name") if isinstance(item, Mapping) else item
        message = item.get("message", common) if isinstance(item, Mapping) else common
        if not isinstance(name, str) or not isinstance(message, str | None):
            return None
        found.append((name, (message or "").strip()))
    return found


def _checked(wanted: Sequence[tuple[str, str]], names: _Names) -> Route:
    messages: dict[str, dict[str, None]] = {}
    unknown: dict[str, None] = {}
    for written, message in wanted:
        meant = names.meant(written)
        for name in meant:
            messages.setdefault(name, {})[message] = None  # the same thing twice is said once
        if not meant:
            unknown[written.strip()[:_NAME_LIMIT] or "without a name"] = None
    if unknown:
        return Route(trouble=f"there is no participant {_some(unknown)}; there are {', '.join(names.all) or 'none'}")
    if not messages:
        return Route(trouble="it delegates to nobody")
    return Route({name: "\n\n".join(part for part in parts if part) for name, parts in messages.items()})


def _some(names: Iterable[str]) -> str:
    told = list(names)
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return ", ".join(told[:_TOLD]) + more


def mentions(text: str) -> tuple[str, ...]:
    """The names behind `@` in prose, as written; never inside code or an e-mail address."""
    return tuple(dict.fromkeys(match[1] for match in _MENTION.finditer(without_code(text))))


def _by_mentions(text: str, names: _Names, moderator: str) -> Route:
    ignored = {*_NOBODY, _plain(moderator)}
    spoken = text.strip()
    found = [name for name in mentions(text) if _plain(name) not in ignored or _named(name, names)]
    if not found:
        return Route(final=spoken) if spoken else Route(trouble="the answer is empty")
    return _checked([(name, spoken) for name in found], names)


def _named(written: str, names: _Names) -> bool:
    """Whether a participant has the very name of what else is nobody."""
    return written.lower() in names.all
