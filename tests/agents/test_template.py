"""Agents declared by templates, and overrides of built-in ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.agents import claude_code, codex, shell
from reconciler.agents.template import Template, customise, from_template
from reconciler.core.agent import WORKDIR, Facts, LaunchRequest, Reply, StoreFile
from reconciler.errors import OperationError, SpecError

REQUEST = LaunchRequest("aider", "~/app", "/state/s", session_id="id-1", prompt="hello {model}")
AIDER = Template(
    "aider",
    start=("{command}", "--model", "{model}", "--cwd={workdir}", "--", "{prompt}"),
    resume=("{command}", "--restore", "{session_id}"),
)


def test_placeholders_are_filled_in_once() -> None:
    made = from_template(AIDER).start(replace(REQUEST, model="{prompt}"))
    assert made.argv == ("aider", "--model", "{prompt}", f"--cwd={WORKDIR}", "--", "hello {model}")
    assert made.delivered == "argv"


def test_a_placeholder_without_a_value_is_an_empty_argument() -> None:
    made = from_template(AIDER).start(replace(REQUEST, prompt=None))
    assert made.argv == ("aider", "--model", "", f"--cwd={WORKDIR}", "--", "")
    assert made.delivered == "none"


def test_arguments_follow_at_the_end_or_where_the_template_wants_them() -> None:
    wanted = replace(REQUEST, args=("-v", "-w"), prompt=None)
    assert from_template(AIDER).resume(wanted).argv == ("aider", "--restore", "id-1", "-v", "-w")
    placed = replace(AIDER, args=("-u",), resume=("{command}", "{args}", "--", "{session_id}"))
    assert from_template(placed).resume(wanted).argv == ("aider", "-u", "-v", "-w", "--", "id-1")


def test_a_prompt_without_a_place_is_pasted_or_piped() -> None:
    agent = from_template(replace(AIDER, turn=("{command}", "-p")))
    assert agent.resume(REQUEST).delivered == "paste"
    made = agent.turn(REQUEST)
    assert (made.stdin, made.delivered) == ("hello {model}", "stdin")


def test_a_prompt_that_cannot_travel_as_told_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"has no \{prompt\}"):
        from_template(replace(AIDER, prompt_via="argv")).resume(REQUEST)
    with pytest.raises(OperationError, match="over 100 kB"):
        from_template(AIDER).start(replace(REQUEST, prompt="x" * 100_001))


def test_a_model_or_mode_without_a_place_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"has no \{model\}"):
        from_template(AIDER).resume(replace(REQUEST, model="m"))
    with pytest.raises(ValueError, match="aider has no permission mode 'plan'; it has: none"):
        from_template(AIDER).start(replace(REQUEST, permission_mode="plan"))


def test_it_is_resumable_when_it_says_how() -> None:
    assert from_template(AIDER).resumable is True
    assert from_template(replace(AIDER, resume=None)).resumable is False
    assert from_template(replace(AIDER, resume=None)).exists(Facts()) is False


def test_a_headless_turn_needs_its_template() -> None:
    with pytest.raises(OperationError, match="has no template `turn`"):
        from_template(AIDER).turn(REQUEST)


def test_its_store_tells_what_can_be_resumed() -> None:
    agent = from_template(replace(AIDER, store=("{workdir}/.aider*", "{home}/{session_id}.json")))
    assert [probe.path for probe in agent.probes("id-1")] == ["{workdir}/.aider*", "{home}/{session_id}.json"]
    assert [probe.path for probe in agent.probes(None)] == ["{workdir}/.aider*"]
    assert agent.exists(Facts(store=())) is False
    assert agent.exists(Facts(store=(StoreFile("/x", 1, 0.0),))) is True
    assert from_template(AIDER).exists(Facts()) is None


def test_an_override_adds_to_what_the_built_in_does() -> None:
    ours = Template("claude-code", args=("--verbose",), model="opus", permission_mode="plan", env={"A": "1", "B": "1"})
    agent = customise(claude_code.AGENT, ours)
    request = LaunchRequest("claude", "/srv/app", "/s", session_id="u", args=("--ide",), env={"B": "2"})
    made = agent.start(request)
    assert made.argv[3:] == ("--model", "opus", "--permission-mode", "plan", "--verbose", "--ide")
    assert made.env == {"CLAUDE_CODE_SANDBOXED": "1", "A": "1", "B": "2"}
    assert "sonnet" in agent.resume(replace(request, model="sonnet")).argv


def test_an_override_keeps_what_it_does_not_name() -> None:
    agent = customise(codex.AGENT, Template("codex-fast", command="/opt/codex", stop_keys=("C-d",)))
    assert (agent.name, agent.command, agent.assigns_id) == ("codex-fast", "/opt/codex", False)
    assert agent.clean_stop().keys == ("C-d",)
    assert agent.probes("u") == codex.AGENT.probes("u")
    assert agent.parse_version("codex-cli 1.2.3") == "1.2.3"


def test_an_override_can_have_the_prompt_pasted() -> None:
    agent = customise(claude_code.AGENT, Template("claude-code", prompt_via="paste"))
    made = agent.start(replace(REQUEST, command="claude"))
    assert made.argv == claude_code.AGENT.start(replace(REQUEST, command="claude", prompt=None)).argv
    assert made.delivered == "paste"


def test_an_override_by_stdin_needs_a_template_of_its_own() -> None:
    agent = customise(claude_code.AGENT, Template("claude-code", prompt_via="stdin"))
    with pytest.raises(SpecError, match="needs a template `turn`"):
        agent.turn(REQUEST)


STORES = (
    "{home}/.mine/{session_id}.json",
    "{MINE_HOME:-{home}/.mine}/logs/*/{session_id}-?.log",
    "{workdir}/.mine*",
)


def test_names_in_the_archive_follow_the_last_fixed_directory_of_a_glob() -> None:
    agent = from_template(replace(AIDER, store=STORES))
    found = {
        "/home/me/.mine/id-1.json": "id-1.json",
        "/var/mine/logs/2026/id-1-a.log": "store1/2026/id-1-a.log",
        "/srv/app/.mine.history.md": "store2/.mine.history.md",
        "/home/me/.mine/id-2.json": None,
        "/home/me/.mine/logs/a/b/id-1-a.log": None,
        "/srv/app/.mine/../x": None,
    }
    assert {path: agent.archive_name(path, "id-1") for path in found} == found


def test_a_name_from_the_archive_goes_where_its_glob_finds_it_and_nowhere_else() -> None:
    agent = from_template(replace(AIDER, store=STORES))
    placed = {
        "id-1.json": "{home}/.mine/id-1.json",
        "store1/2026/id-1-a.log": "{MINE_HOME:-{home}/.mine}/logs/2026/id-1-a.log",
        "store2/.mine.history.md": "{workdir}/.mine.history.md",
        "id-2.json": None,
        "store1/2026/11/id-1-a.log": None,
        "store3/x": None,
        "store2/.mine/../x": None,
    }
    assert {name: agent.restore_path(name, "id-1", "/srv/app") for name in placed} == placed


def test_a_store_of_the_template_stands_in_place_of_that_of_the_base() -> None:
    agent = customise(claude_code.AGENT, Template("claude-code", store=STORES[:1]))
    assert agent.archive_name("/home/me/.mine/id-1.json", "id-1") == "id-1.json"
    assert agent.store_version("") is None
    plain = customise(claude_code.AGENT, Template("claude-code"))
    assert plain.store_version("") == claude_code.AGENT.store_version("")


HEADLESS = replace(AIDER, turn=("{command}", "-p"), resume_turn=("{command}", "-r", "{args}", "{session_id}"))


def test_a_template_alone_prints_its_answer() -> None:
    agent = from_template(HEADLESS)
    assert agent.reply(0, " yes \n", "") == Reply("yes")
    assert agent.reply(1, "", "no\n") == Reply(error="no")
    out = '{"is_error": false, "result": "by the base"}'
    assert customise(claude_code.AGENT, replace(HEADLESS, name="mine")).reply(0, out, "") == Reply("by the base")


def test_read_only_words_are_added_to_headless_turns_and_to_nothing_else() -> None:
    agent = from_template(replace(HEADLESS, args=("-v",), read_only=("--dry", "run")))
    assert agent.can_be_read_only is True
    held = replace(REQUEST, read_only=True, args=("-w",))
    assert agent.turn(held).argv == ("aider", "-p", "-v", "-w", "--dry", "run")
    assert agent.resume_turn(held).argv == ("aider", "-r", "-v", "-w", "--dry", "run", "id-1")
    assert "--dry" not in agent.turn(replace(held, read_only=False)).argv
    assert "--dry" not in agent.resume(held).argv


def test_without_read_only_words_such_a_turn_is_refused() -> None:
    own = Template("mine", turn=("{command}", "-p"))
    for agent in (from_template(HEADLESS), customise(claude_code.AGENT, own), customise(shell.AGENT, Template("mine"))):
        assert agent.can_be_read_only is False
        for way in (agent.turn, agent.resume_turn):
            with pytest.raises(OperationError, match="cannot take a read-only turn: it has no `read_only`") as refused:
                way(replace(REQUEST, read_only=True, permission_mode=None))
            assert refused.value.code == "read-only"
            assert refused.value.remedy.startswith("`read_only = [...]` in [agents.")


def test_an_override_is_read_only_as_its_base_is_with_words_of_its_own_added() -> None:
    plain = customise(claude_code.AGENT, Template("mine", permission_mode="bypass", args=("--ide",)))
    assert plain.can_be_read_only is True
    argv = plain.turn(replace(REQUEST, read_only=True)).argv
    assert "--disallowedTools" in argv
    assert "bypassPermissions" not in argv
    more = customise(claude_code.AGENT, Template("mine", read_only=("--max-turns", "3")))
    assert "--max-turns" in more.turn(replace(REQUEST, read_only=True)).argv
    wrapped = customise(shell.AGENT, Template("jail", command="jail", read_only=("--ro",)))
    made = wrapped.turn(replace(REQUEST, command="jail", args=("cat",), read_only=True))
    assert (made.argv, made.stdin) == (("jail", "cat", "--ro"), "hello {model}")
