"""What people see of their mistakes: sentence, place, the line itself, what to do."""

from __future__ import annotations

import contextlib
import itertools
import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.diagnostics import Diagnostic, escape, excerpt, locate, render, render_all, suggest
from reconciler.core.parse import parse
from reconciler.core.positions import Index, Path, Positions, Span
from reconciler.errors import SpecError

FLEET = """\
[fleet]
name = "acme"
nmae = "x"

[hosts.gpu]
auth = { type = "kee", path = "x" }
keepalive_interval = 30

[sessions.db]
host = "gpuu"
agent = "claude-cod"
depends_on = ["api"]

[sessions.api]
agent = "codex"
depends_on = [
  "db",
  { session = "dbb", until = "redy" },
]
strategy = "tmate"
"""

GOLDEN = """\
error: unknown key `nmae`; did you mean `name`?
  --> specs/fleet.toml:3:1
  |
3 | nmae = "x"
  | ^^^^

error: `auth.type` must be one of "key", "agent", "password"; did you mean `key`?
  --> specs/fleet.toml:6:17
  |
6 | auth = { type = "kee", path = "x" }
  |                 ^^^^^

error: `keepalive_interval` must be a duration in quotes, such as "500ms", "30s", "10m", "1h" or "7d"
  --> specs/fleet.toml:7:22
  |
7 | keepalive_interval = 30
  |                      ^^

error: unknown host `gpuu`; did you mean `gpu`?
  --> specs/fleet.toml:10:8
   |
10 | host = "gpuu"
   |        ^^^^^^

error: unknown agent `claude-cod`; did you mean `claude-code`?
  --> specs/fleet.toml:11:9
   |
11 | agent = "claude-cod"
   |         ^^^^^^^^^^^^

error: `depends_on[1].until` must be one of "started", "ready", "idle", "completed"; did you mean `ready`?
  --> specs/fleet.toml:18:30
   |
18 |   { session = "dbb", until = "redy" },
   |                              ^^^^^^

error: `strategy = "tmate"` is specified but not implemented yet
  --> specs/fleet.toml:20:12
   |
20 | strategy = "tmate"
   |            ^^^^^^^

7 errors."""


def found(text: str, file: str = "a.toml") -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        parse({file: text}, {})
    return tuple(d for d in caught.value.diagnostics if isinstance(d, Diagnostic))


