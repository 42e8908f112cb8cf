"""Agents that somebody started by hand are taken over as they run, and nothing of the user's is touched."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, Site, fleet_of, intact, until
from tests.e2e.test_first_session import Terminal
from tests.e2e.test_ownership import ok, orphans, verbs

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"adopt{request.session.items.index(request.node)}")


@pytest.fixture
def site(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["gpu"], program.name)


class Shell:
    """A shell of the user's in a tmux session of their own, and what they start in it."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name
        self.conversation = str(uuid.uuid4())
        # Where the last session has just ended, its server may be on its way out.
        until("a shell", lambda: host.exec(["tmux", "new-session", "-d", "-s", name]).returncode == 0)
        self.pid = int(self.show("#{pane_pid}"))

    def tmux(self, *words: str) -> str:
        done = self.host.exec(["tmux", *words])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def show(self, what: str) -> str:
        return self.tmux("display-message", "-p", "-t", f"={self.name}:", what).strip()

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J", "-t", f"={self.name}:")

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", f"={self.name}:", *keys)

    def start(self, line: str = "script-agent start {}") -> int:
        """Type it, and wait for the agent; its pid."""
        self.type(line.format(self.conversation), "Enter")
        return until("the agent runs", self._agent)

    def _agent(self) -> int | None:
        pids = self.agents()
        return pids[0] if pids and (self.host.home / f".claude/sessions/{pids[0]}.json").exists() else None

    def agents(self) -> list[int]:
        found = self.host.processes()
        return [pid for pid, argv in found if self.conversation in argv and "python3" in argv[0]]

    def alive(self, pid: int) -> bool:
        return pid in [found for found, _ in self.host.processes()]


@pytest.fixture
def shell(site: Site, program: Program) -> Iterator[Shell]:
    made = Shell(site.host, f"work-{program.name}")
    yield made
    for pid in made.agents():
        site.kill(pid)
    site.host.exec(["tmux", "kill-session", "-t", f"={made.name}"])


def session(name: str = "api", agent: str = "telling", more: str = "") -> str:
    return f'[sessions.{name}]\nhost = "gpu"\nagent = "{agent}"\n{more}\n'


@pytest.mark.parametrize("agent", ["telling", "script"])
def test_an_agent_that_was_started_by_hand_is_taken_over_without_a_restart(
    program: Program, site: Site, shell: Shell, agent: str
) -> None:
    pid = shell.start()
    program.write(session(agent=agent, more='prompt = "do not say this"'))
    (found,) = [orphan for orphan in orphans(program) if orphan["pid"] == pid]
    assert found["take"] == f"reconciler adopt api --host gpu --pid {pid}"
    assert "there is no terminal to ask on" in ok(program, *found["take"].split()[1:], code=64)
    said = ok(program, *found["take"].split()[1:], "--yes")
    assert f"session.api on gpu is pid {pid} now" in said
    assert "next plan: nothing to do" in said
    program.settled()
    assert shell.agents() == [pid]
    told = program.status()["session.api"]
    assert (told["observed"]["pid"], told["observed"]["conversation_id"]) == (pid, shell.conversation)
    assert told["phase"] == ("idle" if agent == "telling" else "running")
    assert ("adopt", "session.api", "done") in verbs(program)
    assert not [orphan for orphan in orphans(program) if orphan["pid"] == pid]
    assert ok(program, "send", "api", "from afar")
    until("the message", lambda: site.messages("api") == ["from afar"])
    until("its answer", lambda: "turns=1" in ok(program, "logs", "api"))
    assert f"pid {pid} is that of" not in said
    assert "is no agent that runs and belongs to nobody" in ok(program, *found["take"].split()[1:], "--yes", code=64)
    intact(site)


