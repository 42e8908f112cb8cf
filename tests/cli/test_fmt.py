"""`reconciler fmt`: one layout, nothing lost."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
import tomli
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from reconciler.cli.fmt import command
from reconciler.cli.init import STARTER
from reconciler.core.layout import format_text

app = typer.Typer()
app.command()(command)

BEFORE = """\
# my fleet

# about b
[sessions.b]   # trailing
prompt="x"
host   =  "gpu"  # where
agent = 'codex'



depends_on = [ "a", # why
  "c",
]
# about the environment
[sessions.b.env]
Z="1"
A=\"\"\"
multi  \t
line\"\"\"

# ------ hosts ------

[hosts.gpu]
# comments keep their order
user = "x"
address="y"
[[moved]]
to="session.b"
from = "session.q"
  [fleet]
prune=true
name="acme"
# end
"""

AFTER = """\
# my fleet

[fleet]
prune = true
name = "acme"
# end

# ------ hosts ------

[hosts.gpu]
# comments keep their order
user = "x"
address = "y"

# about b
[sessions.b]  # trailing
host = "gpu"  # where
agent = 'codex'
prompt = "x"

depends_on = [ "a", # why
  "c",
]

# about the environment
[sessions.b.env]
Z = "1"
A = \"\"\"
multi  \t
line\"\"\"

