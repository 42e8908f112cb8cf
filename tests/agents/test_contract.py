"""What every driver in `reconciler/agents` promises, and what template agents promise with them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reconciler.agents
from reconciler.agents import template
from reconciler.agents.template import Template
from reconciler.core.agent import (
    PROMPT_ARGV_LIMIT,
    WORKDIR,
    Agent,
    Facts,
    Invocation,
    LaunchRequest,
    StoreFile,
)
from reconciler.core.spec import MODERATOR
from reconciler.core.transcript import safe_name

SESSION_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
SESSION_DIR = "/home/me/.local/state/reconciler/acme/sessions/api"
PLACES = {"home", "workdir", "session_id", "session_id_8", "session_dir", "pid"}
LOOSE = (
    "bypass", "danger", "yolo", "--auto", "approval", "permission", "sandbox_mode", "acceptEdits", "full-access",
)  # fmt: skip


def built_in() -> list[Agent]:
    names = [module.name for module in pkgutil.iter_modules(reconciler.agents.__path__)]
    modules = [importlib.import_module(f"reconciler.agents.{name}") for name in names if not name.startswith("_")]
    # The moderator is ours, and nobody can name it: see test_moderator.py.
    return [module.AGENT for module in modules if hasattr(module, "AGENT") and module.AGENT.name != MODERATOR]


def agents() -> list[Agent]:
    alone = Template(
        "mine",
        command="mine",
        start=("{command}", "--id", "{session_id}", "--", "{prompt}"),
        resume=("{command}", "--resume", "{session_id}", "--", "{prompt}"),
        turn=("{command}", "-p", "--id", "{session_id}"),
        resume_turn=("{command}", "-p", "--resume", "{session_id}"),
        prompt_via="stdin",
        store=("{home}/.mine/{session_id}.json",),
    )
    over = [
        template.customise(base, Template(f"{base.name}-x", args=("--ours",), env={"OURS": "1"})) for base in built_in()
    ]
    bare = ("{command}", "{model}", "{session_id}")
    pasted = replace(alone, name="pasted", prompt_via=None, start=bare, resume=bare, turn=bare, resume_turn=bare)
    held = replace(pasted, name="held", read_only=("--look",))
    return [*built_in(), *over, template.from_template(pasted), template.from_template(held)]


every_agent = pytest.mark.parametrize("agent", agents(), ids=lambda agent: agent.name)
WAYS = ("start", "resume", "turn", "resume_turn")
prompts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200)
sharp = st.sampled_from(
    ["-", "--", "-p", "--help", "$(id)", "'", '"; rm -rf /', "a\nb", "!ls", "/exit", "{session_id}", " "]
)
any_prompt = prompts | sharp | st.builds("{}{}".format, sharp, prompts)


def request(agent: Agent, **changes: object) -> LaunchRequest:
    made = LaunchRequest(agent.command, "~/project", SESSION_DIR, session_id=SESSION_ID)
    return replace(made, **changes)  # type: ignore[arg-type]


def invoke(agent: Agent, way: str, **changes: object) -> Invocation:
    invocation = getattr(agent, way)(request(agent, **changes))
    assert isinstance(invocation, Invocation)
    return invocation


def words(invocation: Invocation) -> str:
    return "\n".join((*invocation.argv, *invocation.env, *invocation.env.values(), *invocation.files.values()))


@every_agent
@pytest.mark.parametrize("way", WAYS)
@given(prompt=any_prompt)
@settings(max_examples=40, deadline=None)
def test_a_prompt_arrives_whole_and_once(agent: Agent, way: str, prompt: str) -> None:
    made = invoke(agent, way, prompt=prompt)
    bare = invoke(agent, way)
    assert made.delivered in ("argv", "stdin", "paste")
    if made.delivered == "argv":
        last = made.argv[-1]
        if last == prompt:
            assert made.argv[-2 - (SESSION_ID in made.argv[-2])] == "--", "a prompt that begins with - stays a prompt"
        else:
            assert re.fullmatch(r"--[a-z-]+=", last.removesuffix(prompt))
        assert made.stdin is None
    elif made.delivered == "stdin":
        assert made.stdin == prompt
    else:
        assert made.stdin is None
        assert made.argv == bare.argv, "a prompt that is pasted leaves no trace in argv"


@every_agent
@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_over_the_limit_is_no_argument(agent: Agent, way: str) -> None:
    prompt = "é" * (PROMPT_ARGV_LIMIT // 2)
    assert invoke(agent, way, prompt=prompt).delivered in ("argv", "stdin", "paste")
    made = invoke(agent, way, prompt=prompt + "x")
    assert made.delivered == ("paste" if way in ("start", "resume") else "stdin")
    assert max(len(part) for part in made.argv) < 1000


@every_agent
@pytest.mark.parametrize("way", WAYS)
@given(args=st.lists(prompts, max_size=3))
@settings(max_examples=20, deadline=None)
def test_arguments_and_environment_of_the_session_are_kept(agent: Agent, way: str, args: list[str]) -> None:
    made = invoke(agent, way, args=tuple(args), env={"A": "1"}, prompt="hello")
    assert made.env["A"] == "1"
    positions = range(len(made.argv) - len(args) + 1)
    assert any(made.argv[at : at + len(args)] == tuple(args) for at in positions)
    if args and "--" in made.argv and "--" not in args:
        assert made.argv.index("--") > made.argv.index(args[-1])


@every_agent
@pytest.mark.parametrize("way", WAYS)
def test_permissions_are_as_the_agent_has_them_unless_the_specs_say_otherwise(agent: Agent, way: str) -> None:
    text = words(invoke(agent, way, prompt="hello"))
    plugin_events = text.replace("permission.asked", "").replace("permission.replied", "")
    assert not [word for word in LOOSE if word in plugin_events]


@every_agent
@pytest.mark.parametrize("way", WAYS)
def test_an_unknown_permission_mode_is_refused_with_the_known_ones(agent: Agent, way: str) -> None:
    with pytest.raises(ValueError, match="has no permission mode 'lax'; it has: ") as refused:
        invoke(agent, way, permission_mode="lax")
    for mode in str(refused.value).rpartition(": ")[2].split(", "):
        if mode != "none":
            invoke(agent, way, permission_mode=mode)


@every_agent
@pytest.mark.parametrize(
    "workdir", ["~", "~/", "/", "//", "~/.", "/root", "/root/", "/home/me", "/Users/me", "/a/../home"]
)
def test_no_home_and_no_root_is_ever_trusted(agent: Agent, workdir: str) -> None:
    for way in WAYS:
        made = invoke(agent, way, workdir=workdir)
        assert "trust" not in " ".join(made.argv)
        assert "CLAUDE_CODE_SANDBOXED" not in made.env


@every_agent
def test_the_conversation_is_named_exactly(agent: Agent) -> None:
    for way in ("start", "turn"):
        assert any(SESSION_ID in part for part in invoke(agent, way).argv) == agent.assigns_id
    for way in ("resume", "resume_turn"):
        assert any(SESSION_ID in part for part in invoke(agent, way).argv) == agent.resumable


@every_agent
def test_an_invocation_holds_argv_and_nothing_for_a_shell(agent: Agent) -> None:
    for way in WAYS:
        made = invoke(agent, way, prompt="say 'hi' $HOME", model="m")
        assert made.argv[0] == agent.command or agent.command == "sh"  # what a plain command is, its args say
        assert all("\0" not in part.replace(WORKDIR, "") for part in made.argv)
        for name in made.files:
            assert re.fullmatch(r"[a-z][a-z0-9.-]+", name)
            assert f"{SESSION_DIR}/{name}" in words(made)


@every_agent
@pytest.mark.parametrize("session_id", [None, SESSION_ID, "{session_id}"])
def test_probes_are_well_formed(agent: Agent, session_id: str | None) -> None:
    probes = agent.probes(session_id)
    assert len({probe.key for probe in probes}) == len(probes)
    for probe in probes:
        inner = re.sub(r"\{[A-Z_]+:-((?:[^{}]|\{[a-z_]+\})*)\}", r"\1", probe.path)
        assert set(re.findall(r"\{([^{}]*)\}", inner)) <= PLACES - (
            {"session_id", "session_id_8"} if session_id is None else set()
        )
        assert inner.startswith(("{home}", "{session_dir}", "{workdir}", "/"))
        if probe.kind in ("file", "tail"):
            assert not set("*?") & set(inner)


HOSTILE = (
    '{"pid":1}', "[]", "{", "null", "Ready | ", "✋", "[" * 9999,
    '{"at":NaN,"state":"busy"}', '{"at":1e999,"state":"idle"}', '{"state":["busy"]}', '{"session":1}',
    '{"pid":7,"status":{},"statusUpdatedAt":true}', '{"pid":7,"status":"busy","waitingFor":3}',
)  # fmt: skip
scraps = st.text(max_size=80) | st.sampled_from(HOSTILE)
garbage = st.builds(
    Facts,
    texts=st.dictionaries(st.sampled_from(["status", "log", "store"]), scraps),
    names=st.dictionaries(
        st.sampled_from(["locks", "database", "database-xdg"]), st.lists(scraps, max_size=3).map(tuple)
    ),
    store=st.none() | st.lists(st.builds(StoreFile, scraps, st.integers(), st.floats()), max_size=2).map(tuple),
    title=scraps,
    event=scraps,
    pid=st.none() | st.just(7) | st.integers(),
    started=scraps,
)


@every_agent
@given(facts=garbage, output=scraps)
@settings(max_examples=100, deadline=None)
def test_whatever_a_host_says_is_read_without_an_error(agent: Agent, facts: Facts, output: str) -> None:
    assert agent.activity(facts).state in ("busy", "idle", "waiting", "unknown")
    assert agent.ready(facts) in (True, False, None)
    assert agent.exists(facts) in (True, False, None)
    conversation = agent.conversation(facts)
    assert conversation is None or re.fullmatch(r"[A-Za-z0-9_-]{10,80}", conversation)
    version = agent.parse_version(output)
    assert version is None or version in output


@every_agent
@given(text=any_prompt | st.text(max_size=50))
@settings(max_examples=60, deadline=None)
def test_pasted_text_types_no_keys_and_loses_no_words(agent: Agent, text: str) -> None:
    pasted = agent.paste_text(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", pasted)
    visible = re.sub(r"[\x00-\x20\x7f-\x9f\u2060]", "", text)
    assert re.sub(r"[\x00-\x20\x7f-\x9f\u2060]", "", pasted) == visible
    if agent.version_args:  # a plain command has no commands of its own
        assert not pasted.startswith(("!", "/"))


@every_agent
def test_a_driver_says_what_it_is(agent: Agent) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?", agent.name)
    assert agent.command
    assert agent.clean_stop().signal in ("TERM", "INT", "HUP")
    assert agent.activity_source or agent.activity(Facts(title="busy")).state == "unknown"


def test_every_driver_has_the_name_of_its_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(reconciler.agents.__path__)}
    assert {agent.name.replace("-", "_") for agent in built_in()} <= files
    assert {"claude_code", "codex", "opencode", "gemini", "shell", "template"} <= files


# What the store probes of each driver find; a file of another conversation lies beside each.
FOUND = {
    "claude-code": (
        "/.claude/projects/-srv-app/{id}.jsonl",
        "/.claude/projects/-srv-app/{id}/subagents/agent-a1.jsonl",
        "/.claude/projects/-srv-app/{id}/subagents/workflows/wf1/agent-a1.meta.json",
        "/.claude/projects/-srv-app/{id}/tool-results/toolu_1.txt",
    ),
    "codex": ("/.codex/sessions/2026/11/21/rollout-2026-11-21T01-02-04-{id}.jsonl",),
    "gemini": (
        "/.gemini/tmp/app-1/chats/session-2026-11-21T01-02-{id8}.jsonl",
        "/.gemini/tmp/app-1/chats/{id}/0f3a9c.jsonl",
    ),
    "opencode": (),
    "shell": (),
    "mine": ("/.mine/{id}.json",),
    "pasted": ("/.mine/{id}.json",),
    "held": ("/.mine/{id}.json",),
}
ids = st.uuids().map(str)
strange = st.sampled_from(
    ["ünï 𝒳 名", "e\u0301", "a b", "{home}", "[x]*?", "'q'", "$x", "-dash", "x" * 250, "…/.h", " "]
)
paths = st.lists(
    strange | st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs", "Cc"]), min_size=1)
)
places = paths.map(lambda parts: "/" + "/".join(["srv", *parts]))
names = st.text(max_size=60) | st.sampled_from(
    ["", "/", "..", "../x", "chats/../../x", "a\nb", "store1/x", "store9/x", "store01/x", f"{SESSION_ID}.jsonl/..",
     f"{SESSION_ID}/subagents/../../../.credentials.json", f"{SESSION_ID}/tool-results/", f"/{SESSION_ID}.jsonl",
     f"{SESSION_ID}/subagents/a\u202e", f"{SESSION_ID}.jsonl\n", "2026/11/21/../../auth.json", "{home}/x"]
)  # fmt: skip


def found_by(agent: Agent, session_id: str) -> list[str]:
    found = FOUND[agent.name.removesuffix("-x")]
    return [path.replace("{id}", session_id).replace("{id8}", session_id[:8]) for path in found]


def on_host(template: str, home: str, session_id: str) -> str:
    """A path template filled in, in an environment that sets nothing."""
    values = {"home": home, "session_id": session_id, "session_id_8": session_id[:8]}
    flat = re.sub(r"\{[A-Z_]+:-((?:[^{}]|\{\w+\})*)\}", r"\1", template)
    return re.sub(r"\{(\w+)\}", lambda place: values[place[1]], flat)


def looked_at(agent: Agent, path: str, home: str, session_id: str) -> bool:
    """Whether a look would find the file."""
    globs = [on_host(probe.path, home, session_id) for probe in agent.probes(session_id) if probe.kind == "store"]
    wild = {"*": "[^/]*", "?": "[^/]"}
    tails = [re.split(r"([*?])", glob.removeprefix(home)) for glob in globs]
    patterns = ["".join(wild.get(part, re.escape(part)) for part in parts) for parts in tails]
    return path.startswith(home) and any(re.fullmatch(pattern, path.removeprefix(home)) for pattern in patterns)


@every_agent
@given(session_id=ids, home=places, other=places, workdir=places)
@settings(max_examples=40, deadline=None)
def test_a_file_goes_to_the_archive_and_to_any_host_and_is_found_there(
    agent: Agent, session_id: str, home: str, other: str, workdir: str
) -> None:
    for path in found_by(agent, session_id):
        assert looked_at(agent, home + path, home, session_id)
        name = agent.archive_name(home + path, session_id)
        assert name is not None
        assert safe_name(name)
        assert name == agent.archive_name(other + path, session_id), "a name says nothing of the host"
        template = agent.restore_path(name, session_id, workdir)
        assert template is not None
        placed = on_host(template, other, session_id)
        assert looked_at(agent, placed, other, session_id)
        assert agent.archive_name(placed, session_id) == name


@every_agent
@given(session_id=ids, other=ids)
@settings(max_examples=20, deadline=None)
def test_a_file_of_another_conversation_has_no_name(agent: Agent, session_id: str, other: str) -> None:
    for path in found_by(agent, other):
        if session_id[:8] != other[:8]:
            assert agent.archive_name("/home/me" + path, session_id) is None


@every_agent
@given(name=names, session_id=ids | scraps | st.just(SESSION_ID), workdir=places | scraps)
@settings(max_examples=150, deadline=None)
def test_no_name_and_no_place_is_unsafe(agent: Agent, name: str, session_id: str, workdir: str) -> None:
    for path in (name, f"/home/me/{name}", *(f"/home/me{path}{name}" for path in found_by(agent, SESSION_ID))):
        named = agent.archive_name(path, session_id)
        assert named is None or safe_name(named)
        template = agent.restore_path(path, session_id, workdir)
        assert template is None or safe_name(path)
    template = agent.restore_path(name, session_id, workdir)
    if template is not None:
        assert set(re.findall(r"\{([a-z_0-9]+)\}", template)) <= PLACES
        assert template.endswith(name.removeprefix("store1/"))
        assert not {"..", "."} & set(template.split("/"))


@every_agent
@given(head=scraps | st.binary(max_size=200).map(lambda raw: raw.decode(errors="replace")), session_id=scraps)
@settings(max_examples=60, deadline=None)
def test_a_store_of_unknown_content_gets_one_sentence(agent: Agent, head: str, session_id: str) -> None:
    said = agent.store_version(head)
    assert said is None or (said == " ".join(said.split()) and 0 < len(said) < 300)
    for args in (agent.export_args(session_id), agent.import_args("/state/export")):
        assert args is None or not args[0].startswith("-")


@every_agent
def test_a_conversation_is_files_or_an_export_and_never_both(agent: Agent) -> None:
    exported = agent.export_args("ses_e0473a790ffe7EgMcrzEzd46UO") is not None
    assert exported == (agent.import_args("/state/export") is not None)
    assert not (exported and found_by(agent, SESSION_ID))
