"""One module for each target: its `check(data)` returns, or raises where something that must hold does not."""

from __future__ import annotations

from importlib import import_module

from fuzz.oracles import Check

NAMES = ("specs", "plan_file", "look", "agents", "chat", "archive", "doors")


def load(name: str) -> Check:
    """The check of a target."""
    found: Check = import_module(f"fuzz.targets.{name}").check
    return found
