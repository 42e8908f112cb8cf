"""SSH by the system's own `ssh`, for what only it can do: ControlMaster sockets, keys in hardware, GSSAPI, PKCS#11.

All programs of one host share one connection: the user's own ControlMaster where the configuration has one, else one of
ours in a private directory, which ends with us, or a minute after us.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from reconciler.errors import HostError
from reconciler.transports import Channel, Completed, local
from reconciler.transports import _failures as failures
from reconciler.transports import _openssh_errors as errors
from reconciler.transports._dialing import handshake
from reconciler.transports._failures import Attempt
from reconciler.transports._login_shell import command_line
from reconciler.transports._patience import Room, admitted
from reconciler.transports._remote_files import RemoteFiles
from reconciler.transports._ssh_options import SshOptions, checked, from_spec

__all__ = ["OpensshTransport", "SshOptions", "connect", "from_spec"]

_FAILED = 255  # what ssh itself ends with; a program may, too
_PERSIST = 60  # seconds that our own connection outlives a program that was killed
_CLOSE_TIMEOUT = 3.0
_PATIENCE = 30.0  # seconds that a session is waited for
# A shell that stays, since ssh does not tell by which signal a program ended. Its name is a word by which it is found
# again: ssh ends a program on the host with its connection only, and this one is shared.
_STATUS = ("sh", "-c", '"$@"; exit $?')
_END = """
read -r word
ps -A -o pgid= -o args= | while read -r group rest; do
  case $rest in *"$word"*) kill -KILL "-$group" 2>/dev/null ;; esac
