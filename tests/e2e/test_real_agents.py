"""The real agent CLIs on real hosts, declared as a user would: one conversation over reboots, messages and models."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.program import Program, Site, fleet_of, until
from tests.support import agents as support
from tests.support.stub_llm import Record, Server

pytestmark = [pytest.mark.e2e, pytest.mark.agents, pytest.mark.timeout(900)]
PATIENCE = 60.0  # seconds; programs of 200 MB on a small machine


@dataclass(frozen=True)
class Kind:
    """One agent CLI: the home of somebody who is logged in, another model, and from where its activity is known."""

    name: str
    command: str
    home: Callable[[Path, int], dict[str, str]]
    model: str
    source: str
    changes_model: bool = True


KINDS = {
    kind.name: kind
    for kind in (
        Kind("claude-code", "claude", support.claude_home, "claude-other-model", "registry"),
        Kind("codex", "codex", support.codex_home, "other-model", "title"),
        # Its screen keeps the model of a session that it takes up, whatever `--model` says.
        Kind("opencode", "opencode", support.opencode_home, "stub/m2", "hook", changes_model=False),
        Kind("gemini", "gemini", support.gemini_home, "gemini-2.5-flash", "title"),
    )
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    if shutil.which("git") is None:
        pytest.fail("these tests need git: apt-get install git")
    with fleet_of() as made:
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
    """One host on which somebody uses one agent, and the specs of one session there."""

    def __init__(self, fleet: Fleet, stub: Server, kind: Kind) -> None:
        self.kind, self.stub = kind, stub
        tools = support.agent_bin()
        self.host = fleet.host(kind.name, binds=[str(support.agents_dir())])
        self.host.write("~/.profile", f'PATH="{tools}:$PATH"\n')
        self.host.exec(["git", "init", "-q", "work/project"])
        self.env = self._logged_in()
        self.program = Program(fleet, f"real-{kind.name}")
        self.site = Site(self.host, self.program.name)
        found = self.host.exec(["bash", "-lc", f"{kind.command} --version"], timeout=60)
        assert found.returncode == 0, f"the host cannot run {kind.command}: {found.stderr}"

    def _logged_in(self) -> dict[str, str]:
        address, port = self.stub.server_address[:2]
        env = self.kind.home(self.host.home, int(port))
        for path in [self.host.home, *self.host.home.rglob("*")]:
            if path.is_file() and path.suffix in (".json", ".toml"):
                text = path.read_text(encoding="utf-8").replace("127.0.0.1", str(address))
                path.write_text(text.replace('{"m": {}}', '{"m": {}, "m2": {}}'), encoding="utf-8")
            self.host.own(path)
        ours = support.base_env(self.host.home)
        return {key: value.replace("127.0.0.1", str(address)) for key, value in env.items() if key not in ours}

    def declare(self, **keys: str) -> None:
        """The specs: the session with these keys; the key is in the environment of the controller only."""
        env = {name: "${env:THE_KEY}" if value == support.KEY else value for name, value in self.env.items()}
        self.program.env = {"THE_KEY": support.KEY}
        table = ", ".join(f'{name} = "{value}"' for name, value in env.items())
        lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        self.program.write(
            f'[sessions.api]\nhost = "{self.kind.name}"\nagent = "{self.kind.name}"\nworkdir = "~/work/project"\n'
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
            until(f"marks {marks}", look, PATIENCE)
        return self.turns()[-1]

    def idle(self) -> dict[str, Any]:
        """Waits until the status says idle; what was observed."""
        observed: dict[str, Any] = {}

        def look() -> bool:
            nonlocal observed
            observed = self.program.status()["session.api"]["observed"]
            return bool(observed["activity"] == "idle")

        with self.screen():
            until("idle", look, PATIENCE)
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

    def agents(self) -> list[list[str]]:
        """The processes of the agent that live on the host."""
        home = str(support.agents_dir())
        return [argv for _, argv in self.host.processes() if any(home in word or word == self.kind.command
                for word in argv[:2])]  # fmt: skip


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, fleet: Fleet, stub: Server) -> Iterator[Stage]:
    made = Stage(fleet, stub, KINDS[request.param])
    try:
        yield made
    finally:
        made.host.remove()
        del fleet.hosts[made.host.name]


def test_one_conversation_goes_on_over_a_reboot_messages_and_another_model(stage: Stage) -> None:
    stage.declare()
    stage.program.apply()
    assert stage.answered("MARK-one").turns == 1
    first = stage.idle()
    assert first["source"] == stage.kind.source
    assert first["conversation_id"] == stage.site.record("api")["conversation"]
    stage.program.settled()

    stage.host.reboot()
    action = stage.program.plan()["session.api"]
    assert (action["verb"], action["reason"]) == ("resume", "rebooted")
    stage.program.apply()
    stage.idle()
    assert stage.program.run("send", "api", "and MARK-two").returncode == 0
    assert stage.answered("MARK-one", "MARK-two").turns >= 2
    assert stage.idle()["conversation_id"] == first["conversation_id"]

    stage.declare(model=stage.kind.model)
    assert stage.program.plan()["session.api"]["verb"] == "restart"
    stage.program.apply()
    stage.idle()
    assert stage.program.run("send", "api", "at last MARK-three").returncode == 0
    last = stage.answered("MARK-one", "MARK-two", "MARK-three")
    if stage.kind.changes_model:
        assert stage.kind.model.endswith(last.model)
    assert stage.idle()["conversation_id"] == first["conversation_id"]
    stage.program.settled()

    stage.declare(model=stage.kind.model, state="stopped")
    stage.program.apply()
    stage.program.settled()
    assert stage.agents() == []
    assert not [path for path in Path(stage.site.state).rglob("*") if path.is_file() and _holds_key(path)]


def _holds_key(path: Path) -> bool:
    return support.KEY.encode() in path.read_bytes()
