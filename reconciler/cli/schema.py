"""`reconciler schema`: the JSON Schema of a spec file, for editors; and the spec reference, from the same models.

`python -m reconciler.cli.schema --markdown > docs/specs.md` writes the reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from reconciler.core import unimplemented
from reconciler.core.spec import AgentSpec, Fleet, GroupChat, Host, Moved, Notifier, Playbook, Removed, Session, Window
from reconciler.core.values import NAME_PATTERN
from reconciler.core.wording import models_of

_TABLES: dict[str, tuple[type[BaseModel], str]] = {
    "hosts": (Host, "Machines that sessions run on, by name."),
    "agents": (AgentSpec, "Overrides of built-in agents, and agents of your own, by name."),
    "sessions": (Session, "Agent sessions, by name."),
    "group_chats": (GroupChat, "Conversations among sessions, by name."),
    "playbooks": (Playbook, "Checklists to work through, by name."),
    "notifiers": (Notifier, "Who is told of what happens while nobody looks, by name."),
}
_LISTS: dict[str, tuple[type[BaseModel], str]] = {
    "windows": (Window, "When changes are held."),
    "moved": (Moved, "Renames without a restart."),
    "removed": (Removed, "Resources that left the specs and are not to be stopped."),
}
_DEFAULTS: dict[str, type[BaseModel]] = {"host": Host, "session": Session, "group_chat": GroupChat}
_INTRO = """\
# Spec reference

Generated from the models by `python -m reconciler.cli.schema --markdown`; do not edit.

