"""Spec files: loading, diagnostics, formatting, references, label expressions, durations; and the plan they give."""

from __future__ import annotations

import json
import tomllib

from pydantic_core import PydanticCustomError

from fuzz.oracles import harmless, split, text_of
from fuzz.targets._plans import check_plan
from reconciler.core.collect import read
from reconciler.core.diagnostics import Diagnostic, render_all
from reconciler.core.expressions import fits, terms
from reconciler.core.layout import format_text
from reconciler.core.parse import build
from reconciler.core.references import Reference, holds_reference
from reconciler.core.references import split as split_references
from reconciler.core.values import format_duration, parse_duration
from reconciler.errors import SpecError


def _files(data: bytes) -> None:
    """One or more files, with a line of dashes between them; behind a line of `=`, the text of every prompt file."""
    text, _, prompt = text_of(data).partition("\n====\n")
    texts = {f"specs/{number}.toml": part for number, part in enumerate(text.split("\n----\n")[:5])}
    try:
        raw = read(texts, "specs/")
        desired = build(raw, dict.fromkeys(raw.prompt_files(), prompt))
    except SpecError as error:
        found = [d for d in error.diagnostics if isinstance(d, Diagnostic)]
        assert found, "an error without a finding"
        harmless(render_all(found[:50]))
        harmless(error.message)
        json.dumps([d.to_json() for d in found])
        return
    check_plan(desired)


def _fmt(data: bytes) -> None:
    text = text_of(data)
    try:
        once = format_text(text)
    except ValueError:
        return
    assert str(tomllib.loads(once)) == str(tomllib.loads(text)) or _as_sets(once) == _as_sets(text), "values changed"
    assert format_text(once) == once, "formatting is not idempotent"


def _as_sets(text: str) -> object:
    """The values whatever the order of keys."""
    return json.dumps(tomllib.loads(text), sort_keys=True, default=str)


def _reference(data: bytes) -> None:
    text = text_of(data)
    holds_reference(text)
    try:
        parts = split_references(text)
    except ValueError:
        return
    whole = "".join(f"${{{p.scheme}:{p.argument}}}" if isinstance(p, Reference) else p for p in parts)
    assert whole == text, "a reference is not what was written"


def _select(data: bytes) -> None:
    text = text_of(data)
    try:
        found = terms(text)
    except ValueError:
        return
    values = {key: value for key, operator, value in found if operator != "!="}
    fits(values, text)


def _duration(data: bytes) -> None:
    text = text_of(data)
    try:
        seconds = parse_duration(text)
    except PydanticCustomError:
        return
    assert 0 <= seconds < 1e15
    assert abs(parse_duration(format_duration(seconds)) - seconds) < 0.001


CASES = {"files": _files, "fmt": _fmt, "reference": _reference, "select": _select, "duration": _duration}


def check(data: bytes) -> None:
    """The first line says which reader the rest is for."""
    split(data, CASES)
