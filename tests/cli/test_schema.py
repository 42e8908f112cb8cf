"""`reconciler schema`: what editors know of spec files, and the reference made from the same models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from reconciler.cli.schema import command, json_schema, to_markdown
from reconciler.core.parse import MODELS
from reconciler.core.spec import Fleet, Model
from reconciler.core.wording import keys_of

app = typer.Typer()
app.command()(command)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(item) for item in value.values()))
    return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def test_the_schema_is_printed_as_json_of_draft_2020_12() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema()
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described() -> None:
    definitions = json_schema()["$defs"]
    models: list[type[Model]] = [*MODELS.values(), Fleet]
    for model in models:
        properties = definitions[model.__name__]["properties"]
        assert list(properties) == keys_of(model)
    for name, definition in definitions.items():
        assert definition["additionalProperties"] is False, name
        for key, schema in definition["properties"].items():
            assert schema["description"], f"{name}.{key}"


def test_every_reference_leads_somewhere() -> None:
    schema = json_schema()
    assert {ref.removeprefix("#/$defs/") for ref in references(schema)} <= set(schema["$defs"])


def test_defaults_are_written_as_in_toml() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["Fleet"]["properties"]["interval"]["default"] == "30s"
    assert definitions["Stop"]["properties"]["timeout"]["default"] == "10m"
    assert definitions["Session"]["properties"]["restart"]["default"] == {
        "policy": "on_failure",
        "budget": 5,
        "per": "1h",
    }
    assert "null" not in json.dumps(definitions)


def test_what_defaults_may_supply_is_required_of_no_single_file() -> None:
    definitions = json_schema()["$defs"]
    assert "required" not in definitions["Session"]
    assert "required" not in definitions["SessionDefaults"]
    assert definitions["Dependency"]["required"] == ["session"]


def test_a_dependency_may_be_a_name_or_a_table() -> None:
    items = json_schema()["$defs"]["Session"]["properties"]["depends_on"]["items"]
    assert {"type": "string"} in items["anyOf"]


def test_the_reference_in_the_repository_is_current() -> None:
    committed = Path(__file__).parents[2] / "docs" / "specs.md"
    again = "run python -m reconciler.cli.schema --markdown > docs/specs.md"
    assert committed.read_text() == to_markdown() + "\n", again


def test_the_module_prints_the_reference() -> None:
    program = [sys.executable, "-m", "reconciler.cli.schema", "--markdown"]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    assert result.stdout == to_markdown() + "\n"
