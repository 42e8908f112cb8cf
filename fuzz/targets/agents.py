"""What agents leave for others to read: hook events, registries, titles, transcripts, what headless turns print."""

from __future__ import annotations

import json
from typing import Any

from fuzz.oracles import harmless, split, text_of
from reconciler import drivers
from reconciler.agents.template import Template, customise, from_template
from reconciler.core.agent import Activity, Agent, Facts, LaunchRequest, Reply, StoreFile
from reconciler.core.observed import clean
from reconciler.core.spec import BUILT_IN_AGENTS
from reconciler.core.transcript import safe_name

IDS = ("11111111-2222-4333-8444-555555555555", "ses_0123456789abcdefghijklmnop", "../x", "")
AGENTS: tuple[Agent, ...] = (
    *(drivers.built_in_agent(name) for name in (*BUILT_IN_AGENTS, "moderator")),
    from_template(Template("mine", start=("mine", "{session_id}"), store=("{HOME:-{home}}/.mine/*/{session_id}*.jsonl",
                                                                         "{home}/.x/*/*/?.json"))),
    customise(drivers.built_in_agent("codex"), Template("codex", store=("{home}/.c/**/*{session_id}*",))),
)  # fmt: skip


def _facts(data: bytes) -> None:
    """A JSON object with some of the fields of facts; a text of any other kind is the last event."""
    text = text_of(data)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = {}
    given = found if isinstance(found, dict) else {}
    facts = Facts(
        texts={**_texts(given.get("texts")), "argv": str(given.get("argv", ""))[:100_000]},
        names={str(key): tuple(map(str, value)) for key, value in _table(given.get("names")).items() if _list(value)},
        store=tuple(_store(item) for item in given["store"]) if _list(given.get("store")) else None,
        title=clean(given.get("title", "") if isinstance(given.get("title"), str) else "", 200),
        event=given["event"] if isinstance(given.get("event"), str) else text,
        pid=given["pid"] if type(given.get("pid")) is int else None,
        started=clean(given.get("started", "") if isinstance(given.get("started"), str) else ""),
    )
    for agent in AGENTS:
        _activity(agent.activity(facts))
        agent.exists(facts)
        agent.ready(facts)
        for identity in (agent.conversation(facts), agent.works_on(facts)):
            assert identity is None or (identity.isprintable() and identity[:1] not in ("-", "/", "")), identity


def _activity(found: Activity) -> None:
    assert found.state in ("busy", "idle", "waiting", "unknown")
    assert found.since is None or abs(found.since) < 1e18, "no time at all"
    json.dumps([found.since, found.detail])
    assert len(found.detail) <= 400
    harmless(clean(found.detail))


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> bool:
    return isinstance(value, list)


def _texts(value: object) -> dict[str, str]:
    """As a look has them: a text, or the JSON that stands for it here."""
    return {key: text if isinstance(text, str) else json.dumps(text) for key, text in _table(value).items()}


def _store(item: object) -> StoreFile:
    path = item if isinstance(item, str) else str(item)[:4096]
    return StoreFile(path, len(path), 1.0)


def _reply(data: bytes) -> None:
    """Standard output, and behind a line of dashes standard error."""
    out, _, err = text_of(data).partition("\n----\n")
    for agent in AGENTS:
        for code in (0, 1):
            _check_reply(agent.reply(code, out, err))


def _check_reply(reply: Reply) -> None:
    assert reply.text or reply.error, "neither an answer nor a reason"
    harmless(reply.text, also="\n\t\u2028\u2029" + "".join(c for c in reply.text if ord(c) >= 0xA0))
    harmless(reply.error, also="")
    assert reply.cost is None or 0 <= reply.cost < 1e12
    assert reply.tokens is None or 0 <= reply.tokens < 1e18
    assert reply.conversation is None or reply.conversation.replace("-", "").replace("_", "").isalnum()
    (reply.text + reply.error).encode()


def _head(data: bytes) -> None:
    """The beginning of a conversation's file; what `--version` prints."""
    text = text_of(data)
    for agent in AGENTS:
        said = agent.store_version(text[:4096])
        assert said is None or len(said) < 1000
        agent.parse_version(clean(text))
        agent.paste_text(text)


def _path(data: bytes) -> None:
    """Paths of a host, one a line: names in the archive, and back to places on hosts."""
    for line in text_of(data).split("\n")[:50]:
        for agent in AGENTS:
            for identity in IDS:
                name = agent.archive_name(line, identity)
                if name is None:
                    agent.restore_path(line, identity, "/home/me")
                    continue
                assert safe_name(name), name
                place = agent.restore_path(name, identity, "/home/me")
                assert place is None or ".." not in place.split("/"), place


def _environment(data: bytes) -> None:
    """A configuration that the session brings along."""
    env = {"OPENCODE_CONFIG_CONTENT": text_of(data).replace("\0", "")}
    request = LaunchRequest("x", "~/w", "/s", IDS[0], "go", env=env)
    for agent in AGENTS[:5]:
        made = agent.start(request)
        assert all("\0" not in value.replace("\0workdir\0", "") for value in made.env.values())


CASES = {"facts": _facts, "reply": _reply, "head": _head, "path": _path, "environment": _environment}


def check(data: bytes) -> None:
    """The first line says which reader the rest is for."""
    split(data, CASES)
