"""The demonstration tells its story to the end, and takes everything down however it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.processes import processes_of
from demo.run import HOSTS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.e2e


@pytest.fixture
def work() -> Iterator[Path]:
    """A work directory with a short path, as that of a checkout."""
    path = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp")).resolve()
    yield path
    shutil.rmtree(path)


def start(work: Path, path: str | None = None) -> subprocess.Popen[str]:
    """The demo, as `make demo` runs it."""
    env = {**os.environ, "DEMO_PAUSE": "0", "PATH": path or os.environ["PATH"], "HOME": str(work / "nobody")}
    command = [sys.executable, str(ROOT / "demo" / "run.py"), "--work", str(work)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )


def homes(work: Path) -> list[Path]:
    """Of its hosts."""
    return [work / "hosts" / name for name in HOSTS]


def assert_nothing_runs(work: Path) -> None:
    """No process of any host is left."""
    assert [processes_of(home) for home in homes(work)] == [set(), set()]


def tell(work: Path, path: str | None = None) -> str:
    """The whole story; it has to end well."""
    with start(work, path) as demo:
        said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, said
    assert_nothing_runs(work)
    assert not (work / "nobody").exists(), "it wrote into the user's home"
    return said


def test_after_a_power_cut_the_same_conversations_go_on(work: Path) -> None:
    if shutil.which("tmux") is None:
        pytest.fail("tmux is missing: scripts/install-test-deps.sh")
    said = tell(work)
    assert re.search(r"Plan: 4 to start\.", said)
    assert re.search(r"Plan: nothing to do\. 2 unknown", said)
    assert re.search(r"Plan: 2 to resume\.", said)
    assert re.search(r"api +[0-9a-f-]{36} +4 +4\n", said)
    assert "I remember 4 earlier messages; the first was: Build the orders API" in said


def test_without_tmux_it_tells_the_same_story_and_says_so(work: Path) -> None:
    bare = work / "bin"
    bare.mkdir()
    for directory in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(directory).glob("*") if Path(directory).is_dir() else ():
            if program.name != "tmux" and not (bare / program.name).is_symlink():
                (bare / program.name).symlink_to(program)
    said = tell(work, str(bare))
    assert "There is no tmux >= 3.2 here" in said
    assert re.search(r"api +[0-9a-f-]{36} +2 +2\n", said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_when_it_is_stopped_half_way(work: Path, number: signal.Signals) -> None:
    with start(work) as demo:
        assert demo.stdout is not None
        while "4 done" not in (line := demo.stdout.readline()):
            assert line, "it ended before its time"
        assert all(processes_of(home) for home in homes(work))
        demo.send_signal(number)
        demo.communicate(timeout=60)
        assert demo.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    end = time.monotonic() + 15
    while number == signal.SIGKILL and any(processes_of(home) for home in homes(work)) and time.monotonic() < end:
        time.sleep(0.1)
    assert_nothing_runs(work)


def test_a_deep_checkout_is_no_obstacle(work: Path) -> None:
    deep = work / ("d" * 60)
    deep.mkdir()
    before = set(Path("/tmp").glob("reconciler-demo-*"))
    with start(deep) as demo:
        said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, said
    assert set(Path("/tmp").glob("reconciler-demo-*")) <= before