class TestText:
    def test_all_mistakes_of_a_file_are_shown_in_order_as_people_expect_them(self) -> None:
        assert render_all(found(FLEET, "specs/fleet.toml")) == GOLDEN

    def test_a_missing_key_points_at_the_table_and_says_what_to_add(self) -> None:
        (one,) = found("[hosts.gpu]\n[sessions.a]\nhost = 'gpu'\n")
        assert render(one) == (
            "error: `agent` is missing\n  --> a.toml:2:2\n  |\n2 | [sessions.a]\n  |  ^^^^^^^^^^\n"
            "help: add `agent`: a built-in agent (`claude-code`, `codex`, `opencode`, `gemini`, `shell`) "
            "or a declared one."
        )

    def test_a_syntax_error_shows_the_spot(self) -> None:
        (one,) = found("[sessions.a]\nagent = codex\n")
        assert render(one) == (
            "error: not valid TOML: invalid value\n  --> a.toml:2:9\n  |\n2 | agent = codex\n  |         ^"
        )

    def test_an_open_end_is_shown_at_the_end(self) -> None:
        (one,) = found("a = [1,\n2")
        assert (one.line, one.column, one.snippet) == (2, 2, "2")

    def test_a_key_twice_shows_both_places(self) -> None:
        (one,) = found("[fleet]\nname = 'a'\n\"na\\u006de\" = '''\nb'''\n")
        assert (one.line, one.column) == (3, 1)
        assert "a.toml:2:1" in one.detail

    def test_a_mistake_in_the_defaults_is_reported_once_and_there(self) -> None:
        sessions = "".join(f"[sessions.s{i}]\nagent = 'codex'\n" for i in range(5))
        (one,) = found(sessions + "[defaults.session]\nrestart = { polcy = 'x' }\n")
        assert (one.summary, one.line) == ("unknown key `polcy` in `restart`; did you mean `policy`?", 12)

    def test_a_bad_name_in_the_defaults_is_reported_once_and_there(self) -> None:
        sessions = "".join(f"[sessions.s{i}]\nagent = 'codex'\n" for i in range(5))
        (one,) = found(sessions + "[defaults.session]\nhost = 'x'\n")
        assert (one.summary, one.line) == ("unknown host `x`", 12)

    def test_what_is_unlike_anything_gets_a_list_instead_of_a_guess(self) -> None:
        (one,) = found("[fleet]\nzzzz = 1\n")
        assert one.summary == "unknown key `zzzz`"
        assert (
            one.detail
            == "known keys are `name`, `prune`, `max_stop`, `parallelism`, `interval`, `notify_after`, `archive`"
        )

    def test_a_table_in_the_singular_is_told_its_plural(self) -> None:
        (one,) = found("[session.a]\n")
        assert one.summary == "unknown table `session`; did you mean `sessions`?"

    def test_wide_characters_and_tabs_keep_the_underline_in_place(self) -> None:
        (one,) = found("[sessions.a]\nagent\t=\t'codex'\nlabels = { '漢字' = 1 }\n")
        assert render(one).splitlines()[-2:] == ["3 | labels = { '漢字' = 1 }", "  | " + " " * 20 + "^"]

    def test_nothing_in_a_file_reaches_the_terminal_as_a_command(self) -> None:
        (one,) = found("[sessions.a]\nagent = 'codex' # \u202e\u200b\x7f\nx\u001b = 1")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", render(one))

    def test_literal_secrets_are_masked_in_the_line_shown(self) -> None:
        (one,) = found("[hosts.a]\nauth = { type='key', path='x', passphrase = 'hunter2', x = 1 }\n")
        assert "hunter2" not in render(one)
        assert one.snippet == "auth = { type='key', path='x', passphrase = '*******', x = 1 }"
        (one,) = found('[sessions.a]\nagent = "codex"\nenv = { API_TOKEN = "abc\\"d", A = 1 }\n')
        assert "abc" not in one.snippet

    def test_a_very_long_line_is_cut_around_the_spot(self) -> None:
        line = "x" * 5000 + "BAD" + "y" * 5000
        snippet, (before, under) = excerpt(line, 5000, 5003)
        assert len(snippet) < 200
        assert snippet[before : before + under] == "BAD"
        assert snippet.startswith("…")
        assert snippet.endswith("…")

    def test_suggestions_are_near_or_none(self) -> None:
        assert suggest("hots", ["host", "state"]) == "host"
        assert suggest("zzz", ["host", "state"]) == ""


class TestJson:
    def test_a_finding_has_the_promised_shape(self) -> None:
        (one,) = found("[fleet]\nnmae = 'x'\n")
        assert one.to_json() == {
            "severity": "error",
            "summary": "unknown key `nmae`; did you mean `name`?",
            "detail": "",
            "code": "invalid-spec",
            "address": "",
            "range": {"filename": "a.toml", "start": {"line": 2, "column": 1}, "end": {"line": 2, "column": 5}},
            "snippet": "nmae = 'x'",
        }

    def test_what_is_about_no_file_has_no_range(self) -> None:
        assert Diagnostic("error", "x").to_json()["range"] is None


POSITIONS = """\
top.dotted.key = 1
"quoted key" . 'lit' = 2
inline = { a = 1, b.c = [ 10, { d = 1 } ], "e f" = "x" }
[table]
k = "漢" # comment
"k\\u0032" = "y"
[table."sub.table"]
deep = [[1, 2], # comment
  [3, 4]]
[[list]]
a = 1
[[list]]
a = 2
[list.sub]
b = 3
[[list.inner]]
c = 1
[[list.inner]]
c = 2
[super.only]
x = 1
"""


