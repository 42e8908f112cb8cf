"""A host that lies, floods and shouts: what it says reaches neither a terminal as an order nor a file unasked."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, fleet_of

pytestmark = pytest.mark.e2e
ORDERS = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202e"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("a") as made:
        forced(made, "flood", "exec yes flood")
        forced(made, "shout", f"printf '%s\\n' '{ORDERS}'; printf '%s\\n' '{ORDERS}' >&2; exit 3")
        # It answers each read with a file of its own choice, whatever was asked for.
        forced(made, "liar", "n=$(printf %s \"$SSH_ORIGINAL_COMMAND\" | tr ' ' '\\n' | grep -x '[0-9a-f]\\{16\\}'); "
                             "printf '\\n%s:ok\\nevil' \"$n\"")  # fmt: skip
        yield made


def forced(fleet: Fleet, name: str, script: str) -> Host:
    """A host that runs this, whatever it is asked to run."""
    made = fleet.host(name, boot=False)
    (made.state / "forced").write_text(f"#!/bin/sh\n{script}\n")
    (made.state / "forced").chmod(0o755)
    config = made.state / "sshd_config"
    config.write_text(f"{config.read_text()}Banner /run/state/banner\nForceCommand /run/state/forced\n")
    (made.state / "banner").write_text(ORDERS * 50 + "\n")
    made.boot()
    return made


@pytest.fixture(params=["ssh", "openssh"])
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    made = Program(fleet, f"hostile{request.session.items.index(request.node)}")
    made.write("".join(f'[hosts.{name}]\ntransport = "{request.param}"\n' for name in fleet.hosts))
    return made


def harmless(done: subprocess.CompletedProcess[str]) -> str:
    said = done.stdout + done.stderr
    assert all(character.isprintable() or character == "\n" for character in said), repr(said[:500])
    return said


def test_names_of_files_give_a_terminal_no_orders_and_forge_no_lines(program: Program, fleet: Fleet) -> None:
    a = fleet.hosts["a"]
    for name in (f"x{ORDERS.replace('/', '')}", "fine\n-rw-r--r-- 1 root root 0 forged", "caf\u00e9", "-la", "\x7f"):
        a.write(f"~/names/{name}", "")
    said = harmless(program.run("ls", "a:~/names"))
    assert "caf\u00e9" in said
    assert "\n-rw-r--r-- 1 root root 0 forged" not in said
    assert "-la" in harmless(program.run("ls", "a:~/names/-la"))
    harmless(program.run("cat", f"a:~/names/{ORDERS}no"))
    harmless(program.run("cp", f"a:~/names/{ORDERS}no", "here"))


def test_a_host_that_floods_is_cut_off(program: Program) -> None:
    for words in (("ls", "flood:~"), ("cat", "flood:x"), ("doctor", "flood"), ("plan",)):
        begun = time.monotonic()
        done = program.run(*words)
        assert done.returncode != 0 or "host not observed" in done.stdout
        assert time.monotonic() - begun < 60
        assert len(harmless(done)) < 20_000


def test_a_host_that_shouts_is_quoted(program: Program) -> None:
    for words in (("ls", "shout:~"), ("cat", "shout:x"), ("doctor", "shout"), ("plan",), ("-v", "status"), ("exec",
                  "shout", "--", "true")):  # fmt: skip
        harmless(program.run(*words))


def test_a_file_lands_where_it_was_sent_to_and_nowhere_else(program: Program, fleet: Fleet) -> None:
    place = program.directory / "in"
    place.mkdir()
    for source in ("..", "../x/..", ".", "~/../..", "x/", "a:b", "x/../../../escaped", ""):
        program.run("cp", f"liar:{source}", "in/")
    written = {path.relative_to(program.directory) for path in program.directory.rglob("*") if path.is_file()}
    assert written - {Path("specs/fleet.toml")} <= {Path("in/escaped"), Path("in/a:b"), Path("in/b"), Path("in/~")}
    assert (place / "escaped").read_text() == "evil"  # it did lie, and was believed as far as that
    assert not (program.directory / "escaped").exists()
    assert not (program.directory.parent / "escaped").exists()


def test_a_file_shown_on_a_terminal_gives_it_no_orders(program: Program, fleet: Fleet) -> None:
    fleet.hosts["a"].write("~/orders", ORDERS + "\n")
    leader, follower = pty.openpty()
    try:
        subprocess.run(
            program.argv("cat", "a:~/orders"), env=program.environment(), cwd=program.directory, stdout=follower,
            stderr=follower, stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        shown = os.read(leader, 65536).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert "red" in shown
    assert all(character.isprintable() or character in "\r\n" for character in shown)
