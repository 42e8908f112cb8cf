"""Saved plans as files."""

from __future__ import annotations

from pathlib import Path

from reconciler.core.saved import SIZE_LIMIT, SavedPlan, parse_saved
from reconciler.errors import UsageError


def read_saved(path: str) -> SavedPlan:
    """The plan in a file. Raises UsageError where it is none."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise ValueError("it is too long")
        return parse_saved(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # UnicodeDecodeError among them
        raise UsageError(f"{path} is no saved plan: {error}", remedy="reconciler plan -o FILE") from None
