"""The real agent CLIs for tests: where they are installed, and homes in which they talk to the stub alone."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = ("claude", "codex", "opencode", "gemini")
KEY = "stub-key-000000000000"  # what every CLI takes for its credential; the stub takes any


def agents_dir() -> Path:
    """Where the CLIs live: `$RECONCILER_TEST_AGENTS`, or `.agents` in the checkout."""
    return Path(os.environ.get("RECONCILER_TEST_AGENTS", CHECKOUT / ".agents")).absolute()


def agent_bin() -> Path:
    """A directory with `claude`, `codex`, `opencode` and `gemini`; installs them by npm where one is missing."""
    directory = agents_dir()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of pytest-xdist come here together
        if not all((directory / "bin" / name).exists() for name in NAMES):
            script = CHECKOUT / "scripts" / "install-test-agents.sh"
            done = subprocess.run(["sh", str(script), str(directory)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the agent CLIs could not be installed:\n{done.stderr or done.stdout}")
    return directory / "bin"


def base_env(home: Path) -> dict[str, str]:
    """The whole environment of a process that must know nothing of the person who runs the tests."""
    return {
        "HOME": str(home),
        "PATH": f"{agent_bin()}:/usr/local/bin:/usr/bin:/bin",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "SHELL": "/bin/sh",
    }


def claude_home(home: Path, port: int) -> dict[str, str]:
    """A home in which Claude Code was set up once, but trusts no directory."""
    _write(home / ".claude.json", {"hasCompletedOnboarding": True})
    return {
        **base_env(home),
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}",
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
    }


def codex_home(home: Path, port: int) -> dict[str, str]:
    """A home in which Codex knows a provider, but no project."""
    config = home / ".codex" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        'model = "stub-model"\n'
        'model_provider = "stub"\n'
        "check_for_update_on_startup = false\n"
        "[features]\n"
        "unbounded_connection_retries = false\n"
        "[analytics]\n"
        "enabled = false\n"
        "[model_providers.stub]\n"
        'name = "stub"\n'
        f'base_url = "http://127.0.0.1:{port}/v1"\n'
        'env_key = "STUB_KEY"\n'
        'wire_api = "responses"\n'
    )
    return {**base_env(home), "STUB_KEY": KEY}


def opencode_home(home: Path, port: int) -> dict[str, str]:
    """A home in which OpenCode knows one provider and fetches nothing."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"http://127.0.0.1:{port}/v1", "apiKey": "{env:STUB_KEY}"},
        "models": {"m": {}},
    }
    config = {
        "autoupdate": False,
        "share": "disabled",
        "enabled_providers": ["stub"],
        "model": "stub/m",
        "small_model": "stub/m",
        "provider": {"stub": provider},
    }
    _write(home / ".config" / "opencode" / "opencode.json", config)
    env = {"STUB_KEY": KEY, "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    return {**base_env(home), **env}


def gemini_home(home: Path, port: int) -> dict[str, str]:
    """A home in which Gemini CLI has chosen its login, but trusts no directory and cleans sessions up."""
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
    }
    _write(home / ".gemini" / "settings.json", settings)
    return {
        **base_env(home),
        "GEMINI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{port}",
    }


def _write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
