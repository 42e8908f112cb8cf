"""The shell texts as they are sent: shorter than the files they come from, and the same to a shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import reconciler
from reconciler.runtimes.operations import glance_definition, look_definition
from reconciler.runtimes.scripts import stripped

TEXTS = sorted(Path(reconciler.__file__).parent.glob("*/scripts/*.sh"))


def parsed(script: str) -> list[str]:
    """What bash understands of it, printed anew; comments are gone then."""
    done = subprocess.run(
        ["bash", "--pretty-print", "/dev/stdin"], input=script, capture_output=True, text=True, check=True
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.stem)
def test_a_text_without_comments_and_blanks_is_the_same_to_a_shell(file: Path) -> None:
    script = file.read_text(encoding="utf-8")
    short = stripped(script)
    assert len(short) < len(script)
    assert parsed(short) == parsed(script)


@pytest.mark.parametrize("script", [
    "a='  x\n  # y\n\n  z'\n", 'b="$c  # d\n  # e"\n', "echo 'it' \\''s'\n", "echo a#b ${#c} $# ${d##*/} ${e#\\#}\n",
    "f='\n'\ng=\\\n\"h\"\n",
])  # fmt: skip
def test_what_is_quoted_stays_as_it_is(script: str) -> None:
    assert stripped(script) == script


def test_what_is_no_code_goes() -> None:
    assert stripped("# one\n\n  a 'b' # two\n\tc \\\n  d\n # three") == "a 'b'\nc \\\n  d\n"


def test_a_here_document_is_left_alone() -> None:
    script = "cat <<X\n  # kept\nX\n"
    assert stripped(script) == script


def test_what_a_first_look_sends_is_short() -> None:
    assert len(look_definition()) < 21_700  # bytes, in each cold connection
    assert "look_glances=y" in glance_definition()
    assert "look_glances=y" not in look_definition()
