#!/usr/bin/env python3
"""Deterministic stand-in for the LLM back ends of coding-agent CLIs.

One file, standard library only.  It speaks just enough of four wire formats for the real
programs to hold a conversation with it on 127.0.0.1, with no network and no model:

    Anthropic Messages      POST /v1/messages, /v1/messages/count_tokens
    OpenAI Responses        POST /v1/responses                 (also without the /v1)
    OpenAI Chat Completions POST /v1/chat/completions          (also without the /v1)
    Google Gemini           POST /v1beta/models/M:generateContent, :streamGenerateContent,
                                 :countTokens, :embedContent

Each answers as a stream (SSE) or as one JSON object, as the request asks.

What it replies
---------------
Always one line, a pure function of the request:

    STUB turns=<n> marks=<a,b,..> tool=<-|first line of the last tool output> :: <last prompt>

`turns` is how many messages typed by the user the request holds, and `marks` lists, in order,
every `MARK-xxx` word found in them.  So a resumed session that really carries its history
answers `turns=3 marks=MARK-one,MARK-two,MARK-three`, and one that lost it answers `turns=1`.

A request for structured output (a JSON schema) gets the plainest value that fits the schema.

Words in the *last* user prompt that change the reply
-----------------------------------------------------
    TOOL:<shell command>       (to the end of the line) call the client's shell tool once
    CALL:<ToolName> <json>     (to the end of the line) call any tool of the client once
    SLOW:<seconds>             stream the reply in pieces, over that many seconds
    THINK:<seconds>            send headers, then nothing for that long, then the reply
    BIG:<kilobytes>            pad the reply
    ERR:<status>               answer with that HTTP error (every time it is tried)
    DROP:<n>                   close the connection after n events of a streamed reply

In a group chat only what stands behind the last `[NAME to you]` of a prompt counts, since all of the chat is in it.

    PLAN:[<item>, ..]          in any user prompt: the reply to it is the first item, to the next prompt the second,
                               and so on. Text is replied as it is; {"name": "message", ..} as a block that delegates
                               in a group chat. Text that begins with TOOL: or CALL: makes that call before.
                               Other words count for nothing then. Who only takes part in a chat reads plans of others.

An API key (any header) that contains `bad` is answered 401 in the API's own error format.

Control
-------
    GET  /_stub/health         {"ok": true, "requests": n}
    GET  /_stub/log            summaries of the requests so far, oldest first
    GET  /_stub/last?api=X     the full body of the last main request (optionally of one API)
    POST /_stub/reset          forget the log

`--log FILE` appends one JSON line per request (summary; with `--bodies` the body too).
Secrets in headers are never logged, only which header carried one and its last 4 characters.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

# --------------------------------------------------------------------------------------
# The conversation, whatever the wire format
# --------------------------------------------------------------------------------------

# Text that the CLIs put into user messages on their own; it is not something a user typed.
_INJECTED_TAGS = (
    "system-reminder",
    "environment_context",
    "user_instructions",
    "permissions instructions",
    "collaboration_mode",
    "skills_instructions",
    "plugins_instructions",
    "apps_instructions",
    "session_context",
    "turn_aborted",
    "state_snapshot",
    "command-name",
    "command-message",
    "command-args",
    "local-command-stdout",
    "local-command-caveat",
)
_INJECTED_RE = re.compile(
    "|".join(rf"<{re.escape(t)}[^>]*>.*?</{re.escape(t.split()[0])}[^>]*>" for t in _INJECTED_TAGS),
    re.DOTALL,
)
_INJECTED_PREFIXES = (
    "# AGENTS.md instructions",
    "This is the Gemini CLI.",
    "This is the Qwen Code.",
    "Caveat: The messages below were generated",
    "[Request interrupted by user",
    "[SUGGESTION MODE",
)
_MARK_RE = re.compile(r"\bMARK-[A-Za-z0-9_]+")
_TO_YOU_RE = re.compile(r"^\[[^\]\n]* to you\]\n", re.MULTILINE)
_TAKES_PART = "You are `"  # how a prompt begins that introduces a participant to a group chat


def typed_text(text: str) -> str:
    """What is left of a user message once the client's own additions are taken out."""
    text = _INJECTED_RE.sub("", text).strip()
    return "" if text.startswith(_INJECTED_PREFIXES) else text


