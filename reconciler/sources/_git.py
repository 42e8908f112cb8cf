"""Runs the `git` program: with the user's credentials and configuration, but never asking, and no code of a repository.

Every run ends: by itself, at its timeout, or with the caller that waits for it, and then all its children too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import SourceError

_LIMIT = 32 * 1024 * 1024
_GRACE = 1.0
# What would make git look elsewhere than at the repository it is told.
FOREIGN = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_PREFIX",
    "GIT_QUARANTINE_PATH", "GIT_TRACE", "GIT_CURL_VERBOSE", "GIT_TRACE_CURL", "GIT_TRACE_PACKET", "GIT_EXTERNAL_DIFF",
)  # fmt: skip
_ALWAYS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_ALLOW_PROTOCOL": "file:https:ssh",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a signature is checked over the object itself
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
_CONFIG = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=false", "core.autocrlf=false",
    "submodule.recurse=false", "fetch.recurseSubmodules=false", "gc.autoDetach=false", "maintenance.auto=false",
    "advice.detachedHead=false", "filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false",
)  # fmt: skip
# The secret is in the environment of git; in its arguments there is only where to find it.
_HELPER = '!f() { test "$1" = get && echo "username=$RECONCILER_GIT_USER" && echo "password=$RECONCILER_GIT_PASS"; }; f'


@dataclass(frozen=True)
class Ran:
    """How git ended, and what it said."""

    code: int
    out: str
    err: str


class Git:
    """The git program for one repository. `origin` is `scheme://host` of the URL, where a password goes with it."""

    def __init__(self, origin: str = "", username: str = "", password: str = "") -> None:
        self._env = {key: value for key, value in os.environ.items() if key not in FOREIGN} | _ALWAYS
        self._config = [part for pair in _CONFIG for part in ("-c", pair)]
        if password:
            self._config += ["-c", f"credential.{origin}.helper=", "-c", f"credential.{origin}.helper={_HELPER}"]
            self._env |= {"RECONCILER_GIT_USER": username or "git", "RECONCILER_GIT_PASS": password}
        self._ssh_decided = "GIT_SSH_COMMAND" in self._env or "GIT_SSH" in self._env

    async def run(
        self,
        args: Sequence[str],
        *,
        cwd: Path,
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run to the end. Raises SourceError: git-missing, or fetch-failed where it took or said far too much."""
        await self._decide_ssh(cwd)
        # A repository around the place where mirrors are kept is none of ours.
        ceiling = {"GIT_CEILING_DIRECTORIES": str(cwd.parent)}
        return await self._run([*self._config, *args], cwd, timeout, {**self._env, **ceiling, **(env or {})})

    async def _decide_ssh(self, cwd: Path) -> None:
        """SSH must not ask; where the user says how SSH is run, that stands."""
        if self._ssh_decided:
            return
        found = await self._run(["config", "--get", "core.sshCommand"], cwd, 10.0, self._env)
        if not found.out.strip():
            self._env["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
        self._ssh_decided = True

    async def _run(self, args: Sequence[str], cwd: Path, timeout: float, env: Mapping[str, str]) -> Ran:
        transport, child = await _start(args, cwd, env)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(child.ended)
        except TimeoutError:
            raise SourceError(f"git did not end within {timeout:g} s", code="fetch-failed") from None
        finally:
            await _end(transport, child)
        if len(child.said[1]) + len(child.said[2]) > _LIMIT:
            raise SourceError(f"git said more than {_LIMIT >> 20} MiB", code="fetch-failed")
        out, err = (bytes(child.said[fd]).decode("utf-8", "replace") for fd in (1, 2))
        return Ran(transport.get_returncode() or 0, out, err)


async def _start(args: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[asyncio.SubprocessTransport, _Child]:
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    starting = asyncio.ensure_future(
        asyncio.get_running_loop().subprocess_exec(
            _Child, "git", *args, cwd=cwd, env=dict(env), start_new_session=True,
            stdin=nothing, stdout=pipe, stderr=pipe,
        )
    )  # fmt: skip
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # It may run already, with children of its own, and only who has its transport can end them all.
        with contextlib.suppress(OSError):  # it did not even start
            await _end(*(await starting))
        raise
    except FileNotFoundError as error:
        if error.filename == str(cwd):
            raise
        raise SourceError(
            "the program `git` is not on the PATH", code="git-missing", remedy="install git", retry=False
        ) from None


class _Child(asyncio.SubprocessProtocol):
    """Gathers what a program says, up to a bound. `ended` comes before `closed` where it leaves something running."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.said = {1: bytearray(), 2: bytearray()}
        self.ended: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if len(self.said[fd]) <= _LIMIT:
            self.said[fd] += data

    def process_exited(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def _end(transport: asyncio.SubprocessTransport, child: _Child) -> None:
    """End the whole group: asked first, because git then takes its lock files away."""
    group = transport.get_pid()
    try:
        if not child.ended.done():
            _signal(group, signal.SIGTERM)
            await _within_grace(child.ended)
    finally:
        if not child.ended.done():  # also where a second cancel does not let us wait
            _signal(group, signal.SIGKILL)
    try:
        # What git leaves running (a shared SSH connection) may keep its pipes open: nobody waits for that for long.
        await _within_grace(child.closed)
    finally:
        transport.close()


async def _within_grace(event: asyncio.Future[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await asyncio.shield(event)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
