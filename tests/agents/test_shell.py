"""A plain command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.agents.shell import AGENT
from reconciler.core.agent import Facts, LaunchRequest, Reply
from reconciler.errors import OperationError

REQUEST = LaunchRequest("sh", "~/app", "/state/s")


def test_its_arguments_are_what_runs() -> None:
    assert AGENT.start(replace(REQUEST, args=("npm", "run", "dev"))).argv == ("npm", "run", "dev")


def test_without_arguments_a_shell_runs() -> None:
    assert AGENT.start(REQUEST).argv == ("sh",)


def test_a_command_of_the_specs_takes_the_arguments() -> None:
    assert AGENT.start(replace(REQUEST, command="/bin/zsh", args=("-l",))).argv == ("/bin/zsh", "-l")


def test_there_is_nothing_to_resume() -> None:
    assert AGENT.resumable is False
    assert AGENT.exists(Facts()) is False


def test_a_headless_prompt_is_its_stdin() -> None:
    made = AGENT.turn(replace(REQUEST, args=("wc", "-c"), prompt="four"))
    assert (made.argv, made.stdin, made.delivered) == (("wc", "-c"), "four", "stdin")


def test_nothing_of_it_goes_to_an_archive() -> None:
    assert AGENT.archive_name("/home/me/x", "id") is None
    assert AGENT.restore_path("x", "id", "/srv") is None
    assert AGENT.export_args("id") is None
    assert AGENT.store_version("") is None


def test_what_it_prints_is_its_answer() -> None:
    assert AGENT.reply(0, "\n  two\nlines\t\x1b[1m!\x1b[0m\x07\n\n", "noise") == Reply("two\nlines\t!")
    assert AGENT.reply(3, "half", "first\nlast: no\n\n") == Reply("half", error="last: no")
    assert AGENT.reply(3, "", "") == Reply(error="shell ended with exit code 3")
    assert AGENT.reply(0, " \n", "") == Reply(error="shell printed nothing")


def test_nothing_keeps_a_plain_command_from_writing() -> None:
    with pytest.raises(OperationError, match="agent shell cannot take a read-only turn") as refused:
        AGENT.turn(replace(REQUEST, read_only=True))
    assert (refused.value.code, refused.value.remedy) == ("read-only", "an `[agents.NAME]` with `read_only`")
