"""`doctor`, `exec` and `shell` on real hosts, as somebody meets them in the first five minutes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import PATIENCE, Program, fleet_of

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        yield made


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"d{request.session.items.index(request.node)}")


@pytest.fixture
def a(fleet: Fleet) -> Host:
    return fleet.hosts["a"]


def doctor(program: Program, *words: str, code: int = 0) -> dict[str, Any]:
    done = program.run("doctor", *words, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return {host["name"]: host for host in json.loads(done.stdout)["hosts"]}


def checks(host: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in host["checks"]}


def test_what_a_host_lacks_is_named_and_its_remedy_when_copied_puts_it_right(program: Program, a: Host) -> None:
    program.write('[sessions.api]\nhost = "a"\nagent = "claude-code"\nworkdir = "~/some where"\n')
    found = checks(doctor(program, "a", code=1)["a"])
    assert found["reach"]["ok"] is True
    assert found["tmux"]["ok"] is True
    assert found["clock"]["ok"] is True
    assert found["channels"]["ok"] is True
    assert (found["workdir"]["ok"], found["claude-code"]["ok"]) == (False, False)
    remedy = found["workdir"]["remedy"].replace("reconciler", " ".join(program.argv()), 1)
    subprocess.run(["sh", "-c", remedy], cwd=program.directory, env=program.environment(), check=True,
                   stdin=subprocess.DEVNULL)  # fmt: skip
    a.write("~/bin/claude", "#!/bin/sh\necho '2.1.197 (Claude Code)'\n", mode=0o755)
    host = doctor(program, "a")["a"]
    found = checks(host)
    assert "workdir" not in found
    assert found["claude-code"]["ok"] is True
    assert found["claude-code login"]["ok"] is None
    assert found["claude-code retention"]["remedy"].startswith('put "cleanupPeriodDays"')
    assert [agent["version"] for agent in host["agents"]] == ["2.1.197"]


def test_a_login_shows_by_its_file_or_by_the_name_of_a_variable_and_never_by_its_value(
    program: Program, a: Host
) -> None:
    a.write("~/bin/codex", "#!/bin/sh\necho 'codex-cli 0.169.0'\n", mode=0o755)
    a.write("~/bin/gemini", "#!/bin/sh\necho 0.61.0\n", mode=0o755)
    a.write("~/.codex/auth.json", '{"OPENAI_API_KEY": "s3cr3t-a"}', mode=0o600)
    a.write("~/.profile", 'PATH="$HOME/bin:$PATH"\nexport GEMINI_API_KEY=s3cr3t-b\n')
    program.write("")
    done = program.run("doctor", "a", "--agents", "--json")
    agents = {agent["name"]: agent for agent in json.loads(done.stdout)["hosts"][0]["agents"]}
    assert agents["codex"]["login"] == f"{a.inner_home}/.codex/auth.json"
    assert agents["gemini"]["login"] == "GEMINI_API_KEY"
    assert "s3cr3t" not in done.stdout + done.stderr


def test_a_host_that_does_not_answer_is_no_trouble_of_the_others(program: Program, a: Host) -> None:
    program.raw(f'[hosts.a]\n{PATIENCE}[hosts.gone]\naddress = "127.0.0.1"\nport = 9\n')
    found = doctor(program, code=4)
    assert found["a"]["reachable"] is True
    assert found["gone"]["reachable"] is False
    assert "refuses the connection" in found["gone"]["error"]
    assert checks(found["gone"])["reach"]["remedy"]


def test_an_agent_is_installed_after_a_yes_and_never_without(program: Program, a: Host) -> None:
    more = (
        '[agents.mine]\ncommand = "mine"\nstart = ["mine"]\n'
        "install = \"printf '#!/bin/sh\\\\necho 1.0\\\\n' >~/bin/mine && chmod +x ~/bin/mine\"\n"
    )
    program.write(more + '[sessions.x]\nhost = "a"\nagent = "mine"\n')
    refused = program.run("doctor", "a", "--install", "mine")
    assert refused.returncode == 64
    assert not a.outside("~/bin/mine").exists()
    assert doctor(program, "a", code=1)
    done = program.run("doctor", "a", "--install", "mine", "--yes")
    assert (done.returncode, done.stdout) == (0, "host.a: installed\n"), done.stderr
    again = program.run("doctor", "a", "--install", "mine", "--yes")
    assert again.stdout == "host.a: mine is there already\n"


def test_a_command_reaches_the_host_word_for_word_and_its_exit_code_comes_back(program: Program, a: Host) -> None:
    program.write("")
    words = ["a b", "$HOME", "'", '"', "*", "é\n"]
    done = program.run("exec", "a", "--", "printf", "%s|", *words)
    assert (done.returncode, done.stdout) == (0, "".join(f"{word}|" for word in words))
    assert program.run("exec", "a", "--", "sh", "-c", "echo no >&2; exit 7").returncode == 7
    assert program.run("exec", "a", "--", "cat", stdin="through").stdout == "through"
    assert program.run("exec", "nowhere", "--", "true").returncode == 64
    assert program.run("shell", "a").returncode == 64
