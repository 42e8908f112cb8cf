"""References to values from elsewhere, `${env:NAME}` and its kin: their syntax only. Pure; nothing is resolved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Scheme = Literal["env", "file", "cmd", "keyring"]
SCHEMES = ("env", "file", "cmd", "keyring")
FORMS = "`${env:NAME}`, `${file:PATH}`, `${cmd:COMMAND}` or `${keyring:SERVICE/USER}`"

_START = re.compile(r"\$\{(env|file|cmd|keyring):")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Reference:
    """One `${scheme:argument}`."""

    scheme: Scheme
    argument: str


def holds_reference(text: str) -> bool:
    """Whether a reference begins anywhere in `text`, well-formed or not. `${HOME}` is none."""
    return _START.search(text) is not None


def split(text: str) -> tuple[str | Reference, ...]:
    """`text` as literal pieces and references, in order. Braces inside a reference may nest.

    Raises ValueError with a sentence when a `${` begins something that is no reference.
    """
    parts: list[str | Reference] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at:
            parts.append(text[at:start])
        end = _closing_brace(text, start + 2)
        parts.append(_reference(text[start + 2 : end]))
        at = end + 1
    if at < len(text) or not parts:
        parts.append(text[at:])
    return tuple(parts)


def _closing_brace(text: str, at: int) -> int:
    depth = 1
    for index in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if not depth:
            return index
    raise ValueError("a reference that begins with `${` has no closing `}`")


def _reference(body: str) -> Reference:
    scheme, colon, argument = body.partition(":")
    if not colon or scheme not in SCHEMES:
        raise ValueError(f"`${{{scheme}{colon}…}}` is no reference" if colon else f"`${{{body}}}` is no reference")
    if scheme == "env" and not _ENV_NAME.fullmatch(argument):
        raise ValueError(f"`{argument}` cannot name an environment variable")
    if scheme == "keyring" and not all(argument.partition("/")):
        raise ValueError("a keyring reference needs a service and a user: `${keyring:SERVICE/USER}`")
    if not argument.strip():
        raise ValueError(f"`${{{scheme}:}}` names nothing")
    return Reference(cast("Scheme", scheme), argument)
