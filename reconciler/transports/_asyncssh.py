"""Connections of the SSH library, whom they trust, and its errors translated to ours.

Besides this file only `_identities`, `_resolving`, `_shortcuts` and `_packets` know the library.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar, cast

from reconciler.transports._seeking import quickly

with quickly():
    import asyncssh

from reconciler.errors import HostError
from reconciler.transports import _failures as failures
from reconciler.transports._dialing import TooManyFilesError, dial, handshake
from reconciler.transports._failures import Attempt
from reconciler.transports._identities import TooOpenError, load_key, read_public, ready, with_certificate
from reconciler.transports._known_hosts import add, lookup
from reconciler.transports._patience import admitted
from reconciler.transports._resolving import Resolved, resolve, saying
from reconciler.transports._ssh_options import SshOptions
from reconciler.transports._ssh_sessions import Session

shortcuts: ModuleType | None
try:
    from reconciler.transports import _shortcuts as shortcuts
except (ImportError, AttributeError) as error:  # a library that has not even the names
    logging.getLogger(__name__).debug("no shortcuts: %s", error)
    shortcuts = None

__all__ = ["Connection", "GuessedWrongError", "close", "may_guess", "open_way", "start"]

Connection = asyncssh.SSHClientConnection
_CLOSE_TIMEOUT = 2.0
_MOST_JUMPS = 8
_HEARD = 1000  # bytes of what comes before SSH
# Keys in hardware are for the agent, or for the system's own ssh.
_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")
_ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_CERTIFICATES = tuple(
    f"{kind}-cert-v01@openssh.com" for kind in ("ssh-ed25519", *_ECDSA, "rsa-sha2-512", "rsa-sha2-256")
)
_HOST_KEY_ALGS = ("ssh-ed25519", *_ECDSA, "rsa-sha2-512", "rsa-sha2-256")
# Also what a pinned key is looked for under: a host shows one key per connection, of the first kind both know.
_HOST_KEY_KINDS = (_HOST_KEY_ALGS, _ECDSA, ("rsa-sha2-512", "rsa-sha2-256"))

_S = TypeVar("_S", bound=Session)
_unguessed: set[tuple[str, int]] = set()  # hosts that did not number their channels as it was guessed


class GuessedWrongError(Exception):
    """The connection is lost to a shortcut; another one goes the usual way."""


def _allowed(env: Mapping[str, str]) -> frozenset[str]:
    return shortcuts.allowed(env) if shortcuts is not None else frozenset()


def may_guess(connection: Connection, env: Mapping[str, str]) -> bool:
    """Whether the first program may be asked for before its channel is open."""
    known = connection.get_extra_info("host"), connection.get_extra_info("port")
    return "e" in _allowed(env) and known not in _unguessed


async def open_way(name: str, options: SshOptions, env: Mapping[str, str]) -> list[Connection]:
    """Connections to the jump hosts in order and then to the host that specs call `name`.

    Raises HostError; all of it takes at most `options.connect_timeout` seconds.
    """
    opener = _Opener(name, env, options.connect_timeout)
    try:
        async with asyncio.timeout(options.connect_timeout) as opener.limit:
            await opener.open(options)
    except TimeoutError:
        await close(opener.connections)
        raise failures.timed_out(opener.attempt, options.connect_timeout) from None
    except BaseException:
        await close(opener.connections)
        raise
    return opener.connections


async def close(connections: Sequence[Connection]) -> None:
    """Close the last one first; a host that does not answer any more is not waited for."""
    for connection in reversed(connections):
        connection.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await connection.wait_closed()
        except TimeoutError:
            connection.abort()


async def start(
    name: str, connection: Connection, new: Callable[[], _S], command: str, *, guess: bool = False, **pty: Any
) -> _S:
    """A process on a channel of its own. Raises HostError; a cancelled start gives its channel back.

    With `guess` it may also raise GuessedWrongError, and nothing has been run.
    """
    if guess and not pty and shortcuts is not None and shortcuts.fresh(connection):
        task = asyncio.ensure_future(shortcuts.start(connection, new, command))
    else:
        task = asyncio.ensure_future(connection.create_session(cast("Any", new), command, **pty))
    try:
        _, session = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_give_back)
        raise
    except asyncssh.ChannelOpenError as error:
        if guess and shortcuts is not None and isinstance(error, shortcuts.GuessedWrongError):
            _unguessed.add((connection.get_extra_info("host"), connection.get_extra_info("port")))
            raise GuessedWrongError from None
        if connection.is_closed():
            raise failures.dropped(name) from None
        if error.code in (asyncssh.OPEN_REQUEST_SESSION_FAILED, asyncssh.OPEN_REQUEST_PTY_FAILED):
            raise failures.no_commands(name, error.reason) from None
        raise failures.too_many_sessions(name, error.reason) from None
    except (OSError, asyncssh.Error) as error:
        raise failures.dropped(name, str(error)) from None
    return cast("_S", session)


def _give_back(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result()[1].end()


class _Opener:
    """The way to one host: its jump hosts in order, then itself."""

    def __init__(self, name: str, env: Mapping[str, str], seconds: float) -> None:
        self.name = name
        self.home = env.get("HOME") or os.path.expanduser("~")
        self.agent_socket = env.get("SSH_AUTH_SOCK", "")
        self.seconds = seconds
        self.shortcuts = _allowed(env)
        self.limit: asyncio.Timeout | None = None
        self.connections: list[Connection] = []
        self.attempt = Attempt(name, name, 22, "")

    def path(self, path: str) -> str:
        """`path` with a leading `~/` in the home of `env`."""
        return os.path.join(self.home, path[2:]) if path.startswith("~/") else path

    async def open(self, options: SshOptions, jumps: int = 0) -> None:
        """Connect, through jump hosts first, and put the connection at the end of `connections`."""
        if jumps > _MOST_JUMPS:
            raise HostError(
                f"{self.name}: more than {_MOST_JUMPS} jump hosts in a row",
                code="protocol",
                remedy=f"ssh -G {options.address} | grep proxyjump",
                retry=False,
            )
        try:
            alike = shortcuts.renamed if "o" in self.shortcuts and shortcuts is not None else None
            base = await resolve(options, self.home, alike)
        except (asyncssh.ConfigParseError, ValueError, OSError) as error:
            raise HostError(
                f"{self.name}: the SSH config cannot be used: {failures.printable(saying(error, options))}",
                code="protocol",
                remedy=f"ssh -G {options.address}",
                retry=False,
            ) from None
        if isinstance(base.tunnel, str):
            for number, jump in enumerate(base.tunnel.split(",")):
                await self.open(_jump_options(options, jump, first=number == 0), jumps + 1)
        await self._open_one(options, base)

    async def _open_one(self, options: SshOptions, base: Resolved) -> None:
        at = self.attempt = Attempt(self.name, base.host, base.port, base.username)
        at.pin = options.host_key or ""
        files = base.config.get("UserKnownHostsFile")
        if options.known_hosts_path == SshOptions.known_hosts_path and isinstance(files, list) and files:
            paths = [self.path(str(path)) for path in files]
        else:
            paths = [self.path(options.known_hosts_path)]
        at.known_hosts = paths[0]
        name, port = (base.host_key_alias, 22) if base.host_key_alias else (base.host, base.port)
        at.known = lookup([*paths, "/etc/ssh/ssh_known_hosts"], name, port)
        trust = _Trust(at, options.host_key_policy)
        async with self._credentials(options, base) as (keys, denied):
            try:
                connection = await self._try_kinds(trust, base, _arguments(options, base, keys))
            except HostError as error:
                raise denied if denied and error.code == "auth-denied" else error from None
            finally:
                # Only now has the host proven that the key is its own.
                if trust.proven and trust.new_key and not at.pin:
                    with contextlib.suppress(OSError):
                        add(at.known_hosts, name, port, trust.new_key)
        self.connections.append(connection)

    async def _try_kinds(self, trust: _Trust, base: Resolved, arguments: dict[str, Any]) -> Connection:
        """Connect; for a pinned key, look at each kind of key that the host has before it is called wrong."""
        kinds = _HOST_KEY_KINDS if trust.at.pin else _HOST_KEY_KINDS[:1]
        wrong: HostError | None = None
        for kind in kinds:
            try:
                return await self._connect(trust, base, arguments | trust.arguments(kind))
            except HostError as error:
                if error.code != "host-key-mismatch" and wrong is None:
                    raise
                wrong = wrong or error
        assert wrong is not None
        raise wrong

    async def _connect(self, trust: _Trust, base: Resolved, arguments: dict[str, Any]) -> Connection:
        return await admitted(trust.at, lambda: self._try(trust, base, arguments))

    async def _try(self, trust: _Trust, base: Resolved, arguments: dict[str, Any]) -> Connection:
        at, here = trust.at, None
        try:
            if not self.connections and _direct(base):
                here = await dial(base.host, base.port, base.family, base.local_addr)
            async with handshake(self.limit, lambda: at.heard):
                connect = shortcuts.connect if "o" in self.shortcuts and shortcuts is not None else asyncssh.connect
                made = await connect(
                    base.orig_host,
                    config=None,
                    options=base,
                    sock=here,
                    tunnel=self.connections[-1] if self.connections else None,
                    client_factory=lambda: _Client(trust, self.shortcuts),
                    **arguments,
                )
            if shortcuts is not None:
                shortcuts.begin(made, self.shortcuts)
            return made
        except TooManyFilesError as error:
            raise failures.too_many_files(at, str(error)) from None
        except asyncssh.ChannelOpenError as error:
            raise failures.from_jump(at, error.reason) from None
        except (OSError, asyncssh.Error) as error:
            raise _translate(at, error, self.seconds) from None
        except (ValueError, UnicodeError) as error:
            raise failures.broken(at, str(error)) from None
        finally:
            if here is not None and not at.connected:
                # After the library, if it has taken it, has let go of it.
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, here.close)

    @contextlib.asynccontextmanager
    async def _credentials(self, options: SshOptions, base: Resolved) -> Any:
        """Keys to offer in ssh's order (agent, then files), and the better error where they turn out too few."""
        if all(ready(path, options.passphrase) for path in self._identities(options, base)):
            files, denied = self._key_files(options, base)
        else:  # decrypting one key costs more than ten connections
            files, denied = await asyncio.to_thread(self._key_files, options, base)
        agent = None if options.identity is not None and files else await self._agent(options, base)
        try:
            held = list(await agent.get_keys()) if agent else []
        except ValueError:
            held = []
        held_blobs = {key.public_data for key in held}
        if options.identity is not None or base.config.get("IdentitiesOnly"):
            wanted = {blob for path in self._identities(options, base) if (blob := read_public(path))}
            held = [key for key in held if key.public_data in wanted]
        # As ssh: files that the agent holds too, then what else it holds, then the other files.
        files.sort(key=lambda file: file[1].public_data not in held_blobs)
        first = sum(file[1].public_data in held_blobs for file in files)
        loaded = {key.public_data for _, key in files}
        held = [key for key in held if key.public_data not in loaded]
        names = [f"{failures.printable(key.get_comment() or 'a key')} from the agent" for key in held]
        paths = [path for path, _ in files]
        self.attempt.tried = [*paths[:first], *names, *paths[first:]] + (["a password"] if options.password else [])
        if denied and not held:
            raise denied
        try:
            keys = [with_certificate(path, key) for path, key in files]
            yield [*keys[:first], *held, *keys[first:]], denied
        finally:
            if agent:
                agent.close()
                await agent.wait_closed()

    async def _agent(self, options: SshOptions, base: Resolved) -> asyncssh.SSHAgentClient | None:
        path = str(base.config.get("IdentityAgent", "") or "")
        path = self.path(path) if path and path != "SSH_AUTH_SOCK" else self.agent_socket
        if not path or options.password:
            return None
        try:
            return await asyncssh.connect_agent(path)
        except OSError:
            return None

    def _identities(self, options: SshOptions, base: Resolved) -> list[str]:
        if options.identity is not None:
            return [self.path(options.identity)]
        said = base.config.get("IdentityFile")
        names = said if isinstance(said, list) and said else [f"~/.ssh/{name}" for name in _DEFAULT_KEYS]
        return [self.path(str(name)) for name in names]

    def _key_files(
        self, options: SshOptions, base: Resolved
    ) -> tuple[list[tuple[str, asyncssh.SSHKey]], HostError | None]:
        """Key files that can be used. One that was named and cannot is an error, unless the agent holds it."""
        found: list[tuple[str, asyncssh.SSHKey]] = []
        if options.agent_only or options.password:
            return found, None
        for path in self._identities(options, base):
            try:
                found.append((path, load_key(path, options.passphrase)))
            except TooOpenError as error:
                if options.identity is not None:
                    return found, failures.key_too_open(self.name, path, str(error))
                self.attempt.too_open.append((path, str(error)))
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                if options.identity is not None:
                    return found, _unusable(self.attempt, path, options.passphrase, error)
        return found, None