@dataclass
class Conversation:
    """One request, reduced to what the stub's reply depends on."""

    api: str
    model: str
    stream: bool
    user: list[str] = field(default_factory=list)  # prompts the user typed, oldest first
    tool_output: str | None = None  # set when the last message is a tool's result
    tools: dict[str, Json] = field(default_factory=dict)  # name -> JSON schema of its input
    freeform: set[str] = field(default_factory=set)  # tools that take text, not JSON
    schema: Json | None = None  # JSON schema that the reply must follow, if one is asked for

    @property
    def last(self) -> str:
        return self.user[-1] if self.user else ""

    @property
    def words(self) -> str:
        """What of the last prompt is said to this agent alone; all of it, but in a group chat."""
        return _TO_YOU_RE.split(self.last)[-1]

    @property
    def planned(self) -> str | None:
        """What a plan among the prompts says for this reply; None where there is none."""
        if not self.user or self.user[0].startswith(_TAKES_PART):
            return None
        for turn, text in enumerate(reversed(self.user)):
            if (start := text.rfind("PLAN:[")) >= 0:
                items, _ = json.JSONDecoder().raw_decode(text, start + len("PLAN:"))
                item = items[turn] if turn < len(items) else "the plan is over"
                return item if isinstance(item, str) else delegation(item)
        return None

    @property
    def marks(self) -> list[str]:
        return [m for text in self.user for m in _MARK_RE.findall(text)]

    def add_user(self, text: str) -> None:
        if text := typed_text(text):
            self.user.append(text)
            self.tool_output = None


