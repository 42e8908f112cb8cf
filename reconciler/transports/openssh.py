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
from collections.abc import Mapping, Sequence

from reconciler.errors import HostError
from reconciler.transports import Channel, Completed, local
from reconciler.transports import _failures as failures
from reconciler.transports._failures import Attempt
from reconciler.transports._known_hosts import lookup
from reconciler.transports._login_shell import command_line
from reconciler.transports._remote_files import RemoteFiles
from reconciler.transports._ssh_options import SshOptions, from_spec

__all__ = ["OpensshTransport", "SshOptions", "connect", "from_spec"]

_FAILED = 255  # what ssh itself ends with; a program may, too
_PERSIST = 60  # seconds that our own connection outlives a program that was killed
_CLOSE_TIMEOUT = 3.0
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
    arguments = _arguments(name, host, own)
    here = local.LocalTransport(name, env=own)
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

    def command(self, argv: Sequence[str], *flags: str) -> list[str]:
        """The `ssh` that runs a program on the host."""
        return ["ssh", *self._arguments, *flags, "--", self._address, command_line(argv)]

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """Run a program to its end and to the end of its output.

        More than `limit` bytes of output, or `timeout` seconds, ends it: HostError.
        """
        if not argv:
            raise ValueError("an empty argv has no program")
        word = f"run-{secrets.token_hex(8)}"
        command = self.command((*_STATUS, word, *argv), "-T")
        try:
            done = await self._here.run(command, stdin=stdin, timeout=timeout, limit=limit)
        except BaseException as error:
            await asyncio.shield(self._end(word))
            if isinstance(error, HostError) and error.code == "timed-out":
                raise failures.no_answer(self.name, argv, timeout) from None
            raise
        if done.exit == _FAILED and not await self._alive():
            raise failures.dropped(self.name, _last(done.err))
        return done

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
    if host.address.startswith("-") or not host.address.isprintable():
        raise HostError(f"{name}: {failures.printable(host.address)} is no address", code="protocol", retry=False)
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
        found += ["-i", _path(host.identity, home), *_options(IdentitiesOnly="yes")]
    elif host.agent_only:
        found += _options(IdentityFile="none")
    return found


def _cannot(name: str, what: str, instead: str) -> HostError:
    return HostError(
        f'{name}: transport = "openssh" takes no {what}', code="protocol", retry=False,
        remedy=f'transport = "ssh", or {instead}',
    )  # fmt: skip


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
        found += _options(UserKnownHostsFile=_path(host.known_hosts_path, home))
    return found


async def _asked(name: str, host: SshOptions, arguments: list[str], here: local.LocalTransport) -> tuple[Attempt, bool]:
    """What ssh makes of all that (`ssh -G`), and whether the user shares connections already."""
    done = await here.run(["ssh", "-G", *arguments, "--", host.address], timeout=host.connect_timeout)
    if done.exit:
        raise HostError(
            f"{name}: ssh does not take its configuration: {_last(done.err)}", code="protocol",
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
    try:
        async with asyncio.timeout(host.connect_timeout):
            # Not `run`: nobody is there to ask yet whether the connection lives.
            done = await transport._here.run(transport.command(("true",), "-T"), timeout=2 * host.connect_timeout)
    except TimeoutError:
        raise failures.timed_out(at, host.connect_timeout) from None
    if done.exit == _FAILED:
        raise _translated(at, done.err.decode("utf-8", "replace"), host.connect_timeout)


def _translated(at: Attempt, said: str, seconds: float) -> HostError:
    """What ssh says on stderr as one of our errors. By the texts of OpenSSH 7.6 to 9.9 (ssh.c, sshconnect*.c)."""
    last = _last(said.encode())
    if "Host key verification failed" in said:
        at.known = lookup([at.known_hosts], at.host, at.port)
        at.verdict = "changed" if "IDENTIFICATION HAS CHANGED" in said else "unknown"
        return failures.key_refused(at)
    if "Permission denied" in said or "Too many authentication failures" in said:
        return failures.auth_denied(at, f" ({last})")
    if "Could not resolve hostname" in said:
        message = f"{at.name}: the name {at.host} does not resolve"
        return HostError(message, code="name-not-resolved", remedy=at.command("getent", "hosts", at.host))
    if "Connection refused" in said:
        return failures.refused(at)
    if "No route to host" in said or "Network is unreachable" in said:
        return HostError(
            f"{at.where}: no route to it", code="no-route", remedy=at.command("ip", "route", "get", at.host)
        )
    if "timed out" in said:
        return failures.timed_out(at, seconds)
    if "Connection closed by" in said or "Connection reset by" in said or "kex_exchange_identification" in said:
        at.connected = True
        return failures.lost(at, last)
    return failures.broken(at, last or "ssh ended without a word")


def _last(said: bytes) -> str:
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return failures.printable(lines[-1]) if lines else ""
