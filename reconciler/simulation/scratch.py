"""Where the controllers of a simulation keep journals and archives: in memory, where the system has files there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = "/dev/shm"


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards. What is durable in it costs nothing: simulated power cuts spare it."""
    memory = _MEMORY if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="reconciler-simulate-", dir=memory) as directory:
        yield Path(directory)
