"""The rules of the architecture that a machine can check."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import reconciler
import reconciler.agents
from reconciler.core import unimplemented
from reconciler.core.host_spec import BUILT_IN_AGENTS, Host
from reconciler.core.spec import MODERATOR

ROOT = Path(reconciler.__file__).parent
TESTS = Path(__file__).parent
HEAVY = ("asyncssh", "networkx", "pydantic", "sqlite3", "tree_sitter")


def modules() -> Iterator[Path]:
    return (path for path in sorted(ROOT.rglob("*.py")) if path.name != "__init__.py" or path.stat().st_size)


def public() -> list[Path]:
    return [path for path in modules() if not path.stem.startswith("_") or path.stem in ("__init__", "__main__")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that one run of the command line imports."""
    script = (
        "import sys; sys.argv = ['reconciler', *sys.argv[1:]]\n"
        "from reconciler.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.stderr.write('\\n'.join(['---', *sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.partition("---\n")[2].split()}


class TestImports:
    def test_every_contract_between_modules_is_kept(self) -> None:
        command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
        done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    def test_version_imports_next_to_nothing(self) -> None:
        assert imported_by("--version").isdisjoint({*HEAVY, "asyncio", "typer", "click", "rich"})

    @pytest.mark.parametrize("arguments", [("--help",), ("-h",)])
    def test_help_imports_nothing_heavy(self, arguments: tuple[str, ...]) -> None:
        assert imported_by(*arguments).isdisjoint(HEAVY)

    def test_validate_stays_away_from_the_network_and_from_plans(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text('[sessions.a]\nagent = "codex"\n')
        assert imported_by("validate", str(tmp_path)).isdisjoint({
            "asyncssh", "networkx", "sqlite3", "asyncio", "cryptography", "email", "logging", "rich", "ssl",
            "tree_sitter", "tree_sitter_toml",
        })  # fmt: skip

    def test_asyncssh_is_imported_by_the_private_files_of_one_transport(self) -> None:
        known = [f"transports/_{name}.py" for name in ("asyncssh", "identities", "packets", "resolving", "shortcuts")]
        assert [relative(path) for path in modules() if "asyncssh" in _imports(path)] == known

    def test_private_parts_of_asyncssh_are_touched_where_a_version_is_checked(self) -> None:
        touched = re.compile(r"asyncssh\.\w*\._|from asyncssh(\.\w+)? import (auth|channel|connection)\b")
        assert [relative(path) for path in modules() if touched.search(path.read_text(encoding="utf-8"))] == [
            "transports/_packets.py",
            "transports/_shortcuts.py",
        ]


def _imports(path: Path) -> set[str]:
    """The top-level names that a file imports when it is loaded, type checking apart."""
    found: set[str] = set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node in (part for whole in body for part in (whole.body if isinstance(whole, ast.With) else [whole])):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


class TestDocumentation:
    @pytest.mark.parametrize("path", list(modules()), ids=relative)
    def test_every_module_begins_with_what_it_is(self, path: Path) -> None:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    @pytest.mark.parametrize("path", public(), ids=relative)
    def test_every_public_function_and_class_says_what_it_is_for(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
        assert [node.name for node in found if not ast.get_docstring(node)] == []


class TestDrivers:
    def test_every_agent_is_held_to_the_contract_of_agents(self) -> None:
        from tests.agents import test_contract

        files = {m.name for m in pkgutil.iter_modules(reconciler.agents.__path__) if not m.name.startswith("_")}
        drivers = {name for name in files if hasattr(importlib.import_module(f"reconciler.agents.{name}"), "AGENT")}
        held = {agent.name.replace("-", "_") for agent in test_contract.built_in()}
        assert drivers - held == {MODERATOR}, "nobody can name the moderator; see agents/test_moderator.py"
        assert held <= drivers
        assert files - drivers == {"template"}, "every other file is a driver; templates take part in the contract"

    def test_every_built_in_agent_of_the_specs_is_a_file(self) -> None:
        for name in BUILT_IN_AGENTS:
            assert importlib.import_module(f"reconciler.agents.{name.replace('-', '_')}").AGENT.name == name

    def test_every_transport_is_held_to_the_contract_of_transports(self) -> None:
        from tests.transports import test_contract

        words: tuple[str, ...] = get_args(Host.model_fields["transport"].annotation)
        assert set(test_contract.transports()) == set(words) - set(unimplemented.TRANSPORTS)

    def test_every_agent_has_recorded_text_and_a_test_of_its_own(self) -> None:
        for name in BUILT_IN_AGENTS:
            assert (TESTS / "agents" / f"test_{name.replace('-', '_')}.py").exists()


# The one thing that the checks of specs know about an agent: `shell` runs its `args`, so it needs some.
KNOWN = {("core/checks.py", "shell")}


class TestCore:
    def test_no_code_of_the_core_branches_on_the_name_of_an_agent(self) -> None:
        found = set()
        for path in (ROOT / "core").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Compare | ast.MatchValue):
                    words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                    found |= {(relative(path), str(word)) for word in words if word in BUILT_IN_AGENTS}
        assert found == KNOWN
