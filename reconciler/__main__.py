"""The command `reconciler`; `--version` answers before anything is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from reconciler import __version__

        print(f"reconciler {__version__}")
        return
    from reconciler import garbage

    garbage.start()
    from reconciler.cli import run
    from reconciler.redaction import redact_streams

    redact_streams()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
