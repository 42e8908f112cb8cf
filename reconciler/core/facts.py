"""What the script of `doctor` said of a host, and one verdict on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.core.observed import clean

_LINES = 3000


@dataclass(frozen=True)
class Check:
    """One thing: `ok` is False where sessions cannot run, None where somebody should know of it."""

    name: str
    ok: bool | None
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Facts:
    """What the script on the host said."""

    values: Mapping[str, str] = field(default_factory=dict)
    sets: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def has(self, kind: str, value: str) -> bool:
        """Whether `value` was told under `kind`."""
        return value in self.sets.get(kind, frozenset())

    def number(self, kind: str) -> int | None:
        """What was told under `kind`, where it is a number."""
        said = self.values.get(kind, "")
        return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else None


def parse_facts(nonce: str, answer: bytes) -> Facts:
    """Lines after the nonce; what is no line of ours is left out, and nothing raises."""
    text = answer.decode("utf-8", "replace").partition(f"doctor\t{nonce}\n")[2].partition("end\t\n")[0]
    values: dict[str, str] = {}
    sets: dict[str, set[str]] = {}
    for line in text.splitlines()[:_LINES]:
        kind, _, rest = line.partition("\t")
        key, tab, value = rest.partition("\t")
        if kind == "fact" and tab:
            values[key] = clean(value, 1000)
            sets.setdefault(key, set()).add(clean(value, 1000))
    return Facts(values, {key: frozenset(found) for key, found in sets.items()})
