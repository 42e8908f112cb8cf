"""A conversation in readable form: who said what and when, tools in one line. Pure; everything in it is hostile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from reconciler.core import jsons

LINE_LIMIT = 16 << 20  # bytes of one line; a longer one is skipped and counted
_BRIEF = 160  # characters of a tool call
# Lines that are known and say nothing to people.
_SILENT = {
    "queue-operation", "attachment", "last-prompt", "mode", "permission-mode", "file-history-snapshot", "ai-title",
    "agent-name", "system", "progress", "session_meta", "event_msg", "turn_context", "world_state",
    "token_usage_record", "info", "error", "warning", "reasoning", "open", "end",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One thing that was said or done. `text` may hold newlines, and whatever its writer put in it."""

    who: str
    when: str
    kind: Literal["text", "tool", "result"]
    text: str


@dataclass(frozen=True)
class Rendered:
    """A conversation, and how many of its lines are torn or of no known kind."""

    entries: tuple[Entry, ...]
    skipped: int


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of what comes in pieces; b"" stands for one that is too long."""
    rest, dropping = b"", False
    for data in chunks:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield b"" if dropping or len(line) > LINE_LIMIT else line
            dropping = False
        if len(rest) > LINE_LIMIT:
            rest, dropping = b"", True
    if rest or dropping:
        yield b"" if dropping else rest


def parse_lines(chunks: Iterable[bytes]) -> Rendered:
    """JSON lines of Claude Code, Codex, Gemini, or anything with a role and a text."""
    messages: dict[object, list[Entry]] = {}
    skipped = 0
    for number, line in enumerate(lines_of(chunks)):
        entry = _object(line)
        if entry is None:
            skipped += line.strip() != b"" or not line
            continue
        if isinstance(entry.get("$set"), dict):
            _replace(messages, entry["$set"])
            continue
        found = list(_entries(entry))
        if found:
            # Gemini writes a message again when more is known of it.
            key = entry.get("id") if entry.get("type") == "gemini" else None
            messages[key if isinstance(key, str) else number] = found
        elif str(entry.get("type")) not in _SILENT and "sessionId" not in entry:
            skipped += not _empty(entry)
    return Rendered(tuple(e for found in messages.values() for e in found), skipped)


def parse_export(text: bytes) -> Rendered:
    """The JSON that `opencode export` prints; anything else is skipped."""
    data = _object(text)
    messages = data.get("messages") if data else None
    if not isinstance(messages, list):
        return Rendered((), 1)
    found: list[Entry] = []
    skipped = 0
    for message in messages:
        info, parts = (message.get("info"), message.get("parts")) if isinstance(message, dict) else (None, None)
        if not isinstance(info, dict) or not isinstance(parts, list):
            skipped += 1
            continue
        times = info.get("time")
        when = _when(times.get("created") if isinstance(times, dict) else None)
        found += _blocks(str(info.get("role", "?")), when, parts)
    return Rendered(tuple(found), skipped)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = jsons.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _replace(messages: dict[object, list[Entry]], changes: Mapping[str, Any]) -> None:
    """Gemini: the whole conversation so far, again."""
    if not isinstance(changes.get("messages"), list):
        return
    messages.clear()
    for number, message in enumerate(changes["messages"]):
        if isinstance(message, dict):
            key = message.get("id")
            messages[key if isinstance(key, str) else ("set", number)] = list(_entries(message))


def _empty(entry: Mapping[str, Any]) -> bool:
    """A message of which only what people do not read is there, such as thoughts."""
    body = _body(entry)
    return isinstance(body.get("role"), str) or entry.get("type") in ("user", "assistant", "gemini")


def _body(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where role and content stand: Claude Code has `message`, Codex `payload`, the others the line itself."""
    for key in ("message", "payload"):
        if isinstance(entry.get(key), dict):
            found: Mapping[str, Any] = entry[key]
            return found
    return entry


