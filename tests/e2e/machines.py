"""Other machines that the program under test runs on: another name, machine id, boot and home on the same network."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from tests.e2e.fleet import Fleet
from tests.e2e.program import Program

_ENTER = """hostname "$1" && mount --bind "$2/machine-id" /etc/machine-id &&
mount --bind "$2/boot_id" /proc/sys/kernel/random/boot_id && shift 2 && exec "$@"
"""


class Machine(Program):
    """`reconciler` on a machine of its own that reaches the hosts of a fleet: what runs there is not proven dead from
    elsewhere. Needs namespaces. Processes keep their pid, and signals reach them."""

    def __init__(self, fleet: Fleet, name: str, hostname: str) -> None:
        self.fleet, self.name, self.hostname = fleet, name, hostname
        self.place = fleet.root / "machines" / name / hostname
        self.home = self.place / "home"
        self.directory = self.home / "work"
        self.specs = self.directory / "specs"
        self.specs.mkdir(parents=True)
        shutil.copytree(fleet.controller_home / ".ssh", self.home / ".ssh")
        (self.place / "machine-id").write_text(uuid.uuid4().hex + "\n", encoding="ascii")
        (self.place / "boot_id").write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        self.env = {"HOME": str(self.home)}

    def argv(self, *arguments: str) -> list[str]:
        """How it is started there."""
        space = ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"]
        return [*space, self.hostname, str(self.place), *super().argv(*arguments)]

    @property
    def journal(self) -> Path:
        """The journal of this fleet there."""
        return self.home / ".local/state/reconciler" / self.name / "controller/journal.sqlite"
