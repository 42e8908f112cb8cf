"""Nothing that somebody writes or a host says becomes an option, a command or an order for a terminal."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import HostError
from reconciler.transports import Transport
from reconciler.transports._ssh_options import SshOptions
from tests.e2e.fleet import Fleet, Host
from tests.transports.desk import Desk

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as made:
        yield made


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.host("gpu")


@pytest.fixture
def desk(tmp_path: Path, fleet: Fleet) -> Desk:
    return Desk(tmp_path, fleet)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken for a file's is one here, not in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["ssh", "openssh"])
def module(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"reconciler.transports.{request.param}")


def hostile(mark: Path) -> list[str]:
    """Words that do something to a careless program: they make a file."""
    command = f"touch {mark}"
    return [
        f"-oProxyCommand={command}", f"-o ProxyCommand={command}", "-V", f"x\nProxyCommand {command}", "x\0y", "",
        f"$({command})", f"`{command}`", f"x;{command}", f"x -oProxyCommand='{command}'", f"|{command}", "--", "-",
        f"%h;{command}", f'"\nProxyCommand {command}\n"',
    ]  # fmt: skip


async def outcome(module: Any, desk: Desk, options: SshOptions) -> HostError | None:
    try:
        made: Transport = await module.connect("gpu", options, env=desk.env)
    except HostError as error:
        return error
    await made.close()
    return None


FIELDS = ("address", "user", "identity", "known_hosts_path", "ssh_config", "jump", "alias", "port")


@pytest.mark.parametrize("field", FIELDS)
async def test_no_word_of_the_specs_or_of_the_config_becomes_an_option_or_a_command(
    module: Any, desk: Desk, host: Host, field: str
) -> None:
    mark = desk.home / "mark"
    for word in hostile(mark):
        more: dict[str, Any] = {"connect_timeout": 3.0}
        address = host.address
        if field == "address":
            address = word
        elif field in ("jump", "alias", "port"):
            key = {"jump": "ProxyJump", "alias": "HostKeyAlias", "port": "Port"}[field]
            more["ssh_options"] = ((key, word),)
        else:
            more[field] = word
        options = SshOptions(address, **{"user": host.user, "identity": str(desk.fleet.key), **more})
        error = await outcome(module, desk, options)
        assert error is None or "gpu" in error.message
        assert error is None or (error.message + error.remedy).isprintable(), error.message
        assert not mark.exists(), (field, word)


NAMES = [
    "-x", "--help", "-oProxyCommand=x", "a\nb", "~", "$(touch pwned)", "!", "(", "=ls", "*", "a b'\"\\", "\x1b[31m",
    ":", "é",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("below", ["", "~/d/", "/home/dev/d/"])
async def test_a_path_is_a_path_whatever_it_is_called(
    module: Any, desk: Desk, host: Host, name: str, below: str
) -> None:
    (host.home / "d").mkdir(exist_ok=True)
    host.own(host.home / "d")
    made: Transport = await module.connect("gpu", desk.options(host), env=desk.env)
    try:
        path = below + name
        await made.write(path, b"one")
        await made.write(path, b"two")
        assert await made.read(path) == b"two"
        assert (host.home / ("d" if below else "") / name).read_bytes() == b"two"
        (host.home / ("d" if below else "") / name).unlink()
        with pytest.raises(FileNotFoundError):
            await made.read(path)
    finally:
        await made.close()
    assert not list(host.home.rglob("pwned"))
    assert not list(host.home.rglob(".reconciler*"))


async def test_a_nul_is_in_no_word(module: Any, desk: Desk, host: Host) -> None:
    made: Transport = await module.connect("gpu", desk.options(host), env=desk.env)
    try:
        for work in (made.read("a\0b"), made.write("a\0b", b""), made.run(("echo", "a\0b"))):
            with pytest.raises(ValueError, match="NUL"):
                await work
    finally:
        await made.close()
