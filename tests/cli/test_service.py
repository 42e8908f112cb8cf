"""The service files: every argument comes back as it was, nobody's changes are lost, systemd has nothing to object."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli._service import commands, install, plist, quoted, unit
from reconciler.errors import GuardError, UsageError

ODD = ["run", "my specs", "--x=%h $HOME ${A} $$", 'a "b" \\ c', "'", ";", "tab\there\nnewline", "", "ü", "#", "\x07"]
words = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
_C = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


def value(text: str, key: str) -> str:
    (found,) = re.findall(rf"(?m)^{key}=(.*)$", text)
    return str(found)


def unquoted(line: str) -> list[str]:
    """The words of a line in double quotes, as systemd.syntax(7) has them, specifiers apart."""
    found = []
    rest = line
    while rest:
        match = re.match(r'"((?:[^"\\]|\\.)*)"(?: |$)', rest)
        assert match, rest
        word = re.sub(r"\\(?:x([0-9a-f]{2})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else _C[m[2]], match[1])
        assert re.sub("%%", "", word).count("%") == 0
        found.append(word.replace("%%", "%"))
        rest = rest[match.end() :]
    return found


@given(st.lists(words, min_size=1, max_size=5), words.filter(lambda text: text.isprintable() and text == text.strip()))
def test_a_unit_has_every_argument_as_it_was(argv: list[str], name: str) -> None:
    directory = f"/w/{name}x"
    text = unit(["/bin/p", *argv], "acme", directory, "/bin:/usr/bin")
    program, *rest = unquoted(value(text, "ExecStart"))
    for word in rest:
        assert "$" not in word.replace("$$", "")
    assert [program, *(word.replace("$$", "$") for word in rest)] == ["/bin/p", *argv]
    assert value(text, "WorkingDirectory").replace("%%", "%") == directory
    assert unquoted(value(text, "Environment")) == ["PATH=/bin:/usr/bin"]


@given(words)
def test_a_quoted_word_is_one_line(word: str) -> None:
    assert len(quoted(word).split("\n")) == 1


@given(st.lists(words.filter(str.isprintable), max_size=5), words.filter(str.isprintable))
def test_a_plist_has_every_argument_as_it_was(argv: list[str], name: str) -> None:
    found = plistlib.loads(plist(["/bin/p", *argv], "acme", f"/w/{name}", "/bin").encode())
    assert (found["ProgramArguments"], found["WorkingDirectory"]) == (["/bin/p", *argv], f"/w/{name}")
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["AbandonProcessGroup"] is True


@pytest.mark.parametrize("make", [unit, plist])
def test_what_cannot_be_said_in_such_a_file_is_a_usage_error(make: object) -> None:
    assert callable(make)
    for argv, directory in ((["\0"], "/w"), (["\udc80"], "/w"), ([], "/w\udc80")):
        with pytest.raises(UsageError):
            make(argv or ["/bin/p"], "acme", directory, "/bin")
    with pytest.raises(UsageError):
        unit(["/bin/p"], "acme", "/w\nExecStart=/bin/evil", "/bin")
    with pytest.raises(UsageError):
        plist(["/bin/p", "\x07"], "acme", "/w", "/bin")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "a dir 100%").mkdir()
    monkeypatch.chdir(tmp_path / "a dir 100%")
    return tmp_path


def test_systemd_accepts_the_unit(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = install([word for word in ODD if word != "\x07"], "acme", platform="linux", home=home)
    assert path == home / ".config/systemd/user/reconciler-acme.service"
    text = path.read_text()
    for key, wanted in (("KillMode", "process"), ("Restart", "on-failure"), ("ExecReload", "/bin/kill -HUP $MAINPID")):
        assert value(text, key) == wanted
    assert "systemctl --user enable --now reconciler-acme.service" in capsys.readouterr().out
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
        )
        assert "reconciler-acme.service" not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_file_that_a_person_changed_is_kept_unless_forced(home: Path, platform: str) -> None:
    path = install(["run"], "acme", platform=platform, home=home)
    assert install(["run", "elsewhere"], "acme", platform=platform, home=home) == path
    mine = path.read_text().replace("elsewhere", "elsewhere2")
    path.write_text(mine)
    with pytest.raises(GuardError):
        install(["run"], "acme", platform=platform, home=home)
    assert path.read_text() == mine
    install(["run"], "acme", platform=platform, home=home, force=True)
    assert "elsewhere" not in path.read_text()
    path.write_text("somebody else's")
    with pytest.raises(GuardError):
        install(["run"], "acme", platform=platform, home=home)
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_the_agent_of_launchd_is_read_back(home: Path) -> None:
    path = install(["run", "a & <b>"], "acme", platform="darwin", home=home)
    assert path == home / "Library/LaunchAgents/dev.reconciler.acme.plist"
    found = plistlib.loads(path.read_bytes())
    assert found["ProgramArguments"] == [sys.executable, "-m", "reconciler", "run", "a & <b>"]
    assert found["WorkingDirectory"] == str(home / "a dir 100%")
    first, second = commands(path, "darwin")
    assert first.startswith("launchctl bootstrap gui/")
    assert second.endswith("/dev.reconciler.acme")
