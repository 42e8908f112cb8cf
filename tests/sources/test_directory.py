"""Reading a spec directory: which files count, and what happens when one cannot be read."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.diagnostics import Diagnostic, render_all
from reconciler.core.spec import Desired
from reconciler.errors import SpecError
from reconciler.sources import directory as source
from reconciler.sources.directory import Known, load, load_counted, spec_files
from reconciler.sources.ignore import compile_ignore


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def session(name: str, rest: str = "") -> str:
    return f'[sessions.{name}]\nagent = "codex"\n{rest}'


def sessions(root: Path) -> set[str]:
    return set(load(str(root)).sessions)


def errors(root: Path) -> list[Diagnostic]:
    with pytest.raises(SpecError) as caught:
        load(str(root))
    return [d for d in caught.value.diagnostics if isinstance(d, Diagnostic)]


class TestWhichFiles:
    def test_every_toml_file_below_is_read_and_nothing_else(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a"), "b/c/d.toml": session("d"), "x.md": "[", "y.toml~": "["})
        assert sessions(tmp_path) == {"a", "d"}

    def test_hidden_files_and_folders_are_not(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a"), ".b.toml": "[", ".git/c.toml": "["})
        assert sessions(tmp_path) == {"a"}

    def test_a_folder_named_like_a_spec_is_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path, {"x.toml/a.toml": session("a")})
        assert sessions(tmp_path) == {"a"}

    def test_an_empty_directory_is_an_empty_fleet(self, tmp_path: Path) -> None:
        assert load(str(tmp_path)).empty

    def test_the_ignore_file_is_honoured(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                ".reconcilerignore": "# drafts\n\ndraft-*.toml\n/old/\n!old/keep.toml\nb/**/x.toml\n!draft-3.toml\n",
                "a.toml": session("a"),
                "draft-1.toml": "[",
                "b/draft-2.toml": "[",
                "draft-3.toml": session("d3"),
                "old/keep.toml": "[",
                "b/old/c.toml": session("c"),
                "b/x.toml": "[",
                "b/e/f/x.toml": "[",
            },
        )
        assert sessions(tmp_path) == {"a", "d3", "c"}

    def test_links_to_folders_are_followed_and_loops_end(self, tmp_path: Path) -> None:
        write(tmp_path, {"specs/a/a.toml": session("a"), "elsewhere/b.toml": session("b")})
        (tmp_path / "specs/a/loop").symlink_to(tmp_path / "specs")
        (tmp_path / "specs/0-same").symlink_to(tmp_path / "specs/a")
        (tmp_path / "specs/b").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "specs/self").symlink_to("self")
        assert sessions(tmp_path / "specs") == {"a", "b"}
        assert [Path(f).relative_to(tmp_path) for f in spec_files(str(tmp_path / "specs"))] == [
            Path("specs/a/a.toml"),
            Path("specs/b/b.toml"),
        ]

    def test_files_are_named_as_the_directory_was_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, {"specs/a.toml": session("a")})
        monkeypatch.chdir(tmp_path)
        assert spec_files("specs/") == spec_files("./specs") == ["specs/a.toml"]
        monkeypatch.chdir(tmp_path / "specs")
        assert spec_files(".") == ["a.toml"]

    def test_the_revision_does_not_depend_on_how_the_directory_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, {"specs/a.toml": session("a", "prompt_file = 'p'\n"), "specs/p": "hi"})
        monkeypatch.chdir(tmp_path)
        assert load("specs").revision == load(str(tmp_path / "specs")).revision


class TestPrompts:
    def test_a_prompt_file_is_relative_to_the_file_that_names_it(self, tmp_path: Path) -> None:
        write(tmp_path, {"x/a.toml": session("a", 'prompt_file = "../p/a.md"\n'), "p/a.md": "do\r\nit\n"})
        assert load(str(tmp_path)).prompts == {"a": "do\r\nit\n"}

    def test_a_prompt_file_of_the_defaults_is_relative_to_theirs(self, tmp_path: Path) -> None:
        write(tmp_path, {"x/a.toml": session("a"), "d.toml": "[defaults.session]\nprompt_file = 'p'\n", "p": "top"})
        assert load(str(tmp_path)).prompts == {"a": "top"}

    def test_a_missing_prompt_file_is_an_error_with_its_place(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a", 'prompt_file = "p.md"\n')})
        (found,) = errors(tmp_path)
        assert found.summary == "prompt file `p.md` cannot be read: No such file or directory"
        assert (found.line, found.column) == (3, 15)

    def test_a_folder_or_other_bytes_are_no_prompt(self, tmp_path: Path) -> None:
        both = session("a", "prompt_file = '.'\n") + session("b", "prompt_file = 'p'\n")
        write(tmp_path, {"a.toml": both, "p": b"\xff"})
        assert [d.summary for d in errors(tmp_path)] == [
            "prompt file `.` cannot be read: not a regular file",
            "prompt file `p` cannot be read: not valid UTF-8",
        ]


class TestUnreadable:
    def test_a_missing_directory_is_an_error_that_names_init(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError) as caught:
            load(str(tmp_path / "specs"))
        assert caught.value.message == f"there is no spec directory `{tmp_path}/specs`"
        assert f"reconciler init {tmp_path}/specs" in caught.value.remedy
        assert caught.value.exit_code == 65

    def test_a_file_is_no_directory(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": ""})
        with pytest.raises(SpecError, match="is not a directory"):
            load(str(tmp_path / "a.toml"))

    def test_bytes_that_are_no_text_are_shown_where_they_are(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": b'[fleet]\n# \xc3\xa4\nname = "\xff"\n', "b.toml": "[fleet]\nx = 1\n"})
        first, second = errors(tmp_path)
        assert (first.line, first.column, first.code) == (3, 9, "encoding")
        assert first.summary == "not valid UTF-8: byte 0xff"
        assert second.summary == "unknown key `x`"

    def test_what_an_unreadable_file_may_declare_is_not_called_unknown(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a", "host = 'gpu'\n"), "b.toml": b"\xff"})
        assert [d.code for d in errors(tmp_path)] == ["encoding"]

    def test_a_byte_order_mark_is_no_error(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": b"\xef\xbb\xbf" + session("a").encode()})
        assert sessions(tmp_path) == {"a"}

    def test_a_dangling_link_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").symlink_to("nowhere")
        assert [d.summary for d in errors(tmp_path)] == ["cannot be read: No such file or directory"]

    def test_a_pipe_is_an_error_and_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.toml")
        assert [d.summary for d in errors(tmp_path)] == ["cannot be read: not a regular file"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_files_and_folders_without_permission_are_errors(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": "", "b/c.toml": ""})
        (tmp_path / "a.toml").chmod(0)
        assert [d.summary for d in errors(tmp_path)] == ["cannot be read: Permission denied"]
        (tmp_path / "b").chmod(0)
        assert errors(tmp_path)

    def test_a_file_beyond_the_bound_is_an_error(self, tmp_path: Path) -> None:
        with (tmp_path / "a.toml").open("wb") as file:
            file.truncate(source.MAX_BYTES + 1)
        assert [d.summary for d in errors(tmp_path)] == ["cannot be read: larger than 64 MiB"]

    def test_errors_of_all_files_come_together(self, tmp_path: Path) -> None:
        write(tmp_path, {f"{i}.toml": f"[fleet{i}]\n" for i in range(3)})
        text = render_all(errors(tmp_path))
        assert all(f"{i}.toml:1:2" in text for i in range(3))
        assert text.endswith("3 errors.")


@given(st.text(alphabet="abc/*?[]!#. -^\\", max_size=12), st.text(alphabet="abc/.", min_size=1, max_size=8))
def test_any_ignore_file_compiles_and_answers(glob: str, path: str) -> None:
    assert compile_ignore(glob)(path, False) in (True, False)


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("a.toml", "b/a.toml", True),
        ("/a.toml", "b/a.toml", False),
        ("b/*.toml", "b/c/a.toml", False),
        ("b/**", "b/c/a.toml", True),
        ("**/c/a.toml", "c/a.toml", True),
        ("[ab].toml", "b.toml", True),
        ("[!ab].toml", "b.toml", False),
        ("?.toml", "ab.toml", False),
        ("*.toml\n!a.toml", "a.toml", False),
        ("a.toml/", "a.toml", False),
    ],
)
def test_globs_match_as_in_gitignore(glob: str, path: str, matches: bool) -> None:
    assert compile_ignore(glob)(path, False) is matches


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)))
def test_a_directory_means_the_same_however_it_is_split(
    tmp_path_factory: pytest.TempPathFactory, split: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("specs")
    files: dict[str, str | bytes] = {}
    for name, place in split.items():
        path = f"{'d/' * place}{place}.toml"
        files[path] = str(files.get(path, "")) + session(name)
    found: Desired = load(str(write(root, files)))
    assert set(found.sessions) == set(split)


class TestWhatWasReadBefore:
    def test_only_files_that_changed_are_read_and_parsed_again(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a"), "b.toml": session("b"), "c.toml": session("c")})
        for name in "abc":
            os.utime(tmp_path / f"{name}.toml", (1, 1))
        known, (a, b, c) = Known(), (str(tmp_path / f"{name}.toml") for name in "abc")
        first, _ = load_counted(str(tmp_path), known=known)
        before = dict(known.documents)
        write(tmp_path, {"b.toml": session("b2")})
        (tmp_path / "c.toml").unlink()
        second, files = load_counted(str(tmp_path), known=known)
        assert (set(second.sessions), files) == ({"a", "b2"}, 2)
        assert known.documents[a][1] is before[a][1]
        assert known.documents[b][1] is not before[b][1]
        assert c not in known.documents
        assert second.sessions == load(str(tmp_path)).sessions
        assert first.revision != second.revision == load(str(tmp_path)).revision

    def test_an_edit_within_the_same_tick_and_of_the_same_size_is_seen(self, tmp_path: Path) -> None:
        known = Known()
        for name in ("aa", "bb", "cc") * 20:
            write(tmp_path, {"x.toml": session(name)})
            assert set(load_counted(str(tmp_path), known=known)[0].sessions) == {name}

    def test_a_file_that_did_not_change_is_not_opened_again(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a")})
        known, long_ago = Known(), time.time() - 100
        known.text(path := str(tmp_path / "a.toml"))
        assert known.files == {}, "it was written a moment ago, and may be written again"
        state = os.stat(path)
        known.files[path] = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns), "kept"
        assert known.text(path) == "kept"
        os.utime(path, (long_ago, long_ago))
        assert known.text(path) == session("a")

    def test_what_is_known_of_a_file_is_never_changed_by_planning(self, tmp_path: Path) -> None:
        defaults = '[defaults.session]\nagent = "codex"\nlabels = { team = "x" }\n'
        write(tmp_path, {"d.toml": defaults, "a.toml": '[sessions.a]\nlabels = { own = "y" }\n[sessions.b]\n'})
        known = Known()
        first, _ = load_counted(str(tmp_path), known=known)
        kept = copy.deepcopy(known.documents)
        write(tmp_path, {"e.toml": session("e")})
        second, _ = load_counted(str(tmp_path), known=known)
        assert {file: known.documents[file] for file in kept} == kept
        assert first.sessions.items() <= second.sessions.items()

    def test_nothing_new_gives_the_very_same_and_a_changed_prompt_file_is_new(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.toml": session("a", 'prompt_file = "p.md"\n'), "p.md": "one"})
        known = Known()
        first, _ = load_counted(str(tmp_path), known=known)
        assert load_counted(str(tmp_path), known=known)[0] is first
        write(tmp_path, {"p.md": "two"})
        second, _ = load_counted(str(tmp_path), known=known)
        assert second.prompts == {"a": "two"}
        (tmp_path / "p.md").unlink()
        with pytest.raises(SpecError):
            load_counted(str(tmp_path), known=known)