def _entries(entry: Mapping[str, Any]) -> Iterator[Entry]:
    if entry.get("isMeta") is True or str(entry.get("type")) in _SILENT:
        return
    body = _body(entry)
    when = _when(next((entry[k] for k in ("timestamp", "time", "at", "ts") if k in entry), None))
    names = (body.get("role"), entry.get("type"), entry.get("from"), entry.get("kind"))
    who = next((v for v in names if isinstance(v, str)), "?")
    if body.get("type") in ("function_call", "custom_tool_call", "local_shell_call", "function_call_output",
                            "custom_tool_call_output"):  # fmt: skip
        yield from _blocks("assistant", when, [body])
    elif who != "developer":
        content = next((body[k] for k in ("content", "text", "display") if k in body), None)
        yield from _blocks("assistant" if who == "gemini" else who, when, content)
        for call in body["toolCalls"] if isinstance(body.get("toolCalls"), list) else ():
            yield from _blocks("assistant", when, [{"type": "tool_use", "input": call.get("args"), **call}]
                               if isinstance(call, dict) else ())  # fmt: skip


def _blocks(who: str, when: str, content: object) -> Iterator[Entry]:
    """Text, or a list of texts, tool calls and what came of them."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for block in content if isinstance(content, list | tuple) else ():
        if isinstance(block, dict) and (found := _block(who, when, block)) is not None:
            yield found


def _block(who: str, when: str, block: Mapping[str, Any]) -> Entry | None:
    state = block["state"] if isinstance(block.get("state"), dict) else {}
    match block.get("type"):
        case "text" | "input_text" | "output_text" | None if isinstance(block.get("text"), str):
            text = block["text"]
            context = text.startswith(("<environment_context>", "<session_context>"))
            return Entry("context" if context else who, when, "text", text) if text.strip() else None
        case "tool_use" | "function_call" | "custom_tool_call" | "tool" | "local_shell_call":
            name = next((block[k] for k in ("name", "tool") if isinstance(block.get(k), str)), "tool")
            given = next((d[k] for d, k in ((block, "input"), (block, "arguments"), (block, "action"), (state, "input"))
                          if k in d), "")  # fmt: skip
            return Entry(who, when, "tool", _brief(f"{name} {_compact(given)}"))
        case "tool_result" | "function_call_output" | "custom_tool_call_output":
            told = block.get("content", block.get("output", ""))
            return Entry("tool", when, "result", _brief(_compact(told)))
    return None


def _compact(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(v, dict) and isinstance(v.get("text"), str) for v in value):
        return " ".join(v["text"] for v in value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _brief(text: str) -> str:
    line = " ".join(text[: _BRIEF * 8].split())
    return line if len(line) <= _BRIEF else line[: _BRIEF - 1] + "…"


def _when(value: object) -> str:
    """A time as ISO 8601 in UTC, to the second; "" for what is none."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
            return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if found.tzinfo else value[:19]
        except (ValueError, OverflowError):
            return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = value / 1000 if value > 1e11 else value
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except (ValueError, OverflowError, OSError):
            return ""
    return ""


def safe_lines(text: str) -> list[str]:
    """The lines of a text without anything that a terminal would obey."""
    plain = text.replace("\r\n", "\n").replace("\t", "    ")
    return ["".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line) for line in plain.split("\n")]


_SIGNS = {"text": "", "tool": "→ ", "result": "← "}


def as_text(rendered: Rendered) -> str:
    """For a terminal. What was said is indented, so that it cannot look like one of our own lines."""
    out: list[str] = []
    last = ("", "")
    for entry in rendered.entries:
        if (entry.who, entry.when) != last:
            out += ["", _heading(entry)]
            last = (entry.who, entry.when)
        sign = _SIGNS[entry.kind]
        out += [f"  {sign}{line}".rstrip() for line in safe_lines(entry.text)]
    return "\n".join(out[1:]) + "\n" if out else ""


def as_markdown(rendered: Rendered) -> str:
    """As Markdown. What was said is quoted, so that it cannot look like a heading of ours."""
    out: list[str] = []
    for entry in rendered.entries:
        if entry.kind == "text":
            out += [f"### {_heading(entry)}", "", *(f"> {line}".rstrip() for line in safe_lines(entry.text)), ""]
        else:
            line = " ".join(safe_lines(entry.text)).replace("`", "'")
            out += [f"- {_SIGNS[entry.kind]}`{line}`", ""]
    return "\n".join(out)


def _heading(entry: Entry) -> str:
    words = [word for word in (" ".join(safe_lines(entry.who))[:40], " ".join(safe_lines(entry.when))) if word]
    return " · ".join(words)