def test_attaching_to_it_is_attaching_to_the_users_own_terminal(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start()
    program.write(session())
    ok(program, "adopt", "api", "--tmux", shell.name, "--yes")
    terminal = Terminal(program, "attach", "api")
    try:
        terminal.read_until("script-agent is ready")
        assert shell.tmux("list-clients", "-F", "#{session_name}").split() == [shell.name]
        terminal.type(b"typed by hand\r")
        terminal.read_until("turns=1")
        terminal.type(b"\x02d")
        assert terminal.process.wait(10) == 0
    finally:
        terminal.close()
    assert site.messages("api") == ["typed by hand"]
    assert shell.agents() == [pid]


def test_a_restart_ends_the_agent_alone_and_brings_it_into_the_fleets_own_terminal(
    program: Program, site: Site, shell: Shell
) -> None:
    shell.type("sleep 4719 &", "Enter")
    pid = shell.start()
    program.write(session())
    ok(program, "adopt", "api", "--pid", str(pid), "--yes")
    ok(program, "send", "api", "one")
    program.write(session(more='env = { A = "b" }'))
    assert program.plan()["session.api"]["verb"] == "restart"
    program.apply()
    program.settled()
    assert not shell.alive(pid)
    assert shell.alive(shell.pid), "the user's shell is theirs"
    assert [argv for _, argv in site.host.processes() if argv == ["sleep", "4719"]], "and so is what else runs there"
    assert site.opens("api") == ["start", "resume"]
    assert site.messages("api") == ["one"]
    assert site.record("api")["terminal"] == []
    assert not (site.state / "sessions/api/terminal").exists()
    assert "api" in site.tmux("list-sessions", "-F", "#{session_name}").split()
    ok(program, "send", "api", "two")
    until("the message", lambda: site.messages("api") == ["one", "two"])
    intact(site)


def test_a_stop_ends_the_agent_and_keeps_what_stood_on_its_screen(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start()
    program.write(session())
    ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    ok(program, "send", "api", "one")
    until("its answer", lambda: "turns=1" in shell.screen)
    program.write("")
    assert program.plan()["session.api"]["verb"] == "stop"
    program.apply()
    program.settled()
    assert shell.agents() == []
    assert shell.alive(shell.pid)
    program.write(session())
    assert "turns=1" in ok(program, "logs", "api")
    program.apply()
    assert site.opens("api") == ["start", "resume"]
    intact(site)


def test_of_a_group_that_is_not_its_own_only_the_agent_is_ended(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start("sh -c 'sleep 4720 & script-agent start {}; echo it-ended; exec sleep 4721'")
    program.write(session())
    said = ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    assert "a stop ends this process alone" in said
    program.write("")
    program.apply()
    assert shell.agents() == []
    until("its caller goes on", lambda: "it-ended" in shell.screen)
    running = [argv for _, argv in site.host.processes()]
    assert ["sleep", "4720"] in running
    assert ["sleep", "4721"] in running
    shell.type("C-c")


def test_an_agent_without_a_terminal_is_adopted_too(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start("setsid script-agent start {} </dev/null >/dev/null 2>&1 &")
    program.write(session())
    assert "outside of tmux" in ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    program.settled()
    assert "has no terminal" in ok(program, "send", "api", "hello", code=1)
    program.write(session(more='env = { A = "b" }'))
    program.apply()
    program.settled()
    assert not shell.alive(pid)
    ok(program, "send", "api", "hello")
    until("the message", lambda: site.messages("api") == ["hello"])
    intact(site)


def test_one_that_dies_comes_back_in_the_fleets_own_terminal(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start()
    program.write(session())
    ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    site.kill(pid)
    until("its end", lambda: not shell.alive(pid))
    action = program.plan()["session.api"]
    assert (action["verb"], action["reason"]) == ("resume", "lost")
    program.apply()
    program.settled()
    assert site.opens("api") == ["start", "resume"]
    intact(site)


def test_nothing_is_typed_where_the_users_shell_would_run_it(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start()
    program.write(session())
    ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    site.kill(pid, "STOP")
    until("the shell has its terminal again", lambda: "Stopped" in shell.screen)
    assert "in the background there" in ok(program, "send", "api", "touch ~/run-by-the-shell", code=1)
    assert not (site.host.home / "run-by-the-shell").exists()
    assert "run-by-the-shell" not in shell.screen
    shell.type("fg", "Enter")
    until("it has the terminal again", lambda: program.run("send", "api", "hello").returncode == 0)


def test_another_tmux_server_on_the_same_socket_is_not_typed_into(program: Program, site: Site, shell: Shell) -> None:
    pid = shell.start("setsid --wait script-agent start {} <&-")
    program.write(session())
    ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    assert site.record("api")["terminal"]
    shell.tmux("kill-server")
    again = Shell(site.host, shell.name)
    until("the first is there", lambda: again.alive(again.pid))
    assert shell.alive(pid)
    assert "the terminal of session api is gone" in ok(program, "send", "api", "echo no", code=1)
    program.write("")
    program.apply()
    assert not shell.alive(pid)
    assert "echo no" not in again.screen


def test_what_was_let_go_of_can_be_taken_back(program: Program, site: Site) -> None:
    program.write(session())
    program.apply()
    (pid,) = site.pids("api")
    conversation = site.record("api")["conversation"]
    program.write("")
    ok(program, "forget", "api", "--yes")
    program.write(session())
    ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    program.settled()
    assert (site.record("api")["conversation"], site.pids("api")) == (conversation, [pid])
    ok(program, "send", "api", "hello")
    until("the message", lambda: site.messages("api") == ["hello"])
    program.write(session(more='env = { A = "b" }'))
    program.apply()
    program.settled()
    assert site.opens("api") == ["start", "resume"]
    intact(site)


def test_a_suspended_session_is_adopted_so_that_nobody_starts_it_first(
    program: Program, site: Site, shell: Shell
) -> None:
    pid = shell.start()
    program.write(session(more="suspend = true"))
    program.apply(code=7)
    assert "next plan: nothing to do" in ok(program, "adopt", "api", "--yes", "--pid", str(pid))
    program.write(session())
    program.settled()
    assert site.pids("api") == [pid]


def refused(program: Program, *words: str) -> str:
    done = program.run("adopt", *words, "--yes")
    assert done.returncode in (7, 64), f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def test_what_does_not_fit_is_refused_with_what_to_do(program: Program, site: Site, shell: Shell) -> None:
    pid = str(shell.start())
    site.host.write("~/other/x", "")
    texts: list[tuple[str, tuple[str, ...], str]] = [
        ("", ("api", "--pid", pid), "what is adopted has to be declared"),
        (session(), ("api", "--host", "other", "--pid", pid), "its host is gpu, not other"),
        (session(agent="codex"), ("api", "--pid", pid), "the specs say codex"),
        (session(), ("api", "--pid", "1"), "is no agent that runs and belongs to nobody"),
        (session(), ("api", "--pid", str(shell.pid)), "is no agent that runs and belongs to nobody"),
        (session(), ("api", "--tmux", "nowhere"), "is no agent that runs"),
        (session(more='workdir = "~/other"'), ("api", "--pid", pid), "and the specs say ~/other"),
        (session(more='state = "stopped"'), ("api", "--pid", pid), "only what is kept running can be adopted"),
    ]
    for specs, words, why in texts:
        program.write(specs)
        assert why in refused(program, *words)
    assert not (site.state / "sessions").exists()
    program.write(session() + session("second"))
    ok(program, "adopt", "api", "--yes", "--pid", pid)
    assert "is no agent that runs and belongs to nobody" in refused(program, "second", "--pid", pid)


def test_a_session_that_runs_or_has_another_conversation_becomes_no_other(
    program: Program, site: Site, shell: Shell
) -> None:
    pid = str(shell.start())
    program.write(session())
    program.apply()
    (running,) = site.pids("api")
    assert "session.api is running on gpu already" in refused(program, "api", "--pid", pid)
    program.write("")
    program.apply()
    program.write(session())
    assert "session.api has conversation" in refused(program, "api", "--pid", pid)
    assert shell.alive(int(pid))
    assert not shell.alive(running)


def test_two_sessions_never_get_one_conversation(program: Program, site: Site, shell: Shell) -> None:
    """The user resumed by hand what a session of ours works on."""
    program.write(session())
    program.apply()
    conversation = site.record("api")["conversation"]
    shell.conversation = conversation
    shell.type(f"script-agent resume {conversation}", "Enter")
    second: Callable[[], list[int]] = lambda: [pid for pid in shell.agents() if pid not in before]  # noqa: E731
    before = site.pids("api")[:1]
    (pid,) = until("the second one", second)
    program.write(session() + session("other"))
    assert "session.api on gpu works on conversation" in refused(program, "other", "--pid", str(pid))
