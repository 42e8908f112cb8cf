"""`doctor`, `exec` and `shell` on real hosts, as somebody meets them in the first five minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
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


CLAUDE_JSON = r"""{
  "oauthAccount": {"emailAddress": "n33dle@example.com"}, "customApiKeyResponses": {"approved": ["n33dle"]},
  "projects": {
    "/home/dev/a": {"allowedTools": [], "mcpServers": {"x": {"hasTrustDialogAccepted": true}},
                    "hasTrustDialogAccepted": false, "history": [{"display": "say \"projects\": {"}]},
    "/home/dev/b \"q\"": {"hasTrustDialogAccepted": true},
    "/home/dev/code": {"lastCost": 1.5, "hasTrustDialogAccepted" : true}
  },
  "hasTrustDialogAccepted": true
}"""
CODEX_TOML = """[projects."/home/dev/x"]
trust_level = "trusted"
[projects.'/home/dev/a']
trust_level = "untrusted"
"""


def test_directories_that_an_agent_trusts_by_its_own_list_are_told_and_nothing_else_of_that_list(
    program: Program, a: Host
) -> None:
    for name in ("claude", "codex", "gemini"):
        a.write(f"~/bin/{name}", "#!/bin/sh\necho 1.0\n", mode=0o755)
    a.write("~/.profile", 'PATH="$HOME/bin:$PATH"\n')
    for path in ("a", "code/deep", "x", "y/z"):
        (a.home / path).mkdir(parents=True, exist_ok=True)
    sessions = {
        "a": ("claude-code", "~/a"), "b": ("claude-code", "~/code/deep"), "c": ("codex", "~/x"), "d": ("codex", "~/a"),
        "e": ("gemini", "~/y/z"), "f": ("gemini", "~"),
    }  # fmt: skip
    tables = (f'[sessions.{name}]\nhost = "a"\nagent = "{agent}"\nworkdir = "{workdir}"\n'
              for name, (agent, workdir) in sessions.items())  # fmt: skip
    program.write("".join(tables))
    a.write("~/.codex/config.toml", CODEX_TOML)
    a.write("~/.gemini/trustedFolders.json", '{"/home/dev/y/z/sub": "TRUST_PARENT", "/home/dev/q": "DO_NOT_TRUST"}')
    for text in (CLAUDE_JSON, json.dumps(json.loads(CLAUDE_JSON), indent=2)):
        a.write("~/.claude.json", text, mode=0o600)
        done = program.run("doctor", "a", "--json")
        found = checks(json.loads(done.stdout)["hosts"][0])
        assert found["claude-code trust"]["ok"] is True
        words = "by its own list: {}; said by each launch, for it alone: ~/a"
        assert found["claude-code trust"]["message"] == words.format("~/code/deep")
        assert found["codex trust"]["message"] == words.format("~/x")
        assert (found["gemini trust"]["ok"], found["gemini trust"]["message"][:12]) == (None, "session.f: ~")
        assert found["gemini trust"]["remedy"].startswith("reconciler attach f")
        assert "n33dle" not in done.stdout + done.stderr
        assert (a.home / ".claude.json").read_text() == text


def test_memory_scopes_and_disk_are_looked_at(program: Program, a: Host) -> None:
    program.write("")
    systemd = a.outside("/run/systemd/system")
    systemd.mkdir(parents=True)
    try:
        found = checks(doctor(program, "a")["a"])
    finally:
        systemd.rmdir()
    assert found["linger"]["remedy"] == "reconciler exec a -- sudo loginctl enable-linger dev"
    assert "GB" in found["memory"]["message"]
    assert "GB free" in found["disk"]["message"]
    assert all(check["remedy"] for check in found.values() if check["ok"] is not True)


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


def test_a_newcomer_finds_hosts_agents_and_what_runs_there_and_nothing_is_changed(program: Program, a: Host) -> None:
    a.write("~/bin/codex", "#!/bin/sh\necho 'codex-cli 0.169.0'\n", mode=0o755)
    a.write("~/.profile", 'PATH="$HOME/bin:$PATH"\n')
    config = program.directory / "ssh_config"
    text = program.fleet.ssh_config.read_text()
    config.write_text(text + "\nHost gone\n HostName 127.0.0.1\n Port 9\nHost github.com\n User git\nHost *.internal\n")
    before = program.fleet.known_hosts.read_text()
    done = program.run("init", "found", "--discover", "--config", str(config))
    assert done.returncode == 0, done.stderr
    found = (program.directory / "found/fleet.toml").read_text()
    assert re.search(r"# agents there: .*codex.*\n\[hosts\.a\]\n", found)
    assert "# [hosts.gone]" in found
    assert "github" not in found
    assert program.fleet.known_hosts.read_text() == before
    assert not (a.home / ".local/state/reconciler/default").exists()
    assert program.run("validate", "found").returncode == 0
    again = program.run("init", "found", "--discover", "--config", str(config))
    assert again.returncode == 1


def test_hosts_of_the_ssh_config_are_added_below_what_is_there(program: Program, a: Host) -> None:
    config = program.directory / "ssh_config"
    config.write_text("Host gpu-1 gpu-2 web\n User me\nHost *\n Port 22\n")
    program.raw("# mine\n[hosts.web]  # by hand\n")
    done = program.run("import", "ssh-config", "gpu-*", "--config", str(config), "--file", "specs/fleet.toml")
    assert done.returncode == 0, done.stderr
    text = (program.specs / "fleet.toml").read_text()
    assert text == "# mine\n[hosts.web]  # by hand\n\n[hosts.gpu-1]\n\n[hosts.gpu-2]\n"
    program.run("import", "ssh-config", "--config", str(config), "--file", "specs/fleet.toml")
    assert (program.specs / "fleet.toml").read_text() == text
    assert program.run("import", "putty").returncode == 64


def test_files_of_a_host_are_listed_read_copied_and_edited(program: Program, a: Host) -> None:
    program.write("")
    a.write("~/notes/a file", "one\x1b[31m\n", mode=0o600)
    assert "a file" in program.run("ls", "a:~/notes").stdout
    assert program.run("ls", "a:~/nowhere").returncode != 0
    assert program.run("cat", "a:~/notes/a file").stdout == "one\x1b[31m\n"
    missing = program.run("cat", "a:~/nowhere")
    assert (missing.returncode, "No such file" in missing.stderr) == (1, True)
    (program.directory / "here").write_bytes(b"\x00\xff")
    assert program.run("cp", "here", "a:~/notes/").returncode == 0
    assert (a.home / "notes/here").read_bytes() == b"\x00\xff"
    assert program.run("cp", "a:~/notes/here", "back").returncode == 0
    assert (program.directory / "back").read_bytes() == b"\x00\xff"
    a.write("~/notes/secret", "x", mode=0o600)
    assert program.run("cp", "a:~/notes/secret", "secret").returncode == 0
    assert (program.directory / "secret").stat().st_mode & 0o777 == 0o600
    assert "No such file" in program.run("cp", "nowhere", "a:~/notes/").stderr
    assert program.run("cp", "here", "there").returncode == 64
    program.env["EDITOR"] = "sed -i s/one/two/"
    assert program.run("edit", "a:~/notes/a file").stdout == "a:~/notes/a file is written\n"
    assert (a.home / "notes/a file").read_text() == "two\x1b[31m\n"
    assert (a.home / "notes/a file").stat().st_mode & 0o777 == 0o600
    program.env["EDITOR"] = f'sh -c \'echo mine >"$1"; echo theirs >"{a.home}/notes/a file"\' edit'
    refused = program.run("edit", "a:~/notes/a file")
    assert refused.returncode == 7
    assert (a.home / "notes/a file").read_text() == "theirs\n"
    kept = refused.stderr.partition("what you wrote is in ")[2].splitlines()[0]
    with open(kept) as file:
        assert file.read() == "mine\n"
    shutil.rmtree(os.path.dirname(kept))


def test_whoever_trusts_everybody_is_warned_on_every_run(program: Program, a: Host) -> None:
    program.raw('[hosts.a]\nhost_key_policy = "accept_all"\n')
    assert "warning: a: host_key_policy" in program.run("plan").stderr
    assert checks(doctor(program, "a")["a"])["trust"]["ok"] is None


def test_a_configuration_that_only_the_systems_ssh_honours_is_pointed_out(program: Program, a: Host) -> None:
    config = program.directory / "ssh_config"
    config.write_text(f"{program.fleet.ssh_config.read_text()}\nHost *\n ControlMaster auto\n ControlPath /tmp/x-%C\n")
    program.raw(f'[hosts.a]\nssh_config = "{config}"\n')
    assert checks(doctor(program, "a")["a"])["transport"]["remedy"] == 'transport = "openssh"'
    program.raw(f'[hosts.a]\nssh_config = "{config}"\ntransport = "openssh"\n')
    assert "transport" not in checks(doctor(program, "a")["a"])