def _direct(base: Resolved) -> bool:
    """Whether the way to it is plain TCP to a name that needs no second reading of the config."""
    canonical = base.canonicalize_hostname or base.config.has_match_final()
    return not (base.tunnel or base.proxy_command or canonical)


def _arguments(options: SshOptions, base: Resolved, keys: Sequence[object]) -> dict[str, Any]:
    """What every connection is made with: no prompt, nothing forwarded, and no work that is not needed."""
    interval: object = options.keepalive_interval
    if interval == SshOptions.keepalive_interval:
        interval = base.config.get("ServerAliveInterval", interval)
    count: object = options.keepalive_count
    if count == SshOptions.keepalive_count:
        count = base.config.get("ServerAliveCountMax", count)
    arguments: dict[str, Any] = {
        "client_keys": list(keys) or None,
        "agent_path": None,
        "agent_identities": None,
        "pkcs11_provider": None,
        "public_key_auth": bool(keys),
        "password": options.password,
        "password_auth": options.password is not None,
        "kbdint_auth": options.password is not None,
        "host_based_auth": False,
        "gss_auth": False,
        "gss_kex": False,
        "agent_forwarding": False,
        "x11_forwarding": False,
        "command": None,
        "request_pty": False,
        "encoding": None,
        "connect_timeout": None,
        "login_timeout": 0,
        "keepalive_interval": interval,
        "keepalive_count_max": count,
    }
    if base.config.get("Ciphers") is None:
        arguments["encryption_algs"] = "^aes128-gcm@openssh.com"
    if options.compression:
        arguments["compression_algs"] = "zlib@openssh.com,zlib,none"
    return arguments