@dataclass
class Reply:
    text: str
    tool: str | None = None  # name of the tool to call, or None for a plain answer
    tool_input: Json = field(default_factory=dict)
    pieces: int = 1
    pause: float = 0.0  # seconds between pieces
    think: float = 0.0  # seconds before the first piece
    drop: int = 0  # close the connection after that many events

    def chunks(self) -> Iterator[str]:
        size = max(1, -(-len(self.text) // self.pieces))
        for start in range(0, len(self.text), size):
            if start:
                time.sleep(self.pause)
            yield self.text[start : start + size]


def delegation(messages: Json) -> str:
    """What a moderator of a group chat says to ask participants."""
    to = [{"name": name, "message": message} for name, message in messages.items()]
    return f"I ask them.\n\n```route\n{json.dumps({'to': to})}\n```"


class StubError(Exception):
    """An HTTP error to be reported in the API's own format."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_SHELL_TOOLS = (
    "Bash",  # claude
    "bash",  # opencode
    "run_shell_command",  # gemini, qwen
    "exec_command",  # codex (unified exec)
    "shell_command",  # codex
    "shell",  # codex, older; goose
    "local_shell",
    "developer__shell",  # goose
    "execute_command",
    "terminal",
)


def shell_call(conv: Conversation, command: str) -> tuple[str, Json]:
    """The client's shell tool and an input for it, built from the tool's own schema."""
    for name in _SHELL_TOOLS:
        if name in conv.tools:
            break
    else:
        raise StubError(400, f"stub: no shell tool among {sorted(conv.tools)}")
    properties: Json = conv.tools[name].get("properties", {})
    args: Json = {}
    for key in ("command", "cmd", "script"):
        if key in properties:
            is_list = properties[key].get("type") == "array"
            args[key] = ["bash", "-lc", command] if is_list else command
            break
    for key in conv.tools[name].get("required", []):
        if key not in args:
            kind = properties.get(key, {}).get("type", "string")
            args[key] = {"boolean": False, "integer": 0, "number": 0}.get(kind, "stub command")
    return name, args


def example(schema: Json) -> Any:
    """The plainest value that a JSON schema allows (both cases of Gemini's type names)."""
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return example(schema[key][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = (kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        return {k: example(v) for k, v in schema.get("properties", {}).items()}
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"array": [], "boolean": False, "null": None}.get(kind, "stub")


def call_tool(conv: Conversation, reply: Reply, words: str) -> None:
    """Let the reply call the tool that is asked for, once."""
    if conv.tool_output is not None or not conv.tools:
        return
    if m := re.search(r"TOOL:(.+)", words):
        reply.tool, reply.tool_input = shell_call(conv, m[1].strip())
    elif m := re.search(r"CALL:(\w+)\s*(\{.*\})?", words):
        reply.tool, reply.tool_input = m[1], json.loads(m[2] or "{}")


def plan(conv: Conversation) -> Reply:
    """Decide the reply.  A pure function of the request."""
    prompt = conv.words
    if conv.schema is not None:
        return Reply(json.dumps(example(conv.schema)))
    if (planned := conv.planned) is not None:
        reply = Reply(planned)
        if planned.startswith(("TOOL:", "CALL:")):
            call_tool(conv, reply, planned)
        return reply
    tool_line = (conv.tool_output or "-").strip().splitlines() or ["-"]
    text = (
        f"STUB turns={len(conv.user)} marks={','.join(conv.marks) or '-'} "
        f"tool={tool_line[0][:120] if conv.tool_output is not None else '-'} "
        f":: {' '.join(prompt.split())[:160]}"
    )
    reply = Reply(text)
    if m := re.search(r"\bERR:(\d{3})", prompt):
        raise StubError(int(m[1]), f"stub error {m[1]} as asked")
    if m := re.search(r"\bBIG:(\d+)", prompt):
        reply.text += "\n" + "0123456789abcde\n" * (int(m[1]) * 64)
    call_tool(conv, reply, prompt)
    if m := re.search(r"\bSLOW:([\d.]+)", prompt):
        reply.pieces = max(2, int(float(m[1]) * 4))
        reply.pause = float(m[1]) / (reply.pieces - 1)
    if m := re.search(r"\bTHINK:([\d.]+)", prompt):
        reply.think = float(m[1])
    if m := re.search(r"\bDROP:(\d+)", prompt):
        reply.drop = int(m[1])
    return reply


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of typed parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    parts = []
    for part in content or []:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append(part["text"])
    return "\n".join(parts)


def tokens(*texts: str) -> int:
    return max(1, sum(len(t) for t in texts) // 4)


# --------------------------------------------------------------------------------------
# The four APIs.  Each has parse(), whole() and events(); an event is (name | None, data).
# --------------------------------------------------------------------------------------

Event = tuple[str | None, Json | str]


class Anthropic:
    name = "anthropic"

    @staticmethod
    def parse(body: Json, path: str) -> Conversation:
        conv = Conversation("anthropic", body.get("model", "?"), bool(body.get("stream")))
        wanted = body.get("output_config", {}).get("format") or body.get("output_format") or {}
        conv.schema = wanted.get("schema")
        for tool in body.get("tools") or []:
            conv.tools[tool["name"]] = tool.get("input_schema", {})
        for message in body.get("messages", []):
            if message["role"] != "user":
                continue
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            typed = [typed_text(b["text"]) for b in blocks if b.get("type") == "text"]
            results = [b for b in blocks if b.get("type") == "tool_result"]
            if results:
                conv.tool_output = text_of(results[-1].get("content"))
            conv.add_user("\n".join(t for t in typed if t))
        return conv

    @staticmethod
    def usage(conv: Conversation, reply: Reply) -> Json:
        return {
            "input_tokens": tokens(*conv.user),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": tokens(reply.text),
        }

    @classmethod
    def blocks(cls, reply: Reply) -> list[Json]:
        blocks: list[Json] = [{"type": "text", "text": reply.text}]
        if reply.tool:
            blocks.append(
                {
                    "type": "tool_use",
                    "id": new_id("toolu"),
                    "name": reply.tool,
                    "input": reply.tool_input,
                }
            )
        return blocks

    @classmethod
    def message(cls, conv: Conversation, reply: Reply, content: list[Json]) -> Json:
        return {
            "id": new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": conv.model,
            "content": content,
            "stop_reason": "tool_use" if reply.tool else "end_turn",
            "stop_sequence": None,
            "usage": cls.usage(conv, reply),
        }

    @classmethod
    def whole(cls, conv: Conversation, reply: Reply) -> Json:
        return cls.message(conv, reply, cls.blocks(reply))

    @classmethod
    def events(cls, conv: Conversation, reply: Reply) -> Iterator[Event]:
        start = cls.message(conv, reply, []) | {"stop_reason": None}
        yield "message_start", {"type": "message_start", "message": start}
        for index, block in enumerate(cls.blocks(reply)):
            is_text = block["type"] == "text"
            empty: Json = {"text": ""} if is_text else {"input": {}}
            yield (
                "content_block_start",
                {"type": "content_block_start", "index": index, "content_block": block | empty},
            )
            pieces = reply.chunks() if is_text else iter([json.dumps(block["input"])])
            for piece in pieces:
                delta = (
                    {"type": "text_delta", "text": piece}
                    if is_text
                    else {"type": "input_json_delta", "partial_json": piece}
                )
                yield (
                    "content_block_delta",
                    {"type": "content_block_delta", "index": index, "delta": delta},
                )
            yield "content_block_stop", {"type": "content_block_stop", "index": index}
        stop = "tool_use" if reply.tool else "end_turn"
        yield (
            "message_delta",
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": tokens(reply.text)},
            },
        )
        yield "message_stop", {"type": "message_stop"}

    @staticmethod
    def error(status: int, message: str) -> Json:
        kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        return {
            "type": "error",
            "error": {"type": kind.get(status, "api_error"), "message": message},
        }


class Responses:
    name = "responses"

    @staticmethod
    def parse(body: Json, path: str) -> Conversation:
        conv = Conversation("responses", body.get("model", "?"), bool(body.get("stream")))
        conv.schema = body.get("text", {}).get("format", {}).get("schema")

        def collect(tools: list[Json]) -> None:
            for tool in tools or []:
                name = tool.get("name") or tool.get("type", "?")
                if tool.get("type") == "namespace":
                    collect(tool.get("tools", []))
                    continue
                conv.tools[name] = tool.get("parameters") or {}
                if tool.get("type") == "custom":
                    conv.freeform.add(name)

        collect(body.get("tools") or [])
        items = body.get("input", [])
        if isinstance(items, str):
            items = [{"type": "message", "role": "user", "content": items}]
        for item in items:
            kind = item.get("type", "message")
            if kind == "message" and item.get("role") == "user":
                # Parts are separate texts: the client mixes its own with the user's.
                content = item.get("content")
                parts = [content] if isinstance(content, str) else content or []
                conv.add_user("\n".join(t for p in parts if (t := typed_text(text_of([p])))))
            elif kind.endswith("_output"):
                output = item.get("output")
                conv.tool_output = output if isinstance(output, str) else text_of(output)
        return conv

    @staticmethod
    def items(conv: Conversation, reply: Reply) -> list[Json]:
        message = {
            "type": "message",
            "id": new_id("msg"),
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": reply.text, "annotations": []}],
        }
        if not reply.tool:
            return [message]
        call: Json = {"id": new_id("fc"), "call_id": new_id("call"), "status": "completed"}
        if reply.tool in conv.freeform:
            text = reply.tool_input.get("input") or json.dumps(reply.tool_input)
            call |= {"type": "custom_tool_call", "name": reply.tool, "input": text}
        else:
            arguments = json.dumps(reply.tool_input)
            call |= {"type": "function_call", "name": reply.tool, "arguments": arguments}
        return [message, call]

    @classmethod
    def response(cls, conv: Conversation, reply: Reply, output: list[Json], status: str) -> Json:
        sent, got = tokens(*conv.user), tokens(reply.text)
        return {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": conv.model,
            "status": status,
            "output": output,
            "usage": {
                "input_tokens": sent,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": got,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sent + got,
            },
        }

    @classmethod
    def whole(cls, conv: Conversation, reply: Reply) -> Json:
        return cls.response(conv, reply, cls.items(conv, reply), "completed")

    @classmethod
    def events(cls, conv: Conversation, reply: Reply) -> Iterator[Event]:
        items = cls.items(conv, reply)
        done = cls.response(conv, reply, items, "completed")
        number = 0

        def event(kind: str, **data: Any) -> Event:
            nonlocal number
            number += 1
            return kind, {"type": kind, "sequence_number": number, **data}

        begun = done | {"status": "in_progress", "output": []}
        yield event("response.created", response=begun)
        for index, item in enumerate(items):
            place = {"output_index": index, "item_id": item["id"]}
            if item["type"] != "message":
                yield event("response.output_item.added", output_index=index, item=item)
                yield event("response.output_item.done", output_index=index, item=item)
                continue
            started = item | {"content": [], "status": "in_progress"}
            yield event("response.output_item.added", output_index=index, item=started)
            empty = {"type": "output_text", "text": "", "annotations": []}
            yield event("response.content_part.added", **place, content_index=0, part=empty)
            for piece in reply.chunks():
                yield event("response.output_text.delta", **place, content_index=0, delta=piece)
            yield event("response.output_text.done", **place, content_index=0, text=reply.text)
            part = item["content"][0]
            yield event("response.content_part.done", **place, content_index=0, part=part)
            yield event("response.output_item.done", output_index=index, item=item)
        yield event("response.completed", response=done)

    @staticmethod
    def error(status: int, message: str) -> Json:
        code = "invalid_api_key" if status == 401 else "stub_error"
        return {"error": {"message": message, "type": code, "param": None, "code": code}}


class Chat:
    name = "chat"

    @staticmethod
    def parse(body: Json, path: str) -> Conversation:
        conv = Conversation("chat", body.get("model", "?"), bool(body.get("stream")))
        conv.schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        for tool in body.get("tools") or []:
            function = tool.get("function", {})
            conv.tools[function.get("name", "?")] = function.get("parameters") or {}
        for message in body.get("messages", []):
            if message["role"] == "user":
                conv.add_user(text_of(message.get("content")))
            elif message["role"] == "tool":
                conv.tool_output = text_of(message.get("content"))
        return conv

    @staticmethod
    def usage(conv: Conversation, reply: Reply) -> Json:
        sent, got = tokens(*conv.user), tokens(reply.text)
        return {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got}

    @staticmethod
    def calls(reply: Reply) -> list[Json]:
        function = {"name": reply.tool, "arguments": json.dumps(reply.tool_input)}
        return [{"id": new_id("call"), "type": "function", "function": function}]

    @classmethod
    def whole(cls, conv: Conversation, reply: Reply) -> Json:
        message: Json = {"role": "assistant", "content": reply.text}
        if reply.tool:
            message["tool_calls"] = cls.calls(reply)
        finish = "tool_calls" if reply.tool else "stop"
        return {
            "id": new_id("chatcmpl"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": conv.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": cls.usage(conv, reply),
        }

    @classmethod
    def events(cls, conv: Conversation, reply: Reply) -> Iterator[Event]:
        base = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": conv.model,
        }

        def chunk(delta: Json, finish: str | None = None) -> Event:
            return None, base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        yield chunk({"role": "assistant", "content": ""})
        for piece in reply.chunks():
            yield chunk({"content": piece})
        if reply.tool:
            yield chunk({"tool_calls": [{"index": 0, **c} for c in cls.calls(reply)]})
        yield chunk({}, "tool_calls" if reply.tool else "stop")
        yield None, base | {"choices": [], "usage": cls.usage(conv, reply)}
        yield None, "[DONE]"

    error = Responses.error


class Gemini:
    name = "gemini"

    @staticmethod
    def parse(body: Json, path: str) -> Conversation:
        model, _, verb = path.rpartition("/")[2].partition(":")
        conv = Conversation("gemini", model, verb.startswith("stream"))
        config = body.get("generationConfig", {})
        if config.get("responseMimeType") == "application/json":
            conv.schema = config.get("responseJsonSchema") or config.get("responseSchema") or {}
        for group in body.get("tools") or []:
            for function in group.get("functionDeclarations", []):
                schema = function.get("parametersJsonSchema") or function.get("parameters") or {}
                conv.tools[function["name"]] = schema
        for content in body.get("contents", []):
            if content.get("role", "user") != "user":
                continue
            parts = content.get("parts", [])
            results = [p["functionResponse"] for p in parts if "functionResponse" in p]
            if results:
                answer = results[-1].get("response", {})
                conv.tool_output = str(answer.get("output") or answer.get("error") or answer)
            conv.add_user("\n".join(t for p in parts if (t := typed_text(text_of([p])))))
        return conv

    @staticmethod
    def answer(conv: Conversation, reply: Reply, parts: list[Json], last: bool) -> Json:
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}}
        if last:
            candidate["finishReason"] = "STOP"
        sent, got = tokens(*conv.user), tokens(reply.text)
        return {
            "candidates": [candidate],
            "modelVersion": conv.model,
            "responseId": new_id("resp"),
            "usageMetadata": {
                "promptTokenCount": sent,
                "candidatesTokenCount": got,
                "totalTokenCount": sent + got,
            },
        }

    @staticmethod
    def call(reply: Reply) -> list[Json]:
        if not reply.tool:
            return []
        return [{"functionCall": {"name": reply.tool, "args": reply.tool_input}}]

    @classmethod
    def whole(cls, conv: Conversation, reply: Reply) -> Json:
        return cls.answer(conv, reply, [{"text": reply.text}, *cls.call(reply)], True)

    @classmethod
    def events(cls, conv: Conversation, reply: Reply) -> Iterator[Event]:
        for piece in reply.chunks():
            yield None, cls.answer(conv, reply, [{"text": piece}], False)
        yield None, cls.answer(conv, reply, cls.call(reply) or [{"text": ""}], True)

    @staticmethod
    def error(status: int, message: str) -> Json:
        kind = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED"}
        return {"error": {"code": status, "message": message, "status": kind.get(status, "INTERNAL")}}


Api = type[Anthropic] | type[Responses] | type[Chat] | type[Gemini]


def route(path: str) -> Api | None:
    if path.endswith("/messages"):
        return Anthropic
    if path.endswith("/responses"):
        return Responses
    if path.endswith("/chat/completions"):
        return Chat
    if re.search(r"/models/[^/]+:(streamG|g)enerateContent$", path):
        return Gemini
    return None


# --------------------------------------------------------------------------------------
# HTTP
# --------------------------------------------------------------------------------------


@dataclass
class Record:
    """What is remembered of one request."""

    seq: int
    at: float
    method: str
    path: str
    status: int = 0
    api: str = ""
    model: str = ""
    stream: bool = False
    turns: int = 0
    marks: list[str] = field(default_factory=list)
    last: str = ""
    tool_output: str | None = None
    tools: int = 0  # how many tools the client offered; 0 means a side request (titles etc.)
    reply: str = ""
    called: str | None = None
    auth: str = ""
    agent: str = ""
    aborted: bool = False  # the client went away before the end of the reply


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], log: Path | None, bodies: bool) -> None:
        super().__init__(address, Handler)
        self.lock = threading.Lock()
        self.records: list[Record] = []
        self.bodies: list[Json] = []
        self.log_path = log
        self.log_bodies = bodies

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away between two requests is no news; anything else is a bug."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def begin(self, method: str, path: str, headers: Any, body: Json) -> Record:
        with self.lock:
            record = Record(len(self.records) + 1, time.time(), method, path)
            record.agent = headers.get("user-agent", "")
            for name in ("x-api-key", "authorization", "x-goog-api-key"):
                if value := headers.get(name):
                    record.auth = f"{name}:..{value[-4:]}"
            self.records.append(record)
            self.bodies.append(body)
            return record

    def finish(self, record: Record) -> None:
        if self.log_path is None:
            return
        with self.lock:
            line = asdict(record)
            if self.log_bodies:
                line["body"] = self.bodies[record.seq - 1] if self.bodies else None
            with self.log_path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    # -- plumbing ----------------------------------------------------------------------

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; requests are kept by Server."""

    def send_json(self, status: int, data: Any) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.send_header("request-id", new_id("req"))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def send_stream(self, events: Iterator[Event], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("request-id", new_id("req"))
        self.end_headers()
        self.wfile.flush()
        time.sleep(reply.think)
        for count, (name, data) in enumerate(events):
            if reply.drop and count == reply.drop:
                self.close_connection = True
                return
            text = data if isinstance(data, str) else json.dumps(data)
            frame = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
            raw = frame.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def read_body(self) -> Json:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            raw = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            return {"_raw_bytes": len(raw)}
        return body if isinstance(body, dict) else {"_value": body}

    # -- requests ----------------------------------------------------------------------

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/_stub/"):
            return self.control(url.path.removeprefix("/_stub/"), parse_qs(url.query))
        record = self.server.begin("GET", self.path, self.headers, {})
        if url.path.rstrip("/").endswith("/models"):
            record.status = 200
            model = {"id": "stub-model", "object": "model", "display_name": "Stub"}
            self.send_json(200, {"object": "list", "data": [model], "models": []})
        else:
            record.status = 404
            self.send_json(404, {"error": {"message": "stub: no such path"}})
        self.server.finish(record)
        return None

    do_HEAD = do_GET

    def control(self, what: str, query: dict[str, list[str]]) -> None:
        server = self.server
        with server.lock:
            if what == "health":
                data: Any = {"ok": True, "requests": len(server.records)}
            elif what == "log":
                data = [asdict(r) for r in server.records]
            elif what == "last":
                wanted = query.get("api", [None])[0]
                data = {}
                for record, body in zip(server.records, server.bodies, strict=True):
                    if record.tools and wanted in (None, record.api):
                        data = body
            elif what == "reset" and self.command == "POST":
                server.records.clear()
                server.bodies.clear()
                data = {"ok": True}
            else:
                return self.send_json(404, {"error": f"no control {what!r}"})
        self.send_json(200, data)
        return None

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        body = self.read_body()
        if url.path.startswith("/_stub/"):
            return self.control(url.path.removeprefix("/_stub/"), {})
        record = self.server.begin("POST", self.path, self.headers, body)
        try:
            self.answer(url.path, body, record)
        except (BrokenPipeError, ConnectionResetError):
            record.aborted = True
            self.close_connection = True
        finally:
            self.server.finish(record)

    def answer(self, path: str, body: Json, record: Record) -> None:
        record.status = 200
        if path.endswith("/count_tokens"):
            return self.send_json(200, {"input_tokens": len(json.dumps(body)) // 4})
        if path.endswith(":countTokens"):
            return self.send_json(200, {"totalTokens": len(json.dumps(body)) // 4})
        if path.endswith(":embedContent"):
            return self.send_json(200, {"embedding": {"values": [0.0] * 8}})
        api = route(path)
        if api is None:
            record.status = 404
            return self.send_json(404, {"error": {"message": "stub: no such path"}})
        try:
            keys = ("x-api-key", "authorization", "x-goog-api-key")
            if any("bad" in (self.headers.get(name) or "") for name in keys):
                raise StubError(401, "stub: invalid API key")
            conv = api.parse(body, path)
            record.api, record.model, record.stream = conv.api, conv.model, conv.stream
            record.turns, record.marks = len(conv.user), conv.marks
            record.last, record.tool_output = conv.last[:200], conv.tool_output
            record.tools = len(conv.tools)
            reply = plan(conv)
            record.reply, record.called = reply.text[:200], reply.tool
        except StubError as error:
            record.status = error.status
            return self.send_json(error.status, api.error(error.status, str(error)))
        if conv.stream:
            self.send_stream(api.events(conv, reply), reply)
        else:
            time.sleep(reply.think + reply.pause * (reply.pieces - 1))
            self.send_json(200, api.whole(conv, reply))
        return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Deterministic stub for LLM APIs (loopback only).")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--port-file", type=Path, help="write the port here once listening")
    parser.add_argument("--log", type=Path, help="append one JSON line per request")
    parser.add_argument("--bodies", action="store_true", help="log request bodies too")
    args = parser.parse_args(argv)
    server = Server(("127.0.0.1", args.port), args.log, args.bodies)
    port = server.server_address[1]
    if args.port_file:
        temporary = args.port_file.with_suffix(".tmp")
        temporary.write_text(f"{port}\n")
        temporary.replace(args.port_file)
    print(f"stub LLM listening on http://127.0.0.1:{port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
