"""Fixtures of the tests of sync: hosts by both transports, and an archive."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from reconciler.transcripts.archive import Archive
from tests.e2e.fleet import Fleet
from tests.transcripts.machines import Machine, local_machine, ssh_machine


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    try:
        made = Fleet()
    except FileNotFoundError as missing:
        pytest.fail(str(missing))
    with made:
        made.host("gpu")
        yield made


@pytest_asyncio.fixture(params=["local", "ssh"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    """A host with an empty home."""
    if request.param == "local":
        (tmp_path / "home").mkdir()
        made = local_machine(tmp_path / "home")
    else:
        fleet: Fleet = request.getfixturevalue("fleet")
        made = ssh_machine(fleet, fleet.hosts["gpu"])
        shutil.rmtree(made.home / ".claude", ignore_errors=True)
        shutil.rmtree(made.home / "state", ignore_errors=True)
    yield made
    await made.connection.close()


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Machine]:
    """This machine, for what does not depend on the way to it."""
    (tmp_path / "home").mkdir(exist_ok=True)
    made = local_machine(tmp_path / "home")
    yield made
    await made.connection.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def archive(root: Path) -> Archive:
    return Archive(root)
