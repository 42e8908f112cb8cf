"""What goes wrong, as people write it: `power-cut gpu at 5m for 15m; kill-agent api at 10m`. No I/O.

KIND [TARGET] [at T] [for D] [by A]          statements end with `;` or the line, `#` begins a comment
random [seed N] [count K] [at T] [for D]     K of them, from T on, that last up to D
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from reconciler.core.diagnostics import Diagnostic, did_you_mean, locate
from reconciler.core.positions import Span
from reconciler.core.values import format_duration, parse_duration
from reconciler.errors import SpecError

Where = Literal["host", "session", "controller"]
ALL = "all"
EVER = float("inf")
_AT = 300.0
_WORD = re.compile(r"[^\s;#]+|;|\n|#[^\n]*")
_MOST = 1000


@dataclass(frozen=True)
class Kind:
    """One kind of mishap: whom it hits, how long it lasts unless it is said (None: it is over at once), in words."""

    where: Where
    lasts: float | None
    words: str


KINDS: Mapping[str, Kind] = {
    "power-cut": Kind("host", 300.0, "the power is gone, and all that ran there"),
    "reboot": Kind("host", 60.0, "it boots again; all that ran there is gone"),
    "cable": Kind("host", 300.0, "nothing gets through to it; what runs there goes on"),
    "hang": Kind("host", 300.0, "it takes what is sent and answers nothing"),
    "slow": Kind("host", 300.0, "every answer takes five seconds"),
    "half-answers": Kind("host", 300.0, "every answer is cut off"),
    "disk-full": Kind("host", 300.0, "nothing can be written there"),
    "clock-jump": Kind("host", EVER, "its clock is wrong"),
    "kill-tmux": Kind("host", None, "its tmux server is killed, with all that ran in it"),
    "kill-sshd": Kind("host", 10.0, "its sshd is killed; what runs there goes on"),
    "kill-agent": Kind("session", None, "its agent is killed"),
    "kill-controller": Kind("controller", 60.0, "kill -9 of reconciler run"),
    "second-controller": Kind("controller", 600.0, "another reconciler run, with the same specs, beside the first"),
}
RANDOM = "random"
NAMES = (*KINDS, RANDOM)


class FaultsError(SpecError):
    """A script of faults that makes no sense; `diagnostics` say where."""

    exit_code = 64


@dataclass(frozen=True)
class Mishap:
    """One thing that goes wrong: from `at` on, seconds from the beginning, `lasts` seconds; None: at once over."""

    at: float
    kind: str
    target: str = ""
    lasts: float | None = None
    by: float = 0.0

    def __str__(self) -> str:
        """As people would write it."""
        words = [self.kind, self.target, f"at {format_duration(self.at)}"]
        if self.lasts is not None and (self.lasts != EVER or KINDS[self.kind].lasts != EVER):
            words.append("for ever" if self.lasts == EVER else f"for {format_duration(self.lasts)}")
        if self.by:
            words.append(f"by {'-' * (self.by < 0)}{format_duration(abs(self.by))}")
        return " ".join(word for word in words if word)

    @property
    def end(self) -> float:
        """When it is over."""
        return self.at + (self.lasts or 0.0)


@dataclass(frozen=True)
class Stage:
    """Whom something may happen to, and until when."""

    hosts: tuple[str, ...]
    sessions: Mapping[str, str]  # and the host of each
    seconds: float
    seed: int = 0


@dataclass
class _Words:
    """The words of one statement, and what has been read of them."""

    words: list[tuple[str, Span]]
    options: dict[str, tuple[str, Span]] = field(default_factory=dict)
    plain: list[tuple[str, Span]] = field(default_factory=list)


class _Wrong(Exception):
    def __init__(self, summary: str, span: Span, detail: str = "") -> None:
        super().__init__(summary)
        self.summary, self.span, self.detail = summary, span, detail


def parse_mishaps(text: str, stage: Stage, file: str = "--faults") -> tuple[Mishap, ...]:
    """What a script says, in the order of time. Raises FaultsError with every error in it, each with its place."""
    found: list[Mishap] = []
    wrong: list[Diagnostic] = []
    lines = text.split("\n")
    for words in _statements(text):
        try:
            found += _read(words, stage)
        except _Wrong as error:
            plain = Diagnostic("error", error.summary, error.detail, code="invalid-faults")
            wrong.append(locate(plain, file, lines[error.span.line - 1], error.span))
    if wrong:
        raise FaultsError(f"{file} makes no sense", tuple(wrong), code="invalid-faults")
    return tuple(sorted(found, key=lambda mishap: mishap.at))


def _statements(text: str) -> Iterable[list[tuple[str, Span]]]:
    words: list[tuple[str, Span]] = []
    line, begins = 1, 0
    for match in _WORD.finditer(text):
        word = match[0]
        if word in (";", "\n"):
            if words:
                yield words
            words = []
        elif not word.startswith("#"):
            column = match.start() - begins + 1
            words.append((word, Span(line, column, line, column + len(word))))
        if word == "\n":
            line, begins = line + 1, match.end()
    if words:
        yield words


def _read(words: list[tuple[str, Span]], stage: Stage) -> list[Mishap]:
    kind, span = words[0]
    if kind not in NAMES:
        raise _Wrong(f"`{kind}` is no kind of fault{did_you_mean(kind, NAMES)}", span, f"kinds: {', '.join(NAMES)}")
    said = _Words(words[1:])
    allowed = {"at", "for"} | ({"by"} if kind == "clock-jump" else {"seed", "count"} if kind == RANDOM else set())
    rest = iter(words[1:])
    for word, where in rest:
        if word not in ("at", "for", "by", "seed", "count"):
            said.plain.append((word, where))
            continue
        if word not in allowed:
            raise _Wrong(f"`{kind}` takes no `{word}`", where)
        if word in said.options:
            raise _Wrong(f"`{word}` is there twice", where)
        value = next(rest, None)
        if value is None:
            raise _Wrong(f"nothing follows `{word}`", where, f"as in `{word} {_EXAMPLES[word]}`")
        said.options[word] = value
    at = _duration(said, "at", _AT if kind != RANDOM else 0.0)
    if at >= stage.seconds:
        place = said.options.get("at", words[0])[1]
        raise _Wrong(f"it would begin after the end, at {format_duration(stage.seconds)}", place, "a longer --for")
    return _random(said, at, stage) if kind == RANDOM else _one(kind, span, said, at, stage)


_EXAMPLES = {"at": "5m", "for": "10m", "by": "-1h", "seed": "7", "count": "5"}


def _one(kind: str, span: Span, said: _Words, at: float, stage: Stage) -> list[Mishap]:
    lasts = KINDS[kind].lasts
    if "for" in said.options:
        if lasts is None:
            raise _Wrong(f"`{kind}` is over at once: it takes no `for`", said.options["for"][1])
        lasts = _duration(said, "for", 0.0)
    by = _duration(said, "by", 3600.0) if kind == "clock-jump" else 0.0
    return [Mishap(at, kind, target, lasts, by) for target in _targets(kind, span, said, stage)]


def _targets(kind: str, span: Span, said: _Words, stage: Stage) -> list[str]:
    where = KINDS[kind].where
    if where == "controller":
        if said.plain:
            raise _Wrong(f"`{kind}` takes no target", said.plain[0][1])
        return [""]
    known = list(stage.hosts) if where == "host" else list(stage.sessions)
    if not said.plain:
        raise _Wrong(f"`{kind}` needs a {where}", span, f"{where}s: {', '.join([*known, ALL])}")
    if len(said.plain) > 1:
        raise _Wrong(f"`{said.plain[1][0]}` is one word too many", said.plain[1][1], "between two faults stands a `;`")
    word, place = said.plain[0]
    if word == ALL:
        return known
    name = word.removeprefix(f"{where}.") if where == "host" else word.rpartition(".")[2]
    if name not in known:
        raise _Wrong(f"there is no {where} `{name}`{did_you_mean(name, known)}", place, f"{where}s: {', '.join(known)}")
    return [name]


def _duration(said: _Words, key: str, usual: float) -> float:
    if key not in said.options:
        return usual
    word, span = said.options[key]
    if key == "for" and word == "ever":
        return EVER
    sign = -1.0 if key == "by" and word.startswith("-") else 1.0
    try:
        return sign * parse_duration(word.lstrip("+-") if key == "by" else word)
    except ValueError:
        raise _Wrong(
            f"`{word}` is no duration such as 30s, 10m or 1h", span, f"as in `{key} {_EXAMPLES[key]}`"
        ) from None


def _number(said: _Words, key: str, usual: int) -> int:
    word, span = said.options.get(key, (str(usual), Span(1, 1, 1, 1)))
    if not (word.isascii() and word.isdigit() and len(word) <= 18):
        raise _Wrong(f"`{word}` is no number", span, f"as in `{key} {_EXAMPLES[key]}`")
    return int(word)


def _random(said: _Words, at: float, stage: Stage) -> list[Mishap]:
    """Of all kinds alike, in the first two thirds of the time, so that there is some left to heal."""
    if said.plain:
        raise _Wrong("`random` takes no target", said.plain[0][1])
    count = _number(said, "count", 5)
    if count > _MOST:
        raise _Wrong(f"at most {_MOST} at once", said.options["count"][1])
    dice = random.Random(_number(said, "seed", stage.seed))
    longest = min(_duration(said, "for", 600.0), stage.seconds)
    last = max(at, stage.seconds * 2 / 3)
    found = []
    for _ in range(count):
        kind = dice.choice([name for name in KINDS if KINDS[name].where != "session" or stage.sessions])
        where, usual = KINDS[kind].where, KINDS[kind].lasts
        names = {"host": list(stage.hosts), "session": list(stage.sessions), "controller": [""]}[where]
        begins = float(round(dice.uniform(at, last)))
        lasts = None if usual is None else float(round(dice.uniform(1.0, max(1.0, min(longest, last - begins)))))
        mishap = Mishap(begins, kind, dice.choice(names), lasts)
        found.append(replace(mishap, by=float(dice.choice((-3600, -90, 90, 3600)))) if kind == "clock-jump" else mishap)
    return found
