#!/usr/bin/env python3
"""An agent CLI as somebody may write one, for tests of `[agents]` templates: standard library only, headless.

    stub-agent new ID [--read-only]       the first turn of a conversation; the prompt on stdin, the answer on stdout
    stub-agent resume ID [--read-only]    another turn; exit 1 where there is no such conversation

It talks to the model at `$STUB_AGENT_URL` by the API of Chat Completions, with the key `$STUB_KEY`, and keeps its
conversations in `~/.stub-agent`. It has one tool, a shell, which refuses everything when it may only read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SHELL = {"name": "bash", "parameters": {"properties": {"command": {"type": "string"}}, "required": ["command"]}}


def main() -> None:
    """One turn."""
    verb, name, *options = sys.argv[1:]
    path = Path.home() / ".stub-agent" / f"{name}.json"
    if path.exists() != (verb == "resume"):
        sys.exit(f"no conversation {name}" if verb == "resume" else f"there is a conversation {name}")
    messages: list[Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    messages.append({"role": "user", "content": sys.stdin.buffer.read().decode("utf-8")})
    path.parent.mkdir(exist_ok=True)
    while True:
        path.write_text(json.dumps(messages), encoding="utf-8")
        message = asked(messages)
        messages.append(message)
        for call in message.get("tool_calls", []):
            command = json.loads(call["function"]["arguments"])["command"]
            output = "not allowed: read-only" if "--read-only" in options else shell(command)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
        if not message.get("tool_calls"):
            break
    path.write_text(json.dumps(messages), encoding="utf-8")
    print(message["content"])


def asked(messages: list[Any]) -> Any:
    """The model's answer."""
    body = {"model": "stub-model", "messages": messages, "tools": [{"type": "function", "function": SHELL}]}
    headers = {"Authorization": f"Bearer {os.environ['STUB_KEY']}", "Content-Type": "application/json"}
    url = os.environ["STUB_AGENT_URL"] + "/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["choices"][0]["message"]
    except urllib.error.HTTPError as error:
        with error:
            sys.exit(f"the model said no: {json.load(error)['error']['message']}")


def shell(command: str) -> str:
    """What the tool answers."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
