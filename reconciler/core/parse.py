"""From the texts of a spec directory to `Desired`, or to every error in it at once. Pure: files are read by others.

read(texts)  ->  Raw            TOML, which resources there are, defaults merged under them
build(raw, attachments)  ->  Desired    models, cross-checks
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError

from reconciler.core.chats import as_session
from reconciler.core.checks import check_all, check_windows
from reconciler.core.collect import read
from reconciler.core.diagnostics import Diagnostic
from reconciler.core.merge import KINDS, Entry, Raw, Table, revision_of
from reconciler.core.positions import Path
from reconciler.core.spec import (
    AgentSpec,
    Desired,
    Fleet,
    GroupChat,
    Host,
    Model,
    Moved,
    Notifier,
    Playbook,
    Removed,
    Session,
    Source,
    Window,
)
from reconciler.core.texts import check_texts
from reconciler.core.unimplemented import check_implemented
from reconciler.core.wording import explain
from reconciler.errors import SpecError

MODELS: dict[str, type[Model]] = {
    "hosts": Host,
    "agents": AgentSpec,
    "sessions": Session,
    "group_chats": GroupChat,
    "playbooks": Playbook,
    "notifiers": Notifier,
}
# What [defaults.KIND] may leave out, so that it can be checked by itself.
_FILLERS: dict[str, Table] = {"sessions": {"agent": "shell"}, "group_chats": {"moderator": "x", "participants": ["x"]}}

M = TypeVar("M", bound=Model)


def parse(texts: Mapping[str, str], attachments: Mapping[tuple[str, str], str | Exception], root: str = "") -> Desired:
    """What the files declare.

    `texts` maps a file's name, as shown to people, to its content; `attachments` maps (file that names it, prompt
    file as written) to its content, or to the error that reading it gave. `root` is left out of the revision.
    Raises SpecError with every diagnostic.
    """
    return build(read(texts, root), attachments)


def build(raw: Raw, attachments: Mapping[tuple[str, str], str | Exception]) -> Desired:
    """Checks everything and gives the desired state. Raises SpecError with every diagnostic, by place."""
    reported = _check_defaults(raw)
    models: dict[str, dict[str, Any]] = {kind: _validate_kind(raw, kind, reported) for kind in KINDS}
    moved, removed = _validate_list(raw, "moved", Moved), _validate_list(raw, "removed", Removed)
    windows = _validate_list(raw, "windows", Window)
    prompts = _prompts(raw, "sessions", attachments)
    desired = Desired(
        fleet=_fleet(raw),
        hosts=_with_local(raw, models["hosts"]),
        agents=models["agents"],
        sessions=models["sessions"],
        group_chats=models["group_chats"],
        playbooks=models["playbooks"],
        moved=tuple(model for _, model in moved),
        removed=tuple(model for _, model in removed),
        prompts=prompts,
        openings=_prompts(raw, "group_chats", attachments),
        revision=revision_of(raw.texts, attachments, raw.root),
        windows=tuple(model for _, model in windows),
        notifiers=models["notifiers"],
        locate=_Locator(raw, [at for at, _ in windows]),
    )
    check_texts(raw)
    check_all(raw, desired, moved, removed)
    check_windows(raw, windows)
    check_implemented(raw, desired)
    if raw.findings.diagnostics:
        raise invalid(raw.findings.sorted())
    chats = {name: as_session(chat) for name, chat in desired.group_chats.items()}
    return replace(desired, sessions={**desired.sessions, **chats}) if chats else desired


def invalid(diagnostics: tuple[Diagnostic, ...]) -> SpecError:
    """The error that carries all diagnostics."""
    count = len(diagnostics)
    return SpecError(f"the specs are not valid: {count} error{'s' * (count != 1)}", diagnostics)


def _check_defaults(raw: Raw) -> set[tuple[str, Path]]:
    """Reports errors of the defaults tables once, at their place; gives (kind, path) of each."""
    reported = set()
    for kind, defaults in raw.defaults.items():
        try:
            MODELS[kind].model_validate({**_FILLERS.get(kind, {}), **defaults.table})
        except ValidationError as error:
            for details in error.errors(include_url=False):
                complaint = explain(details, MODELS[kind])
                at: tuple[str, Path] = (defaults.file, ("defaults", defaults.kind, *complaint.path))
                if details["type"] == "missing":  # a nested table that every resource may complete
                    continue
                reported.add((kind, complaint.path))
                raw.findings.error(at, complaint.summary, complaint.detail, part=complaint.part)
    return reported


def _validate_kind(raw: Raw, kind: str, reported: set[tuple[str, Path]]) -> dict[str, Model]:
    validate = MODELS[kind].model_validate
    models: dict[str, Model] = {}
    for name, entry in raw.entries[kind].items():
        try:
            models[name] = validate(entry.merged)
        except ValidationError as error:
            _report_entry(raw, entry, error, reported)
            rest = _without_errors(entry, error)
            if rest is not None:
                models[name] = rest
    return models


def _report_entry(raw: Raw, entry: Entry, error: ValidationError, reported: set[tuple[str, Path]]) -> None:
    for details in error.errors(include_url=False):
        complaint = explain(details, MODELS[entry.kind])
        if (entry.kind, complaint.path) not in reported or not entry.is_default(complaint.path):
            raw.findings.about(entry, complaint.path, complaint.summary, complaint.detail, part=complaint.part)


def _without_errors(entry: Entry, error: ValidationError) -> Model | None:
    """What is valid of a resource, so that it can take part in the cross-checks; None when a key is missing."""
    bad = {details["loc"][0] for details in error.errors(include_url=False) if details["loc"]}
    try:
        return MODELS[entry.kind].model_validate({k: v for k, v in entry.merged.items() if k not in bad})
    except ValidationError:
        return None


def _validate_list(raw: Raw, key: str, model: type[M]) -> list[tuple[tuple[str, Path], M]]:
    found = []
    for file, document in raw.documents.items():
        items = document.get(key, [])
        if not isinstance(items, list):
            raw.findings.error((file, (key,)), f"`{key}` must be a list of tables: `[[{key}]]`")
            continue
        for index, item in enumerate(items):
            at: tuple[str, Path] = (file, (key, index))
            try:
                found.append((at, model.model_validate(item)))
            except ValidationError as error:
                _complain(raw, at, model, error)
    return found


def _fleet(raw: Raw) -> Fleet:
    if raw.fleet is not None:
        file, table = raw.fleet
        try:
            return Fleet.model_validate(table)
        except ValidationError as error:
            _complain(raw, (file, ("fleet",)), Fleet, error)
    return Fleet()


def _complain(raw: Raw, at: tuple[str, Path], model: type[Model], error: ValidationError) -> None:
    file, path = at
    for details in error.errors(include_url=False):
        complaint = explain(details, model)
        summary = complaint.summary if complaint.path else f"`{path[0]}` must be a list of tables: `[[{path[0]}]]`"
        raw.findings.error((file, (*path, *complaint.path)), summary, complaint.detail, part=complaint.part)


def _with_local(raw: Raw, hosts: dict[str, Host]) -> dict[str, Host]:
    """`local` always exists, and is reached without SSH whatever the defaults say."""
    entry = raw.entries["hosts"].get("local")
    if "local" not in hosts:
        defaults = raw.defaults.get("hosts")
        try:
            hosts["local"] = Host.model_validate(defaults.table if defaults and entry is None else {})
        except ValidationError:
            hosts["local"] = Host()  # reported already, as an error of the defaults
    if entry is None or "transport" not in entry.table:
        local = hosts["local"].model_copy(update={"transport": "local"})
        local.model_fields_set.discard("transport")
        hosts["local"] = local
    return hosts


def _prompts(raw: Raw, kind: str, attachments: Mapping[tuple[str, str], str | Exception]) -> dict[str, str]:
    prompts = {}
    for name, entry in raw.entries[kind].items():
        text = entry.merged.get("prompt")
        file = entry.merged.get("prompt_file")
        if isinstance(file, str) and file:
            text = _attachment(raw, entry, file, attachments)
        if isinstance(text, str):
            prompts[name] = text
    return prompts


def _attachment(
    raw: Raw, entry: Entry, name: str, attachments: Mapping[tuple[str, str], str | Exception]
) -> str | None:
    content = attachments.get((entry.place(("prompt_file",))[0], name), FileNotFoundError("it was not read"))
    if isinstance(content, Exception):
        reason = getattr(content, "strerror", None) or str(content)
        detail = "the path is relative to the file that names it"
        raw.findings.about(entry, ("prompt_file",), f"prompt file `{name}` cannot be read: {reason}", detail)
        return None
    if "\0" in content:
        raw.findings.about(entry, ("prompt_file",), f"prompt file `{name}` holds a NUL character")
    elif not content.strip():
        raw.findings.about(entry, ("prompt_file",), f"prompt file `{name}` is empty")
    return content


class _Locator:
    """Answers `Desired.locate`: a callable that builds a file's index when the file is first asked about."""

    def __init__(self, raw: Raw, windows: Sequence[tuple[str, Path]]) -> None:
        self._raw = raw
        self._windows = windows
        self._kinds = {singular: kind for kind, singular in KINDS.items()}

    def __call__(self, address: str, field: str | None) -> Source | None:
        kind, _, name = address.partition(".")
        path: Path = tuple(field.split(".")) if field else ()
        if kind == "fleet" and self._raw.fleet is not None:
            return self._source((self._raw.fleet[0], ("fleet", *path)))
        if kind == "window":
            file, at = self._windows[int(name)]
            return self._source((file, (*at, *path)))
        entry = self._raw.entries.get(self._kinds.get(kind, ""), {}).get(name)
        if entry is None:
            return None
        if field is None and (place := self._raw.findings.positions(entry.file).header((entry.kind, name))):
            return Source(entry.file, *place)
        if path == ("prompt",) and "prompt_file" in entry.merged:
            path = ("prompt_file",)
        return self._source(entry.place(path))

    def _source(self, at: tuple[str, Path]) -> Source | None:
        span = self._raw.findings.span(*at, part="key")
        return Source(at[0], span.line, span.column) if span else None
