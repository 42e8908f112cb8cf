"""What a start of the program loads and runs: exact, so that it is guarded here and not only by benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A process that shows, after what it was told to do, what it has loaded and which processes it began.
WATCHED = """
import gc, sys
begun = []
events = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "os.system")
sys.addaudithook(lambda event, details: begun.append(str(details)) if event in events else None)
try:
    exec(sys.argv.pop(1))
except SystemExit:
    pass
sys.stderr.write("\\n".join(["---", str(gc.isenabled()), str(begun), *sys.modules]))
"""
MAIN = "from reconciler.__main__ import main; main()"


def started(what: str, *arguments: str) -> tuple[bool, str, set[str]]:
    """Whether garbage is collected in the end, the processes begun, and the modules loaded."""
    done = subprocess.run([sys.executable, "-c", WATCHED, what, *arguments], capture_output=True, text=True, check=True)
    collects, begun, *loaded = done.stderr.partition("---\n")[2].splitlines()
    return collects == "True", begun, set(loaded)


@pytest.fixture
def specs(tmp_path: Path) -> str:
    """A session on a host that is not to be asked."""
    (tmp_path / "a.toml").write_text('[hosts.h]\nenabled = false\n[sessions.a]\nagent = "codex"\nhost = "h"\n')
    return str(tmp_path)


@pytest.fixture(autouse=True)
def nothing_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def test_a_plan_loads_nothing_that_only_acts_or_shows_places(specs: str) -> None:
    _, _, loaded = started(MAIN, "plan", specs)
    unneeded = {
        "reconciler.execute", "reconciler.steps", "reconciler.transcripts.sync", "reconciler.core.saved",
        "reconciler.core.markdown", "tree_sitter", "rich", "email", "importlib.metadata", "tomlkit", "watchfiles",
    }  # fmt: skip
    assert "reconciler.reconcile" in loaded
    assert loaded.isdisjoint(unneeded)


def test_validate_looks_for_no_plugins_and_begins_no_process(specs: str) -> None:
    collects, begun, loaded = started(MAIN, "validate", specs)
    assert loaded.isdisjoint({"importlib.metadata", "email", "reconciler.hosts", "reconciler.journal"})
    assert begun == "[]"
    assert collects


def test_to_load_ssh_begins_no_process() -> None:
    _, begun, loaded = started("import reconciler.transports.ssh", "")
    assert "asyncssh.crypto.pq" in loaded
    assert begun == "[]"


def test_the_libraries_that_ssh_looks_for_are_found_as_they_would_be() -> None:
    show = "; from asyncssh.crypto import pq, umac; print(umac._nettle_lib, bool(pq._oqs_lib))"
    ours, usual = (
        subprocess.run([sys.executable, "-c", how + show], capture_output=True, text=True, check=True).stdout
        for how in ("import reconciler.transports.ssh", "import asyncssh")
    )
    assert ours == usual


def test_whoever_wants_plugins_of_pydantic_still_gets_its_loader() -> None:
    use = (
        "from reconciler.cli import _plugins; _plugins.leave_out(); "
        "from pydantic import BaseModel; M = type('M', (BaseModel,), {}); M(); import pydantic.plugin._loader as at; "
        "import sys; assert 'importlib.metadata' not in sys.modules; "
        "assert at.PYDANTIC_ENTRY_POINT_GROUP == 'pydantic'"
    )
    _, _, loaded = started(use, "")
    assert "importlib.metadata" in loaded
