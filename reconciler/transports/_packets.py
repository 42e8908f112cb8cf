"""What a program says and hears, put into packets and taken from them without a detour; part of `_shortcuts`.

Each shortcut is a letter of `_shortcuts`, which says where they may be taken:

    c  what is said to two programs at once leaves in one write
    d  data in its plainest form skips what the library does for all that a packet may hold
    m  memory that only the login needed is given back

Only data of open channels under AES-GCM is treated here, and whatever is not quite that is left, untouched and in its
place, to the library: what is received is opened to see what it is before anything is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import asyncssh
from asyncssh import channel, connection, constants, encryption
from asyncssh.crypto import cipher
from asyncssh.logging import SSHLogger
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["PROVEN", "RELIED_UPON", "Packets", "begin"]

# What is called or stood in for here: see `_shortcuts.verified`.
RELIED_UPON: tuple[Callable[..., Any], ...] = (
    connection.SSHConnection._keepalive_timer_callback,
    connection.SSHConnection._recv_packet,
    connection.SSHConnection._recv_pkthdr,
    connection.SSHConnection._reset_keepalive_timer,
    connection.SSHConnection._send,
    connection.SSHConnection.data_received,
    connection.SSHConnection.send_packet,
    channel.SSHChannel._deliver_data,
    channel.SSHChannel.write,
    encryption.GCMEncryption.encrypt_packet,
    cipher.GCMCipher._update_iv,
    cipher.GCMCipher.encrypt_and_sign,
    cipher.GCMCipher.verify_and_decrypt,
)

PROVEN = (encryption.GCMEncryption, encryption.ChachaEncryption)
_DATA = constants.MSG_CHANNEL_DATA
_TAG = 16  # bytes
_AROUND = 10  # bytes of a packet before the data: padding, type, channel, length


def begin(conn: asyncssh.SSHClientConnection, letters: frozenset[str]) -> None:
    """`c`, `d` and `m` for a connection that has been let in."""
    if "m" in letters and conn._kex is None and conn._kex_complete:
        conn._client_kexinit = conn._server_kexinit = b""  # of an exchange of keys; another one sets them before
        conn._server_sig_algs = set()
        conn._options.kwargs = {}  # what options were made of
    if letters & set("cd"):
        packets = Packets(conn, letters)
        conn.set_extra_info(packets=packets)
        if "data_received" not in vars(conn):  # whoever has it gives it over: see `q`
            packets.listen()


class Packets:
    """Of one connection: what is written and read there in its plainest form. Raises what the library would."""

    __slots__ = ("_conn", "_due", "_held", "_holding", "_interval", "_plain")

    def __init__(self, conn: asyncssh.SSHClientConnection, letters: frozenset[str]) -> None:
        self._conn = conn
        self._plain = "d" in letters
        self._held = b""
        self._holding: bool | None = False if "c" in letters else None
        self._due = 0.0
        self._interval = float(conn._keepalive_interval or 0)
        if self._plain and self._interval:
            vars(conn)["_keepalive_timer_callback"] = self._quiet
            conn._reset_keepalive_timer()
        if self._holding is not None:
            vars(conn)["_send"] = self._send

    # -- writing -----------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """What is written next waits for what comes after it, at the longest until this turn of the loop ends."""
        if self._holding is False:
            self._holding = True
            self._conn._loop.call_soon(self._release)

    def _release(self) -> None:
        self._holding = False
        if self._held:
            held, self._held = self._held, b""
            connection.SSHConnection._send(self._conn, held)

    def _send(self, data: bytes) -> None:
        if self._holding:
            self._holding = False
            self._held += data
            return
        if self._held:
            data, self._held = self._held + data, b""
        connection.SSHConnection._send(self._conn, data)

    def write(self, chan: Any, data: bytes) -> None:
        """What chan.write(data) does."""
        size = len(data)
        conn = self._conn
        if (
            self._plain
            and chan._send_state == "open"
            and not chan._send_buf
            and not chan._encoding
            and 0 < size <= chan._send_window
            and size <= chan._send_pktsize
            and type(conn._send_encryption) is encryption.GCMEncryption
            and conn._auth_complete
            and conn._kex_complete
            and conn._compressor is None
            and conn._rekey_bytes_sent < conn._rekey_bytes
            and not (conn._rekey_seconds and conn._loop.time() >= conn._rekey_time)
            and SSHLogger._debug_level < 2
        ):
            chan._send_window -= size
            self._send_data(conn, chan._send_chan.to_bytes(4, "big") + size.to_bytes(4, "big") + data)
        else:
            chan.write(data)

    @staticmethod
    def _send_data(conn: Any, payload: bytes) -> None:
        padding = -(conn._send_enchdrlen + len(payload) + 1) % conn._send_blocksize
        if padding < 4:
            padding += conn._send_blocksize
        packet = bytes((padding, _DATA)) + payload + os.urandom(padding)
        size = len(packet)
        head, gcm = size.to_bytes(4, "big"), conn._send_encryption._cipher
        sealed = AESGCM(gcm._key).encrypt(gcm._iv, packet, head)
        gcm._update_iv()
        conn._send(head + sealed)
        conn._send_seq = (conn._send_seq + 1) & 0xFFFFFFFF
        conn._rekey_bytes_sent += size

    # -- reading -----------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """`hear` from now on."""
        if self._plain:
            vars(self._conn)["data_received"] = self.hear

    def hear(self, data: bytes, datatype: int | None = None) -> None:
        """What conn.data_received(data) does."""
        conn: Any = self._conn
        at = 0
        if not conn._inpbuf and conn._recv_handler == conn._recv_pkthdr and conn._auth_complete:
            try:
                at = self._take(conn, data)
            except Exception:
                conn.internal_error()
                return
        if at < len(data) or conn._inpbuf:
            connection.SSHConnection.data_received(conn, data[at:])
        elif self._interval:
            self._due = conn._loop.time() + self._interval

    @staticmethod
    def _take(conn: Any, data: bytes) -> int:
        """Hand out the data of the packets that it begins with; how many bytes these were."""
        at, size = 0, len(data)
        while (
            size - at >= 4 + _TAG
            and type(conn._recv_encryption) is encryption.GCMEncryption
            and conn._transport is not None
            and conn._decompressor is None
            and SSHLogger._debug_level < 2
        ):
            length = int.from_bytes(data[at : at + 4], "big")
            end = at + 4 + length + _TAG
            if end > size or length > conn._max_recv_pktlen or length < _AROUND:
                break
            gcm = conn._recv_encryption._cipher
            try:
                packet = AESGCM(gcm._key).decrypt(gcm._iv, data[at + 4 : end], data[at : at + 4])
            except InvalidTag:
                break
            if packet[1] != _DATA:
                break
            chan = conn._channels.get(int.from_bytes(packet[2:6], "big"))
            told = int.from_bytes(packet[6:_AROUND], "big")
            if (
                chan is None
                or told == 0
                or told + _AROUND + packet[0] != length
                or told > chan._recv_window
                or chan._recv_state != "open"
                or chan._send_state in ("close_pending", "closed")
                or chan._recv_paused
                or chan._encoding
            ):
                break
            gcm._update_iv()
            conn._recv_seq = (conn._recv_seq + 1) & 0xFFFFFFFF
            chan._recv_window -= told
            at = end
            chan._deliver_data(packet[_AROUND : _AROUND + told], None)
        return at

    def _quiet(self) -> None:
        """The library's timer for silence; what has been heard since it was set moves it once, not each time."""
        conn: Any = self._conn
        if self._due > conn._loop.time():
            conn._keepalive_timer = conn._loop.call_at(self._due, self._quiet)
        else:
            connection.SSHConnection._keepalive_timer_callback(conn)
