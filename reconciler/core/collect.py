"""Reads the TOML of a spec directory and collects its resources, before any model has seen them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomli

from reconciler.core.diagnostics import Diagnostic, did_you_mean
from reconciler.core.merge import DEFAULTS, KINDS, Defaults, Entry, Findings, Raw, Table, merge
from reconciler.core.positions import Path, Span
from reconciler.core.values import NAME_RULE, is_name

_TOP_LEVEL = ("fleet", "defaults", *KINDS, "moved", "removed", "windows")
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


def read(
    texts: Mapping[str, str],
    root: str = "",
    failed: tuple[Diagnostic, ...] = (),
    known: Mapping[str, tuple[str, Table]] | None = None,
) -> Raw:
    """The documents and the resources in them. Errors wait in `findings` until `build`.

    `failed` says which files could not be read; they are errors like all others. `known` maps files to what their
    text was once, and the document that it gave: what is the same is not parsed again.
    """
    raw = Raw(texts, {}, Findings(texts), root, unread=bool(failed))
    for diagnostic in failed:
        raw.findings.add(diagnostic)
    for file in sorted(texts):
        text, document = (known or {}).get(file, (None, None))
        if text != texts[file]:
            document = _read_toml(raw, file)
        if document is not None:
            raw.documents[file] = document
    for file, document in raw.documents.items():
        _collect_defaults(raw, file, document)
    for file, document in raw.documents.items():
        _collect_resources(raw, file, document)
    return raw


def _read_toml(raw: Raw, file: str) -> Table | None:
    text = raw.texts[file]
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        _syntax_error(raw, file, str(error))
    except (RecursionError, ValueError) as error:
        # Nesting without end, or a number of thousands of digits.
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raw.findings.add(Diagnostic("error", f"not readable as TOML: {reason}", file=file, code="syntax"))
    return None


def _syntax_error(raw: Raw, file: str, message: str) -> None:
    text = raw.texts[file]
    match = _PLACE.search(message)
    line = int(match[1]) if match and match[1] else text.rstrip("\n").count("\n") + 1
    column = int(match[2]) if match and match[2] else len(text.rstrip("\n").rpartition("\n")[2]) + 1
    sentence = _PLACE.sub("", message)
    span, detail = Span(line, column, line, column + 1), ""
    if sentence.startswith("Cannot") and (twice := raw.findings.positions(file).repeated_at(line)):
        first, span = twice
        sentence = "declared twice"
        detail = f"first declared at {file}:{first.line}:{first.column}; rename one of them or merge the two"
    summary = f"not valid TOML: {sentence[:1].lower()}{sentence[1:]}"
    raw.findings.add(Diagnostic("error", summary, detail, file=file, code="syntax"), span)


def _collect_defaults(raw: Raw, file: str, document: Table) -> None:
    tables = document.get("defaults", {})
    if not isinstance(tables, dict):
        raw.findings.error((file, ("defaults",)), "`defaults` must be a table")
        return
    kinds = {singular: kind for kind, singular in DEFAULTS.items()}
    for name, table in tables.items():
        path: Path = ("defaults", name)
        if name not in kinds:
            hint = did_you_mean(name, kinds) or "; there are defaults for `host`, `session` and `group_chat`"
            raw.findings.error((file, path), f"unknown key `{name}` in `defaults`{hint}", part="key")
        elif not isinstance(table, dict):
            raw.findings.error((file, path), f"`defaults.{name}` must be a table")
        elif kinds[name] in raw.defaults:
            _twice(raw, (file, path), (raw.defaults[kinds[name]].file, path))
        else:
            raw.defaults[kinds[name]] = Defaults(name, table, file)


def _collect_resources(raw: Raw, file: str, document: Table) -> None:
    for key, value in document.items():
        if key in KINDS:
            _collect_kind(raw, file, key, value)
        elif key == "fleet":
            _collect_fleet(raw, file, value)
        elif key not in _TOP_LEVEL:
            hint = did_you_mean(key, _TOP_LEVEL)
            detail = "" if hint else "a spec holds " + ", ".join(f"`{k}`" for k in _TOP_LEVEL)
            raw.findings.error((file, (key,)), f"unknown table `{key}`{hint}", detail, part="key")


def _collect_fleet(raw: Raw, file: str, table: Any) -> None:
    if not isinstance(table, dict):
        raw.findings.error((file, ("fleet",)), "`fleet` must be a table")
    elif raw.fleet is not None:
        _twice(raw, (file, ("fleet",)), (raw.fleet[0], ("fleet",)))
    else:
        raw.fleet = file, table


def _collect_kind(raw: Raw, file: str, kind: str, tables: Any) -> None:
    if not isinstance(tables, dict):
        raw.findings.error((file, (kind,)), f"`{kind}` must be tables, each with a name: `[{kind}.NAME]`")
        return
    defaults, entries = raw.defaults.get(kind), raw.entries[kind]
    for name, table in tables.items():
        if not isinstance(table, dict):
            raw.findings.error((file, (kind, name)), f"`{kind}.{name}` must be a table", part="key")
            continue
        if not is_name(name):
            at = (file, (kind, name))
            raw.findings.error(at, f"`{name}` is not a name", f"a name is {NAME_RULE}", part="key")
        if name in entries:
            _twice(raw, (file, (kind, name)), (entries[name].file, (kind, name)))
            continue
        merged = merge(defaults.table, table) if defaults else table
        entries[name] = Entry(kind, name, file, table, merged, defaults)


def _twice(raw: Raw, again: tuple[str, Path], first: tuple[str, Path]) -> None:
    name = ".".join(map(str, again[1]))
    detail = f"first declared at {raw.findings.show(*first)}; rename or remove one of them"
    raw.findings.error(again, f"`{name}` is declared twice", detail, part="key", code="duplicate")