class _Trust:
    """Decides on a host key by the policy, and remembers why."""

    def __init__(self, at: Attempt, policy: str) -> None:
        self.at = at
        self.policy = policy
        self.new_key = ""
        self.proven = False

    def arguments(self, kind: Sequence[str]) -> dict[str, Any]:
        """The keys this host is known by, and the kinds to ask it for: known ones first."""
        if self.policy == "accept_all" and not self.at.pin:
            return {"known_hosts": None}
        trusted, authorities = ([], []) if self.at.pin else (self._known(""), self._known("cert-authority"))
        arguments: dict[str, Any] = {"known_hosts": (trusted, authorities, self._known("revoked"))}
        known = [alg.decode() for key in trusted for alg in key.sig_algorithms if alg != b"ssh-rsa"]
        certificates = _CERTIFICATES if authorities else ()
        arguments["server_host_key_algs"] = list(dict.fromkeys([*certificates, *known, *kind]))
        return arguments

    def _known(self, marker: str) -> list[asyncssh.SSHKey]:
        keys = (_public_key(entry.key) for entry in self.at.known if entry.marker == marker)
        return [key for key in keys if key is not None]

    def accepts(self, key: asyncssh.SSHKey) -> bool:
        """Whether a key that is not known is good enough."""
        at = self.at
        at.offered_key = key.get_fingerprint()
        if at.pin:
            at.verdict = "" if at.offered_key == at.pin else "mismatch"
            return not at.verdict
        if any(not entry.marker for entry in at.known):
            at.verdict = "changed"
        elif self.policy == "strict":
            at.verdict = "unknown"
        else:
            self.new_key = " ".join(key.export_public_key().decode().split()[:2])
        return not at.verdict


