"""Makes other inputs of those in the corpus: of bytes, of lines, of JSON values; and what blows parsers up."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

_WORDS = (
    b"\x1b[2J", b"\x1b]0;x\x07", b"\r", b"\0", b"\x9b", b"\xc2\x85", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xff\xfe",
    b"\xef\xbb\xbf", b"../", b"..", b"/", b"//", b"~", b"-", b"--", b"\\", b"'", b'"', b"`", b"```", b"```route\n",
    b"$(x)", b"${env:", b"}", b"@", b"@all", b"\t", b"\n", b"\r\n", b"NaN", b"Infinity", b"-Infinity", b"1e999",
    b"-1", b"0", b"9" * 20, b"9" * 400, b"9" * 5000, b"\xc2\xb2", b"\xd9\xa3", b"null", b"true", b"[]", b"{}",
    b'"\\ud800"', b"\\u0000", b"\\u001b", b"1979-05-27T07:32:00Z", b"0001-01-01T00:00:00+23:59", b"= ", b"[[", b"]]",
    b"#", b"'''", b'"""', b"a.b.c", b"*", b"**/", b"?", b"[!", b"|1|", b"!", b",",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**20, 10**400, 1.5, 1e308, float("inf"), float("nan"),
    "", "x", "\x1b[2J", "\ud800", "\0", "..", "../x", "/etc/passwd", "a" * 300, "~", "-x", [], {}, [[]], {"a": {}},
    "9" * 5000, "0001-01-01T00:00:00+23:59", "²", "²³", "running", "idle", "waiting", "ok", "user", "text", "a\nb",
)  # fmt: skip
_UNITS = (
    b"[", b"{", b"(", b'{"a":', b"[[", b"a.", b"`", b"````\n", b" ", b"\t", b"\n", b"9", b"@x ", b"/", b"a/", b"-",
    b"*", b"**/", b"*a", b"x,", b"x=1\n", b"\\", b'"', b"'", b"${env:", b"<", b"|", b"1,",
)  # fmt: skip
_BIG = 60_000


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random, limit: int) -> bytes:
    """A few changes; the first line, which says what the input is for, mostly stays."""
    head, newline, body = data.partition(b"\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        body = rng.choice(_CHANGES)(body, others, rng)
    if rng.random() < 0.02:
        head = _bytes(head, others, rng)
    return (head + newline + body)[:limit]


def _bytes(body: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    kind = rng.randrange(4)
    if kind == 0 and body:
        return body[: at - 1] + bytes([rng.randrange(256)]) + body[at:] if at else body
    if kind == 1:
        return body[:at] + bytes([rng.randrange(256)]) + body[at:]
    if kind == 2:
        return body[:at] + body[at + rng.choice((1, 1, 2, 8, 64)) :]
    end = min(len(body), at + rng.choice((1, 4, 16, 64)))
    return body[:end] + body[at:end] * rng.choice((1, 2, 3, 50)) + body[end:]


def _word(body: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(_WORDS) + body[at + rng.choice((0, 0, 1, 3)) :]


def _lines(body: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    lines = body.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif kind == 1:
        del lines[one]
    elif kind == 2:
        lines[one:one] = [lines[two]] * rng.choice((1, 1, 2, 40))
    else:
        theirs = rng.choice(others).partition(b"\n")[2].split(b"\n") if others else lines
        lines.insert(one, rng.choice(theirs))
    return b"\n".join(lines)


def _splice(body: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    theirs = rng.choice(others).partition(b"\n")[2] if others else body
    return body[: rng.randrange(len(body) + 1)] + theirs[rng.randrange(len(theirs) + 1) :]


def _json(body: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Another value at some place of the JSON in one of the lines, or in all of it."""
    lines = [body] if rng.random() < 0.3 else body.split(b"\n")
    which = rng.randrange(len(lines))
    starts = [at for at in (lines[which].find(b"{"), lines[which].find(b"[")) if at >= 0]
    if not starts:
        return _word(body, others, rng)
    at = min(starts)
    try:
        value = json.loads(lines[which][at:])
        changed = json.dumps(_changed(value, rng), ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return _word(body, others, rng)
    lines[which] = lines[which][:at] + changed
    return b"\n".join(lines)


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.15:
            return {**value, rng.choice(("x", "\x1b[2J", "", "name", "../x")): value[key]}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and rng.random() < 0.5:
        return _word(value.encode("utf-8", "replace"), (), rng).decode("utf-8", "replace")
    if rng.random() < 0.1:
        return _nested(rng.choice((90, 110, 300, 900, 960, 980)), rng)
    return rng.choice(_VALUES)


def _nested(depth: int, rng: random.Random) -> Any:
    value: Any = rng.choice(_VALUES)
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _blown_up(body: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Very much of something: what takes the square of its length shows here."""
    size = rng.choice((500, 3000, _BIG))
    at = rng.randrange(len(body) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        unit = rng.choice(_UNITS)
        return body[:at] + unit * max(1, size // len(unit)) + body[at:]
    lines = body.split(b"\n")
    which = rng.randrange(len(lines))
    if kind == 1:
        lines[which:which] = [lines[which]] * max(1, min(size // (len(lines[which]) + 1), 4000))
        return b"\n".join(lines)
    end = min(len(body), at + rng.choice((1, 2, 3, 8, 30)))
    unit = body[at:end] or b"x"
    return body[:at] + unit * max(1, size // len(unit)) + body[end:]


_Change = Callable[[bytes, Sequence[bytes], random.Random], bytes]
_CHANGES: tuple[_Change, ...] = (
    *[_bytes] * 5, *[_word] * 5, *[_lines] * 3, *[_splice] * 2, *[_json] * 8, _blown_up,
)  # fmt: skip
