"""Tab, as the shells ask for it: names of the specs, paths on a real host; in time, and without a word otherwise."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import PATIENCE, Program, fleet_of

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        a = made.hosts["a"]
        for path in (
            "notes/one",
            "notes/two words $(x)",
            "notes/.hidden",
            "deep/only/leaf",
            "non-e\u0301",
            "no\x1b[31m",
        ):
            a.write(f"~/{path}", "")
        a.write("~/notes/no\nnewline", "")
        yield made


@pytest.fixture
def a(fleet: Fleet) -> Host:
    return fleet.hosts["a"]


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    made = Program(fleet, f"tab{request.session.items.index(request.node)}")
    made.write('[sessions.api]\nhost = "a"\nagent = "script"\n[sessions.web]\nhost = "a"\nagent = "script"\n')
    wrapper = made.directory / "reconciler"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(made.argv())} "$@"\n')
    wrapper.chmod(0o755)
    made.env["PATH"] = f"{made.directory}:{made.environment()['PATH']}"
    return made


def bash(program: Program, *words: str) -> list[str]:
    """What the program's own bash function replies for these words, the last of which is being typed."""
    array = " ".join(map(shlex.quote, words))
    asked = f"{FUNCTION}\nCOMP_WORDS=({array}) COMP_CWORD={len(words) - 1}\n_reconciler_completion reconciler a b\n"
    done = subprocess.run(
        ["bash", "--norc", "-c", asked + 'printf "%s\\n" "${COMPREPLY[@]}"'], env=program.environment(),
        cwd=program.directory, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if line]


# As `--install-completion` installs it.
FUNCTION = """
_reconciler_completion() {
    local IFS=$'\\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _RECONCILER_COMPLETE=complete_bash $1 ) )
    return 0
}
"""


def test_names_of_the_specs_are_completed(program: Program) -> None:
    assert bash(program, "reconciler", "attach", "a") == ["api"]
    assert bash(program, "reconciler", "attach", "") == ["api", "web"]
    assert bash(program, "reconciler", "exec", "") == ["local", "a"] or bash(program, "reconciler", "exec", "a") == [
        "a"
    ]
    assert bash(program, "reconciler", "shell", "a") == ["a"]
    assert bash(program, "reconciler", "ls", "a") == ["a:~/", "a:/"]


def test_paths_on_a_host_are_completed_though_bash_cuts_words_at_colons(program: Program) -> None:
    assert bash(program, "reconciler", "cat", "a", ":", "~/notes/o") == ["~/notes/one"]
    assert bash(program, "reconciler", "edit", "a", ":", "~/notes/.h") == ["~/notes/.hidden"]
    assert bash(program, "reconciler", "cp", "here", "a", ":", "/etc/hostn") == ["/etc/hostname"]
    assert bash(program, "reconciler", "cp", "a", ":", "notes/o", "a", ":", "~/notes/o") == ["~/notes/one"]
    assert bash(program, "reconciler", "ls", "a", ":", "~") == ["~/"]
    assert "notes/" in bash(program, "reconciler", "ls", "a", ":")
    # Of one directory alone, what lies in it.
    assert bash(program, "reconciler", "ls", "a", ":", "~/dee") == ["~/deep/only/"]


def test_names_that_would_be_more_than_a_word_are_escaped_and_hostile_ones_left_out(program: Program) -> None:
    found = bash(program, "reconciler", "cat", "a", ":", "~/notes/")
    assert found == ["~/notes/one", r"~/notes/two\ words\ \$\(x\)"]
    assert bash(program, "reconciler", "cat", "a", ":", "~/no") == ["~/non-e\u0301", "~/notes/"]
    assert bash(program, "reconciler", "cat", "a", ":", "~/notes/two\\ w") == [r"~/notes/two\ words\ \$\(x\)"]


def ask(program: Program, words: str, shell: str = "zsh") -> subprocess.CompletedProcess[str]:
    env = {**program.environment(), "_RECONCILER_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words,
           "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    return subprocess.run(
        program.argv(), env=env, cwd=program.directory, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=20,
    )  # fmt: skip


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_that_leave_words_whole_get_them_whole(program: Program, shell: str) -> None:
    assert "a:~/notes/one" in ask(program, "reconciler cat a:~/notes/o", shell).stdout.replace("\\", "")


@pytest.mark.parametrize("transport", ["ssh", "openssh"])
def test_whatever_goes_wrong_it_is_silent_in_time_and_changes_nothing(
    program: Program, fleet: Fleet, a: Host, transport: str
) -> None:
    before = fleet.known_hosts.read_text()
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        port = hangs.getsockname()[1]
        program.raw(
            f'[hosts.hangs]\ntransport = "{transport}"\naddress = "127.0.0.1"\nport = {port}\n'
            f'[hosts.gone]\ntransport = "{transport}"\naddress = "127.0.0.1"\nport = 9\n{PATIENCE}'
            f'[hosts.stranger]\ntransport = "{transport}"\naddress = "{a.address}"\nssh_config = false\n'
            f'known_hosts_path = "{program.directory}/known"\n'
            f'auth = {{ type = "key", path = "{fleet.key}" }}\nuser = "dev"\n'
            f'[hosts.asks]\naddress = "{a.address}"\n'
            f'auth = {{ type = "password", password = "${{cmd:touch {program.directory}/asked}}" }}\n'
        )
        for name in ("hangs", "gone", "stranger", "asks", "nowhere"):
            begun = time.monotonic()
            done = ask(program, f"reconciler ls {name}:~/no")
            assert time.monotonic() - begun < 5
            assert "notes" not in done.stdout
            assert done.stderr == ""
    program.raw("not toml [")
    assert ask(program, "reconciler attach a").stderr == ""
    assert fleet.known_hosts.read_text() == before
    assert not os.path.exists(program.directory / "asked")
    assert not os.path.exists(program.directory / "known")