Every `*.toml` file below the spec directory is read and merged; a resource is a table `[kind.NAME]`. Names are 1 to 63
of `a-z`, `0-9`, `_` and `-`. Durations are strings such as `"500ms"`, `"30s"`, `"10m"`, `"1h"`, `"7d"`. Unknown keys
are errors. `[defaults.host]`, `[defaults.session]` and `[defaults.group_chat]` are merged under every resource of that
kind. `${env:NAME}`, `${file:PATH}`, `${cmd:COMMAND}` and `${keyring:SERVICE/USER}` may stand in `env` tables, in
passphrases, passwords and tokens, and in the URLs of notifiers.
"""


def command(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the spec reference instead.")] = False,
) -> None:
    """Print the JSON Schema of spec files, for editors."""
    typer.echo(to_markdown() if markdown else json.dumps(json_schema(), indent=2, ensure_ascii=False))


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a whole spec file."""
    models = _top_models()
    _, document = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = document["$defs"]
    for name, model in _all_models(models):
        _fix_defaults(definitions[name], model)
    for kind, model in _DEFAULTS.items():
        # What a resource must have may come from the defaults, in another file: no editor can tell that it is missing.
        definitions[model.__name__].pop("required", None)
        definition = {**definitions[model.__name__], "title": f"Defaults of every {kind.replace('_', ' ')}"}
        definitions[f"{model.__name__}Defaults"] = definition
    _drop_nulls(definitions)
    properties: dict[str, Any] = {"fleet": {"$ref": "#/$defs/Fleet"}, "defaults": _defaults_schema()}
    for key, (model, text) in _TABLES.items():
        properties[key] = {
            "type": "object",
            "description": text,
            "patternProperties": {NAME_PATTERN: {"$ref": f"#/$defs/{model.__name__}"}},
            "additionalProperties": False,
        }
    for key, (model, text) in _LISTS.items():
        properties[key] = {"type": "array", "description": text, "items": {"$ref": f"#/$defs/{model.__name__}"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "reconciler spec file",
        "description": "Desired state of a fleet of agent sessions.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def to_markdown() -> str:
    """The spec reference: a table of keys for each kind of table."""
    sections = [_INTRO, _not_yet(), _section("[fleet]", Fleet)]
    for key, (model, _) in _TABLES.items():
        sections.append(_section(f"[{key}.NAME]", model))
    for key, (model, _) in _LISTS.items():
        sections.append(_section(f"[[{key}]]", model))
    top = _top_models()
    sections += [_section(name, model) for name, model in _all_models(top) if model not in top]
    return "\n".join(sections).rstrip("\n")


def _top_models() -> list[type[BaseModel]]:
    return [Fleet, *(model for model, _ in [*_TABLES.values(), *_LISTS.values()])]


def _not_yet() -> str:
    """What this version refuses by name, from the list that the checks work with."""
    words = [f"[{table}]" for table in unimplemented.TABLES]
    words += [f"[defaults.{table}]" for table in unimplemented.DEFAULTS_TABLES]
    words += [f'strategy = "{word}"' for word in unimplemented.STRATEGIES]
    words += [f'transport = "{word}"' for word in unimplemented.TRANSPORTS]
    words += [f'auth.type = "{word}"' for word in unimplemented.AUTH_TYPES]
    words += [*unimplemented.HOST_KEYS, *unimplemented.SESSION_KEYS]
    listed = ", ".join(f"`{word}`" for word in words)
    others = ", ".join(f"`sync.{key}`" for key in unimplemented.SYNC_KEYS)
    kinds = ", ".join(f"`{kind}`" for kind in unimplemented.ADDRESS_KINDS)
    return (
        f"Specified but not implemented yet, and therefore errors: {listed}; other values than the default "
        f"of {others}; `[[moved]]` and `[[removed]]` of {kinds}.\n"
    )


def _section(title: str, model: type[BaseModel]) -> str:
    definition = json_schema()["$defs"][model.__name__]
    required = {info.alias or name for name, info in model.model_fields.items() if info.is_required()}
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, schema in definition["properties"].items():
        default = "required" if key in required else _default(schema)
        cells = (f"`{key}`", _type(schema), default, schema.get("description", ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    text = re.sub(r"\s*\n\s*", " ", model.__doc__ or "")
    return f"## {title}\n\n{text.strip()}\n\n" + "\n".join(rows) + "\n"


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(schema: dict[str, Any]) -> str:
    """One or two words for people; nested tables as links."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(variant) for variant in variants))
    if "enum" in schema:
        return " ".join(f'`"{word}"`' for word in schema["enum"])
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return f"table of {_type(schema['additionalProperties'])}"
    if isinstance(schema.get("type"), list):
        return " or ".join(schema["type"])
    return "duration" if "(ms|s|m|h|d)" in schema.get("pattern", "") else str(schema.get("type", "any"))


def _defaults_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Merged under every resource of the kind.",
        "properties": {key: {"$ref": f"#/$defs/{model.__name__}Defaults"} for key, model in _DEFAULTS.items()},
        "additionalProperties": False,
    }


def _all_models(models: list[type[BaseModel]]) -> Iterator[tuple[str, type[BaseModel]]]:
    """These models and all that their fields hold, each once."""
    pending, seen = list(models), set()
    while pending:
        model = pending.pop(0)
        if model not in seen:
            seen.add(model)
            yield model.__name__, model
            for name, info in model.model_fields.items():
                pending += models_of(model, info.alias or name)


def _fix_defaults(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Defaults as a person would write them: durations as text, and no null, which TOML does not have."""
    for name, info in model.model_fields.items():
        schema = definition["properties"][info.alias or name]
        schema.pop("title", None)
        if info.is_required():
            continue
        value = json.loads(model.model_construct().model_dump_json(include={name}))[name]
        if value is None:
            schema.pop("default", None)
        else:
            schema["default"] = value


def _drop_nulls(schema: Any) -> None:
    """`X | None` only means that the key may be left out."""
    if isinstance(schema, list):
        for item in schema:
            _drop_nulls(item)
    elif isinstance(schema, dict):
        variants = [v for v in schema.get("anyOf", ()) if v != {"type": "null"}]
        if "anyOf" in schema and len(variants) == 1:
            del schema["anyOf"]
            schema.update({**variants[0], **schema})
        elif "anyOf" in schema:
            schema["anyOf"] = variants
        for item in schema.values():
            _drop_nulls(item)


if __name__ == "__main__":
    typer.run(command)