class _Client(asyncssh.SSHClient):
    """The library's callbacks while a connection is made."""

    def __init__(self, trust: _Trust, allowed: frozenset[str]) -> None:
        self._trust = trust
        self._allowed = allowed
        self._login: Any = None
        self._logged_in: Callable[[], None] = lambda: None
        self._connection: Connection | None = None

    def connection_made(self, conn: Connection) -> None:
        self._connection = conn
        self._trust.at.connected = True
        if shortcuts is not None and "q" in self._allowed:
            shortcuts.acknowledge(conn)
        if shortcuts is not None:
            self._logged_in = shortcuts.terse(conn, self._allowed)
        if shortcuts is not None and "n" in self._allowed:
            self._login = shortcuts.Login(conn, self._allowed)
        _overhear(conn, self._trust.at)

    def begin_auth(self, username: str) -> None:
        if self._login is not None:
            self._login.begin()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._trust.accepts(key)

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self._trust.proven = True
        self._trust.at.banner = failures.printable(msg)

    def auth_completed(self) -> None:
        self._trust.proven = True
        self._logged_in()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None and self._connection.get_extra_info("server_version"):
            self._trust.at.greeted = True
        self._trust.proven |= isinstance(exc, asyncssh.PermissionDenied)


def _overhear(connection: Connection, at: Attempt) -> None:
    """Keep the first line that is said before SSH is spoken: the library passes over it, and it may be the reason."""
    before, receive, heard = vars(connection).get("data_received"), connection.data_received, bytearray()

    def hear(data: bytes, datatype: int | None = None) -> None:
        heard.extend(data[:_HEARD])
        at.heard = True
        spoken = heard.startswith(b"SSH-") or b"\nSSH-" in heard
        if not spoken:
            at.said = failures.printable(heard.partition(b"\n")[0].decode("utf-8", "replace")) or "nothing readable"
        if spoken or len(heard) >= _HEARD:
            vars(connection).pop("data_received")
            if before is not None:
                vars(connection)["data_received"] = before
        receive(data, datatype)

    vars(connection)["data_received"] = hear


