"""Hosts for a machine without an sshd: small SSH servers on loopback ports, each with a home of its own.

    python -m demo.hosts DIRECTORY NAME...

prints one line of JSON (name -> port) when they answer, obeys lines `power-cut NAME` and `boot NAME` on its standard
input with a line `ok`, and ends, with everything that runs on them, when that input ends. Like sshd it runs what it
is told through `sh`, lets programs outlive the connection that started them, and knows only one key.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

import asyncssh

from demo.processes import kill_those_of

ADDRESS = "127.0.0.1"
KEY = "key"  # in the directory of the hosts: the one key that they let in
_Size = tuple[int, int, int, int]  # columns, lines, and both in pixels
_MOST_WAITING = 1 << 20  # bytes for a program that does not read its input, until the sender has to wait
# Becomes the leader of a session whose terminal is its standard input, then the program.
_TAKE_TERMINAL = "import fcntl,os,sys,termios;fcntl.ioctl(0,termios.TIOCSCTTY,0);os.execv('/bin/sh',sys.argv[1:])"


def new_key(path: Path) -> Path:
    """A key pair at `path` and `path`.pub, made unless it is there."""
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519", comment=path.name)
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(key.export_private_key())
        path.with_name(path.name + ".pub").write_bytes(key.export_public_key())
    return path


class Host:
    """One host: `home` is its disk, which a power cut leaves alone."""

    def __init__(self, name: str, home: Path, state: Path) -> None:
        self.name = name
        self.home = home.resolve()
        self.port = 0
        self.started: set[int] = set()  # pids of what connections have started, while it lives
        self._state = state
        self._server: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "bin").mkdir(exist_ok=True)
        # A login shell starts with the PATH of the system; people put the rest of it here.
        path = f"{self.home}/bin:{os.environ.get('PATH', os.defpath)}"
        (self.home / ".profile").write_text(f"PATH='{_quoted(path)}'\nexport PATH\n", encoding="utf-8")
        state.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a program on the host is started with; nothing of our own."""
        user = getpass.getuser()
        return {
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", os.defpath),
            "SHELL": "/bin/sh",
            "USER": user,
            "LOGNAME": user,
            "LANG": os.environ.get("LANG", "C.UTF-8"),
        }

    def install(self, name: str, argv: list[str]) -> None:
        """Put a program into `~/bin` that runs `argv`."""
        words = " ".join(f"'{_quoted(word)}'" for word in argv)
        program = self.home / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        program.chmod(0o755)

    async def boot(self) -> None:
        """Start to answer, on the same port as before."""
        if self._server is not None:
            return
        self._server = await asyncssh.create_server(
            lambda: _Server(self),
            ADDRESS,
            self.port,
            server_host_keys=[str(new_key(self._state / "host_key"))],
            authorized_client_keys=str(self._state.parent / f"{KEY}.pub"),
            encoding=None,
            line_editor=False,
            allow_scp=False,
        )
        self.port = self._server.get_port()

    async def power_cut(self) -> None:
        """Everything that runs on it is gone at once, and so are the connections to it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.abort()
        await asyncio.to_thread(kill_those_of, self.home, self.started)

    def connected(self, connection: asyncssh.SSHServerConnection) -> None:
        """Remember a connection, to cut it."""
        self._connections.add(connection)

    def disconnected(self, connection: asyncssh.SSHServerConnection | None) -> None:
        """It is gone."""
        if connection is not None:
            self._connections.discard(connection)


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


class _Server(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._host.connected(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.disconnected(self._connection)

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._host)


class _Session(asyncssh.SSHServerSession[bytes]):
    """One program on one channel. It is not ended with the channel: only its input and output are."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._command: str | None = None
        self._terminal: tuple[str, _Size] | None = None
        self._input: int | None = None
        self._outputs: dict[int, int | None] = {}  # file -> SSH's type of the data
        self._waiting = bytearray()
        self._input_ends = False
        self._paused = False
        self._status: int | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(self, term_type: str, term_size: _Size, term_modes: Mapping[int, int]) -> bool:
        self._terminal = (term_type, term_size)
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        process = self._start_in_terminal(*self._terminal) if self._terminal else self._start()
        for file in self._outputs:
            os.set_blocking(file, False)
            self._loop.add_reader(file, self._read, file)
        self._host.started.add(process.pid)
        threading.Thread(target=self._wait, args=(process,), daemon=True).start()

    def _shell(self) -> list[str]:
        return ["-sh"] if self._command is None else ["sh", "-c", self._command]

    def _start(self) -> subprocess.Popen[bytes]:
        (far_in, self._input), (out, far_out), (err, far_err) = os.pipe(), os.pipe(), os.pipe()
        os.set_blocking(self._input, False)
        self._outputs = {out: None, err: asyncssh.EXTENDED_DATA_STDERR}
        try:
            return subprocess.Popen(
                self._shell(), executable="/bin/sh", stdin=far_in, stdout=far_out, stderr=far_err,
                cwd=self._host.home, env=self._host.environment, start_new_session=True,
            )  # fmt: skip
        finally:
            for file in (far_in, far_out, far_err):
                os.close(file)

    def _start_in_terminal(self, kind: str, size: _Size) -> subprocess.Popen[bytes]:
        near, far = pty.openpty()
        _resize(near, *size)
        self._input = near
        self._outputs = {near: None}
        try:
            return subprocess.Popen(
                [sys.executable, "-ISc", _TAKE_TERMINAL, *self._shell()], stdin=far, stdout=far, stderr=far,
                cwd=self._host.home, env={**self._host.environment, "TERM": kind or "dumb"}, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(far)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread of its own: reap it, then tell the loop."""
        # It is forgotten before it is reaped: only after that its pid may become somebody else's.
        if hasattr(os, "waitid"):  # macOS: since Python 3.13
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._host.started.discard(process.pid)
        status = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(self._exited, status)

    def _exited(self, status: int) -> None:
        self._status = status
        if self._terminal is not None:
            # What it left in the background may keep the terminal open for ever.
            for file in list(self._outputs):
                while file in self._outputs and self._read(file):
                    pass
                self._output_ended(file)
        self._finish_if_done()

    def _read(self, file: int) -> bool:
        """Pass on what a program printed; False when there is nothing now."""
        try:
            data = os.read(file, 65536)
        except BlockingIOError:
            return False
        except OSError:  # Linux: a terminal that no program has open any more
            data = b""
        if data and self._channel is not None:
            self._channel.write(data, self._outputs[file])
        if not data:
            self._output_ended(file)
            self._finish_if_done()
        return bool(data)

    def _output_ended(self, file: int) -> None:
        if file in self._outputs:
            del self._outputs[file]
            self._loop.remove_reader(file)
            if file == self._input:
                self._close_input()
            else:
                os.close(file)

    def _finish_if_done(self) -> None:
        """As sshd: when the program has ended and all its output was passed on."""
        if self._status is None or self._outputs or self._channel is None:
            return
        self._close_input()
        channel, self._channel = self._channel, None
        with contextlib.suppress(OSError):
            if self._status < 0:
                channel.exit_with_signal(signal.Signals(-self._status).name.removeprefix("SIG"))
            else:
                channel.exit(self._status)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._input is None:
            return
        self._waiting += data
        self._write()
        if len(self._waiting) > _MOST_WAITING and self._channel is not None:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        if self._terminal is not None:
            return True
        self._input_ends = True
        if not self._waiting:
            self._close_input()
        return True

    def _write(self) -> None:
        if self._input is None:
            return
        self._loop.remove_writer(self._input)
        try:
            del self._waiting[: os.write(self._input, self._waiting)]
        except BlockingIOError:
            pass
        except OSError:  # it does not want to hear any more
            self._waiting.clear()
        if self._waiting:
            self._loop.add_writer(self._input, self._write)
        elif self._input_ends:
            self._close_input()
        if len(self._waiting) <= _MOST_WAITING // 2 and self._channel is not None:
            self._channel.resume_reading()

    def _close_input(self) -> None:
        if self._input is not None and self._input not in self._outputs:
            self._loop.remove_writer(self._input)
            os.close(self._input)
            self._input = None

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._terminal is not None and self._input is not None:
            _resize(self._input, width, height, pixwidth, pixheight)

    def signal_received(self, signal: str) -> None:
        """Ignored, as many an sshd does."""

    def pause_writing(self) -> None:
        for file in self._outputs:
            self._loop.remove_reader(file)

    def resume_writing(self) -> None:
        for file in self._outputs:
            self._loop.add_reader(file, self._read, file)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        for file in list(self._outputs):
            self._output_ended(file)
        self._close_input()


def _resize(terminal: int, width: int, height: int, pixwidth: int, pixheight: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, pixwidth, pixheight))


def make(directory: Path, names: list[str]) -> dict[str, Host]:
    """The hosts of a directory, not booted; their key is in the file `key` there, their homes bear their names."""
    directory.mkdir(parents=True, exist_ok=True)
    new_key(directory / KEY)
    return {name: Host(name, directory / name, directory / f"{name}.host") for name in names}


async def serve(hosts: Mapping[str, Host]) -> None:
    """Obey standard input until it ends; then nothing of the hosts is left."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer)
    try:
        for host in hosts.values():
            kill_those_of(host.home)  # of a run that was killed itself
            await host.boot()
        print(json.dumps({name: host.port for name, host in hosts.items()}), flush=True)
        while words := (await lines.readline()).decode().split():
            await _obey(hosts, words)
            print("ok", flush=True)
    finally:
        for host in hosts.values():
            await host.power_cut()


async def _obey(hosts: Mapping[str, Host], words: list[str]) -> None:
    match words:
        case ["power-cut", name]:
            await hosts[name].power_cut()
        case ["boot", name]:
            await hosts[name].boot()
        case _:
            raise ValueError(f"no such order: {words}")


def main(argv: list[str]) -> int:
    """Run the hosts named on the command line, each with the demo agent in its PATH."""
    hosts = make(Path(argv[0]), argv[1:])
    for host in hosts.values():
        host.install("demo-agent", [sys.executable, str(Path(__file__).resolve().with_name("agent.py"))])
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(serve(hosts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
