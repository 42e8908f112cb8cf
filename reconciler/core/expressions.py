"""Label expressions such as `team=web,tier!=front`: what they are, and what fits them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TERM = re.compile(r"(?P<key>[A-Za-z0-9_.-]+)\s*(?P<op>!=|==|=)\s*(?P<value>[A-Za-z0-9_.-]*)")

Term = tuple[str, str, str]  # key, operator, value


def terms(expression: str) -> tuple[Term, ...]:
    """All terms, so that a mistake in the last one is found whatever the first one says. Raises ValueError."""
    found = []
    for term in expression.split(","):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(f"{term!r}: expected key=value or key!=value, several with commas")
        found.append((match["key"], match["op"], match["value"]))
    return tuple(found)


def fits(values: Mapping[str, str], expression: str) -> bool:
    """Whether all terms hold; a key that is not there is empty. Raises ValueError for what is no expression."""
    return all((values.get(key, "") == value) != (op == "!=") for key, op, value in terms(expression))
