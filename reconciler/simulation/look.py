"""What `reconciler_look` prints on a simulated machine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from reconciler.simulation.machine import Files, Machine
from reconciler.simulation.stores import HOME


def look(machine: Machine, fleet: str, nonce: str, checks: list[tuple[str, str]]) -> bytes:
    """What `reconciler_look` prints."""
    found: list[tuple[str, str, object]] = [("host", "-", _about(machine, fleet))]
    found += [("check", "link", {"value": old, "found": new}) for old, new in machine.links.items()]
    found += [("pane", name, _pane(machine, name, *pane)) for name, pane in machine.panes.items()]
    for name, files in sorted(machine.sessions.items()):
        found += [(kind, name, data) for kind, data in _session(machine, name, files)]
    for files in machine.forgotten:
        if files.conversation and (noted := machine.live(files)):
            found.append(("check", "forgotten", {"value": files.conversation, "found": str(noted.pid)}))
    for kind, value in checks:
        found.append(("check", kind, {"value": value, "found": _check(machine, kind, value)}))
    texts = [f"{k}\t{n}\t{d if isinstance(d, str) else json.dumps(d)}\n" for k, n, d in found]
    return "".join([*texts, f"end\t{nonce}\t{len(texts)}\n"]).encode()


def _check(machine: Machine, kind: str, value: str) -> str:
    if kind == "digest":
        return machine.store.digest(value)
    if value in machine.missing:
        return ""
    return f"/usr/bin/{value}" if kind == "command" else value.replace("~", HOME, 1)


def _about(machine: Machine, fleet: str) -> dict[str, object]:
    return {
        "hostname": machine.name, "user": "me", "home": HOME, "system": "Linux", "arch": "x86_64",
        "machine": f"machine-{machine.name}", "boot": f"boot-{machine.boot}", "shell": "/bin/sh", "path": "/usr/bin",
        "state": f"{HOME}/.local/state/reconciler/{fleet}", "tmux": "tmux 3.4" if machine.tmux else "",
        "local": machine.local, "now": machine.now(), "fence": machine.fence,
    }  # fmt: skip


def _pane(machine: Machine, name: str, incarnation: int, wrapper: asyncio.Task[Any]) -> dict[str, object]:
    noted = machine.sessions[name].processes.get(incarnation) if name in machine.sessions else None
    dead = wrapper.done() if noted is None else not machine.alive(noted)
    program = machine.programs.get(noted.pid) if noted is not None and not dead else None
    return {"pid": 1, "dead": int(dead), "attached": 0, "title": program.title(machine.time()) if program else ""}


def _session(machine: Machine, name: str, files: Files) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [] if files.record is None else [("record", files.record)]
    found.append(("session", {"incarnation": files.incarnation}))
    for incarnation, noted in files.processes.items():
        found.append(("process", {
            "pid": noted.pid, "start": noted.start, "boot": noted.boot, "incarnation": incarnation,
            "group": noted.group, "alive": machine.alive(noted),
        }))  # fmt: skip
    found += [("exit", ended) for ended in files.exits.values()]
    if f"session-{name}" in machine.locks:
        found.append(("lock", {"held": True}))
    live = machine.live(files)
    if live is not None:
        found += machine.programs[live.pid].lines(machine.time())
    for kind, key, template in files.probes:
        if kind != "store" or ("{session_id" in template and not files.conversation):
            continue
        found.append(("store", {"key": key}))
        for path in machine.store.found(_named(template, files.conversation)):
            stored = machine.store.files[path]
            found.append(
                ("store", {"key": key, "path": path, "size": len(stored.content), "mtime": stored.mtime})
            )  # fmt: skip
    return found


def _named(template: str, conversation: str) -> str:
    return template.replace("{session_id_8}", conversation[:8]).replace("{session_id}", conversation)
