"""A real agent CLI in a private tmux server, started exactly as its driver says, with facts read as a look does."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from reconciler.core.agent import WORKDIR, Activity, Agent, Facts, Invocation, LaunchRequest, StoreFile
from tests.support.agents import agents_dir
from tests.support.stub_llm import Record, Server

PATIENCE = 60.0  # seconds; a small machine, and four programs of 200 MB
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """The first answer of `look` that is true."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if answer := look():
            return answer
        time.sleep(0.03)
    raise AssertionError(f"{what}: not within {patience:.0f} s")


@contextlib.contextmanager
def stub() -> Iterator[Server]:
    """The stand-in for every model, on a free port."""
    server = Server(("127.0.0.1", 0), None, False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def turns(server: Server) -> list[Record]:
    """The requests that carried the conversation, without the CLIs' own side requests."""
    return [record for record in list(server.records) if record.tools and record.api]


def marks(server: Server) -> list[str]:
    """The marks in the last of them."""
    seen = turns(server)
    return seen[-1].marks if seen else []


class Stage:
    """A home, a working directory and a state directory for one agent: nothing of the person at the keyboard."""

    def __init__(self, agent: Agent, home_of: Callable[[Path, int], dict[str, str]], server: Server) -> None:
        homes = agents_dir() / "homes"
        homes.mkdir(parents=True, exist_ok=True)  # not under /tmp: Gemini refuses settings below it
        self.home = Path(tempfile.mkdtemp(prefix="h", dir=homes))
        self.agent = agent
        self.server = server
        self.env = home_of(self.home, server.server_address[1])
        self.workdir = self.home / "work" / "project"
        self.workdir.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", str(self.workdir)], check=True, env=self.env)
        self.session_dir = self.home / ".local" / "state" / "reconciler" / "sessions" / "s"
        self.session_dir.mkdir(parents=True)
        self.session_id = str(uuid.uuid4()) if agent.assigns_id else None
        self.run_dir = Path(tempfile.mkdtemp(prefix="rt"))
        self._panes: list[Pane] = []

    def request(self, prompt: str | None = None, **changes: object) -> LaunchRequest:
        """What a session of the specs would ask for."""
        request = LaunchRequest(
            self.agent.command, str(self.workdir), str(self.session_dir), session_id=self.session_id, prompt=prompt
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    def place(self, invocation: Invocation) -> tuple[list[str], dict[str, str]]:
        """Write its files and fill in what only the host knows: argv and the whole environment."""
        for name, text in invocation.files.items():
            (self.session_dir / name).write_text(self._filled(text))
        env = {**self.env, **{key: self._filled(value) for key, value in invocation.env.items()}}
        return [self._filled(part) for part in invocation.argv], env

    def open(self, invocation: Invocation) -> Pane:
        """In a terminal."""
        (self.session_dir / "events").write_text("")
        pane = Pane(self, *self.place(invocation), self.run_dir / f"t{len(self._panes)}")
        self._panes.append(pane)
        return pane

    def run(self, invocation: Invocation) -> subprocess.CompletedProcess[str]:
        """Headless."""
        argv, env = self.place(invocation)
        given = {"input": invocation.stdin} if invocation.stdin is not None else {"stdin": subprocess.DEVNULL}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv, env=env, cwd=self.workdir, capture_output=True, text=True, timeout=90, check=False, **given
        )
        (self.session_dir / "log").write_text(done.stdout)
        return done

    def facts(self, pane: Pane | None = None) -> Facts:
        """What a look would find now."""
        pid = pane.pid if pane else None
        texts: dict[str, str] = {}
        names: dict[str, tuple[str, ...]] = {}
        store: list[StoreFile] | None = None
        for probe in self.agent.probes(self.session_id):
            found = sorted(glob.glob(self._path(probe.path, pid)))
            if probe.kind == "names":
                names[probe.key] = tuple(os.path.basename(path) for path in found)[:20]
            elif probe.kind == "store":
                store = (store or []) + [_stored(path) for path in found]
            elif found:
                raw = Path(found[0]).read_bytes()
                texts[probe.key] = (raw[:4096] if probe.kind == "file" else raw[-4096:]).decode(errors="replace")
        events = self.session_dir / "events"
        lines = events.read_text().splitlines() if events.exists() else []
        return Facts(
            texts,
            names,
            None if store is None else tuple(store),
            pane.title if pane else "",
            lines[-1] if lines else "",
            pid,
            _started(pid),
        )

    def activity(self, pane: Pane) -> Activity:
        """By the driver, from the facts of now."""
        return self.agent.activity(self.facts(pane))

    def await_state(self, pane: Pane, state: str) -> Activity:
        """Wait for an activity."""
        return wait_for(f"{state} ({pane.title!r})\n{pane.screen}", lambda: self._in_state(pane, state))

    def learn_id(self, pane: Pane | None = None) -> str:
        """Read the conversation id back, where the agent insists on its own."""
        if not self.agent.assigns_id:
            self.session_id = wait_for("an id", lambda: self.agent.conversation(self.facts(pane)))
        assert self.session_id
        return self.session_id

    def close(self) -> None:
        """End what still runs and remove the home."""
        for pane in self._panes:
            pane.close()
        for directory in (self.run_dir, self.home):
            shutil.rmtree(directory, ignore_errors=True)

    def _in_state(self, pane: Pane, state: str) -> Activity | None:
        activity = self.activity(pane)
        return activity if activity.state == state else None

    def _filled(self, text: str) -> str:
        return text.replace(WORKDIR, str(self.workdir.resolve()))

    def _path(self, template: str, pid: int | None) -> str:
        values = {
            "home": str(self.home),
            "workdir": str(self.workdir),
            "session_dir": str(self.session_dir),
            "session_id": self.session_id or "",
            "session_id_8": (self.session_id or "")[:8],
            "pid": str(pid),
        }
        while found := re.search(r"\{(\w+)(?::-((?:[^{}]|\{\w+\})*))?\}", template):
            name, default = found[1], found[2] or ""
            value = values[name] if name in values else self.env.get(name) or default
            template = template[: found.start()] + value + template[found.end() :]
        return template


class Pane:
    """One agent in one tmux session of its own server; a dead pane stays to be looked at."""

    def __init__(self, stage: Stage, argv: list[str], env: Mapping[str, str], socket: Path) -> None:
        self._tmux = ("tmux", "-f", "/dev/null", "-S", str(socket))
        clean = {"PATH": "/usr/bin:/bin", "HOME": str(stage.home), "LANG": "C.UTF-8"}
        self._do("new-session", "-d", "-s", "hold", "sleep", "600", env=clean)
        self._do("set", "-g", "remain-on-exit", "on")
        words = ["env", "-i", *(f"{key}={value}" for key, value in env.items()), *argv]
        self._do("new-session", "-d", "-x", "160", "-y", "45", "-s", "agent", "-c", str(stage.workdir), *words)
        self.pid = int(self._show("#{pane_pid}"))

    @property
    def title(self) -> str:
        return self._show("#{pane_title}")

    @property
    def dead(self) -> bool:
        return self._show("#{pane_dead}") == "1"

    @property
    def screen(self) -> str:
        return self._do("capture-pane", "-p", "-t", "=agent:").rstrip()

    def paste(self, text: str) -> None:
        """As the launcher does: a bracketed paste, a pause, Enter."""
        self._do("load-buffer", "-b", "b", "-", given=text)
        self._do("paste-buffer", "-d", "-p", "-b", "b", "-t", "=agent:")
        time.sleep(0.5 + len(text) / 500_000)
        self.keys("Enter")

    def keys(self, *keys: str, pause: float = 0.3) -> None:
        for key in keys:
            if self.dead:
                return
            self._do("send-keys", "-t", "=agent:", key)
            time.sleep(pause)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not self.dead:
                os.killpg(self.pid, signal.SIGKILL)
        self._do("kill-server")

    def _show(self, what: str) -> str:
        return self._do("display-message", "-p", "-t", "=agent:", what).strip()

    def _do(self, *words: str, env: Mapping[str, str] | None = None, given: str | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, input=given, timeout=30, check=True, env=env
        )
        return done.stdout


def answer(output: str) -> dict[str, object]:
    """The last JSON object of what a headless run printed."""
    text = output[output.index("{") :]
    try:
        value = json.loads(text)
    except ValueError:
        value = json.loads(text.strip().splitlines()[-1])
    assert isinstance(value, dict)
    return value


def _stored(path: str) -> StoreFile:
    status = os.stat(path)
    return StoreFile(path, status.st_size, status.st_mtime)


def _started(pid: int | None) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