[[moved]]
from = "session.q"
to = "session.b"
"""


class TestLayout:
    def test_tables_keys_and_spaces_get_their_place(self) -> None:
        assert format_text(BEFORE) == AFTER
        assert format_text(AFTER) == AFTER

    def test_the_starter_spec_is_laid_out_already(self) -> None:
        assert format_text(STARTER) == STARTER

    def test_line_ends_of_windows_become_line_feeds(self) -> None:
        assert format_text('[fleet]\r\nname = """a\r\nb"""\r\n') == '[fleet]\nname = """a\nb"""\n'

    def test_subtables_follow_their_resource(self) -> None:
        text = "[sessions.b.env]\nA = '1'\n\n[sessions.a]\n\n[sessions.b]\n"
        assert format_text(text) == "[sessions.b.env]\nA = '1'\n\n[sessions.b]\n\n[sessions.a]\n"

    def test_keys_of_subtables_and_defaults_are_ordered_too(self) -> None:
        text = "[defaults.session.restart]\nper = '1m'\nbudget = 1\n\n[defaults.session]\nmodel = 'x'\nhost = 'h'\n"
        assert format_text(text) == (
            "[defaults.session.restart]\nbudget = 1\nper = '1m'\n\n[defaults.session]\nhost = 'h'\nmodel = 'x'\n"
        )

    def test_an_order_that_toml_forbids_is_not_made(self) -> None:
        text = "[sessions]\na.agent = 'x'\n\n[hosts.b]\nport = 1\n"
        assert tomllib.loads(format_text(text)) == tomllib.loads(text)

    @pytest.mark.parametrize("text", ["", "# only a comment\n", "a = 1\n", "# c\n\n# d\n", "[x]\n"])
    def test_small_files_stay_as_they_are(self, text: str) -> None:
        assert format_text(text) == text

    def test_nan_and_dates_are_kept(self) -> None:
        text = "[x]\na = nan\nb = 1979-05-27T07:32:00Z\n"
        assert format_text(text) == text


class TestCommand:
    @pytest.fixture(autouse=True)
    def _inside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "specs").mkdir()
        monkeypatch.chdir(tmp_path)

    def test_files_are_rewritten_and_named(self) -> None:
        Path("specs/a.toml").write_text(BEFORE)
        Path("specs/b.toml").write_text(AFTER)
        os.chmod("specs/a.toml", 0o640)
        result = CliRunner().invoke(app, [])
        assert (result.exit_code, result.stdout) == (0, "specs/a.toml\n")
        assert Path("specs/a.toml").read_text() == AFTER
        assert Path("specs/a.toml").stat().st_mode & 0o777 == 0o640
        assert sorted(os.listdir("specs")) == ["a.toml", "b.toml"]

    def test_check_names_them_and_writes_nothing(self) -> None:
        Path("specs/a.toml").write_text(BEFORE)
        result = CliRunner().invoke(app, ["--check"])
        assert (result.exit_code, result.stdout) == (1, "specs/a.toml\n")
        assert Path("specs/a.toml").read_text() == BEFORE
        Path("specs/a.toml").write_text(AFTER)
        assert CliRunner().invoke(app, ["--check"]).exit_code == 0

    def test_diff_shows_the_change_and_writes_nothing(self) -> None:
        Path("specs/a.toml").write_text("[fleet]\nname='x'")
        result = CliRunner().invoke(app, ["--diff", "specs/a.toml"])
        assert result.exit_code == 0
        assert result.stdout == (
            "--- specs/a.toml\n+++ specs/a.toml (formatted)\n@@ -1,2 +1,2 @@\n [fleet]\n-name='x'\n+name = 'x'\n"
        )
        assert Path("specs/a.toml").read_text() == "[fleet]\nname='x'"

    def test_an_invalid_file_is_never_touched_while_others_are_formatted(self) -> None:
        Path("specs/a.toml").write_text("[fleet\nname='x'\n")
        Path("specs/b.toml").write_bytes(b"# \xff\n")
        Path("specs/c.toml").write_text("a=1\n")
        result = CliRunner().invoke(app, [])
        assert result.exit_code == 65
        assert "--> specs/a.toml:1:7" in result.stderr
        assert "--> specs/b.toml:1:3" in result.stderr
        assert Path("specs/a.toml").read_text() == "[fleet\nname='x'\n"
        assert Path("specs/c.toml").read_text() == "a = 1\n"

    def test_a_link_stays_a_link(self) -> None:
        Path("real.toml").write_text("a=1\n")
        Path("specs/a.toml").symlink_to("../real.toml")
        assert CliRunner().invoke(app, []).exit_code == 0
        assert Path("specs/a.toml").is_symlink()
        assert Path("real.toml").read_text() == "a = 1\n"

    def test_a_missing_directory_is_an_error(self) -> None:
        result = CliRunner().invoke(app, ["nowhere"])
        assert result.exit_code == 65
        assert "no spec directory" in result.stderr


space = st.sampled_from(["", " ", "\t ", "  "])
comment = st.sampled_from(["", "# note", "#x", '# "quoted" [brackets]'])
key = st.sampled_from(["host", "agent", "prompt", '"host"', "a.b", "env . X", "'odd key'", "unknown"])
value = st.sampled_from(
    ["1", '"#no comment"', "'''\n# no comment\n[x]\n'''", "[1, # c\n 2 ]", "{ a = 1 }", "nan", "true", '"""a\\\n  b"""']
)
header = st.sampled_from(
    ["[fleet]", "[hosts.b]", "[sessions.a]", "[ sessions . 'a' . env ]", "[defaults.session]", "[[moved]]", "[other]"]
)


@st.composite
def files(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for _ in range(draw(st.integers(0, 12))):
        what = draw(st.sampled_from("hkkkcb"))
        lead, gap, tail = draw(space), draw(space), draw(comment)
        if what == "h":
            lines.append(f"{lead}{draw(header)}{gap}{tail}")
        elif what == "k":
            lines.append(f"{lead}{draw(key)}{gap}={gap}{draw(value)}{gap}{tail}")
        else:
            lines.append(draw(comment) if what == "c" else "")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


@settings(max_examples=300, deadline=None)
@given(files())
def test_formatting_loses_nothing_and_doing_it_twice_changes_nothing(text: str) -> None:
    try:
        before = tomllib.loads(text, parse_float=str)
    except tomllib.TOMLDecodeError:
        with pytest.raises(tomli.TOMLDecodeError):
            format_text(text)
        return
    formatted = format_text(text)
    assert tomllib.loads(formatted, parse_float=str) == before
    assert format_text(formatted) == formatted
    assert not re.search(r"\n\n\n", formatted)
    assert sorted(re.findall(r"# note|#x", formatted)) == sorted(re.findall(r"# note|#x", text))
