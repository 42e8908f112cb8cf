"""Checks every text of the specs: no NUL, and references only where a secret may stand. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.core.merge import KINDS, Raw
from reconciler.core.positions import Path
from reconciler.core.references import FORMS, holds_reference, split
from reconciler.core.wording import dotted

_SECRETS = {"passphrase", "password", "auth_token", "token"}


def check_texts(raw: Raw) -> None:
    """Adds a finding for every NUL and every reference that is malformed or out of place."""
    for file, text in raw.texts.items():
        # Only an escape can bring in a NUL or hide a `$`: most files need no walk at all.
        if file in raw.documents and ("${" in text or "\\u" in text or "\\U" in text):
            for path, value, is_key in _strings(raw.documents[file]):
                _check_text(raw, file, path, value, is_key)


def _strings(value: Any, path: Path = ()) -> Iterator[tuple[Path, str, bool]]:
    pending: list[tuple[Path, Any]] = [(path, value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                yield (*path, key), key, True
                pending.append(((*path, key), item))
        elif isinstance(value, list):
            pending += [((*path, index), item) for index, item in enumerate(value)]
        elif isinstance(value, str):
            yield path, value, False


def _check_text(raw: Raw, file: str, path: Path, text: str, is_key: bool) -> None:
    findings, address, below = raw.findings, _address(path), _below(path)
    part: Any = "key" if is_key else "value"
    if "\0" in text:
        what = "a key" if is_key else f"`{below}`"
        findings.error((file, path), f"{what} holds a NUL character", address=address, part=part, code="nul")
    elif is_key:
        return
    elif not _secret_capable(path):
        if holds_reference(text):
            where = (
                "references such as `${env:NAME}` are for `env` tables, passphrases, passwords, tokens and notifiers"
            )
            detail = (
                "put the text in a `prompt_file`: references in it are plain text" if path[-1] == "prompt" else where
            )
            summary = f"a reference to a secret cannot stand in `{below}`"
            findings.error((file, path), summary, detail, address=address, code="reference")
    elif "${" in text:
        try:
            split(text)
        except ValueError as error:
            detail = f"references are {FORMS}"
            findings.error((file, path), f"`{below}`: {error}", detail, address=address, code="reference")


def _secret_capable(path: Path) -> bool:
    if path[-1] in _SECRETS or (path[0], path[-1]) == ("notifiers", "url"):
        return True
    return len(path) > 1 and path[-2] == "env"


def _address(path: Path) -> str:
    return f"{KINDS[str(path[0])]}.{path[1]}" if len(path) > 1 and path[0] in KINDS else ""


def _below(path: Path) -> str:
    return dotted(path[2:] if len(path) > 2 and (path[0] in KINDS or path[0] == "defaults") else path)
