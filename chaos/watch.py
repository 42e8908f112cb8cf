"""Looks all the time, from outside of the hosts: at processes, fences and all that agents ever wrote."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos.broken import Broken
from tests.e2e.program import Site

_PAUSE = 0.1  # seconds between two looks
_PROC = Path("/proc")


class Watch(threading.Thread):
    """What it finds broken is in `broken`; `lines` are those of each conversation, by the name of its file."""

    def __init__(self, sites: Sequence[Site], needle: str) -> None:
        super().__init__(daemon=True)
        self.broken: list[Broken] = []
        self.lines: dict[str, set[bytes]] = {}
        self.samples = 0
        self._sites = sites
        self._needle = needle
        self._fences: dict[str, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Until it is told to end."""
        while not self._over.wait(_PAUSE):
            self.samples += 1
            self._doubled()
            self._written()
            self._fenced()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        self._written()

    def _say(self, invariant: str, words: str) -> None:
        found = Broken(invariant, words)
        if found not in self.broken:
            self.broken.append(found)

    def _doubled(self) -> None:
        first = self._alive()
        if not any(len(places) > 1 for places in first.values()):
            return
        # Processes are not looked at in one moment: only who is still there counts.
        second = self._alive()
        for conversation, places in first.items():
            still = [place for place in places if place in second.get(conversation, ())]
            if len(still) > 1:
                self._say("I3", f"{conversation} is open in {len(still)} live processes: {still}")

    def _alive(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pid, argv in self._processes():
            if self._needle in " ".join(argv):
                self._say("I9", f"the secret is in the argv of {argv[0]}, pid {pid}")
            if "script-agent" in " ".join(argv[:2]) and len(argv) > 3:
                found.setdefault(argv[3], []).append(pid)
        return found

    def _processes(self) -> Iterator[tuple[str, list[str]]]:
        """Of all hosts, and where there is /proc of the controllers too: it shows what is in the hosts' namespaces."""
        if _PROC.is_dir():
            for entry in os.listdir(_PROC):
                if entry.isdigit():
                    with contextlib.suppress(OSError):  # it has ended
                        line = (_PROC / entry / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
                        yield entry, line.split("\0")
            return
        for site in self._sites:
            for pid, argv in site.host.processes():
                yield f"{site.host.name}/{pid}", argv

    def _written(self) -> None:
        for site in self._sites:
            for path in (site.host.home / ".script-agent").glob("*.jsonl"):
                self.lines.setdefault(path.name, set()).update(whole_lines(path))

    def _fenced(self) -> None:
        for site in self._sites:
            with contextlib.suppress(OSError, ValueError):
                fence, before = site.fence(), self._fences.get(site.host.name, 0)
                if fence < before:
                    self._say("I8", f"the fence of {site.host.name} fell from {before} to {fence}")
                self._fences[site.host.name] = fence


def whole_lines(path: Path) -> list[bytes]:
    """Those that end."""
    with contextlib.suppress(OSError):
        return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return []
