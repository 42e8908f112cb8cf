"""Reads the shell texts that the program sends, as strictly as possible: what it does not know is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.runtimes.operations import glance_definition, look_definition
from reconciler.runtimes.scripts import text

_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_CALL = re.compile(r"\{\nguard ('[^']*'|[a-z0-9_-]*)\n(?:(op_[a-z]+)\n)?exit 0\n\}\n")


@dataclass(frozen=True)
class Operation:
    """One operation under the guard: its settings, its lock, which one it is, and for which strategy."""

    settings: Mapping[str, str]
    lock: str
    name: str  # "op_launch", ...; "" for those that the guard does itself
    strategy: str  # "" where none is concerned

    def __getitem__(self, key: str) -> str:
        return self.settings[key]


def parse_operation(script: str) -> Operation:
    """The operation that a script on stdin of `sh` asks for."""
    settings, rest = settings_of(script)
    strategies = {"": "", "tmux": text("tmux"), "process": text("process")}
    for strategy, runtime in strategies.items():
        library = text("common") + text("guard") + runtime
        if rest.startswith(library) and (match := _CALL.fullmatch(rest[len(library) :])):
            return Operation(settings, match[1].strip("'"), match[2] or "", strategy)
    raise AssertionError(f"the simulated shell does not know this script: {rest[-300:]}")


def parse_look_call(script: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Fleet, nonce and checks of a look."""
    words = words_of_shell(script.removeprefix(look_definition()).removeprefix(glance_definition()))
    assert words[0] == "reconciler_look", words
    return words[1], words[2], list(zip(words[3::2], words[4::2], strict=True))


def settings_of(script: str) -> tuple[dict[str, str], str]:
    """The assignments at the head of a script, and what follows them."""
    found: dict[str, str] = {}
    at = 0
    while match := _NAME.match(script, at):
        word, at = _word(script, match.end())
        found[match[1]] = word
    return found, script[at:]


_WORDS = re.compile(r"""(?:[^\s'"\\]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)+""", re.DOTALL)
_PARTS = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\]+)""", re.DOTALL)
_ESCAPED = re.compile(r'\\([\\"$`])')


def words_of_shell(text: str) -> list[str]:
    """As `shlex.split`, many times as fast."""
    return ["".join(_unquoted(part) for part in _PARTS.finditer(found[0])) for found in _WORDS.finditer(text)]


def _unquoted(part: re.Match[str]) -> str:
    plain, double, escaped, bare = part.groups()
    return plain if plain is not None else _ESCAPED.sub(r"\1", double) if double is not None else escaped or bare


def _word(script: str, at: int) -> tuple[str, int]:
    """One quoted word up to the end of its line, and where the next line begins."""
    parts: list[str] = []
    while script[at] != "\n":
        if script[at] in "'\"":
            end = script.index(script[at], at + 1)
            parts.append(script[at + 1 : end])
            at = end + 1
        else:
            parts.append(script[at])
            at += 1
    return "".join(parts), at + 1


def launch_argv(launch: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The settings of a launch script, and the argv of the agent."""
    body = launch.removesuffix(text("run"))
    assert body != launch, "a launch ends in the wrapper"
    words = words_of_shell(body[body.rindex('\nset -- "$command"') + 1 :])
    settings, _ = settings_of(launch.split("\n", 2)[2])
    return settings, (settings["command"], *words[3:])


def exported(exports: str) -> dict[str, str]:
    """The environment that a launch hands to the agent."""
    words = words_of_shell(exports)
    return dict(word.split("=", 1) for word in words if word != "export")
