"""Values from elsewhere (`${env|file|cmd|keyring:…}`), resolved where the program runs, at the moment of use."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from reconciler.core.references import Reference, split
from reconciler.errors import OperationError
from reconciler.redaction import conceal

_LIMIT = 65536  # bytes; no credential is larger
_TIMEOUT = 30.0  # seconds that a command may take
# Variables of every login: known to everybody, and part of half of what is said.
_PUBLIC = frozenset({"HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER"})


def resolve(text: str) -> str:
    """`text` with its references replaced. Raises OperationError(secret) naming the reference, never a value."""
    return "".join(part if isinstance(part, str) else _value(part) for part in split(text))


def resolve_all(table: Mapping[str, str]) -> dict[str, str]:
    """Every value of an environment, resolved."""
    return {name: resolve(value) for name, value in table.items()}


def _value(reference: Reference) -> str:
    try:
        value = _RESOLVERS[reference.scheme](reference.argument)
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError, LookupError) as error:
        raise _failed(reference, _why(error)) from None
    if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > _LIMIT:
        raise _failed(reference, "it holds a NUL byte or more than 64 KiB")
    if (reference.scheme, reference.argument) not in {("env", name) for name in _PUBLIC}:
        conceal(value)
    return value


def recognise(texts: Iterable[str]) -> None:
    """Conceal what these refer to, where that asks nobody and runs nothing: variables and small plain files."""
    for reference in (part for text in texts for part in split(text) if isinstance(part, Reference)):
        plain = reference.scheme == "file" and Path(reference.argument).expanduser().is_file()
        if reference.scheme == "env" or plain:
            with contextlib.suppress(OperationError):
                _value(reference)


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, subprocess.CalledProcessError):
        return f"the command exited with {error.returncode}"  # its output may hold the secret
    if isinstance(error, subprocess.TimeoutExpired):
        return f"the command did not end within {_TIMEOUT:g} s"
    return "it is not set" if isinstance(error, LookupError) else "it is not UTF-8 text"


def _failed(reference: Reference, why: str) -> OperationError:
    named = f"${{{reference.scheme}:{reference.argument}}}"
    return OperationError(f"{named}: {why}", code="secret", remedy="set it where reconciler runs, then apply again")


def _file(path: str) -> str:
    with Path(path).expanduser().open("rb") as file:
        return file.read(_LIMIT + 1).decode().rstrip("\n")


def _command(command: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=_TIMEOUT
    )
    return done.stdout[: _LIMIT + 1].decode().rstrip("\n")


def _keyring(argument: str) -> str:
    service, _, user = argument.partition("/")
    try:
        import keyring
    except ImportError:
        raise OperationError(
            "references to a keyring need the package keyring",
            code="secret",
            remedy="pip install 'agent-reconciler[keyring]'",
        ) from None
    value = keyring.get_password(service, user)
    if value is None:
        raise LookupError
    return str(value)


_RESOLVERS = {"env": lambda name: os.environ[name], "file": _file, "cmd": _command, "keyring": _keyring}
