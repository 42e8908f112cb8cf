"""Says in sentences for people what the models refuse; replaces the wording of pydantic. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from reconciler.core.diagnostics import did_you_mean
from reconciler.core.positions import Path

_PLAIN = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list in brackets",
    "string_too_short": "must not be empty",
    "too_short": "must have at least one entry",
}
_TABLE = {"dict_type", "mapping_type", "model_type", "model_attributes_type"}


@dataclass(frozen=True)
class Complaint:
    """One refusal: the path below the resource, whether its key or its value is to be shown, and the sentences."""

    path: Path
    part: Literal["key", "value"]
    summary: str
    detail: str = ""


def explain(error: ErrorDetails, model: type[BaseModel]) -> Complaint:
    """The sentence for one pydantic error of `model`."""
    path, owner = _resolve(model, error["loc"])
    key = dotted(path)
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, owner)
    if kind == "missing":
        return Complaint(path, "key", f"`{key}` is missing", _how_to_add(str(path[-1]), owner))
    if kind == "literal_error":
        return Complaint(path, "value", f"`{key}` {_one_of(error)}")
    if kind == "union_tag_not_found":
        return Complaint(path, "value", f'`{key}` needs a `type`: "key", "agent" or "password"')
    if kind == "union_tag_invalid":
        tags = _quoted_words(str(error["ctx"]["expected_tags"]))
        return Complaint((*path, "type"), "value", f"`{key}.type` {_choice(str(error['ctx']['tag']), tags)}")
    return Complaint(path, "value", f"`{key}` {_sentence(error)}")


def dotted(path: Path) -> str:
    """A path as people write it: `depends_on[0].session`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys of a table, as written."""
    return [info.alias or name for name, info in model.model_fields.items()]


def models_of(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    """The models that the value of a key may be, or may hold."""
    return list(_models_in(_field(model, key)))


def _sentence(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "spec":
        return error["msg"]
    if kind in _TABLE:
        return f"must be a table, not {_toml_type(error['input'])}"
    if kind in _PLAIN:
        found = f", not {_toml_type(error['input'])}" if kind.endswith("_type") else ""
        return _PLAIN[kind] + found
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}"
    return error["msg"][:1].lower() + error["msg"][1:]


def _one_of(error: ErrorDetails) -> str:
    words = _quoted_words(str(error["ctx"]["expected"]))
    if not isinstance(error["input"], str):
        return f"must be one of {_listed(words)}"
    return _choice(error["input"], words)


def _choice(given: str, words: list[str]) -> str:
    rule = f"must be {_listed(words)}" if len(words) == 1 else f"must be one of {_listed(words)}"
    return rule + did_you_mean(given, words)


def _listed(words: list[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _quoted_words(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _unknown_key(path: Path, owner: type[BaseModel] | None) -> Complaint:
    word, known = str(path[-1]), keys_of(owner) if owner else []
    hint = did_you_mean(word, known)
    where = f" in `{dotted(path[:-1])}`" if path[:-1] else ""
    detail = "" if hint or not known else f"known keys are {', '.join(f'`{k}`' for k in known)}"
    return Complaint(path, "key", f"unknown key `{word}`{where}{hint}", detail)


def _how_to_add(key: str, owner: type[BaseModel] | None) -> str:
    for name, info in owner.model_fields.items() if owner else ():
        if (info.alias or name) == key and info.description:
            return f"add `{key}`: {info.description[:1].lower()}{info.description[1:]}"
    return ""


def _toml_type(value: object) -> str:
    names = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _resolve(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Path, type[BaseModel] | None]:
    """The path in the file, without pydantic's union tags, and the model that holds its last key."""
    path: list[int | str] = []
    owner: type[BaseModel] | None = model
    current: list[type[BaseModel]] = [model]
    for part in loc:
        tagged = [m for m in current if _tag(m) == part] if len(current) > 1 else []
        if tagged:
            current = tagged
            continue
        path.append(part)
        owner = current[0] if current else owner
        field = _field(current[0], part) if current else None
        if field is not None:  # otherwise an index, a key of a mapping, or an unknown key
            current = list(_models_in(field))
    return tuple(path), owner


def _field(model: type[BaseModel], part: int | str) -> Any:
    for name, info in model.model_fields.items():
        if (info.alias or name) == part:
            return info.annotation
    return None


def _tag(model: type[BaseModel]) -> str | None:
    info = model.model_fields.get("type")
    return get_args(info.annotation)[0] if info else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