def _jump_options(options: SshOptions, jump: str, *, first: bool) -> SshOptions:
    """A jump host, trusted by the same policy; only the first one's own ProxyJump counts, as with ssh."""
    user, _, place = jump.strip().rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and len(port) < 10) or place.endswith("]"):
        host, port = place, ""
    return replace(
        options,
        address=host.strip("[]"),
        user=user or None,
        port=int(port) if port else None,
        host_key=None,
        identity=None,
        passphrase=None,
        agent_only=False,
        password=None,
        ssh_options=() if first else (("ProxyJump", "none"),),
    )


@lru_cache(maxsize=4096)
def _public_key(line: str) -> asyncssh.SSHKey | None:
    try:
        return asyncssh.import_public_key(line)
    except asyncssh.KeyImportError:
        return None


def _unusable(at: Attempt, path: str, passphrase: str | None, error: Exception) -> HostError:
    if isinstance(error, OSError):
        at.tried = []
        return failures.auth_denied(at, f": the key {path} cannot be read ({error.strerror})")
    if "bcrypt" in str(error):
        return failures.passphrase_needed(at.name, path, "is encrypted, and the bcrypt package to open it is missing")
    encrypted = isinstance(error, asyncssh.KeyEncryptionError) or "passphrase" in str(error).lower()
    if encrypted and passphrase is None:
        return failures.passphrase_needed(at.name, path)
    if encrypted:
        return failures.passphrase_needed(at.name, path, "does not open with the passphrase given")
    return failures.auth_denied(at, f": {path} is not a private key ({failures.printable(str(error))})")


def _translate(at: Attempt, error: Exception, seconds: float) -> HostError:
    """The one door: an error of the library or the socket becomes one that people can act on."""
    reason = str(error)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        at.verdict = "revoked" if "revoked" in reason else at.verdict
        return failures.key_refused(at)
    if isinstance(error, asyncssh.PermissionDenied) or "Too many authentication failures" in reason:
        return failures.auth_denied(at)
    if isinstance(error, asyncssh.ConnectionLost):
        return failures.lost(at, reason)
    if isinstance(error, asyncssh.KeyExchangeFailed) and at.pin:
        at.verdict = "mismatch"
        return failures.key_refused(at)
    if isinstance(error, OSError):
        return failures.from_os_error(at, error, seconds)
    return failures.broken(at, reason)
