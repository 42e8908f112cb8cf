"""The real agent CLIs on their way: to another user, another home and another directory, and back."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.moving import archive
from tests.e2e.program import PATIENCE, Program, Site, fleet_of, until
from tests.support import agents as support
from tests.support.stub_llm import Record, Server

pytestmark = [pytest.mark.e2e, pytest.mark.agents, pytest.mark.timeout(900)]
LONG = 60.0  # seconds; programs of 200 MB on a small machine


@dataclass(frozen=True)
class Kind:
    """One agent CLI: the home of somebody who is logged in, and whether the target is named by its `path_map`."""

    name: str
    command: str
    home: Callable[[Path, int], dict[str, str]]
    mapped: bool


KINDS = {
    kind.name: kind
    for kind in (
        Kind("claude-code", "claude", support.claude_home, mapped=True),
        Kind("codex", "codex", support.codex_home, mapped=False),
        Kind("opencode", "opencode", support.opencode_home, mapped=True),
        Kind("gemini", "gemini", support.gemini_home, mapped=False),
    )
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if shutil.which("git") is None:
        pytest.fail("these tests need git: apt-get install git")
    with fleet_of() as made:
        for name, user, place in (("near", "dev", "work/project"), ("far", "ops", "their work/project")):
            host = made.host(name, user=user, binds=[str(support.agents_dir())])
            host.write("~/.profile", f'PATH="{support.agent_bin()}:$PATH"\n')
            host.exec(["git", "init", "-q", place])
        yield made


@pytest.fixture
def stub(fleet: Fleet) -> Iterator[Server]:
    """The stand-in for every model, on the network of this fleet."""
    server = Server((f"10.77.{fleet.network}.1", 0), None, False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Stage:
    """Two hosts on which somebody is logged in to one agent, and the specs of one session on either."""

    def __init__(self, fleet: Fleet, stub: Server, kind: Kind) -> None:
        self.kind, self.stub = kind, stub
        self.program = Program(fleet, f"go-{kind.name}")
        self.hosts = {name: fleet.hosts[name] for name in ("near", "far")}
        self.sites = {name: Site(host, self.program.name) for name, host in self.hosts.items()}
        for host in self.hosts.values():
            self.env = self._logged_in(host)  # the same on both
        self.program.env = {"THE_KEY": support.KEY}

    def _logged_in(self, host: Host) -> dict[str, str]:
        address, port = self.stub.server_address[:2]
        env = self.kind.home(host.home, int(port))
        for path in [host.home, *host.home.rglob("*")]:
            if path.is_file() and path.suffix in (".json", ".toml"):
                path.write_text(path.read_text(encoding="utf-8").replace("127.0.0.1", str(address)), encoding="utf-8")
            host.own(path)
        ours = support.base_env(host.home)
        return {key: value.replace("127.0.0.1", str(address)) for key, value in env.items() if key not in ours}

    def declare(self, host: str, **keys: str) -> None:
        """The specs: the session is on this host; the key is in the environment of the controller only."""
        env = {name: "${env:THE_KEY}" if value == support.KEY else value for name, value in self.env.items()}
        table = ", ".join(f'{name} = "{value}"' for name, value in env.items())
        workdir, mapped = "~/work/project", ""
        if self.kind.mapped:
            mapped = 'path_map = { "~/work" = "~/their work" }\n'
        elif host == "far":
            workdir = "~/their work/project"
        lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        self.program.write(
            f"[hosts.far]\n{PATIENCE}{mapped}"
            f'[sessions.api]\nhost = "{host}"\nagent = "{self.kind.name}"\nworkdir = "{workdir}"\n'
            f'prompt = "MARK-one, please"\n{lines}env = {{ {table} }}\n'
        )

    def turns(self) -> list[Record]:
        """The requests that carried the conversation, without the CLIs' own side requests."""
        return [record for record in list(self.stub.records) if record.tools and record.api]

    def answered(self, *marks: str) -> Record:
        """The last request held these marks and no others: nothing lost, nothing sent twice."""

        def look() -> bool:
            turns = self.turns()
            return bool(turns) and turns[-1].marks == list(marks)

        with self.screen():
            until(f"marks {marks}", look, LONG)
        return self.turns()[-1]

    def idle(self) -> dict[str, Any]:
        """Waits until the status says idle; what was observed."""
        observed: dict[str, Any] = {}

        def look() -> bool:
            nonlocal observed
            observed = self.program.status()["session.api"]["observed"]
            return bool(observed["activity"] == "idle")

        with self.screen():
            until("idle", look, LONG)
        return observed

    @contextlib.contextmanager
    def screen(self) -> Iterator[None]:
        """Show the screen where something fails."""
        try:
            yield
        except AssertionError as error:
            seen = [(record.turns, record.marks, record.last[:80]) for record in self.turns()]
            logs = self.program.run("logs", "api").stdout
            raise AssertionError(f"{error}\nthe stub saw {seen}\n{logs}") from error

    def agents(self, host: str) -> list[list[str]]:
        """The processes of the agent that live on a host."""
        home = str(support.agents_dir())
        return [argv for _, argv in self.hosts[host].processes() if any(home in word or word == self.kind.command
                for word in argv[:2])]  # fmt: skip

    def store(self, host: str) -> dict[Path, bytes]:
        """What this host has of the conversation, by the names that the archive has."""
        named = self.sites[host].record("api")["conversation"]
        return {
            path: path.read_bytes()
            for path in self.hosts[host].home.rglob("*.jsonl")
            if named[:8] in str(path) and path.is_file() and ".local/state/reconciler" not in str(path)
        }


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, fleet: Fleet, stub: Server) -> Iterator[Stage]:
    made = Stage(fleet, stub, KINDS[request.param])
    yield made
    for site in made.sites.values():
        if (site.state / "tmux").exists():
            site.host.exec(["tmux", "-S", f"{site.inner_state}/tmux", "kill-server"])


def test_a_conversation_goes_to_another_user_and_directory_and_comes_back(stage: Stage) -> None:
    stage.declare("near")
    stage.program.apply()
    assert stage.answered("MARK-one").turns == 1
    conversation = stage.idle()["conversation_id"]

    stage.declare("far")
    assert stage.program.plan()["session.api"]["verb"] == "move"
    with stage.screen():
        stage.program.apply()
    left = stage.store("near")
    assert stage.agents("near") == []
    assert stage.idle()["conversation_id"] == conversation
    assert stage.program.run("send", "api", "and MARK-two").returncode == 0
    assert stage.answered("MARK-one", "MARK-two").turns == 2
    stage.idle()
    stage.program.settled()
    assert stage.store("near") == left

    stage.declare("near")
    with stage.screen():
        stage.program.apply()
    assert stage.agents("far") == []
    assert stage.idle()["conversation_id"] == conversation
    assert stage.program.run("send", "api", "at last MARK-three").returncode == 0
    assert stage.answered("MARK-one", "MARK-two", "MARK-three").turns == 3
    stage.idle()
    stage.program.settled()
    assert all(stage.store("near")[path].startswith(data) for path, data in left.items())

    stage.declare("near", state="stopped")
    stage.program.apply()
    stage.program.settled()
    assert stage.agents("near") == []
    files = [path for path in archive(stage.program).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if support.KEY.encode() in path.read_bytes()]
