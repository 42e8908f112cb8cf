"""The system's `ssh` as a transport: the user's own connections, trust, and errors told apart."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import HostError
from reconciler.transports.openssh import OpensshTransport, SshOptions, connect
from tests.e2e._host import new_key
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import Desk

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as made:
        yield made


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.host("gpu")


async def works(desk: Desk, options: SshOptions) -> bool:
    transport = await connect("gpu", options, env=desk.env)
    try:
        return (await transport.run(("echo", "here"))).out == b"here\n"
    finally:
        await transport.close()


async def fails(desk: Desk, options: SshOptions) -> HostError:
    with pytest.raises(HostError) as caught:
        await connect("gpu", options, env=desk.env)
    assert "gpu" in caught.value.message
    assert "\n" not in caught.value.message + caught.value.remedy
    return caught.value


@pytest.fixture
def desk(tmp_path: Path, fleet: Fleet) -> Desk:
    return Desk(tmp_path, fleet)


def masters(word: str) -> list[int]:
    said = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in said.splitlines() if "ssh" in line and word in line and "[mux]" in line]
    return [int(pid) for pid, _ in lines]


def there(path: str) -> bool:
    return os.path.exists(path)


def quietly(desk: Desk, *argv: str) -> None:
    nowhere = subprocess.DEVNULL
    subprocess.run(argv, env=desk.env, check=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)


async def test_an_unknown_key_is_stored_and_a_changed_one_refused_with_its_line(desk: Desk, host: Host) -> None:
    assert await works(desk, desk.options(host))
    assert host.public_host_key in desk.known_hosts.read_text()
    other = new_key(desk.home / "other").with_suffix(".pub").read_text().split()[1]
    desk.known_hosts.write_text(desk.known_hosts.read_text().replace(host.public_host_key.split()[1], other))
    error = await fails(desk, desk.options(host))
    assert error.code == "host-key-changed"
    assert f"{desk.known_hosts}:1" in error.message
    assert error.remedy.startswith("if the change is expected: ssh-keygen -R")
    assert await works(desk, desk.options(host, host_key_policy="accept_all"))


async def test_strict_takes_no_unknown_key(desk: Desk, host: Host) -> None:
    error = await fails(desk, desk.options(host, host_key_policy="strict"))
    assert error.code == "host-key-unknown"
    assert not desk.known_hosts.exists()


async def test_what_it_cannot_do_is_named_and_nothing_is_an_option_that_is_no_option(desk: Desk, host: Host) -> None:
    for more in ({"password": "x"}, {"passphrase": "x"}, {"host_key": "SHA256:" + "A" * 43}):
        error = await fails(desk, desk.options(host, **more))
        assert (error.code, error.retry) == ("protocol", False)
        assert 'transport = "ssh"' in error.remedy
    mark = desk.home / "mark"
    for address in (f"-oProxyCommand=touch {mark}", "-V", "a\nb"):
        with pytest.raises(HostError):
            await connect("gpu", SshOptions(address), env=desk.env)
    for user in (f"-oProxyCommand=touch {mark}", "$(touch x)"):
        with pytest.raises(HostError):
            await connect("gpu", desk.options(host, user=user), env=desk.env)
    assert not mark.exists()
    error = await fails(desk, desk.options(host, ssh_options=(("NoSuchOption", "yes"),)))
    assert error.code == "protocol"
    assert "nosuchoption" in error.message.lower()


async def test_its_own_connection_is_one_and_ends_with_it(desk: Desk, host: Host) -> None:
    transport = await connect("gpu", desk.options(host), env=desk.env)
    directory = transport._directory
    assert directory is not None
    before = len(masters(directory))
    await asyncio.gather(*(transport.run(("true",)) for _ in range(5)))
    assert (before, len(masters(directory))) == (1, 1)
    await transport.close()
    assert not there(directory)
    for _ in range(50):
        if not masters(directory):
            break
        await asyncio.sleep(0.05)
    assert masters(directory) == []


async def test_a_connection_that_the_user_has_open_is_used_and_left_open(desk: Desk, host: Host) -> None:
    path = desk.home / "mux"
    block = (
        f"Host box\n HostName {host.address}\n Port {host.port}\n User {host.user}\n IdentityFile {desk.fleet.key}\n"
    )
    share = f" ControlMaster auto\n ControlPath {path}\n ControlPersist 60\n UserKnownHostsFile {desk.known_hosts}\n"
    (desk.ssh / "config").write_text(block + share)
    theirs = ["ssh", "-F", str(desk.ssh / "config"), "-o", "StrictHostKeyChecking=accept-new", "box"]
    quietly(desk, *theirs, "true")
    try:
        (master,) = masters(str(path))
        assert await works(desk, SshOptions("box"))
        assert masters(str(path)) == [master]
    finally:
        quietly(desk, *theirs[:-1], "-O", "exit", "box")


async def test_a_lost_connection_is_told_from_a_program_that_ends_with_255(desk: Desk, host: Host) -> None:
    transport: OpensshTransport = await connect("gpu", desk.options(host), env=desk.env)
    try:
        assert (await transport.run(("sh", "-c", "exit 255"))).exit == 255
        assert transport._directory is not None
        (master,) = masters(transport._directory)
        begun = time.monotonic()
        task = asyncio.create_task(transport.run(("sleep", "30")))
        await asyncio.sleep(0.5)
        os.kill(master, signal.SIGKILL)
        with pytest.raises(HostError) as caught:
            await task
        assert caught.value.code == "dropped"
        assert time.monotonic() - begun < 20
    finally:
        await transport.close()
