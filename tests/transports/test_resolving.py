"""Options of connections that are copied from another host's are those that would have been made for this one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from reconciler.transports import _shortcuts
from reconciler.transports._resolving import Resolved, resolve
from reconciler.transports._ssh_options import SshOptions

Words = tuple[tuple[str, str], ...]
CONFIGS = {
    "none": "",
    "one block for all": "Host *\n    User me\n    Port 2200\n    IdentityFile ~/.ssh/other\n    Ciphers aes256-ctr\n",
    "no block": "User me\nIdentitiesOnly yes\nServerAliveInterval 7\n",
    "an equals sign": "Port=2222\nHost=*\nUser = me\n",
    "comments": "# of h1\n\nHost *\n    # and of h2\n    User me\n",
    "blocks of some": "Host h1\n    Port 1\nHost h2 h3\n    Port 2\nHost *\n    Port 9\n",
    "patterns": "Host h*\n    User some\nHost !h2 *\n    User others\n",
    "commas and quotes": 'Host h1,h2\n    Port 5\nHost "h3"\n    Port 6\n',
    "a match": "Match host h2\n    User matched\nMatch all\n    User rest\n",
    "another name": "Host *\n    HostName elsewhere\n",
    "another name each": "Host *\n    HostName %h.example.org\n",
    "a key each": "Host *\n    IdentityFile ~/keys/%n\n",
    "a command each": "Host *\n    ProxyCommand nc %h %p\n",
    "a jump": "Host *\n    ProxyJump gate\n",
    "an alias": "Host *\n    HostKeyAlias all-of-them\n",
    "canonical names": "CanonicalizeHostname yes\nCanonicalDomains example.org\n",
    "another file": "Include more\n",
}


def told(options: Resolved) -> dict[str, Any]:
    """All that options say, but for objects that are of one connection; what keys hold stands for them."""
    said = {
        name: value for name, value in vars(options).items() if name not in ("kwargs", "reconciler_alike", "waiter")
    }
    config = said.pop("config")
    said["config"] = {name: value for name, value in vars(config).items() if name not in ("_path", "_line_no")}
    said["config"].pop("_tokens")  # only while it is read
    said["client_keys"] = [(pair.public_data, pair.sig_algorithm) for pair in options.client_keys or ()]
    said["again"] = {name: value for name, value in options.kwargs.items() if name not in ("config", "last_config")}
    return said


def arguments(base: Resolved, key: asyncssh.SSHKey, host: str) -> dict[str, Any]:
    """As a connection to `host` is made."""
    return {
        "config": None, "options": base, "tunnel": None, "client_factory": asyncssh.SSHClient, "client_keys": [key],
        "known_hosts": ([], [], []), "password": None, "agent_path": None, "login_timeout": 0, "encoding": None,
        "server_host_key_algs": ["ssh-ed25519"] if host != "h3" else ["ssh-ed25519", "rsa-sha2-512"],
    }  # fmt: skip


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("more", [(), (("Compression", "yes"),), (("IdentityFile", "~/%h"),)], ids=str)
async def test_a_copy_says_what_the_original_would(
    tmp_path: Path, text: str, more: tuple[tuple[str, str], ...]
) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.get_running_loop()
    for home in ("copied", "made"):
        (tmp_path / home / ".ssh").mkdir(parents=True)
        (tmp_path / home / ".ssh/config").write_text(f"# {tmp_path}\n{text}")
    for host in ("h1", "h2", "h3", "10.0.0.4", "h1"):
        options = SshOptions(host, ssh_options=more)
        copied = await resolve(options, str(tmp_path / "copied"), _shortcuts.renamed)
        made = await resolve(options, str(tmp_path / "made"))
        assert told(copied) == told(made)
        connecting = _shortcuts._options(host, loop, arguments(copied, key, host))
        assert told(connecting) == told(
            asyncssh.SSHClientConnectionOptions(host=host, loop=loop, **arguments(made, key, host))
        )


async def test_hosts_of_which_the_config_says_the_same_share_all_but_their_names(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"# {tmp_path}\nHost gate\n    Port 1\nHost *\n    User me\n")
    first = await resolve(SshOptions("h1"), str(tmp_path), _shortcuts.renamed)
    second = await resolve(SshOptions("h2"), str(tmp_path), _shortcuts.renamed)
    assert (second.host, second.username, second.port) == ("h2", "me", 22)
    assert second.kex_algs is first.kex_algs
    assert (await resolve(SshOptions("gate"), str(tmp_path), _shortcuts.renamed)).port == 1


async def test_two_connections_do_not_share_what_each_chooses_to_sign_with(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    loop = asyncio.get_running_loop()
    await resolve(SshOptions("h1"), str(tmp_path), _shortcuts.renamed)
    found = [await resolve(SshOptions(host), str(tmp_path), _shortcuts.renamed) for host in ("h2", "h3")]
    one, other = (_shortcuts._options("h", loop, arguments(base, key, "h")) for base in found)
    assert one.client_keys
    assert other.client_keys
    one.client_keys[0].set_sig_algorithm(b"rsa-sha2-256")
    assert other.client_keys[0].sig_algorithm != b"rsa-sha2-256"
