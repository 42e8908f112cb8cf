"""What `-v` shows on stderr: connections, looks, operations; no secret, whatever a host or a library says."""

from __future__ import annotations

import json
import logging
import sys
import time

from reconciler.core.printed import escaped
from reconciler.redaction import redact


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {escaped(redact(record.getMessage()))}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "at": round(record.created, 3),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": redact(record.getMessage()),
            }
        )


def start(verbose: int, log_format: str) -> None:
    """Log to stderr from now on: our own doings, and with `verbose` 2 those of the libraries too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logger = logging.getLogger() if verbose > 1 else logging.getLogger("reconciler")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
