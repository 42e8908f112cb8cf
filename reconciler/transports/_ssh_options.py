"""What one SSH connection needs to know, apart from the specs and from the SSH library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.core.host_spec import AgentAuth, Host, KeyAuth, PasswordAuth
from reconciler.core.values import is_host_token
from reconciler.errors import HostError
from reconciler.transports._failures import printable

__all__ = ["SshOptions", "checked", "from_spec"]

# What a shell would act on, where a ProxyCommand names the host with %h: as in ssh.c since 9.6.
_SHELL = frozenset("'`\"$\\;&<>|(){}")


@dataclass(frozen=True)
class SshOptions:
    """How to reach and trust one host. What is None comes from the SSH config; times are seconds.

    `identity` names the only key file to use; `agent_only` leaves key files alone. `ssh_options` are further
    options in ssh_config's names, which win over the config file.
    """

    address: str
    user: str | None = None
    port: int | None = None
    ssh_config: str | bool = True
    identity: str | None = None
    passphrase: str | None = None
    agent_only: bool = False
    password: str | None = None
    host_key_policy: str = "accept_new"
    host_key: str | None = None
    known_hosts_path: str = "~/.ssh/known_hosts"
    connect_timeout: float = 10.0
    keepalive_interval: float = 30.0
    keepalive_count: int = 3
    compression: bool = False
    ssh_options: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"SshOptions({self.address!r})"


def checked(name: str, options: SshOptions) -> SshOptions:
    """The options, of which no word can be taken for an option, a further line or a command. Raises HostError."""
    for what, word in (("address", options.address), ("user", options.user)):
        if word is not None and (not is_host_token(word) or _SHELL & set(word)):
            raise _refused(name, what, word)
    paths = [("key", options.identity), ("file of known hosts", options.known_hosts_path)]
    if isinstance(options.ssh_config, str):
        paths.append(("SSH config", options.ssh_config))
    for what, word in paths:
        if word is not None and (not word.strip() or not _one_line(word)):
            raise _refused(name, what, word)
    for key, value in options.ssh_options:
        jumps = key.lower() == "proxyjump" and (_SHELL & set(value) or any(hop[:1] == "-" for hop in value.split(",")))
        if not key.isalnum() or not value.strip() or not _one_line(value) or jumps:
            raise _refused(name, key, value)
    return options


def _one_line(word: str) -> bool:
    return all(character >= " " and character != "\x7f" for character in word)


def _refused(name: str, what: str, word: str) -> HostError:
    shown = printable(word) or "nothing"
    message = f"{name}: {shown} cannot stand for its {printable(what)}"
    return HostError(message, code="bad-option", remedy=f"a plain word in [hosts.{name}]", retry=False)


def from_spec(name: str, host: Host, secrets: Callable[[str], str]) -> SshOptions:
    """The options of `[hosts.NAME]`; `secrets` resolves a secret-capable value at this moment of use."""
    auth = host.auth
    identity = passphrase = password = None
    if isinstance(auth, KeyAuth):
        identity = auth.path
        passphrase = secrets(auth.passphrase.get_secret_value()) if auth.passphrase else None
    elif isinstance(auth, PasswordAuth):
        password = secrets(auth.password.get_secret_value())
    return SshOptions(
        address=host.address or name,
        user=host.user,
        port=host.port,
        ssh_config=host.ssh_config,
        identity=identity,
        passphrase=passphrase,
        agent_only=isinstance(auth, AgentAuth),
        password=password,
        host_key_policy=host.host_key_policy,
        host_key=host.host_key,
        known_hosts_path=host.known_hosts_path,
        connect_timeout=host.connection_timeout,
        keepalive_interval=host.keepalive_interval,
        keepalive_count=host.keepalive_count,
        compression=host.compression,
        ssh_options=tuple((key, _word(value)) for key, value in host.ssh_options.items()),
    )


def _word(value: str | int | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