class TestPositions:
    @pytest.mark.parametrize(
        ("path", "line", "column"),
        [
            (("top", "dotted", "key"), 1, 18),
            (("quoted key", "lit"), 2, 24),
            (("inline", "a"), 3, 16),
            (("inline", "b", "c", 0), 3, 27),
            (("inline", "b", "c", 1, "d"), 3, 37),
            (("inline", "e f"), 3, 52),
            (("table", "k"), 5, 5),
            (("table", "k2"), 6, 13),
            (("table", "sub.table", "deep", 1, 0), 9, 4),
            (("list", 0, "a"), 11, 5),
            (("list", 1, "a"), 13, 5),
            (("list", 1, "sub", "b"), 15, 5),
            (("list", 1, "inner", 1, "c"), 19, 5),
            (("super",), 20, 2),
        ],
    )
    def test_every_way_to_write_a_path_is_found(self, path: Path, line: int, column: int) -> None:
        span = Positions(POSITIONS).find(path)
        assert span is not None
        assert (span.line, span.column) == (line, column)

    @pytest.mark.parametrize(
        ("path", "line"),
        [(("table", "nope"), 4), (("list", 1, "nope", "x"), 12), (("inline", "b", "nope"), 3), (("super", "y"), 20)],
    )
    def test_what_is_not_written_is_placed_at_the_nearest_table(self, path: Path, line: int) -> None:
        span = Positions(POSITIONS).find(path)
        assert span is not None
        assert span.line == line

    def test_columns_count_characters_not_bytes(self) -> None:
        assert Positions("'漢' = { a = 1 }\n").find(("漢", "a")) == Span(1, 13, 1, 14)

    def test_what_no_file_holds_has_no_place(self) -> None:
        assert Positions("").find(("a",)) is None

    def test_the_positions_and_tomllib_agree_on_what_there_is(self) -> None:
        positions = Positions(POSITIONS)
        pending: list[tuple[Path, object]] = [((), tomllib.loads(POSITIONS))]
        while pending:
            path, value = pending.pop()
            if isinstance(value, (dict, list)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                pending += [((*path, key), item) for key, item in items]
            else:
                span = positions.find(path)
                assert span is not None
                written = POSITIONS.split("\n")[span.line - 1][span.column - 1 : span.end_column - 1]
                assert tomllib.loads(f"x = {written}")["x"] == value

    def test_a_header_that_is_found_without_a_parser_is_where_the_parser_finds_it(self) -> None:
        texts = [FLEET, POSITIONS, "", "  [a.b] # c\r\n[a.b.c]\r\nx = 1\n", "['a'.b]\n[a.c]\n[ a . d ]\n"]
        texts += [f"{text}\n[hosts.deep.er]\n[hosts.deep]\n" for text in (FLEET, POSITIONS)]
        texts += ["[a]\nb.c = 1\na = '''\n[a.b]\n'''\n", "[hosts.\u00e9]\n[hosts.x]#[hosts.y]\nz = '[hosts.z]'\n"]
        for text in texts:
            index, words = Index(text), sorted(set(re.findall(r"[\w-]+", text)))
            for path in itertools.product(words, words):
                assert Positions(text).find(path, "key") == index.find(path, "key")


mutations = st.lists(
    st.tuples(st.integers(0, len(FLEET)), st.integers(0, 12), st.text(alphabet='\n[]{}="ab.,# \t\r漢\x01', max_size=6)),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(mutations)
def test_every_position_lies_in_the_file_and_the_snippet_is_that_line(changes: list[tuple[int, int, str]]) -> None:
    text = FLEET
    for start, length, new in changes:
        text = text[:start] + new + text[start + length :]
    for one in found(text):
        lines = text.split("\n")
        assert 1 <= one.line <= len(lines)
        line = lines[one.line - 1].removesuffix("\r")
        assert 1 <= one.column <= len(line) + 2
        assert (one.end_line, one.end_column) >= (one.line, one.column)
        assert one.end_line <= len(lines)
        if len(line) <= 160:
            assert one.snippet == escape(line)
        assert one.snippet.isprintable()


@given(st.text(max_size=300), st.integers(1, 5), st.integers(1, 300), st.integers(0, 50))
def test_any_place_in_any_text_can_be_shown(text: str, line: int, column: int, length: int) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        one = locate(Diagnostic("error", "x"), "f", text, Span(line, column, line, column + length))
        assert "error: x" in render(one)
        assert len(render(one).splitlines()) == 5
