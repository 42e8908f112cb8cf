"""Tools of others to compare with: installed from PyPI when a benchmark first wants them, beside nothing of ours."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.figure import Unavailable

WANTED = ("ansible-core==2.19.*", "pyinfra==3.*")


def tools() -> Path:
    """The directory of their programs: in the user's cache. Raises Unavailable where they cannot be installed."""
    base = os.environ.get("XDG_CACHE_HOME") or Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache")
    key = hashlib.sha256("\n".join((sys.version, *WANTED)).encode()).hexdigest()[:12]
    place = Path(base, "reconciler-benchmarks", key)
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        print(f"(installs {', '.join(WANTED)})", file=sys.stderr)
        _run(sys.executable, "-m", "venv", str(place))
        _run(str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WANTED)
        (place / "complete").touch()
    return place / "bin"


def versions() -> str:
    """Which ones they are."""
    listed = subprocess.run(
        [tools() / "python", "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout
    names = tuple(name.partition("=")[0] for name in WANTED)
    return ", ".join(" ".join(line.split()[:2]) for line in listed.splitlines() if line.startswith(names))


def program(name: str) -> str:
    """A program of this machine. Raises Unavailable with what installs it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise Unavailable(f"{name} is missing")
    return found


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"no {' or '.join(WANTED)} here: {done.stderr.strip().splitlines()[-1:]}")
