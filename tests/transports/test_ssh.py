"""SSH on real servers: configs, jump hosts, keys, agents, and a named error with a remedy for each way it can fail."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import HostError
from reconciler.transports.ssh import SshOptions, SshTransport, connect
from tests.e2e._host import new_key
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import SHORTCUTS, Desk

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    try:
        made = Fleet()
    except FileNotFoundError as missing:
        pytest.fail(str(missing))
    with made:
        yield made


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.host("gpu")


def another(fleet: Fleet, name: str, **more: Any) -> Host:
    """A host that no other test has."""
    return fleet.host(f"{name}-{len(fleet.hosts)}", **more)


@pytest.fixture(params=SHORTCUTS)
def desk(request: pytest.FixtureRequest, tmp_path: Path, fleet: Fleet) -> Desk:
    return Desk(tmp_path, fleet, SHORTCUTS[request.param])


@contextlib.asynccontextmanager
async def connected(desk: Desk, options: SshOptions) -> AsyncIterator[SshTransport]:
    transport = await connect("gpu", options, env=desk.env)
    try:
        yield transport
    finally:
        await transport.close()


async def works(desk: Desk, options: SshOptions) -> bool:
    async with connected(desk, options) as transport:
        return (await transport.run(("echo", "here"))).out == b"here\n"


async def fails(desk: Desk, options: SshOptions) -> HostError:
    with pytest.raises(HostError) as caught:
        await connect("gpu", options, env=desk.env)
    error = caught.value
    assert error.remedy
    assert "\n" not in error.message + error.remedy
    assert "gpu" in error.message
    return error


# --- where it comes from: config, keys, agent ---


async def test_an_alias_of_the_config_brings_address_port_user_and_key(desk: Desk, host: Host, fleet: Fleet) -> None:
    block = f"HostName {host.address}\n Port {host.port}\n User {host.user}\n IdentityFile {fleet.key}\n"
    (desk.ssh / "more").write_text(f"Host gpu-alias\n {block}")
    desk.config(f"Include {desk.ssh}/more\nHost other\n HostName 192.0.2.1\n")
    assert await works(desk, SshOptions("gpu-alias"))


async def test_a_match_block_counts(desk: Desk, host: Host, fleet: Fleet) -> None:
    desk.config(f"Match originalhost gpu-*\n HostName {host.address}\n Port {host.port}\n User {host.user}\n")
    assert await works(desk, SshOptions("gpu-7", identity=str(fleet.key)))


async def test_what_is_set_here_wins_over_the_config(desk: Desk, host: Host, fleet: Fleet) -> None:
    desk.config(f"Host gpu-alias\n HostName {host.address}\n Port 1\n User nobody-at-all\n IdentityFile /nonexistent\n")
    options = SshOptions("gpu-alias", port=host.port, user=host.user, identity=str(fleet.key))
    assert await works(desk, options)


async def test_a_further_option_wins_over_the_config(desk: Desk, host: Host, fleet: Fleet) -> None:
    desk.config("Host gpu-alias\n HostName 192.0.2.1\n")
    more = (("HostName", host.address), ("Port", str(host.port)))
    assert await works(desk, SshOptions("gpu-alias", user=host.user, identity=str(fleet.key), ssh_options=more))


async def test_without_ssh_config_an_alias_means_nothing(desk: Desk, host: Host) -> None:
    desk.config(f"Host gpu.invalid\n HostName {host.address}\n")
    assert (await fails(desk, SshOptions("gpu.invalid", ssh_config=False))).code == "name-not-resolved"


async def test_a_broken_config_is_named_with_its_line(desk: Desk) -> None:
    desk.config("Host x\n  Port many\n")
    error = await fails(desk, SshOptions("x"))
    assert "config line 2" in error.message
    assert error.retry is False


def crowd(count: int) -> str:
    return "".join(f"Host h{number}\n  HostName 192.0.2.1\n  User u\n  Port 1\n" for number in range(count))


async def test_a_large_config_means_what_it_says(desk: Desk, host: Host, fleet: Fleet) -> None:
    mine = f"host = other gpu-?\n HostName {host.address}\n Port {host.port}\n"
    last = f"Host * !h1\n User {host.user}\nMatch originalhost gpu-7\n IdentityFile {fleet.key}\n"
    desk.config(crowd(200) + mine + crowd(100) + last)
    assert await works(desk, SshOptions("gpu-7"))


async def test_a_broken_large_config_is_named_with_its_line(desk: Desk) -> None:
    desk.config(crowd(200) + "Host x\n  Port many\n")
    assert "~/.ssh/config line 802" in (await fails(desk, SshOptions("x"))).message


async def test_a_config_cannot_forward_prompt_or_replace_the_command(desk: Desk, host: Host) -> None:
    desk.config("Host *\n ForwardAgent yes\n ForwardX11Trusted yes\n RemoteCommand echo hijacked\n RequestTTY force\n")
    async with connected(desk, desk.options(host)) as transport:
        done = await transport.run(("sh", "-c", 'echo "${SSH_AUTH_SOCK-none} ${DISPLAY-none}"; tty'))
    assert done.out == b"none none\nnot a tty\n"


async def test_a_jump_host_leads_on(desk: Desk, host: Host, fleet: Fleet) -> None:
    jump = fleet.hosts.get("jump") or fleet.host("jump")
    blocks = f"Host jump\n HostName {jump.address}\n Port {jump.port}\n User {jump.user}\n"
    blocks += f"Host far\n HostName {host.address}\n Port {host.port}\n User {host.user}\n ProxyJump jump\n"
    desk.config(blocks + f"Host *\n IdentityFile {fleet.key}\n")
    async with connected(desk, SshOptions("far")) as transport:
        done = await transport.run(("sh", "-c", "echo $SSH_CONNECTION"))
    assert done.out.split()[0] == jump.address.encode()
    assert len(desk.known()) == 2


async def test_a_jump_host_that_cannot_go_on_says_refused(desk: Desk, host: Host, fleet: Fleet) -> None:
    far = f"Host far\n HostName {host.address}\n Port 1\n User x\n ProxyJump gate\n"
    gate = f"Host gate\n HostName {host.address}\n Port {host.port}\n User {host.user}\n IdentityFile {fleet.key}\n"
    desk.config(far + gate)
    assert (await fails(desk, SshOptions("far"))).code == "refused"


async def test_a_circle_of_jump_hosts_is_an_error_and_no_hang(desk: Desk) -> None:
    desk.config("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    assert "jump hosts" in (await fails(desk, SshOptions("a"))).message


@pytest.mark.parametrize("name", ["id_ed25519", "id_rsa"])
async def test_a_default_key_file_is_found(desk: Desk, host: Host, name: str) -> None:
    desk.default_key(name)
    assert await works(desk, desk.options(host, identity=None))


async def test_a_default_key_with_a_passphrase_or_unreadable_text_is_passed_over(desk: Desk, host: Host) -> None:
    new_key(desk.ssh / "id_rsa", "rsa", "secret")
    (desk.ssh / "id_ecdsa").write_text("garbage")
    desk.default_key()
    assert await works(desk, desk.options(host, identity=None))


async def test_a_named_key_with_a_passphrase_needs_it(desk: Desk, host: Host) -> None:
    key = desk.default_key("work")
    keygen("-q", "-p", "-N", "secret", "-f", str(key))
    error = await fails(desk, desk.options(host, identity=str(key)))
    assert (error.code, error.retry, error.remedy) == ("passphrase-needed", False, f"ssh-add {key}")
    error = await fails(desk, desk.options(host, identity=str(key), passphrase="wrong"))
    assert error.code == "passphrase-needed"
    assert "wrong" not in error.message
    right = desk.options(host, identity="~/.ssh/work", passphrase="secret")
    if importlib.util.find_spec("bcrypt"):
        assert await works(desk, right)
    else:
        assert "bcrypt" in (await fails(desk, right)).message


async def test_a_passphrase_opens_a_key_of_the_old_format(desk: Desk, host: Host) -> None:
    key = desk.ssh / "pem"
    keygen("-q", "-t", "rsa", "-m", "PEM", "-N", "secret", "-f", str(key))
    authorized = host.state / "authorized_keys"
    authorized.write_text(authorized.read_text() + key.with_suffix(".pub").read_text())
    assert await works(desk, desk.options(host, identity="~/.ssh/pem", passphrase="secret"))
    assert (await fails(desk, desk.options(host, identity="~/.ssh/pem"))).code == "passphrase-needed"


async def test_a_named_key_that_is_not_there_is_said_so(desk: Desk, host: Host) -> None:
    error = await fails(desk, desk.options(host, identity="~/.ssh/none"))
    assert error.code == "auth-denied"
    assert "No such file" in error.message


def keygen(*words: str) -> str:
    done = subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def agent(desk: Desk) -> Iterator[Callable[[Path], None]]:
    """A private ssh-agent; call it to add a key."""
    socket = desk.home / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as process:
        while not socket.exists():
            time.sleep(0.01)
        desk.env["SSH_AUTH_SOCK"] = str(socket)
        env = {**desk.env, "SSH_ASKPASS_REQUIRE": "never"}

        def add(key: Path) -> None:
            subprocess.run(["ssh-add", "-q", str(key)], env=env, check=True)

        yield add
        process.terminate()


async def test_the_agent_is_asked(desk: Desk, host: Host, fleet: Fleet, agent: Callable[[Path], None]) -> None:
    agent(fleet.key)
    assert await works(desk, desk.options(host, identity=None))
    assert await works(desk, desk.options(host, agent_only=True))


async def test_a_named_key_with_a_passphrase_is_taken_from_the_agent(
    desk: Desk, host: Host, agent: Callable[[Path], None]
) -> None:
    key = desk.default_key("work")
    agent(key)
    keygen("-q", "-p", "-N", "secret", "-f", str(key))
    assert await works(desk, desk.options(host, identity=str(key)))


async def test_an_agent_that_is_gone_is_no_error_by_itself(desk: Desk, host: Host) -> None:
    desk.env["SSH_AUTH_SOCK"] = str(desk.home / "gone")
    desk.default_key()
    assert await works(desk, desk.options(host, identity=None))


# --- whom it trusts ---


def openssh_trusts(host: Host, key: Path, known_hosts: Path) -> bool:
    strict = ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known_hosts}", "-i", str(key)]
    where = ["-p", str(host.port), f"{host.user}@{host.address}", "true"]
    return subprocess.run(["ssh", "-F", "/dev/null", *strict, *where], check=False).returncode == 0


async def test_an_unknown_key_is_stored_as_openssh_stores_it(desk: Desk, host: Host, fleet: Fleet) -> None:
    shutil.rmtree(desk.ssh)
    assert await works(desk, desk.options(host))
    name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    assert desk.known() == [f"{name} {host.public_host_key}"]
    assert (desk.ssh.stat().st_mode & 0o777, desk.known_hosts.stat().st_mode & 0o777) == (0o700, 0o600)
    assert openssh_trusts(host, fleet.key, desk.known_hosts)


async def test_a_stored_key_is_stored_once(desk: Desk, host: Host) -> None:
    for _ in range(2):
        assert await works(desk, desk.options(host))
    assert len(desk.known()) == 1


async def test_a_key_is_appended_hashed_where_the_file_is_hashed(desk: Desk, host: Host) -> None:
    desk.known_hosts.write_text(f"elsewhere.example {host.public_host_key}")
    keygen("-q", "-H", "-f", str(desk.known_hosts))
    for _ in range(2):
        assert await works(desk, desk.options(host))
    assert [line.startswith("|1|") for line in desk.known()] == [True, True]
    assert await works(desk, desk.options(host, host_key_policy="strict"))


async def test_a_file_without_a_last_newline_gets_a_line_of_its_own(desk: Desk, host: Host) -> None:
    desk.known_hosts.write_text("# nothing here")
    assert await works(desk, desk.options(host))
    assert len(desk.known()) == 2


def entry(host: Host, key: str) -> str:
    return f"{host.address if host.port == 22 else f'[{host.address}]:{host.port}'} {key}\n"


def other_key(desk: Desk, kind: str = "ed25519") -> str:
    return " ".join(new_key(desk.home / f"other-{kind}", kind).with_suffix(".pub").read_text().split()[:2])


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize("policy", ["accept_new", "strict"])
async def test_a_changed_key_is_refused_with_the_line(desk: Desk, host: Host, kind: str, policy: str) -> None:
    before = "# a comment\n" + entry(host, other_key(desk, kind))
    desk.known_hosts.write_text(before)
    error = await fails(desk, desk.options(host, host_key_policy=policy))
    assert (error.code, error.retry) == ("host-key-changed", False)
    assert f"{desk.known_hosts}:2" in error.message
    assert "SHA256:" in error.message
    assert error.remedy.startswith("if the change is expected: ssh-keygen -R")
    assert desk.known_hosts.read_text() == before


async def test_strict_refuses_what_it_does_not_know(desk: Desk, host: Host) -> None:
    error = await fails(desk, desk.options(host, host_key_policy="strict"))
    assert (error.code, error.retry) == ("host-key-unknown", False)
    assert "ssh-keyscan" in error.remedy
    assert not desk.known()


async def test_strict_takes_what_it_knows(desk: Desk, host: Host) -> None:
    desk.known_hosts.write_text(entry(host, host.public_host_key))
    assert await works(desk, desk.options(host, host_key_policy="strict"))


async def test_accept_all_takes_a_changed_key(desk: Desk, host: Host) -> None:
    desk.known_hosts.write_text(entry(host, other_key(desk)))
    assert await works(desk, desk.options(host, host_key_policy="accept_all"))


async def test_a_revoked_key_is_refused(desk: Desk, host: Host) -> None:
    desk.known_hosts.write_text("@revoked " + entry(host, host.public_host_key))
    assert (await fails(desk, desk.options(host))).code == "host-key-mismatch"


async def test_a_pinned_key_wins_over_everything(desk: Desk, host: Host) -> None:
    pin = keygen("-l", "-f", str(host.state / "host_key.pub")).split()[1]
    desk.known_hosts.write_text(entry(host, other_key(desk)))
    assert await works(desk, desk.options(host, host_key=pin, host_key_policy="strict"))
    error = await fails(desk, desk.options(host, host_key="SHA256:" + "A" * 43, host_key_policy="accept_all"))
    assert (error.code, error.retry) == ("host-key-mismatch", False)
    assert pin in error.message


# --- how it fails ---


async def test_denied_names_the_keys_that_were_tried(desk: Desk, host: Host, agent: Callable[[Path], None]) -> None:
    agent(new_key(desk.home / "in-agent"))
    key = new_key(desk.ssh / "id_ed25519")
    error = await fails(desk, desk.options(host, identity=None))
    assert (error.code, error.retry) == ("auth-denied", False)
    assert "in-agent from the agent" in error.message
    assert str(key) in error.message
    assert error.remedy == f"ssh-copy-id -i {key} -p {host.port} {host.user}@{host.address}"


async def test_denied_without_any_key_says_that_there_was_none(desk: Desk, host: Host) -> None:
    error = await fails(desk, desk.options(host, identity=None))
    assert error.code == "auth-denied"
    assert "no key to try" in error.message


async def test_a_denied_host_is_known_all_the_same(desk: Desk, host: Host) -> None:
    await fails(desk, desk.options(host, identity=None))
    assert len(desk.known()) == 1


async def test_a_name_that_does_not_resolve(desk: Desk) -> None:
    assert (await fails(desk, SshOptions("no-such-host.invalid"))).code == "name-not-resolved"


async def test_a_refused_connection(desk: Desk) -> None:
    error = await fails(desk, SshOptions("127.0.0.1", port=1))
    assert (error.code, error.retry) == ("refused", True)


async def test_a_refused_connection_on_every_address_of_a_name(desk: Desk) -> None:
    assert (await fails(desk, SshOptions("localhost", port=1))).code == "refused"


async def test_no_route(desk: Desk) -> None:
    assert (await fails(desk, SshOptions("255.255.255.255"))).code in ("no-route", "dropped")


async def test_a_host_behind_a_cut_cable_times_out_in_the_time_given(desk: Desk, fleet: Fleet, host: Host) -> None:
    host.cable_out()
    try:
        started = time.monotonic()
        error = await fails(desk, desk.options(host, connect_timeout=0.7))
        assert (error.code, error.retry) == ("timed-out", True)
        assert time.monotonic() - started < 2
    finally:
        host.cable_in()


@contextlib.contextmanager
def server(greeting: bytes, *, hang_up: bool) -> Iterator[int]:
    """The port of a server that says `greeting` to all who come, and then hangs up or stays silent."""
    over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError), listener:
            while not over.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(greeting)
                    if not hang_up:
                        over.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), timeout=1):
            pass
        thread.join()


async def talk(desk: Desk, greeting: bytes, *, hang_up: bool, timeout: float = 1.0) -> HostError:
    """The error of a connection to such a server."""
    with server(greeting, hang_up=hang_up) as port:
        return await fails(desk, SshOptions("127.0.0.1", port=port, connect_timeout=timeout))


async def test_a_server_that_says_nothing_times_out(desk: Desk) -> None:
    error = await talk(desk, b"", hang_up=False)
    assert error.code == "timed-out"
    assert "accepts connections" in error.message


async def test_a_server_that_stops_after_its_banner_times_out(desk: Desk) -> None:
    error = await talk(desk, b"SSH-2.0-OpenSSH_9.2\r\n", hang_up=False)
    assert error.code == "timed-out"
    assert "began to speak SSH" in error.message


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff" * 40_000, b"no\r\n" * 5000, b"SSH-1.5-old\r\n", b""],
    ids=["http", "noise", "lines", "ssh1", "nothing"],
)
async def test_what_is_not_ssh_is_called_so(desk: Desk, greeting: bytes) -> None:
    assert (await talk(desk, greeting, hang_up=True, timeout=5.0)).code == "protocol"


async def test_a_broken_packet_is_a_protocol_error(desk: Desk) -> None:
    error = await talk(desk, b"SSH-2.0-x\r\n" + b"\xff" * 64, hang_up=True, timeout=5.0)
    assert error.code in ("protocol", "dropped")


@pytest.mark.parametrize("banner", [b"SSH-2.0-\x1b[2J\x07\xc2\x9b31m\r\n", b"SSH-2.0-" + b"A" * 900 + b"\r\n"])
async def test_a_hostile_version_does_not_reach_the_message(desk: Desk, banner: bytes) -> None:
    error = await talk(desk, banner, hang_up=True, timeout=5.0)
    assert all(character.isprintable() for character in error.message + error.remedy)
    assert len(error.message) < 600


async def test_a_hostile_login_banner_is_harmless_in_the_message(desk: Desk, fleet: Fleet) -> None:
    host = another(fleet, "rude", boot=False)
    (host.state / "banner").write_bytes(b"\x1b]0;owned\x07\x1b[31mGo away\r\n\xe2\x80\xae" + b"A" * 9000)
    banner = "/run/state/banner" if fleet.namespaces else host.state / "banner"
    config = host.state / "sshd_config"
    config.write_text(f"{config.read_text()}Banner {banner}\n")
    host.boot()
    error = await fails(desk, desk.options(host, identity=None))
    assert "Go away" in error.message
    assert all(character.isprintable() for character in error.message)
    assert len(error.message) < 600


async def test_a_connection_cut_in_the_middle_of_a_command_is_dropped(desk: Desk, fleet: Fleet) -> None:
    host = another(fleet, "fragile")
    async with connected(desk, desk.options(host)) as transport:
        channel = await transport.open(("cat",))
        running = asyncio.create_task(transport.run(("sleep", "60")))
        reading = asyncio.create_task(channel.read())
        await asyncio.sleep(0.3)
        host.exec(["sh", "-c", "kill -9 $(pgrep -f sshd:.*notty) $(pgrep -u $(id -u) sshd)"])
        for task in (running, reading):
            with pytest.raises(HostError) as caught:
                await asyncio.wait_for(task, 10)
            assert (caught.value.code, caught.value.retry) == ("dropped", True)
        with pytest.raises(HostError) as caught:
            await transport.run(("true",))
        assert caught.value.code == "dropped"


async def test_a_host_that_vanishes_is_noticed_by_keepalives(desk: Desk, fleet: Fleet) -> None:
    host = another(fleet, "mortal")
    async with connected(desk, desk.options(host, keepalive_interval=0.3, keepalive_count=2)) as transport:
        running = asyncio.create_task(transport.run(("sleep", "60")))
        await asyncio.sleep(0.3)
        host.cable_out()
        with pytest.raises(HostError) as caught:
            await asyncio.wait_for(running, 10)
        assert caught.value.code == "dropped"
    host.cable_in()


async def test_too_many_sessions_is_worth_another_try(desk: Desk, host: Host) -> None:
    async with connected(desk, desk.options(host)) as transport:
        channels = [await transport.open(("cat",)) for _ in range(10)]
        with pytest.raises(HostError) as caught:
            await transport.run(("true",), timeout=1.0)
        assert (caught.value.code, caught.value.retry) == ("too-many-sessions", True)
        await channels[0].close()
        await asyncio.sleep(0.3)
        assert (await transport.run(("true",))).exit == 0


# --- what a login brings along ---

SHELLS = ["/usr/bin/zsh", "/bin/mksh", "/usr/bin/fish", "/bin/tcsh", "/bin/csh", "/bin/dash"]


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
async def test_arguments_and_files_arrive_whatever_the_login_shell_is(desk: Desk, fleet: Fleet, shell: str) -> None:
    if not fleet.namespaces:
        pytest.skip("a host has a shell of its own only for root on Linux")
    name = shell.rpartition("/")[2]
    host = fleet.hosts.get(name) or fleet.host(name, shell=shell)
    hard = ["it's", "a\nb", "!!", "=ls", "%1", "\\\\'", "$(id)", "é🙂", "\udcff", "", "~", "{a,b}", "x" * 20_000]
    async with connected(desk, desk.options(host)) as transport:
        done = await transport.run(("printf", "%s\\0", *hard))
        assert done.out.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in hard]
        await transport.write("~/it's a\tfile", b"\0\xff")
        assert await transport.read("~/it's a\tfile") == b"\0\xff"


async def test_a_login_that_chatters_spoils_no_file(desk: Desk, fleet: Fleet) -> None:
    host = another(fleet, "chatty")
    host.write("~/.bashrc", "echo 'Welcome!'\nalias cat=tac\n")
    async with connected(desk, desk.options(host)) as transport:
        await transport.write("~/file", b"one\ntwo\n")
        assert await transport.read("~/file") == b"one\ntwo\n"
        with pytest.raises(FileNotFoundError):
            await transport.read("~/none")


async def test_a_full_disk_is_told_and_leaves_the_old_file(desk: Desk, fleet: Fleet) -> None:
    if not fleet.namespaces:
        pytest.skip("a host has a disk of its own only for root on Linux")
    host = another(fleet, "full", home_size="1m")
    async with connected(desk, desk.options(host)) as transport:
        await transport.write("~/state", b"old")
        host.fill_disk()
        with pytest.raises(OSError, match="No space left"):
            await transport.write("~/state", b"new" * 5000)
        assert await transport.read("~/state") == b"old"
    assert not list(host.home.glob(".reconciler.*"))


async def test_files_that_may_not_be_touched_are_permission_errors(desk: Desk, fleet: Fleet, host: Host) -> None:
    if not fleet.namespaces:
        pytest.skip("only there is a file certainly somebody else's")
    async with connected(desk, desk.options(host)) as transport:
        for path in ("/etc/shadow", "/root/x"):
            with pytest.raises(PermissionError):
                await transport.read(path)
        with pytest.raises(PermissionError):
            await transport.write("/etc/x", b"x")


# --- passwords ---


@pytest.fixture(scope="module")
def locked(fleet: Fleet) -> Host:
    """A host that takes a password and no key."""
    made = fleet.host("locked")
    if not fleet.namespaces:
        pytest.skip("a password of its own needs a host made of namespaces: run the tests as root")
    state = fleet.root / "hosts" / "locked"
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input="correct horse\n", capture_output=True, text=True, check=True
    ).stdout.strip()
    shadow = (state / "shadow").read_text().replace(f"{made.user}:*:", f"{made.user}:{hashed}:")
    (state / "shadow").write_text(shadow)
    config = (state / "sshd_config").read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes")
    (state / "sshd_config").write_text(config + "PubkeyAuthentication no\n")
    made.reboot()
    return made


async def test_a_password_lets_in_and_a_wrong_one_is_named_and_never_shown(desk: Desk, locked: Host) -> None:
    assert await works(desk, SshOptions(locked.address, user=locked.user, port=locked.port, password="correct horse"))
    error = await fails(desk, SshOptions(locked.address, user=locked.user, port=locked.port, password="s3cr3t"))
    assert error.code == "auth-denied"
    assert "a password" in error.message
    assert "s3cr3t" not in error.message + error.remedy
    assert not error.retry


async def test_without_a_password_it_is_not_asked_for(desk: Desk, locked: Host) -> None:
    error = await fails(desk, SshOptions(locked.address, user=locked.user, port=locked.port))
    assert error.code == "auth-denied"


# --- certificates ---


@pytest.fixture(scope="module")
def certified(fleet: Fleet) -> tuple[Host, Path, Path]:
    """A host that shows a certificate and trusts those of users; the authority's public key, and a user's own key."""
    made = fleet.host("certified")
    if not fleet.namespaces:
        pytest.skip("its sshd is configured anew, which needs a host made of namespaces: run the tests as root")
    state, place = fleet.root / "hosts" / "certified", fleet.root / "authority"
    place.mkdir()
    authority, mine = new_key(place / "ca"), new_key(place / "mine")

    def sign(*words: str) -> None:
        subprocess.run(["ssh-keygen", "-q", "-s", str(authority), *words], check=True, stdin=subprocess.DEVNULL)

    (state / "host_key.pub").write_text(" ".join(made.public_host_key.split()[:2]) + "\n")
    sign("-I", "host", "-h", "-n", made.address, str(state / "host_key.pub"))
    sign("-I", "me", "-n", made.user, f"{mine}.pub")
    shutil.copy(f"{authority}.pub", state / "users_ca.pub")
    more = "HostCertificate /run/state/host_key-cert.pub\nTrustedUserCAKeys /run/state/users_ca.pub\n"
    (state / "sshd_config").write_text((state / "sshd_config").read_text() + more)
    (state / "authorized_keys").write_text("")
    made.reboot()
    return made, Path(f"{authority}.pub"), mine


async def test_an_authority_stands_for_the_hosts_that_it_signed(
    desk: Desk, certified: tuple[Host, Path, Path], host: Host
) -> None:
    made, authority, mine = certified
    desk.known_hosts.write_text(f"@cert-authority 10.* {authority.read_text()}")
    options = desk.options(made, identity=str(mine), host_key_policy="strict")
    assert await works(desk, options)
    assert (await fails(desk, desk.options(host, host_key_policy="strict"))).code == "host-key-unknown"
    desk.known_hosts.write_text(f"@cert-authority 192.0.2.* {authority.read_text()}")
    assert (await fails(desk, options)).code == "host-key-unknown"


async def test_a_users_certificate_lies_beside_the_key_and_lets_in(
    desk: Desk, certified: tuple[Host, Path, Path]
) -> None:
    made, _, mine = certified
    assert await works(desk, desk.options(made, identity=str(mine)))
    bare = desk.ssh / "bare"
    shutil.copy(mine, bare)
    bare.chmod(0o600)
    assert (await fails(desk, desk.options(made, identity=str(bare)))).code == "auth-denied"


# --- IPv6 ---


@pytest.fixture
def six() -> Iterator[tuple[Host, str]]:
    """A host at an IPv6 address, and the key that it lets in."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Fleet(namespaces=False) as made:
        host = made.host("six", boot=False)
        config = made.root / "hosts/six/sshd_config"
        config.write_text(config.read_text().replace("ListenAddress 127.0.0.1", "ListenAddress ::1"))
        host.address = "::1"
        host.boot()
        yield host, str(made.key)


async def test_an_ipv6_address_is_reached_and_its_key_known_from_then_on(desk: Desk, six: tuple[Host, str]) -> None:
    host, key = six
    assert await works(desk, desk.options(host, identity=key))
    assert desk.known()[0].startswith(f"[::1]:{host.port} ")
    assert await works(desk, desk.options(host, identity=key, host_key_policy="strict"))
    error = await fails(desk, desk.options(host, identity=key, port=1))
    assert error.code == "refused"
    assert "::1" in error.message
