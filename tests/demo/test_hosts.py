"""The demo's hosts behave as machines with an sshd do, as far as a demonstration can tell."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from demo.hosts import ADDRESS, KEY, Host, make
from demo.processes import processes_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[dict[str, Host]]:
    """Two hosts that answer; nothing of them is left after the test."""
    made = make(tmp_path, ["atlas", "borealis"])
    for host in made.values():
        await host.boot()
    yield made
    for host in made.values():
        await host.power_cut()


async def connect(host: Host, key: Path | None = None) -> asyncssh.SSHClientConnection:
    """A connection with the hosts' own key."""
    path = key or host.home.parent / KEY
    return await asyncssh.connect(
        ADDRESS, host.port, client_keys=[str(path)], known_hosts=None, config=None, agent_path=None
    )


async def test_a_program_gets_its_input_and_gives_output_errors_and_exit_code(hosts: dict[str, Host]) -> None:
    async with await connect(hosts["atlas"]) as connection:
        done = await connection.run("cat; echo oops >&2; exit 7", input="hi", encoding="utf-8")
        assert (done.stdout, done.stderr, done.exit_status) == ("hi", "oops\n", 7)


async def test_a_megabyte_travels_both_ways_unharmed(hosts: dict[str, Host]) -> None:
    data = os.urandom(3_000_000)
    async with await connect(hosts["atlas"]) as connection:
        done = await connection.run("cat", input=data, encoding=None)
        assert done.stdout == data


async def test_the_environment_is_that_of_a_login_and_the_home_is_the_hosts_own(
    hosts: dict[str, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    async with await connect(hosts["atlas"]) as connection:
        done = await connection.run("pwd; env", encoding="utf-8")
    first, *words = str(done.stdout).splitlines()
    names = {word.partition("=")[0] for word in words}
    assert first == str(hosts["atlas"].home)
    assert f"HOME={first}" in words
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"HOME", "PATH", "SHELL", "USER", "LOGNAME", "LANG"}


async def test_several_programs_run_on_one_connection_at_once(hosts: dict[str, Host]) -> None:
    async with await connect(hosts["atlas"]) as connection:
        slow = await connection.create_process("read line; echo slow $line", encoding="utf-8")
        assert (await connection.run("echo quick", encoding="utf-8")).stdout == "quick\n"
        slow.stdin.write("one\n")
        assert (await slow.wait()).stdout == "slow one\n"


async def test_a_terminal_has_the_size_of_the_users_and_follows_it(hosts: dict[str, Host]) -> None:
    async with await connect(hosts["atlas"]) as connection:
        process = await connection.create_process(
            "stty size; read x; stty size; exit 3", term_type="xterm", term_size=(100, 30), encoding="utf-8"
        )
        assert (await process.stdout.readline()).strip() == "30 100"
        process.change_terminal_size(90, 20)
        process.stdin.write("\n")
        done = await process.wait()
        assert str(done.stdout).split()[-2:] == ["20", "90"]
        assert done.exit_status == 3


async def test_another_key_is_not_let_in(hosts: dict[str, Host], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    other.chmod(0o600)
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(hosts["atlas"], other)


async def test_what_a_connection_started_outlives_it(hosts: dict[str, Host]) -> None:
    async with await connect(hosts["atlas"]) as connection:
        done = await connection.run("sleep 60 </dev/null >/dev/null 2>&1 & echo $!", encoding="utf-8")
    await asyncio.sleep(0.2)
    assert int(str(done.stdout)) in processes_of(hosts["atlas"].home)


async def test_a_power_cut_ends_all_that_runs_there_and_nothing_else(hosts: dict[str, Host], tmp_path: Path) -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "60", env={**os.environ, "HOME": str(tmp_path)})
    connections = {name: await connect(host) for name, host in hosts.items()}
    try:
        for connection in connections.values():
            # The second forgets its home, as programs may.
            await connection.run(
                "sleep 60 </dev/null >/dev/null 2>&1 & (env -i sleep 61; :) </dev/null >/dev/null 2>&1 &"
            )
        assert all(processes_of(host.home) for host in hosts.values())
        await hosts["atlas"].power_cut()
        assert not processes_of(hosts["atlas"].home)
        assert processes_of(hosts["borealis"].home)
        assert bystander.returncode is None
        with pytest.raises((asyncssh.Error, OSError)):
            await connections["atlas"].run("true")
        assert (await connections["borealis"].run("true")).exit_status == 0
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await connect(hosts["atlas"])
    finally:
        bystander.kill()
        await bystander.wait()
        for connection in connections.values():
            connection.abort()


async def test_after_a_boot_it_answers_at_the_same_place_with_its_disk_as_it_was(hosts: dict[str, Host]) -> None:
    host = hosts["atlas"]
    port = host.port
    async with await connect(host) as connection:
        await connection.run("echo kept > file")
    await host.power_cut()
    await host.boot()
    assert host.port == port
    async with await connect(host) as connection:
        assert (await connection.run("cat file", encoding="utf-8")).stdout == "kept\n"


def test_all_of_it_ends_when_the_one_who_started_it_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo.hosts", str(tmp_path), "atlas"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["atlas"]
        asyncio.run(_run(tmp_path, port, "sleep 62 </dev/null >/dev/null 2>&1 &"))
        home = (tmp_path / "atlas").resolve()
        assert processes_of(home)
        process.stdin.close()
        assert process.wait(20) == 0
    assert not processes_of(home)


async def _run(directory: Path, port: int, command: str) -> None:
    connection = await asyncssh.connect(
        ADDRESS, port, client_keys=[str(directory / KEY)], known_hosts=None, config=None, agent_path=None
    )
    async with connection:
        await connection.run(command, check=True)
