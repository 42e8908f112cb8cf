"""What `doctor` makes of a machine itself: tools, memory, disk, clock, what outlives a logout. Pure."""

from __future__ import annotations

import re

from reconciler.core.facts import Check, Facts
from reconciler.core.observed import Reached

TMUX = (3, 2)
CHANNELS = 6  # that we may use at once on one connection
_SKEW = 60  # seconds
_FULL, _TIGHT = 100_000, 2_000_000  # kB
_NODES = 10_000  # files that can still be made
_MEMORY, _EACH = 1_000_000, 500_000  # kB: for a host at all, and for each of its sessions
_TASKS = 200  # processes and threads; one agent has about thirty
_INSTALL = {
    "apt-get": "sudo apt-get install -y", "dnf": "sudo dnf install -y", "yum": "sudo yum install -y",
    "zypper": "sudo zypper install -y", "pacman": "sudo pacman -S --noconfirm", "apk": "sudo apk add",
    "brew": "brew install", "pkg": "sudo pkg install -y",
}  # fmt: skip


def _as_root(seen: Reached, facts: Facts, command: str) -> str:
    """The command on the host, as somebody who may."""
    sudo = "" if facts.values.get("uid") == "0" else "sudo "
    return f"reconciler exec {seen.name} -- {sudo}{command}"


def tmux(seen: Reached, facts: Facts, *, needed: bool) -> Check:
    """Whether there is one that is new enough."""
    said = facts.values.get("tmux", "") or seen.tmux
    match = re.search(r"(\d+)\.(\d+)", said)
    if match and (int(match[1]), int(match[2])) >= TMUX:
        return Check("tmux", True, said)
    what = f"{said} is older than {TMUX[0]}.{TMUX[1]}" if match else "there is no tmux"
    remedy = f'{_installer(seen, facts, "tmux")}; or strategy = "process"'
    return Check("tmux", False if needed else None, what, remedy)


def git(seen: Reached, facts: Facts) -> Check:
    """Whether there is one."""
    said = facts.values.get("git", "")
    return Check("git", True, said) if said else Check("git", None, "there is no git", _installer(seen, facts, "git"))


def _installer(seen: Reached, facts: Facts, package: str) -> str:
    for manager, command in _INSTALL.items():
        if facts.has("has", manager):
            root = facts.values.get("uid") == "0"
            return f"reconciler exec {seen.name} -- {command.removeprefix('sudo ') if root else command} {package}"
    return f"install {package}"


def scope(seen: Reached, facts: Facts) -> Check | None:
    """Whether sessions outlive a logout, and the end of one spares the others."""
    if facts.values.get("linger") == "no":
        if facts.values.get("uid") == "0":
            return None
        what = "systemd ends what a user left running at logout where it is set to (KillUserProcesses)"
        return Check("linger", None, what, _as_root(seen, facts, f"loginctl enable-linger {seen.user}"))
    if facts.values.get("linger") != "yes":
        return None
    if facts.values.get("bus") == "yes":
        return Check("scope", True, "sessions get systemd scopes of their own")
    what = "lingering is on, and no systemd of the user answers: sessions get no scopes of their own"
    remedy = _as_root(seen, facts, f"systemctl start user@{facts.values.get('uid', '')}.service")
    return Check("scope", None, what, remedy)


def disk(seen: Reached, facts: Facts) -> Check:
    """How much is free in the home."""
    free, nodes = facts.number("disk"), facts.number("inodes")
    if free is None:
        return Check("disk", None, "nobody can tell how much is free", f"reconciler exec {seen.name} -- df -Pk")
    words = f"{free / 1_000_000:.1f} GB free in the home"
    remedy = f"reconciler exec {seen.name} -- sh -c 'du -xk ~ | sort -n | tail -n 20', and remove what is not needed"
    if nodes is not None and nodes < _NODES:
        return Check("disk", False if nodes == 0 else None, f"{words}, and room for {nodes} more files", remedy)
    ok = False if free < _FULL else None if free < _TIGHT else True
    return Check("disk", ok, words, "" if ok else remedy)


def memory(seen: Reached, facts: Facts, sessions: int) -> list[Check]:
    """How much there is, and how much of it a login may use: its control groups may allow it less."""
    total, limit, tasks = facts.number("memory"), facts.number("memory_limit"), facts.number("tasks_limit")
    found = []
    bound = limit is not None and (total is None or limit < total)
    may = limit if bound else total
    slice_ = f"user-{facts.values.get('uid', '')}.slice"
    if may is not None:
        words = f"{may / 1_000_000:.1f} GB" + (" for all of a user's logins (cgroup)" if bound else "")
        if total is not None and bound:
            words += f", of {total / 1_000_000:.1f} GB"
        need = max(_MEMORY, _EACH * sessions)
        if may >= need:
            found.append(Check("memory", True, words))
        else:
            what = f"{words}; {sessions} session{'s' if sessions != 1 else ''} may need {need / 1_000_000:.1f} GB"
            more = _as_root(seen, facts, f"systemctl set-property {slice_} MemoryMax=infinity")
            found.append(Check("memory", None, what, more if bound else "fewer sessions on it, or more memory"))
    if tasks is not None and tasks < max(_TASKS, 40 * sessions):
        remedy = _as_root(seen, facts, f"systemctl set-property {slice_} TasksMax=infinity")
        found.append(Check("tasks", None, f"a login may have {tasks} processes and threads (cgroup)", remedy))
    return found


def clock(seen: Reached, facts: Facts, now: float) -> Check:
    """Whether it goes as ours does, which is `now`."""
    skew = seen.now - now
    if abs(skew) <= _SKEW:
        return Check("clock", True, "as ours")
    word = "ahead" if skew > 0 else "behind"
    what = f"its clock is {abs(skew):.0f} s {word} of ours"
    return Check("clock", None, what, _as_root(seen, facts, "timedatectl set-ntp true"))


def channels(found: int) -> Check:
    """How many programs run at once on one connection."""
    if found >= CHANNELS:
        return Check("channels", True, f"{found} at once on one connection")
    what = f"its sshd opens only {found} session{'s' if found != 1 else ''} on one connection"
    return Check("channels", None, what, "in its sshd_config: MaxSessions 10")