done
"""


async def connect(name: str, host: SshOptions, *, env: Mapping[str, str] | None = None) -> OpensshTransport:
    """One connection to the host that specs call `name`, as the user's `ssh` makes it.

    `env` stands for this process's environment (HOME, SSH_AUTH_SOCK). Raises HostError with a code and a remedy.
    """
    own = dict(os.environ if env is None else env)
    if shutil.which("ssh", path=own.get("PATH")) is None:
        raise HostError(f"{name}: there is no ssh on this machine", code="protocol",
                        remedy="install openssh-client", retry=False)  # fmt: skip
    arguments = _arguments(name, checked(name, host), own)
    # Nor does the ssh to a jump host ask anything, which BatchMode does not reach.
    here = local.LocalTransport(name, env={**own, "SSH_ASKPASS_REQUIRE": "never"})
    at, shared = await _asked(name, host, arguments, here)
    directory = None if shared else tempfile.mkdtemp(prefix="reconciler-")
    if directory is not None:
        arguments += _options(ControlMaster="auto", ControlPath=f"{directory}/s", ControlPersist=_PERSIST)
    transport = OpensshTransport(name, host.address, arguments, here, directory)
    try:
        await _open(transport, at, host)
    except BaseException:
        await transport.close()
        raise
    return transport


class OpensshTransport(RemoteFiles):
    """An open connection; `connect` makes it."""

    def __init__(
        self, name: str, address: str, arguments: list[str], here: local.LocalTransport, directory: str | None
    ) -> None:
        self.name = name
        self._address = address
        self._arguments = arguments
        self._here = here
        self._directory = directory
        self.room = Room()

    def command(self, argv: Sequence[str], *flags: str) -> list[str]:
        """The `ssh` that runs a program on the host."""
        # ssh takes the first value of an option.
        return ["ssh", *flags, *self._arguments, "--", self._address, command_line(argv)]

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """Run a program to its end and to the end of its output.

        More than `limit` bytes of output, or `timeout` seconds, ends it: HostError.
        """
        if not argv:
            raise ValueError("an empty argv has no program")
        # Where the host opens no more sessions on this connection, ssh makes another one, which may fail as well.
        return await self.room.enter(lambda: self._run(argv, stdin, timeout, limit), min(timeout, _PATIENCE))

    async def _run(self, argv: Sequence[str], stdin: bytes, timeout: float, limit: int) -> Completed:
        word = f"run-{secrets.token_hex(8)}"
        command = self.command((*_STATUS, word, *argv), "-T")
        try:
            done = await self._here.run(command, stdin=stdin, timeout=timeout, limit=limit)
        except BaseException as error:
            await asyncio.shield(self._end(word))
            if isinstance(error, HostError) and error.code == "timed-out":
                raise failures.no_answer(self.name, argv, timeout) from None
            raise
        if done.exit == _FAILED and errors.crowded(done.err) and b"kex_exchange_identification" in done.err:
            raise failures.too_many_sessions(self.name, errors.last_line(done.err))
        if done.exit == _FAILED and not await self._alive():
            raise failures.dropped(self.name, errors.last_line(done.err))
        return Completed(done.exit, done.out, errors.spoken(done.err))

    async def _end(self, word: str) -> None:
        """End a program on the host that nobody waits for any more, and all that it started."""
        with contextlib.suppress(HostError):
            ending = self.command(("sh", "-c", _END), "-T")
            await self._here.run(ending, stdin=f"{word}\n".encode(), timeout=_CLOSE_TIMEOUT)

    async def _alive(self) -> bool:
        """Whether the shared connection is there: then it was the program that ended with 255."""
        done = await self._here.run(["ssh", *self._arguments, "-O", "check", "--", self._address], timeout=10.0)
        return done.exit == 0

    async def open(self, argv: Sequence[str]) -> Channel:
        """Start a program and keep its stdin and stdout open (no terminal); its stderr goes nowhere."""
        return await self._here.open(self.command(argv, "-T"))

    async def terminal(self, argv: Sequence[str]) -> int:
        """Run a program on the user's own terminal (raw mode, resize, signals); its exit status."""
        status = await self._here.terminal(self.command((*_STATUS, "sh", *argv), "-tt"))
        if status == _FAILED and not await self._alive():
            raise failures.dropped(self.name)
        return status

    async def sessions_at_once(self, most: int) -> int:
        """How many sessions the host opens on this connection, those that are open now among them; up to `most`."""
        found = self._here.open_channels
        ask = self.command((*_STATUS, "sh", "sleep", "0.5"), "-T")
        done = await asyncio.gather(*(self._here.run(ask) for _ in range(max(0, most - found))))
        return found + sum(not errors.crowded(each.err) and each.exit == 0 for each in done)

    async def close(self) -> None:
        """End what still runs, and our own connection; safe to call twice."""
        await self._here.close()
        if self._directory is None:
            return
        directory, self._directory = self._directory, None
        try:
            with contextlib.suppress(HostError):
                ending = ["ssh", *self._arguments, "-O", "exit", "--", self._address]
                await self._here.run(ending, timeout=_CLOSE_TIMEOUT)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _options(**options: object) -> list[str]:
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def _arguments(name: str, host: SshOptions, env: Mapping[str, str]) -> list[str]:
    """What every `ssh` is called with. Raises HostError for what this transport cannot do."""
    if host.password is not None or host.passphrase is not None:
        raise _cannot(name, "passwords and passphrases", "an agent")
    if host.host_key is not None:
        raise _cannot(name, "a pinned `host_key`", "`known_hosts_path` with that key alone")
    home = env.get("HOME") or os.path.expanduser("~")
    found = [*_config(host, home), *_options(
        BatchMode="yes", ForwardAgent="no", ForwardX11="no", ClearAllForwardings="yes", PermitLocalCommand="no",
        RemoteCommand="none", EscapeChar="none", LogLevel="ERROR", ConnectTimeout=math.ceil(host.connect_timeout),
        ServerAliveInterval=math.ceil(host.keepalive_interval), ServerAliveCountMax=host.keepalive_count,
    )]  # fmt: skip
    # ssh takes the first value of an option: what specs say in ssh's own names wins over all.
    found = [word for key, value in host.ssh_options for word in ("-o", f"{key}={value}")] + found
    found += _trust(host, home)
    if host.user is not None:
        found += ["-l", host.user]
    if host.port is not None:
        found += ["-p", str(host.port)]
    if host.compression:
        found += ["-C"]
    if host.identity is not None:
        # Not -i: that goes on with other keys where the file is missing.
        found += _options(IdentityFile=_file(_path(host.identity, home)), IdentitiesOnly="yes")
    elif host.agent_only:
        found += _options(IdentityFile="none")
    return found


def _cannot(name: str, what: str, instead: str) -> HostError:
    return HostError(
        f'{name}: transport = "openssh" takes no {what}', code="protocol", retry=False,
        remedy=f'transport = "ssh", or {instead}',
    )  # fmt: skip


