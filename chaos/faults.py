"""Each way to break a host or a controller, and how it is made good again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.e2e.fleet import Host

Heal = Callable[[], object]
NOT_DONE = {
    "clock-jump": "Linux has no namespace for the wall clock: a jump would be one of the whole machine",
}


@dataclass(frozen=True)
class Kind:
    """A fault of hosts. `namespaces`: not to be had from an unprivileged sshd."""

    begin: Callable[[Host], Heal]
    namespaces: bool = False


def _nothing() -> None:
    return None


def _power(host: Host) -> Heal:
    host.power_cut()
    return host.boot


def _cable(host: Host) -> Heal:
    host.cable_out()
    return host.cable_in


def _hang(host: Host) -> Heal:
    host.freeze()
    return host.thaw


def _is_sshd(argv: list[str]) -> bool:
    return "sshd" in argv[0]


def _sshd_hangs(host: Host) -> Heal:
    host.send_signal(signal.SIGSTOP, _is_sshd)
    return lambda: host.send_signal(signal.SIGCONT, _is_sshd)


def _connections(host: Host) -> Heal:
    """All connections end at once; the sshd that listens stays."""
    host.send_signal(
        signal.SIGKILL, lambda argv: _is_sshd(argv) and "-D" not in argv and "listener" not in " ".join(argv)
    )
    return _nothing


def _slow(host: Host) -> Heal:
    host.delay(150)
    return lambda: host.delay(0.01)


def _full(host: Host) -> Heal:
    host.fill_disk()
    return host.free_disk


def _agents(host: Host) -> Heal:
    host.send_signal(signal.SIGKILL, lambda argv: "script-agent" in " ".join(argv[:2]))
    return _nothing


def _tmux(host: Host) -> Heal:
    host.send_signal(signal.SIGKILL, lambda argv: argv[0].startswith("tmux"))
    return _nothing


# "away": unreachable before the apply begins, and until it has ended; nothing may change there.
KINDS: Mapping[str, Kind] = {
    "power-cut": Kind(_power),
    "cable-out": Kind(_cable),
    "away": Kind(_cable),
    "hang": Kind(_hang),
    "sshd-hangs": Kind(_sshd_hangs),
    "kill-connections": Kind(_connections),
    "kill-agents": Kind(_agents),
    "kill-tmux": Kind(_tmux),
    "slow-link": Kind(_slow, namespaces=True),
    "disk-full": Kind(_full, namespaces=True),
}
CONTROLLER = ("kill-controller", "freeze-controller")


def kinds(namespaces: bool) -> list[str]:
    """What can be done here."""
    return [*(name for name, kind in KINDS.items() if namespaces or not kind.namespaces), *CONTROLLER]


def not_done(namespaces: bool) -> dict[str, str]:
    """What cannot, and why."""
    missing = {name: "needs root on Linux" for name, kind in KINDS.items() if kind.namespaces and not namespaces}
    return {**NOT_DONE, **missing}
