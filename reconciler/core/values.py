"""The kinds of values that specs are written in: durations, names, env tables, host names. Pure.

Every check raises `PydanticCustomError` with a sentence for people; nothing here knows files or positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StrictBool, StrictInt, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
NAME_RULE: Final = "1 to 63 of a-z, 0-9, `_` and `-`, beginning and ending with a letter or digit"
DURATION_PATTERN: Final = r"^[0-9]{1,9}(ms|s|m|h|d)$"

_NAME = re.compile(NAME_PATTERN[:-1] + r"\Z")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERCENT = re.compile(r"(100|[0-9]{1,2})%")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")
_HOST_TOKEN = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def fail(message: str) -> PydanticCustomError:
    """The error a validator raises: `message` is shown as it stands."""
    return PydanticCustomError("spec", "{message}", {"message": message})


def is_name(text: str) -> bool:
    """Whether `text` can name a resource."""
    return _NAME.match(text) is not None


def parse_duration(value: object) -> float:
    """Seconds of a duration such as "500ms", "30s", "10m", "1h", "7d"."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return int(match[1]) * _UNITS[match[2]]
    raise fail('must be a duration in quotes, such as "500ms", "30s", "10m", "1h" or "7d"')


def format_duration(seconds: float) -> str:
    """The shortest duration that `parse_duration` reads as `seconds` (rounded to milliseconds)."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        size = round(_UNITS[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise fail("must be longer than nothing")
    return seconds


def _lease(seconds: float) -> float:
    if not 5 <= seconds <= 600:
        raise fail('must be from "5s" to "10m"')
    return seconds


def _name(text: str) -> str:
    if not is_name(text):
        raise fail(f"must be a name: {NAME_RULE}")
    return text


def _env(table: Mapping[str, str]) -> Mapping[str, str]:
    for key in table:
        if not _ENV_NAME.fullmatch(key):
            raise fail(f"holds `{key}`: environment variables are letters, digits and `_`, no digit first")
    return table


def is_host_token(text: str) -> bool:
    """Whether it can stand for a host or a user on ssh's command line."""
    # ssh would read a leading `-` as an option, and whitespace as further words of a command.
    return not text.startswith("-") and _HOST_TOKEN.fullmatch(text) is not None and text.isprintable()


def _host_token(text: str) -> str:
    if not is_host_token(text):
        raise fail("must not be empty, begin with `-`, or hold spaces or control characters")
    return text


def _fingerprint(text: str) -> str:
    if not _FINGERPRINT.fullmatch(text):
        raise fail('must be a fingerprint as `ssh-keygen -l` prints it: "SHA256:" and 43 characters')
    return text


def _max_stop(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and (_PERCENT.fullmatch(value) or re.fullmatch("[0-9]{1,9}", value)):
        return value
    raise fail('must be a percentage such as "20%", or a number of sessions')


def _ssh_config(value: object) -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise fail("must be true, false, or the path of an SSH config in quotes")


def _scalar(value: object) -> object:
    if isinstance(value, (str, int)):
        return value
    raise fail("must be text, a whole number, true or false")


def _flag_or_names(value: object) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise fail("must be true, false, or a list of names")


def _argv(value: object) -> object:
    """A command given as one string is a line for the host's `sh`."""
    return ("/bin/sh", "-c", value) if isinstance(value, str) else value


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
_AS_DURATION = PlainSerializer(format_duration, return_type=str, when_used="json")

Duration = Annotated[float, BeforeValidator(parse_duration), _DURATION_SCHEMA, _AS_DURATION]
PositiveDuration = Annotated[
    float, BeforeValidator(parse_duration), AfterValidator(_positive), _DURATION_SCHEMA, _AS_DURATION
]
# Shorter, and a slow link would lose it between two renewals; hosts take a longer one for a clock that was set back.
LeaseDuration = Annotated[
    float, BeforeValidator(parse_duration), AfterValidator(_lease), _DURATION_SCHEMA, _AS_DURATION
]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Flag = StrictBool
Count = Annotated[StrictInt, Field(ge=0)]
PositiveCount = Annotated[StrictInt, Field(ge=1)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Words = tuple[str, ...]
Argv = Annotated[Words, Field(min_length=1)]
CommandLine = Annotated[
    Words,
    Field(min_length=1),
    BeforeValidator(_argv, json_schema_input_type=str | list[str]),
]
Text = Annotated[str, Field(min_length=1)]
FlagOrNames = Annotated[
    Any,
    BeforeValidator(_flag_or_names),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]}),
]
Scalar = Annotated[Any, BeforeValidator(_scalar), WithJsonSchema({"type": ["string", "integer", "boolean"]})]
Labels = Mapping[str, str]
Env = Annotated[Mapping[str, str], AfterValidator(_env)]
HostToken = Annotated[str, AfterValidator(_host_token), WithJsonSchema({"type": "string", "pattern": r"^[^-\s]\S*$"})]
Fingerprint = Annotated[
    str,
    AfterValidator(_fingerprint),
    WithJsonSchema({"type": "string", "pattern": "^SHA256:[A-Za-z0-9+/]{43}=?$"}),
]
MaxStop = Annotated[
    str,
    BeforeValidator(_max_stop),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^(100|[0-9]{1,2})%$|^[0-9]{1,9}$"},
                {"type": "integer", "minimum": 0},
            ]
        }
    ),
]
SshConfig = Annotated[
    Any,
    BeforeValidator(_ssh_config),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "minLength": 1}]}),
]
