"""What was found broken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """An invariant of the safety contract, and what was seen."""

    invariant: str
    words: str
