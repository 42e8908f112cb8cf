"""Reads an SSH config and what it includes, as far as names of hosts go. Never connects."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.core.ssh_aliases import Alias, aliases, words

_DEEPEST = 16  # as ssh
_LARGEST = 4_000_000  # bytes


def known_hosts_of(path: Path) -> list[Alias]:
    """The hosts that the config names one by one. Raises OSError where it cannot be read."""
    return aliases(_lines(path, path.parent, 0))


def _lines(path: Path, directory: Path, depth: int) -> Iterator[str]:
    with open(path, "rb") as file:
        text = file.read(_LARGEST).decode("utf-8", "replace")
    for line in text.splitlines():
        found = words(line)
        if not found or found[0] != "include" or depth >= _DEEPEST:
            yield line
            continue
        for pattern in found[1:]:
            place = os.path.join(directory, os.path.expanduser(pattern))
            for included in sorted(glob.glob(place)):
                try:
                    yield from _lines(Path(included), directory, depth + 1)
                except OSError:
                    continue  # as ssh: what cannot be read is not there
