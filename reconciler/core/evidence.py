"""What a decision about a session rested on, in one line for people: what was seen of it, and where."""

from __future__ import annotations

from reconciler.core.observed import HostSeen, Reached, SessionSeen, clean

_LIMIT = 300  # characters of what a host says of itself


def facts(host: str, seen: SessionSeen | None) -> str:
    """What a host was seen to have of a session. Nothing that changes by itself: neither ages nor activity."""
    if seen is None:
        return f"{host}: absent"
    said = [f"{host}: {seen.state}" + (f" ({clean(seen.trouble, _LIMIT)})" if seen.trouble else "")]
    if seen.incarnation:
        said.append(f"incarnation {seen.incarnation}")
    if seen.process is not None:
        alive = {True: "alive", False: "proven gone", None: "nobody can tell"}[seen.process.alive]
        said.append(f"pid {seen.process.pid} {alive}")
    if seen.exit is not None:
        said.append(f"exit code {seen.exit.code}" + (f" {clean(seen.exit.error, 80)}" if seen.exit.error else ""))
    if seen.record is not None:
        said.append(f"conversation {clean(seen.record.conversation, 80) if seen.record.conversation else 'none'}")
        if seen.record.protected_by:
            said.append(f"protected by {clean(seen.record.protected_by, 80)}")
    return ", ".join(said)


def facts_of_host(host: HostSeen | None, name: str) -> str:
    """The same of a session on a host that may not have answered."""
    if isinstance(host, Reached):
        return f"{facts(host.name, host.sessions.get(name))}; boot {clean(host.boot, 80)}, fence {host.fence}"
    return f"{host.name}: did not answer ({host.code})" if host is not None else ""
