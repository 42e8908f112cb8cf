"""A plan as Markdown says what the printed plan says, and no text of the specs gets out of where it stands."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reconciler.core.diff import Change
from reconciler.core.markdown import DETAILS, ROWS, code, markdown
from reconciler.core.plan import Action, Plan
from reconciler.core.printed import render, summary_line
from tests.core.situations import AGENT, applied, host, plan_of, running, specs

PLAN = plan_of(
    specs(AGENT + 'model = "x"\n[sessions.b]\nagent = "codex"\n'), host("local", running(applied(specs(AGENT))))
)
HOSTILE = (
    "@octocat", "#12", "http://evil.example/", "www.evil.example", "a@evil.example", "<img src=x onerror=y>",
    "</details>",
    "[x](http://evil.example)", "![x](//evil.example/x.png)", "`", "``", "```", "````", "|", "\\|", "\\", "\n", "\r",
    "<!--", "-->", "&lt;", ":tada:", "$`x`$", "~~~", "\u202e", "\u2028", "# x", "* ", "_", "**", "\t",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=5)), max_size=8).map("".join)


def visible(text: str) -> str:
    """What is left of Markdown once its fenced blocks and code spans are taken out, as CommonMark reads them."""
    outside, fence = [], ""
    for line in text.split("\n"):
        if fence:
            if re.fullmatch(rf" {{0,3}}`{{{len(fence)},}}\s*", line):
                fence = ""
        elif match := re.match(r" {0,3}(`{3,})[^`]*$", line):
            fence = match[1]
        else:
            # A row is cut into cells before code spans are read; a span then ends at a run of the same length.
            cells = re.split(r"(?<!\\)\|", line) if line.startswith("|") else [line]
            outside.append("|".join(re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", cell) for cell in cells))
    assert not fence
    return "\n".join(outside)


def hostile(text: str) -> Plan:
    item = replace(
        PLAN.actions[0], address=f"session.{text}", host=text, message=text, remedy=text,
        changes=(Change(text, text, text),),
    )  # fmt: skip
    return replace(PLAN, actions=(item,), hosts={text: None})


def parsed(text: str) -> list[str]:
    """What a parser of CommonMark with tables finds outside of code: the kinds of its tokens, and their text."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        children = token.children or [token]
        found += [f"{child.type} {child.content}" for child in children if child.type not in ("code_inline", "fence")]
    return found


@given(texts)
def test_a_parser_of_markdown_finds_nothing_of_it_outside_of_code(text: str) -> None:
    assert parsed(markdown(hostile("x" + text), "x" + text)) == parsed(markdown(hostile("x"), "x"))


EXPECTED = visible(markdown(hostile("x"), "x"))


@given(texts.filter(lambda text: text.strip() != "" and text.isprintable()), texts)
def test_no_text_gets_out_of_its_cell_or_block(text: str, against: str) -> None:
    found = visible(markdown(hostile("x" + text), "x" + against))
    assert found == EXPECTED


@given(texts)
def test_any_text_at_all_is_harmless(text: str) -> None:
    allowed = set(EXPECTED)
    assert set(visible(markdown(hostile(text), text))) <= allowed | {" "}


@pytest.mark.parametrize("text", HOSTILE)
def test_every_known_trick_is_harmless(text: str) -> None:
    assert visible(markdown(hostile("x" + text + "x"), text + "x")) == EXPECTED


def test_it_has_the_summary_a_row_an_action_and_the_printed_plan() -> None:
    text = markdown(PLAN, "origin/main")
    assert text.startswith(f"### Plan against ` origin/main `\n\n**{summary_line(PLAN)}**\n\n")
    assert "| ` -/+ ` | ` session.api ` | ` local ` |" in text
    assert "| ` model ` |" in text
    assert "| ` + ` | ` session.b ` |" in text
    assert f"```text\n{render(PLAN)}```\n\n</details>\n" in text


def test_no_changes_is_one_sentence() -> None:
    assert markdown(replace(PLAN, actions=())) == "### Plan\n\nNo changes. The fleet matches the specs.\n"


def test_a_plan_of_thousands_fits_a_comment() -> None:
    first = PLAN.actions[0]
    many: tuple[Action, ...] = tuple(
        replace(first, address=f"session.{'s' * 50}{n}", message="m" * 80) for n in range(3000)
    )
    text = markdown(replace(PLAN, actions=many))
    assert text.count("\n| ` ") == ROWS
    assert f"\n{3000 - ROWS} more below." in text
    assert len(text) < DETAILS + ROWS * 250


def test_empty_text_is_no_code_span() -> None:
    assert code("") == code(" ") == ""


@given(texts)
def test_no_bar_stands_in_a_cell_since_readers_differ_in_how_one_is_escaped(text: str) -> None:
    (row,) = [line for line in markdown(hostile("x" + text)).split("\n") if line.startswith("| `")]
    assert row.count("|") == 6
