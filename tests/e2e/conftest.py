"""Fixtures of the end-to-end tests: a fleet of real hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Fleet


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Real OpenSSH hosts, made with `fleet.host(name)`, gone after the test. Without sshd the test fails."""
    try:
        made = Fleet()
    except FileNotFoundError as missing:
        pytest.fail(str(missing))
    with made:
        yield made
