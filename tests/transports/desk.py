"""Somebody's own home directory, to reach hosts from."""

from __future__ import annotations

import shutil
from pathlib import Path

from reconciler.transports._ssh_options import SshOptions
from tests.e2e.fleet import Fleet, Host

# Whether the built-in SSH may take its shortcuts: what it owes its callers is the same.
SHORTCUTS = {"shortcuts": "on", "usual way": "off"}


class Desk:
    """A home directory of its own to connect from, which knows no host and holds no key yet."""

    def __init__(self, home: Path, fleet: Fleet, shortcuts: str = "on") -> None:
        self.home, self.fleet = home, fleet
        self.ssh = home / ".ssh"
        self.ssh.mkdir(mode=0o700)
        self.env = {**fleet.env, "HOME": str(home), "RECONCILER_SSH_SHORTCUTS": shortcuts}
        self.known_hosts = self.ssh / "known_hosts"

    def options(self, host: Host, **more: object) -> SshOptions:
        """The host by address; with the fleet's key unless another way to log in is given."""
        words: dict[str, object] = {"user": host.user, "port": host.port, **more}
        if not {"identity", "agent_only"} & set(more):
            words["identity"] = str(self.fleet.key)
        return SshOptions(host.address, **words)  # type: ignore[arg-type]

    def config(self, text: str) -> None:
        (self.ssh / "config").write_text(text, encoding="utf-8")

    def default_key(self, name: str = "id_ed25519") -> Path:
        shutil.copy(self.fleet.key, self.ssh / name)
        shutil.copy(f"{self.fleet.key}.pub", self.ssh / f"{name}.pub")
        return self.ssh / name

    def known(self) -> list[str]:
        return self.known_hosts.read_text(encoding="utf-8").splitlines() if self.known_hosts.exists() else []
