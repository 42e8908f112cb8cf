"""`reconciler run` as people use it: a commit happens, what breaks heals, and where git breaks nothing happens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.moving import alive, on_screen, only_on
from tests.e2e.program import AGENTS, PATIENCE, Program, Site, fleet_of, install_script_agent, intact, until
from tests.support.receiver import receiver

pytestmark = pytest.mark.e2e
PROMPT = 'prompt = "MARK-one"\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        install_script_agent(made.host("b", user="ops"))
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"r{request.session.items.index(request.node)}")


@pytest.fixture
def a(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["a"], program.name)


@pytest.fixture
def b(fleet: Fleet, program: Program) -> Site:
    return Site(fleet.hosts["b"], program.name)


class Git:
    """The repository that people commit specs to, on the controller."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.path = program.directory / "fleet.git"
        self.env = {
            **program.environment(), "GIT_AUTHOR_NAME": "Ann", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "a@x",
        }  # fmt: skip
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.path)], env=self.env, check=True)
        self.url = f"git+file://{self.path}?ref=branch:main"

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *words], env=self.env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, text: str, *, whole: bool = False) -> str:
        """These sessions, on all hosts; or these very specs."""
        hosts = "".join(f"[hosts.{name}]\n{PATIENCE}" for name in self.program.fleet.hosts)
        head = f'[fleet]\nname = "{self.program.name}"\n{hosts}{AGENTS}\n'
        (self.path / "specs").mkdir(exist_ok=True)
        (self.path / "specs/fleet.toml").write_text(text if whole else head + text, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a change")
        return self.git("rev-parse", "HEAD")


class Running:
    """`reconciler run` in the background; what it says is read all the time."""

    def __init__(self, program: Program, *words: str, interval: str = "1s") -> None:
        self.lines: list[str] = []
        self.process = program.start("run", *words, "--interval", interval)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(program: Program, *words: str, interval: str = "1s") -> Iterator[Running]:
    found = Running(program, *words, interval=interval)
    try:
        yield found
    finally:
        print(found.said)
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait()
        assert found.process.stdout is not None
        found.process.stdout.close()


def lives(site: Site, name: str) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return site.pids(name)
    return []


def test_a_commit_happens_a_kill_heals_a_bad_commit_changes_nothing_and_a_revert_goes_back(
    program: Program, a: Site, b: Site
) -> None:
    git = Git(program)
    first = git.commit(on_screen("api", "a", PROMPT))
    with running(program, git.url) as run:
        until("it runs", lambda: lives(a, "api"), 30)
        until("it answers", lambda: a.messages("api") == ["MARK-one"])
        (pid,) = lives(a, "api")
        a.kill(pid)
        until("it was resumed", lambda: [p for p in lives(a, "api") if p != pid], 30)
        until("with its conversation", lambda: a.opens("api") == ["start", "resume"])

        git.commit("[sessions.api\n", whole=True)
        until("it says so", lambda: "source.specs" in run.said and "not valid TOML" in run.said)
        assert len(lives(a, "api")) == 1

        git.git("revert", "--no-edit", "HEAD")
        git.commit(on_screen("api", "b", PROMPT))
        until("it has moved", lambda: lives(b, "api"), 60)
        only_on([a, b], "b", "api")
        git.git("revert", "--no-edit", "HEAD")
        until("it is back", lambda: [p for p in lives(a, "api") if p], 60)
        until("only there", lambda: alive([a, b], str(a.record("api")["conversation"])) == ["a"])
        assert a.messages("api") == ["MARK-one"]
        assert first[:7] in run.said
        assert run.end() == 0
    assert len(lives(a, "api")) == 1  # the end of the controller touches no agent
    intact(a, b)


def test_a_host_that_is_away_is_unknown_and_what_ran_there_returns_with_it(program: Program, a: Site, b: Site) -> None:
    program.write(on_screen("api", "a", PROMPT) + on_screen("web", "b", PROMPT))
    with running(program) as run:
        until("both run", lambda: lives(a, "api") and lives(b, "web"), 40)
        until("it was told", lambda: a.messages("api") == ["MARK-one"])
        a.host.power_cut()
        try:
            until("it is unknown", lambda: _phase(program, "session.api") == "unknown", 40)
            (pid,) = lives(b, "web")
            b.kill(pid)
            until("the other is healed", lambda: [p for p in lives(b, "web") if p != pid], 30)
        finally:
            a.host.boot()
        until("it is back", lambda: lives(a, "api"), 60)
        assert a.opens("api")[0] == "start"
        assert run.end() == 0
    events = [json.loads(line) for line in program.run("events", "--json", "-n", "1000").stdout.splitlines()]
    assert [e["after"] for e in events if e["address"] == "host.a" and e["type"] == "Phase"][:3] == [
        "ready", "unknown", "ready",
    ]  # fmt: skip
    intact(a, b)


def _phase(program: Program, address: str) -> Any:
    return program.status().get(address, {}).get("phase")


def test_what_a_killed_controller_left_is_taken_up_by_the_next(program: Program, a: Site, b: Site) -> None:
    program.write("".join(on_screen(f"s{n}", "ab"[n % 2], PROMPT) for n in range(4)))
    with running(program) as first:
        until("it has begun", lambda: "starts its process" in first.said, 30)
        first.kill()
    with running(program) as second:
        names = {"a": ("s0", "s2"), "b": ("s1", "s3")}
        until("all run", lambda: all(len(lives(s, n)) == 1 for s in (a, b) for n in names[s.host.name]), 60)
        until("nothing is open", lambda: all(e["outcome"] for e in _history(program)))
        assert second.end() == 0
    program.settled()
    intact(a, b)


def _history(program: Program) -> list[dict[str, Any]]:
    return list(json.loads(program.run("history", "--json").stdout)["entries"])


def test_of_two_controllers_one_has_the_lease_and_the_other_says_so(
    program: Program, fleet: Fleet, a: Site, tmp_path: Path
) -> None:
    program.write(on_screen("api", "a", PROMPT))
    with running(program) as first:
        until("it runs", lambda: lives(a, "api"), 30)
        refused = program.run("run")
        assert refused.returncode == 6
        assert "keeps the fleet" in refused.stderr
        # Somebody else's, with a state of its own, who wants it stopped.
        other = Program(fleet, f"{program.name}-other")
        other.name = program.name
        other.env = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_DATA_HOME": str(tmp_path / "data")}
        other.write(on_screen("api", "a", PROMPT + 'state = "stopped"\n'))
        with running(other) as second:
            until("it says who has it", lambda: "holds the lease" in second.said, 30)
            assert second.end() == 0
        assert len(lives(a, "api")) == 1
        assert first.end() == 0
    until("the lease is given back", lambda: a.lease()[0] == 0)


def test_commands_go_on_while_the_fleet_is_kept(program: Program, a: Site) -> None:
    program.write(on_screen("api", "a", PROMPT))
    with running(program) as run:
        until("it runs", lambda: lives(a, "api"), 30)
        until("it answers", lambda: a.messages("api") == ["MARK-one"])
        until("at rest", lambda: _phase(program, "session.api") in ("running", "idle"))
        answer = program.run("plan")
        assert "as the running controller knows it" in answer.stderr
        assert "No changes." in answer.stdout
        sent = program.run("send", "api", "MARK-two")
        assert sent.returncode == 0, sent.stderr
        until("it was told", lambda: a.messages("api") == ["MARK-one", "MARK-two"])
        (pid,) = lives(a, "api")
        asked = program.run("reconcile", "api", "--restart", "--wait")
        assert asked.returncode == 0, asked.stderr
        assert [p for p in lives(a, "api") if p != pid]
        program.apply("--restart", "api")
        assert len(lives(a, "api")) == 1
        run.process.send_signal(signal.SIGHUP)
        assert run.end() == 0
    assert program.run("reconcile").returncode == 1
    intact(a)


def test_a_second_signal_cuts_off_what_does_not_end(program: Program, a: Site) -> None:
    program.write(on_screen("api", "a", PROMPT) + 'ready = { pattern = "never" , timeout = "50s" }\n')
    with running(program) as run:
        until("it waits", lambda: "waits until it is ready" in run.said, 30)
        os.kill(run.process.pid, signal.SIGTERM)
        until("it drains", lambda: "allowed to finish" in run.said)
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.process.wait(20) == 130


def test_what_happens_is_told_and_measured_and_a_push_is_acted_on_at_once(program: Program, a: Site) -> None:
    git = Git(program)
    secret = program.directory / "hook"
    secret.write_text("a secret of the webhook\n")
    with receiver() as people:
        told = f'[notifiers.me]\nurl = "json://127.0.0.1:{people.port}"\nevents = ["healed", "source"]\n'
        git.commit(told + on_screen("api", "a", PROMPT))
        words = (git.url, "--listen", "0", "--webhook-secret-file", str(secret))
        with running(program, *words, interval="1h") as run:
            until("it runs", lambda: lives(a, "api"), 30)
            until("it answers", lambda: a.messages("api") == ["MARK-one"])
            port = int(run.said.partition("listens on 127.0.0.1:")[2].split()[0])
            assert ask(port, "/healthz") == (200, "ok\n")
            until("it is ready", lambda: ask(port, "/readyz")[0] == 200)
            assert 'reconciler_sessions{host="a"' in ask(port, "/metrics")[1]

            (pid,) = lives(a, "api")
            a.kill(pid)
            git.commit(told + on_screen("api", "a", PROMPT) + on_screen("web", "a", PROMPT))
            assert ask(port, "/webhook", b"x", {"X-Gitlab-Token": "a guess"})[0] == 403
            assert ask(port, "/webhook", b"x", {"X-Gitlab-Token": "a secret of the webhook"})[0] == 202
            until("the push was acted on", lambda: lives(a, "web"), 30)
            until("the other was resumed", lambda: [p for p in lives(a, "api") if p != pid], 30)
            until("it was told", lambda: people.requests, 30)
            assert people.requests[0].document["title"] == f"{program.name}: healed"
            assert "session.api on a: was resumed" in people.requests[0].document["message"]

            git.commit("[sessions.api\n", whole=True)
            ask(port, "/webhook", b"x", {"X-Gitlab-Token": "a secret of the webhook"})
            until("it was told", lambda: len(people.requests) == 2, 30)
            assert "not valid TOML" in people.requests[1].document["message"]
            assert "reconciler_source_ready 0.0" in ask(port, "/metrics")[1]
            assert run.end() == 0


def test_specs_that_lost_most_of_their_files_stay_in_force_until_a_person_says_that_it_is_meant(
    program: Program, a: Site
) -> None:
    names = ("s0", "s1", "s2", "s3")
    program.write("", fleet='max_stop = "100%"\n')
    for name in names:
        (program.specs / f"{name}.toml").write_text(on_screen(name, "a", PROMPT))
    with running(program) as run:
        until("all run", lambda: all(lives(a, name) for name in names), 40)
        for name in names[:3]:
            (program.specs / f"{name}.toml").unlink()
        until("it is refused", lambda: "reconciler reconcile --accept" in run.said, 20)
        assert all(lives(a, name) for name in names)
        revision = run.said.partition("reconcile --accept ")[2].split()[0].strip(";")
        refused = program.run("reconcile", "--accept", "0123456789abcdef")
        assert "no revision 0123456789abcdef is refused" in refused.stderr
        why = program.run("why", "s3")
        assert "kept:\n  by reconciler run (pid" in why.stdout
        done = program.run("reconcile", "--accept", revision, "--wait")
        until("they stopped", lambda: not any(lives(a, name) for name in names[:2]), 40)
        assert done.returncode in (0, 3), done.stdout + done.stderr
        assert lives(a, "s3")
        assert run.end() == 0
    entries = json.loads(program.run("audit", "show", "--json", "-n", "1000").stdout)["entries"]
    assert [(e["kind"], e["verb"]) for e in entries if e["kind"] in ("run", "guard-lifted")] == [
        ("run", "begin"), ("guard-lifted", "mass-loss"), ("run", "end"),
    ]  # fmt: skip
    head = run.said.rpartition("has the hash ")[2].split()[0]
    assert "; 0 came after it" in program.run("audit", "verify", "--head", head).stdout


def test_a_service_is_written_for_this_very_command_line(program: Program) -> None:
    program.write("")
    done = program.run("run", "specs", "--interval", "20s", "--install")
    assert done.returncode == 0, done.stderr
    path = program.fleet.controller_home / f".config/systemd/user/reconciler-{program.name}.service"
    assert '"-m" "reconciler" "run" "specs" "--interval" "20s"' in path.read_text()
    assert f"systemctl --user enable --now {path.name}" in done.stdout
    path.write_text(path.read_text() + "# by hand\n")
    assert program.run("run", "--install").returncode == 7
    assert program.run("run", "--install", "--force").returncode == 0


def ask(port: int, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST" if body else "GET", path, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