def _file(path: str) -> str:
    """One file name as a value of an option: quoted, and no token in it."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _path(path: str, home: str) -> str:
    return os.path.join(home, path[2:]) if path.startswith("~/") else path


def _config(host: SshOptions, home: str) -> list[str]:
    if host.ssh_config is False:
        return ["-F", "none"]
    if isinstance(host.ssh_config, str):
        return ["-F", _path(host.ssh_config, home)]
    own = os.path.join(home, ".ssh", "config")
    return ["-F", own if os.access(own, os.R_OK) else "none"] if _elsewhere(home) else []


def _elsewhere(home: str) -> str:
    """`home`, where it is not the one that ssh takes for it: ssh goes by the user database, and not by HOME."""
    return home if home != pwd.getpwuid(os.getuid()).pw_dir else ""


def _trust(host: SshOptions, home: str) -> list[str]:
    if host.host_key_policy == "accept_all":
        return _options(StrictHostKeyChecking="no", UserKnownHostsFile="/dev/null", GlobalKnownHostsFile="/dev/null")
    found = _options(StrictHostKeyChecking="yes" if host.host_key_policy == "strict" else "accept-new")
    if host.known_hosts_path != SshOptions.known_hosts_path:
        found += _options(UserKnownHostsFile=_file(_path(host.known_hosts_path, home)))
    return found


async def _asked(name: str, host: SshOptions, arguments: list[str], here: local.LocalTransport) -> tuple[Attempt, bool]:
    """What ssh makes of all that (`ssh -G`), and whether the user shares connections already."""
    done = await here.run(["ssh", "-G", *arguments, "--", host.address], timeout=host.connect_timeout)
    if done.exit:
        raise HostError(
            f"{name}: ssh does not take its configuration: {errors.last_line(done.err)}", code="protocol",
            remedy=f"ssh -G {host.address}", retry=False,
        )  # fmt: skip
    said: dict[str, str] = {}
    for line in done.out.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, value)
    port = int(said["port"]) if said.get("port", "").isdigit() else 22
    at = Attempt(name, said.get("hostname", host.address), port, said.get("user", ""))
    at.known_hosts = said.get("userknownhostsfile", "").split(" ")[0]
    own = _elsewhere(here.home)
    if own and at.known_hosts.startswith(f"{pwd.getpwuid(os.getuid()).pw_dir}/.ssh/"):
        at.known_hosts = os.path.join(own, ".ssh", "known_hosts")
        arguments += _options(UserKnownHostsFile=at.known_hosts)
    shared = said.get("controlmaster", "false") not in ("false", "no") and said.get("controlpath", "none") != "none"
    return at, shared


async def _open(transport: OpensshTransport, at: Attempt, host: SshOptions) -> None:
    """The first program makes the connection. Raises HostError with what ssh says of it."""
    with tempfile.TemporaryDirectory(prefix="reconciler-") as directory:
        log = os.path.join(directory, "log")
        try:
            async with asyncio.timeout(host.connect_timeout) as limit:
                await admitted(at, lambda: _in_turn(limit, _try(transport, at, host, log)))
        except TimeoutError:
            errors.hear(at, await asyncio.to_thread(_text, log))
            raise failures.timed_out(at, host.connect_timeout) from None
        except HostError as error:
            if error.code == "auth-denied" and host.identity is not None:
                await _named_key(transport, at, _path(host.identity, transport._here.home))
            raise


async def _in_turn(limit: asyncio.Timeout, trying: Coroutine[Any, Any, None]) -> None:
    """Not all of a fleet at once; but ssh does not tell which of them are dead, so none is waited for long."""
    async with contextlib.AsyncExitStack() as places:
        places.callback(trying.close)
        await places.enter_async_context(handshake(limit, lambda: False))
        await trying


async def _try(transport: OpensshTransport, at: Attempt, host: SshOptions, log: str) -> None:
    seconds = 2 * host.connect_timeout
    err = b""
    # A jump host is heard only where no connection is to be shared.
    for alone in ((), tuple(_options(ControlMaster="no", ControlPath="none"))):
        await asyncio.to_thread(_forget, log)
        # Not `run`: nobody is there to ask yet whether the connection lives.
        flags = ("-T", "-E", log, *_options(LogLevel="DEBUG1"), *alone)
        done = await transport._here.run(transport.command(("true",), *flags), timeout=seconds)
        if done.exit != _FAILED and not alone:
            return
        err = done.err
        said = await asyncio.to_thread(_text, log)
        errors.hear(at, said)
        if done.exit != _FAILED:
            raise failures.lost(at, "its jump host let us through at the second try only")
        if at.connected or "UNKNOWN port" not in said:
            break
    raise errors.translated(at, said, err.decode("utf-8", "replace"), host.connect_timeout)


async def _named_key(transport: OpensshTransport, at: Attempt, path: str) -> None:
    """Raises what is wrong with the one key that was to be used, where ssh only passed over it."""
    for found, mode in at.too_open:
        if found == path:
            raise failures.key_too_open(at.name, path, mode)
    if at.tried and not at.taken:
        return
    done = await transport._here.run(["ssh-keygen", "-y", "-P", "", "-f", path], timeout=10.0)
    if done.exit and b"passphrase" in done.err:
        raise failures.passphrase_needed(at.name, path)
    if done.exit:
        raise failures.auth_denied(at, f": the key {path} cannot be used ({errors.last_line(done.err)})")


def _forget(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1_000_000)
    except FileNotFoundError:
        return ""
