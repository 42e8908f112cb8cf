"""Whom a moderator's reply goes to: a fenced block, else `@name` mentions, else it is the final answer. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_FENCE = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[A-Za-z0-9_+-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S
)
_OPEN_FENCE = re.compile(r"^(?:`{3,}|~{3,})[^\n]*\n.*\Z", re.M | re.S)
_INDENTED = re.compile(r"^(?: {4}|\t)[^\n]*$", re.M)
_INLINE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
# Not behind a letter, digit or `.`, `_`, `%`, `+`, `-`, `/`: that is an e-mail address, a path or a package.
_MENTION = re.compile(r"(?<![\w.%+/@-])@([A-Za-z0-9][A-Za-z0-9_-]*)(?!@|[\w-]*\.[A-Za-z])")
EVERYBODY = ("all", "everyone", "everybody")
_NOBODY = ("user", "human", "me", "moderator")  # whoever answers them answers


@dataclass(frozen=True)
class Route:
    """What follows from a reply: messages by participant; or a final answer; or why neither can be."""

    messages: Mapping[str, str] = field(default_factory=dict)
    final: str | None = None
    trouble: str = ""


def route(text: str, participants: Iterable[str], moderator: str = "") -> Route:
    """What the moderator's reply `text` asks for. `participants` are the names that may be addressed."""
    names = {_plain(name): name for name in participants}
    block = _block(text)
    if block is not None:
        return _by_block(block, names)
    if trouble := _broken_block(text):
        return Route(trouble=trouble)
    return _by_mentions(text, names, moderator)


def _plain(name: str) -> str:
    """A name as people may write it: case, and hyphens or spaces, make no difference."""
    return re.sub(r"[\s_]+", "-", name.strip().lstrip("@").lower()).rstrip("-.,;:!?")


def prose(text: str) -> str:
    """A moderator's reply without the blocks that only say where it goes."""
    return _FENCE.sub(lambda match: match[0] if _object(match) is None else "", text).strip()


def _object(match: re.Match[str]) -> Mapping[str, object] | None:
    """The JSON object in a fenced block, if it has `to` or `final`."""
    try:
        value = json.loads(match["body"])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and ("to" in value or "final" in value) else None


def _block(text: str) -> Mapping[str, object] | None:
    """The last block of that kind."""
    found = [value for match in _FENCE.finditer(text) if (value := _object(match)) is not None]
    return found[-1] if found else None


def _broken_block(text: str) -> str:
    """What is wrong with a block that is meant for us and cannot be read."""
    for match in _FENCE.finditer(text):
        if match["tag"].lower() == "route":
            return "the block is no JSON object with `to` or `final`"
    return ""


def _by_block(block: Mapping[str, object], names: Mapping[str, str]) -> Route:
    final = block.get("final")
    to = block.get("to")
    if isinstance(final, str) and final.strip():
        return Route(final=final.strip()) if not to else Route(trouble="the block both delegates and is final")
    if to is None:
        return Route(trouble="the block's `final` is no text")
    common = block.get("message")
    wanted = _wanted(to, common if isinstance(common, str) else "")
    if wanted is None:
        return Route(trouble="`to` has to be a list of names, or of {name, message}")
    if not wanted:
        return Route(trouble="the block delegates to nobody")
    return _checked(wanted, names)


def _wanted(to: object, common: str) -> list[tuple[str, str]] | None:
    """Pairs of a name as written and its message."""
    if isinstance(to, str):
        to = [to]
    if isinstance(to, Mapping):
        to = [{"name": name, "message": message} for name, message in to.items()]
    if not isinstance(to, list):
        return None
    found = []
    for item in to:
        name = item.get("name") if isinstance(item, Mapping) else item
        message = item.get("message", common) if isinstance(item, Mapping) else common
        if not isinstance(name, str) or not isinstance(message, str):
            return None
        found.append((name, message.strip()))
    return found


def _checked(wanted: Iterable[tuple[str, str]], names: Mapping[str, str]) -> Route:
    messages: dict[str, str] = {}
    unknown = []
    for written, message in wanted:
        if _plain(written) in EVERYBODY and _plain(written) not in names:
            for name in names.values():
                messages.setdefault(name, message)
        elif _plain(written) in names:
            name = names[_plain(written)]
            messages[name] = "\n\n".join(part for part in (messages.get(name, ""), message) if part)
        else:
            unknown.append(written.strip()[:80])
    if unknown:
        return Route(trouble=f"there is no participant {', '.join(unknown)}; there are {', '.join(names.values())}")
    return Route(messages)


def mentions(text: str) -> tuple[str, ...]:
    """The names behind `@` in prose, as written; never inside code or an e-mail address."""
    for pattern in (_FENCE, _OPEN_FENCE, _INLINE, _INDENTED):
        text = pattern.sub(" ", text)
    return tuple(dict.fromkeys(match[1] for match in _MENTION.finditer(text)))


def _by_mentions(text: str, names: Mapping[str, str], moderator: str) -> Route:
    ignored = {*_NOBODY, _plain(moderator)} - set(names)
    found = [name for name in mentions(text) if _plain(name) not in ignored]
    if not found:
        return Route(final=text.strip()) if text.strip() else Route(trouble="the answer is empty")
    return _checked([(name, text.strip()) for name in found], names)
