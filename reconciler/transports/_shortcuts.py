"""Fewer round trips to log in, by what the SSH library does not offer: private parts of versions that were tested.

Each shortcut is a letter, and so is what it saves; docs/adr/0019 has the reasons and what may go wrong:

    q  acknowledge at once while we log in, so that a server that waits for that goes on (Linux; nothing private)
    o  the options of a connection are made in place, not in a pool of threads; those of hosts of which the SSH config
       says the same are copies of each other's
    n  the first key is offered without asking first which ways to log in there are ("none"): one round trip
    p  and signed at once, without asking first whether it would do: one
    s  and in the same flight as the request for the service that takes it: one
    e  the first program is asked for in the same flight as its channel: one
    w  what is said at once while we log in is written at once
    i  no empty packet before each one: it hides a chain of blocks, and ciphers that prove each packet have none

Those in `_packets` save no round trip: `c` and `d` time of this machine at each packet, `m` memory.

What the library was tested with is listed by digest. Anything else, and any server but OpenSSH, goes the usual way.
RECONCILER_SSH_SHORTCUTS=off switches all of them off; letters (`qo`) leave only those.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import logging
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import asyncssh
from asyncssh import auth, channel, config, connection, constants, encryption, packet
from asyncssh.crypto import cipher
from asyncssh.packet import Boolean, String, UInt32
from asyncssh.public_key import SSHLocalKeyPair

from reconciler.transports import _packets
from reconciler.transports._packets import PROVEN, begin

__all__ = [
    "GuessedWrongError", "Login", "acknowledge", "allowed", "begin", "connect", "fresh", "renamed", "start", "terse",
    "verified",
]  # fmt: skip

LOG = logging.getLogger(__name__)
SWITCH = "RECONCILER_SSH_SHORTCUTS"
ALL = frozenset("qonpsewicdm")
_PRIVATE = ALL - {"q"}
# Versions of the library that all tests of the transports were run with, with the digests of what we rely upon.
TESTED = {
    "2.24.1": {
        connection: "8fd28630b87c21d6c5cd678442a95cac4669bd4569388c5e123e61b3f7a7b005",
        auth: "4313e7ec3dd6389aadab83908bd46be5276d8defa9989fede1dbebde644eba00",
        channel: "d918ecd3d2b9eeeb4a4e921f36da2d1ad40b54a3e957f2809c29bdf5a8bb4f26",
        config: "f51efb1d9efbd9ee0bb285eff39be316a3bd3827c2bf6115a3ccc4e01f84e29d",
        encryption: "51d6e8c7d43ed57225a44434c9500609d8328ea34c856ce05489d274ab8b0cbb",
        packet: "397997befab90e6da5c56c1bdcfacbbf1aa9ffe646e7cfc9a32482f691774797",
        cipher: "f9ecb119995986b33940f62ec11736ec823ea90fecc6bc97eb4fc30b843c8b5d",
    },
}
# What we call or replace: it has to come from those files, not from somebody who replaced it too.
_RELIED_UPON: tuple[Callable[..., Any], ...] = (
    connection._connect,
    connection.SSHConnection._process_service_accept,
    connection.SSHConnection._process_userauth_failure,
    connection.SSHConnection.data_received,
    connection.SSHConnection._send,
    connection.SSHConnection.send_newkeys,
    connection.SSHConnection.send_packet,
    connection.SSHConnection.send_service_request,
    connection.SSHClientConnection.public_key_auth_requested,
    connection.SSHClientConnection.try_next_auth,
    connection.SSHClientConnectionOptions.prepare,
    connection.SSHConnectionOptions.prepare,
    config.SSHClientConfig.__init__,
    auth._ClientPublicKeyAuth._send_signed_request,
    auth.lookup_client_auth,
    channel.SSHChannel.process_open_confirmation,
    channel.SSHChannel._cleanup,
    channel.SSHChannel._start_reading,
    *_packets.RELIED_UPON,
)
_SERVERS = re.compile(r"SSH-2\.0-OpenSSH_(7\.[4-9]|8|9|10)\b")
_MOST_KEYS = 3  # the last resort, "none", has to come before MaxAuthTries
_READS = 64  # of a login; later on, acknowledgements wait for company again
_READS_AFTER = 8  # of them with the first program
_MOST = 256  # kinds of connections whose options are kept to be copied
_Options = asyncssh.SSHClientConnectionOptions
_Part = asyncssh.SSHKey | asyncssh.SSHCertificate  # of a key file, unlike what an agent keeps to itself
_ALIKE = "reconciler_alike"  # the attribute by which options know whose copies they are


class GuessedWrongError(asyncssh.ChannelOpenError):
    """The host did not number its channels as we guessed, and hangs up: the usual way takes another connection."""

    def __init__(self, reason: str) -> None:
        super().__init__(asyncssh.OPEN_CONNECT_FAILED, reason)


@functools.cache
def verified() -> bool:
    """Whether the library is, file by file, one that the shortcuts were tested with."""
    version = asyncssh.__version__
    try:
        for module, digest in TESTED.get(version, {}).items():
            if hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() != digest:
                LOG.debug("no shortcuts: %s of asyncssh %s is not as it was tested", module.__name__, version)
                return False
        files = {module.__file__ for module in TESTED.get(version, {})}
        strange = [found.__qualname__ for found in _RELIED_UPON if found.__code__.co_filename not in files]
    except (OSError, AttributeError) as error:
        LOG.debug("no shortcuts: asyncssh %s cannot be checked: %s", version, error)
        return False
    if strange or not files:
        LOG.debug("no shortcuts: asyncssh %s was not tested with them %s", version, strange)
    return bool(files) and not strange


def allowed(env: Mapping[str, str]) -> frozenset[str]:
    """The shortcuts that may be taken: what the switch in `env` leaves of what this library is known to bear."""
    said = env.get(SWITCH, "").strip().lower()
    wanted = ALL if said in ("", "on", "all") else frozenset() if said in ("off", "none", "0") else ALL & set(said)
    return wanted if wanted <= {"q"} or verified() else wanted - _PRIVATE


def acknowledge(conn: asyncssh.SSHClientConnection) -> None:
    """`q`: from now on, and for as long as a login takes."""
    found = conn.get_extra_info("socket")
    option = getattr(socket, "TCP_QUICKACK", None)
    if option is None or found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    receive, left = conn.data_received, [_READS]

    def hear(data: bytes, datatype: int | None = None) -> None:
        left[0] -= 1
        plainly = conn.get_extra_info("packets")
        if left[0] > 0:
            found.setsockopt(socket.IPPROTO_TCP, option, 1)
            left[0] = min(left[0], _READS_AFTER) if plainly else left[0]
        else:
            vars(conn).pop("data_received", None)
            if plainly:
                plainly.listen()
        receive(data, datatype)

    found.setsockopt(socket.IPPROTO_TCP, option, 1)
    vars(conn)["data_received"] = hear


class Writes:
    """`w`: what goes out on a connection is held back until the loop has nothing else to do, or until `end`."""

    def __init__(self, conn: asyncssh.SSHClientConnection) -> None:
        self._conn, self._held = conn, bytearray()
        self._send = conn._send  # whoever holds something back already goes first
        self._before = vars(conn).get("_send")
        vars(conn)["_send"] = self._hold

    def _hold(self, data: bytes) -> None:
        if not self._held:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.flush)  # after the tasks that begin now, which say more
        self._held += data

    def flush(self) -> None:
        """Write it."""
        if self._held:
            data, self._held = bytes(self._held), bytearray()
            self._send(data)

    def end(self) -> None:
        """Write it, and from now on each packet by itself."""
        if vars(self._conn).get("_send") == self._hold:
            del vars(self._conn)["_send"]
            if self._before is not None:
                vars(self._conn)["_send"] = self._before
        self.flush()


def terse(conn: asyncssh.SSHClientConnection, letters: frozenset[str]) -> Callable[[], None]:
    """`i`, and `w` until what is given back is called, which is when we are logged in."""
    send, writes = conn.send_packet, Writes(conn) if "w" in letters else None

    def send_packet(kind: int, *parts: bytes, handler: Any = None) -> None:
        if kind == constants.MSG_IGNORE and "i" in letters and isinstance(conn._send_encryption, PROVEN):
            return
        send(kind, *parts, handler=handler)
        if kind == constants.MSG_DISCONNECT and writes is not None:
            writes.end()  # nothing is written after this turn

    if letters & {"w", "i"}:
        vars(conn)["send_packet"] = send_packet
    return writes.end if writes is not None else lambda: None


def renamed(base: _Options, host: str) -> _Options:
    """`o`: the options `base` for another host, of which the SSH config says the same, and which it does not rename."""
    made = copy.copy(base)
    _rename(made, host)
    vars(base)[_ALIKE] = vars(made)[_ALIKE] = base
    return made


def _rename(made: _Options, host: str) -> None:
    made.config = copy.copy(made.config)
    vars(made.config)["_orig_host"] = made.host = made.orig_host = host
    made.kwargs = made.kwargs | {"host": host}


# With what their questions name by address, which must not go to something else.
_templates: dict[tuple[object, ...], tuple[_Options, object, object]] = {}


def _options(host: str, loop: asyncio.AbstractEventLoop, arguments: dict[str, Any]) -> _Options:
    """The options of a connection. Where another one differs in nothing but its host, they are copies of its."""
    keys = arguments["client_keys"] or []
    parts = [part for key in keys for part in (key if isinstance(key, tuple) else (key,))]
    original = vars(arguments["options"]).get(_ALIKE)
    other = arguments["password"] is not None or arguments["tunnel"] is not None
    if original is None or other or not all(isinstance(part, _Part) for part in parts):
        return _Options(host=host, loop=loop, **arguments)
    own = {name: arguments[name] for name in ("client_factory", "known_hosts")}
    rest = {name: arguments[name] for name in arguments.keys() - own.keys() - {"options", "client_keys"}}
    question = (
        id(original), *map(id, parts), *((name, str(value)) for name, value in sorted(rest.items())),
    )  # fmt: skip
    if question not in _templates:
        if len(_templates) >= _MOST:
            _templates.clear()
        _templates[question] = _Options(host=host, loop=loop, **arguments), original, parts
    made = copy.copy(_templates[question][0])
    _rename(made, host)
    made.kwargs |= own | {"loop": loop}
    made.protocol_factory, made.known_hosts = own["client_factory"], own["known_hosts"]
    made.client_keys = made.client_keys and [copy.copy(pair) for pair in made.client_keys]  # each chooses a signature
    return made


async def connect(host: str, **arguments: Any) -> asyncssh.SSHClientConnection:
    """`o`: what asyncssh.connect does, without its pool of threads."""
    loop = asyncio.get_running_loop()
    sock = arguments.pop("sock", None)
    made = _options(host, loop, arguments)
    return await connection._connect(
        made, None, loop, 0, sock,
        lambda: asyncssh.SSHClientConnection(loop, made, wait="auth"), "Opening SSH connection to",
    )  # fmt: skip


class _SignedAuth(auth._ClientPublicKeyAuth):
    """A public key that is not asked about first."""

    async def _start(self) -> None:
        self._keypair = await self._conn.public_key_auth_requested()
        if self._keypair is None:
            self._conn.try_next_auth(next_method=True)
            return
        await self._send_signed_request()


class Login:
    """`n`, `p` and `s` for one connection; made when there is a connection, told when to begin."""

    def __init__(self, conn: asyncssh.SSHClientConnection, letters: frozenset[str]) -> None:
        self._conn, self._letters = conn, letters
        self._begun = False
        self._own = False  # whether the next call of try_next_auth comes too late to matter
        self._asked = False  # whether "none" had its turn
        if letters & set("ns"):
            vars(conn)["send_service_request"] = self._send_service_request

    def _fits(self) -> bool:
        """Whether the first thing that the usual way would come to is a key, on a server whose ways are known."""
        conn = self._conn
        keys = len(conn._client_keys)
        version = conn._server_version.decode("ascii", "replace")
        first = conn._public_key_auth and b"publickey" in (conn._preferred_auth or ())
        return bool(first and 0 < keys <= _MOST_KEYS and conn._password is None and _SERVERS.match(version))

    def _signs(self) -> bool:
        """Whether the first key is ours: an agent may ask somebody for each signature."""
        return "p" in self._letters and isinstance(self._conn._client_keys[0], SSHLocalKeyPair)

    def _send_service_request(self, service: bytes) -> None:
        conn = self._conn
        vars(conn).pop("send_service_request", None)
        conn.send_service_request(service)
        if service != b"ssh-userauth" or "n" not in self._letters or not self._fits():
            return
        vars(conn)["try_next_auth"] = self._try_next_auth
        # A key with a choice of signatures waits for the server to say which it takes, and that comes meanwhile.
        if "s" in self._letters and self._signs() and len(conn._client_keys[0].sig_algorithms) == 1:
            conn._auth_in_progress = True
            self._offer()

    def begin(self) -> None:
        """The server has accepted the service; the library is about to ask for "none"."""
        if "try_next_auth" not in vars(self._conn):
            return
        if not self._begun:
            self._offer()
        self._own = True

    def _offer(self) -> None:
        conn, self._begun = self._conn, True
        conn._auth_methods = [b"publickey"]
        made = _SignedAuth if self._signs() else auth._ClientPublicKeyAuth
        conn._auth = made(conn, b"publickey")

    def _try_next_auth(self, *, next_method: bool = False) -> None:
        if self._own:
            self._own = False
            return
        conn = self._conn
        left = conn._auth_methods[next_method:]
        if not self._asked and not set(left) & set(auth._auth_methods):
            self._asked = True  # a server that lets in whoever asks does so at the end, too
            conn._auth_methods, next_method = [b"none"], False
        asyncssh.SSHClientConnection.try_next_auth(conn, next_method=next_method)


class _Channel(channel.SSHClientChannel[bytes]):
    """A channel that asks for its program before the server has given it a number, which it guesses."""

    async def ask(self, new: Callable[[], Any], command: str) -> Any:
        conn = cast("Any", self._conn)
        self._new = new
        self._command = command
        self._open_waiter = self._loop.create_future()
        self._open_waiter.add_done_callback(_seen)
        opened = self._open_waiter
        answer: asyncio.Future[bool] = self._loop.create_future()
        answer.add_done_callback(_seen)
        self._request_waiters.append(answer)
        writes = Writes(conn)
        own = UInt32(cast("int", self._recv_chan)), UInt32(self._recv_window), UInt32(self._recv_pktsize)
        conn.send_packet(constants.MSG_CHANNEL_OPEN, String("session"), *own, handler=self)
        conn.send_packet(
            constants.MSG_CHANNEL_REQUEST, UInt32(0), String("exec"), Boolean(True), String(command), handler=self
        )
        writes.end()
        try:
            (await opened).check_end()
        except asyncssh.ChannelOpenError as error:
            raise GuessedWrongError(error.reason) from None
        if self._send_chan:
            raise GuessedWrongError(f"its number is {self._send_chan}")
        if not await answer:
            self.close()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_REQUEST_SESSION_FAILED, "Session request failed")
        session = cast("Any", self._session)
        session.session_started()
        conn.create_task(self._start_reading(), self.logger)
        return session

    def process_open_confirmation(self, send_chan: int, send_window: int, send_pktsize: int, packet: Any) -> None:
        """All of the answer may come in one burst: the session is there before the first of it."""
        super().process_open_confirmation(send_chan, send_window, send_pktsize, packet)
        self._session = self._new()
        self._session.connection_made(self)


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def fresh(conn: asyncssh.SSHClientConnection) -> bool:
    """Whether `e` may guess: the first channel of a server that numbers them from zero."""
    version = str(conn.get_extra_info("server_version", ""))
    return conn._next_recv_chan == 0 and not conn._channels and bool(_SERVERS.match(version))


async def start(conn: asyncssh.SSHClientConnection, new: Callable[[], Any], command: str) -> tuple[Any, Any]:
    """`e`: what conn.create_session does. Raises GuessedWrongError, and what that raises."""
    options = conn._options
    conn._update_recv_pktlen(options.max_pktsize)
    made = _Channel(
        conn, conn._loop, conn._utf8_decode_errors, None, "strict", options.window, options.max_pktsize
    )  # fmt: skip
    return made, await made.ask(new, command)
