"""What specs mean: every key, defaults, merging, and the checks across resources."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.diagnostics import Diagnostic
from reconciler.core.parse import MODELS, parse
from reconciler.core.references import Reference, split
from reconciler.core.spec import Dependency, Desired, Fleet, KeyAuth, Model, Restart, Source, Stop, Sync
from reconciler.core.values import format_duration, parse_duration
from reconciler.core.wording import keys_of
from reconciler.errors import SpecError


def desired(text: str, **others: str) -> Desired:
    return parse({"a.toml": text, **{f"{name}.toml": other for name, other in others.items()}}, {})


def errors(text: str, **others: str) -> list[Diagnostic]:
    with pytest.raises(SpecError) as caught:
        desired(text, **others)
    assert caught.value.exit_code == 65
    return [d for d in caught.value.diagnostics if isinstance(d, Diagnostic)]


def summaries(text: str, **others: str) -> list[str]:
    return [d.summary for d in errors(text, **others)]


SESSION = '[sessions.a]\nagent = "codex"\n'


class TestDefaults:
    def test_a_session_has_the_documented_defaults(self) -> None:
        session = desired(SESSION).sessions["a"]
        assert (session.host, session.state, session.lifecycle, session.on_prompt_change) == (
            "local",
            "running",
            "service",
            "send",
        )
        assert session.restart == Restart(policy="on_failure", budget=5)
        assert session.restart.per == 3600.0
        assert session.stop == Stop(when="idle", then="interrupt")
        assert session.stop.timeout == 600.0
        assert session.sync == Sync(transcript=True, history=False)
        assert (session.workdir, session.strategy, session.ready, session.protect) == (None, None, None, False)

    def test_the_fleet_and_local_exist_without_being_declared(self) -> None:
        empty = desired("")
        assert empty.fleet.name == "default"
        assert (empty.fleet.prune, empty.fleet.max_stop, empty.fleet.parallelism) == (True, "20%", 32)
        assert empty.hosts["local"].transport == "local"
        assert empty.empty

    def test_a_fleet_of_hosts_alone_is_not_empty(self) -> None:
        assert not desired("[hosts.gpu]\n").empty

    def test_the_fields_set_are_those_that_a_person_wrote_defaults_included(self) -> None:
        found = desired("[defaults.session]\nmodel = 'x'\n" + SESSION).sessions["a"]
        assert found.model_fields_set == {"agent", "model"}
        assert desired("").hosts["local"].model_fields_set == set()

    def test_tables_merge_key_by_key_and_the_own_key_wins(self) -> None:
        found = desired(
            "[defaults.session]\nagent = 'codex'\nenv = { A = '1', B = '1' }\nrestart = { budget = 2, per = '1m' }\n"
            "args = ['x']\n[sessions.a]\nenv = { B = '2' }\nrestart.budget = 3\nargs = ['y']\n"
        ).sessions["a"]
        assert found.env == {"A": "1", "B": "2"}
        assert (found.restart.budget, found.restart.per) == (3, 60.0)
        assert found.restart.model_fields_set == {"budget", "per"}
        assert found.args == ("y",)

    def test_defaults_hold_across_files(self) -> None:
        found = desired("[defaults.session]\nhost = 'gpu'\n", b=SESSION, c="[hosts.gpu]\n")
        assert found.sessions["a"].host == "gpu"

    def test_another_variant_takes_nothing_from_the_defaults(self) -> None:
        text = "[defaults.host]\nauth = { type = 'key', path = 'x' }\n[hosts.a]\nauth = { type = 'agent' }\n[hosts.b]\n"
        hosts = desired(text).hosts
        assert hosts["a"].auth is not None
        assert hosts["a"].auth.type == "agent"
        assert isinstance(hosts["b"].auth, KeyAuth)

    def test_a_prompt_of_its_own_replaces_the_prompt_file_of_the_defaults(self) -> None:
        found = desired("[defaults.session]\nprompt_file = 'nowhere'\n" + SESSION + "prompt = 'hi'\n")
        assert found.prompts == {"a": "hi"}

    def test_local_stays_this_machine_whatever_the_defaults_say(self) -> None:
        found = desired("[defaults.host]\ntransport = 'ssh'\nuser = 'x'\n[hosts.local]\nworkdir = '/'\n")
        local = found.hosts["local"]
        assert (local.transport, local.user, local.workdir) == ("local", "x", "/")


class TestValues:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("10m", 600), ("1h", 3600), ("7d", 604800), ("0s", 0)]
    )
    def test_durations_are_seconds(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize("bad", ['""', '"5"', '"1.5h"', '"-1s"', '"1h30m"', '" 1s"', "5", "5.0", "true", '"١s"'])
    def test_other_durations_are_refused(self, bad: str) -> None:
        (found,) = errors(f"{SESSION}stop.timeout = {bad}\n")
        assert "`stop.timeout` must be a duration in quotes" in found.summary

    @given(st.integers(0, 10**9))
    def test_a_duration_survives_writing_and_reading(self, milliseconds: int) -> None:
        written = format_duration(milliseconds / 1000)
        assert round(parse_duration(written) * 1000) == milliseconds or len(written) > 11

    @pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 63])
    def test_names_of_the_pattern_are_accepted(self, name: str) -> None:
        assert name in desired(f'[sessions.{name}]\nagent = "codex"\n').sessions

    @pytest.mark.parametrize("name", ["A", "a.b", "-a", "a-", "_a", "a b", "ä", "a" * 64, "", "a\\n"])
    def test_other_names_are_refused(self, name: str) -> None:
        (found,) = errors(f'[sessions."{name}"]\nagent = "codex"\n')
        assert "is not a name" in found.summary

    def test_dependencies_are_a_name_or_a_table(self) -> None:
        text = SESSION + "depends_on = ['b', { session = 'c', until = 'idle' }]\n"
        others = '[sessions.b]\nagent = "codex"\n[sessions.c]\nagent = "codex"\n'
        assert desired(text + others).sessions["a"].depends_on == (
            Dependency(session="b"),
            Dependency(session="c", until="idle"),
        )

    def test_a_command_as_one_string_is_a_line_for_sh(self) -> None:
        ready = desired(SESSION + "ready = { command = 'curl -f x' }\n").sessions["a"].ready
        assert ready is not None
        assert ready.command == ("/bin/sh", "-c", "curl -f x")

    @pytest.mark.parametrize("key", ["address", "user"])
    @pytest.mark.parametrize("bad", ["-oProxyCommand=x", "a b", "", "a\\tb", "a\\u001b"])
    def test_what_ssh_could_misread_is_refused(self, key: str, bad: str) -> None:
        (found,) = errors(f'[hosts.a]\n{key} = "{bad}"\n')
        assert found.summary.startswith(f"`{key}` must not be empty, begin with `-`")

    def test_literal_secrets_do_not_show_in_the_model(self) -> None:
        text = "[hosts.a]\nauth = { type = 'key', path = 'x', passphrase = 'hunter2' }\n"
        assert "hunter2" not in repr(desired(text))


class TestToml:
    def test_all_of_toml_is_understood(self) -> None:
        found = desired(
            "[hosts]\ngpu.port = 0x1f\n'b'.labels = { \"k\\u0065y\" = 'v' }\n"
            "[sessions]\na = { agent = 'codex', args = [\n'x', # why\n] }\n"
        )
        assert found.hosts["gpu"].port == 31
        assert found.hosts["b"].labels == {"key": "v"}
        assert found.sessions["a"].args == ("x",)

    def test_lists_of_mixed_types_are_toml_and_refused_by_our_types(self) -> None:
        assert summaries(SESSION + 'args = [1, "x"]\n') == ["`args[0]` must be text in quotes, not a number"]

    def test_control_characters_are_refused(self) -> None:
        (found,) = errors(SESSION + 'prompt = "a\x01"\n')
        assert (found.code, found.line, found.snippet) == ("syntax", 3, 'prompt = "a\\x01"')

    def test_one_broken_file_does_not_make_names_of_others_unknown(self) -> None:
        assert len(errors(SESSION + "host = 'gpu'\n", b="[hosts.gpu\n")) == 1

    def test_nesting_without_end_is_an_error_and_no_crash(self) -> None:
        (found,) = errors("a = " + "[" * 50_000)
        assert found.code == "syntax"


CROSS = {
    "host = 'gqu'": "unknown host `gqu`; did you mean `gpu`?",
    "agent2 = 1": "unknown key `agent2`; did you mean `agent`?",
    "depends_on = ['bb']": "unknown session `bb`; did you mean `b`?",
    "depends_on = ['a']": "dependency cycle: a -> a",
    "depends_on = [{ session = 'b' }]": "dependency cycle: a -> b -> a",
    "prompt = 'x'\nprompt_file = 'y'": "`prompt` and `prompt_file` exclude each other",
    "lifecycle = 'task'": "a task needs a prompt",
    'prompt = "x\\u0000"': "`prompt` holds a NUL character",
    "labels = { \"\\u0000\" = 'x' }": "a key holds a NUL character",
    "env = { A = '${HOME}' }": "`env.A`: `${HOME}` is no reference",
    "env = { A = '${env:}' }": "`env.A`: `` cannot name an environment variable",
    "env = { A = '${env:A' }": "`env.A`: a reference that begins with `${` has no closing `}`",
    "env = { A = '${vault:x}' }": "`env.A`: `${vault:…}` is no reference",
    "env.A = '${keyring:x}'": "`env.A`: a keyring reference needs a service and a user: `${keyring:SERVICE/USER}`",
    "env = { '1A' = 'x' }": "`env` holds `1A`: environment variables are letters, digits and `_`, no digit first",
    "workdir = '${env:HOME}'": "a reference to a secret cannot stand in `workdir`",
    "args = ['x', '${file:y}']": "a reference to a secret cannot stand in `args[1]`",
    "ignore = ['modl']": "`ignore` names `modl`, which is no key of a session; did you mean `model`?",
    "ready = { port = 1, pattern = 'x' }": "`pattern` and `port` of `ready` exclude each other",
    "restart.budget = -1": "`restart.budget` must be at least 0",
    "ready.port = 70000": "`ready.port` must be at most 65535",
    "protect = 1": "`protect` must be true or false, not a number",
    "stop = 'now'": "`stop` must be a table, not text",
    "args = 'x'": "`args` must be a list in brackets, not text",
    "model = ''": "`model` must not be empty",
    "state = 'runing'": '`state` must be one of "running", "stopped"; did you mean `running`?',
}


class TestChecks:
    @pytest.mark.parametrize("line", CROSS)
    def test_what_does_not_fit_is_said(self, line: str) -> None:
        text = f"{SESSION}{line}\n[hosts.gpu]\n[sessions.b]\nagent = 'codex'\ndepends_on = ['a']\n"
        found = errors(text)
        assert CROSS[line] in [d.summary for d in found]
        assert all(d.address == "session.a" for d in found if d.summary == CROSS[line])

    @pytest.mark.parametrize("value", ["~", "/", "a b"])
    def test_any_working_directory_is_allowed(self, value: str) -> None:
        assert desired(f"{SESSION}workdir = '{value}'\n").sessions["a"].workdir == value

    def test_references_stand_in_secret_places_and_shell_variables_anywhere_else(self) -> None:
        text = (
            "[hosts.a]\nauth = { type = 'key', path = 'x', passphrase = '${keyring:a/b}' }\nenv.A = 'x${env:A}y'\n"
            "agents.codex.env = { T = \"${cmd:awk '{print $1}' f}\" }\n[agents.codex]\nenv.A = '${file:~/x}'\n"
            "[sessions.a]\nagent = 'shell'\nargs = ['sh', '-c', 'echo ${HOME}']\nprompt = 'what is ${HOME}?'\n"
        )
        assert desired(text).sessions["a"].args[2] == "echo ${HOME}"

    def test_the_text_of_a_prompt_file_may_speak_of_references(self) -> None:
        files = {("specs/a.toml", "p.md"): "write ${env:NAME}\n"}
        found = parse({"specs/a.toml": SESSION + "prompt_file = 'p.md'\n"}, files)
        assert found.prompts == {"a": "write ${env:NAME}\n"}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (FileNotFoundError(2, "No such file or directory"), "cannot be read: No such file or directory"),
            ("a\0", "holds a NUL character"),
            (" \n", "is empty"),
        ],
    )
    def test_a_bad_prompt_file_is_an_error(self, content: str | Exception, said: str) -> None:
        with pytest.raises(SpecError) as caught:
            parse({"a.toml": SESSION + "prompt_file = 'p.md'\n"}, {("a.toml", "p.md"): content})
        (found,) = caught.value.diagnostics
        assert isinstance(found, Diagnostic)
        assert found.summary == f"prompt file `p.md` {said}"
        assert found.line == 3

    def test_the_same_resource_twice_names_both_places(self) -> None:
        (found,) = errors(SESSION, b="\n" + SESSION)
        assert (found.summary, found.file, found.line) == ("`sessions.a` is declared twice", "b.toml", 2)
        assert "a.toml:1:2" in found.detail

    def test_the_same_table_twice_in_a_file_names_both_places(self) -> None:
        (found,) = errors(SESSION + SESSION)
        assert (found.summary, found.line) == ("not valid TOML: declared twice", 3)
        assert "a.toml:1:2" in found.detail

    def test_a_fleet_twice_names_both_places(self) -> None:
        (found,) = errors("[fleet]\n", b="[fleet]\n")
        assert found.summary == "`fleet` is declared twice"

    def test_agents_need_a_start_or_a_built_in_to_start_from(self) -> None:
        assert summaries("[agents.mine]\ncommand = 'x'\n") == ["agent `mine` needs `start`"]
        assert summaries("[agents.mine]\nmodel = 'x'\n") == ["agent `mine` needs `command` and `start`"]
        assert summaries("[agents.mine]\nextends = 'codx'\n") == ["`codx` is no built-in agent; did you mean `codex`?"]
        (said,) = summaries("[agents.codex]\nextends = 'gemini'\n")
        assert said == "`codex` is built in: it cannot extend another agent"
        found = desired("[agents.mine]\nextends = 'codex'\n[agents.own]\ncommand = 'x'\nstart = ['{prompt}']\n")
        assert set(found.agents) == {"mine", "own"}

    def test_a_misspelt_placeholder_is_an_error_and_other_braces_are_text(self) -> None:
        start = "[agents.mine]\ncommand = 'x'\nstart = ['{\"a\":{b}}', '{zzz}', '{%s}']\n"
        assert summaries(start % "sesion_id") == ["unknown placeholder `{sesion_id}`; did you mean `{session_id}`?"]
        assert desired(start % "session_id").agents["mine"].start is not None

    def test_shell_needs_its_command(self) -> None:
        assert summaries("[sessions.a]\nagent = 'shell'\n") == ["a session of the agent `shell` needs `args`"]
        assert desired("[sessions.a]\nagent = 'shell'\nargs = ['true']\nlifecycle = 'task'\n").sessions

    def test_a_long_cycle_prints_its_path_once(self) -> None:
        text = (
            "".join(f"[sessions.s{i}]\nagent = 'codex'\ndepends_on = ['s{(i + 1) % 4}']\n" for i in (2, 0, 3, 1))
            + "[sessions.x]\nagent = 'codex'\ndepends_on = ['s1']\n"
        )
        assert summaries(text) == ["dependency cycle: s0 -> s1 -> s2 -> s3 -> s0"]

    def test_a_chain_of_thousands_is_no_recursion(self) -> None:
        text = "".join(
            f"[sessions.s{i}]\nagent = 'codex'\n" + (f"depends_on = ['s{i - 1}']\n" if i else "") for i in range(3000)
        )
        assert len(desired(text).sessions) == 3000

    def test_local_has_no_other_transport(self) -> None:
        (said,) = summaries("[hosts.local]\ntransport = 'ssh'\n")
        assert said == "`local` is this machine: it has no other transport"

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ("[[moved]]\nfrom = 'a'\nto = 'session.b'", "`a` is no address"),
            ("[[moved]]\nfrom = 'sesion.z'\nto = 'session.b'", "`sesion.z` is no address; did you mean `session`?"),
            ("[[moved]]\nfrom = 'session.a'\nto = 'session.b'", "`session.a` is moved away but still declared"),
            ("[[moved]]\nfrom = 'session.z'\nto = 'session.z'", "`session.z` is moved to itself"),
            ("[[moved]]\nfrom = 'session.z'\nto = 'host.z'", "`session.z` cannot become `host.z`: another kind"),
            ("[[moved]]\nfrom = 'session.z'", "`to` is missing"),
            ("[[removed]]\naddress = 'session.a'", "`session.a` is removed but still declared"),
            ("[[removed]]\naddress = 'session.z'\naction = 'stop'", '`action` must be "forget"'),
            ("[moved]\nfrom = 'session.z'\nto = 'session.b'", "`moved` must be a list of tables: `[[moved]]`"),
        ],
    )
    def test_contradictory_moves_and_removals_are_errors(self, entry: str, said: str) -> None:
        assert said in summaries(f"{SESSION}{entry}\n")

    def test_moves_and_removals_are_read(self) -> None:
        found = desired(
            f"{SESSION}[[moved]]\nfrom = 'session.y'\nto = 'session.a'\n"
            "[[removed]]\naddress = 'session.z'\naction = 'forget'\n"
        )
        assert [(m.from_, m.to) for m in found.moved] == [("session.y", "session.a")]
        assert [(r.address, r.action) for r in found.removed] == [("session.z", "forget")]

    def test_whom_a_group_chat_names_has_to_be_there_and_once(self) -> None:
        said = summaries("[group_chats.c]\nmoderator = 'x'\nparticipants = ['y']\n")
        assert said == ["unknown session `x`", "unknown session `y`"]
        chat = (
            SESSION
            + "[group_chats.NAME]\nmoderator = 'a'\nparticipants = ['a', 'b', 'b']\n[sessions.b]\nagent = 'codex'\n"
        )
        assert summaries(chat.replace("NAME", "c")) == [
            "`a` cannot take part in the chat that it moderates", "`b` takes part twice",
        ]  # fmt: skip
        reader = "[group_chats.c]\nmoderator = 'a'\nparticipants = ['b']\nread_only = ['c']\n"
        assert "`c` in `read_only` is no participant" in summaries(SESSION + reader)
        assert "there is a session `b` too" in summaries(chat.replace("NAME", "b"))

    def test_errors_of_one_key_do_not_hide_those_of_another(self) -> None:
        assert len(summaries(SESSION.replace("codex", "codx") + "state = 'x'\nhost = 'nowhere'\n")) == 3


@pytest.mark.parametrize("lease", ["4s", "11m", "0s"])
def test_a_lease_that_is_too_short_to_renew_or_longer_than_hosts_take_is_refused(lease: str) -> None:
    assert 'must be from "5s" to "10m"' in " ".join(summaries(f"[fleet]\nlease = '{lease}'\n"))


# table | key | a value other than the default | what is said of it
KEYS = """
fleet name "acme" ok | fleet prune false ok | fleet max_stop "5%" ok | fleet max_stop 3 ok | fleet parallelism 2 ok
fleet interval "1m" ok | fleet archive "s3://bucket/x" ok | fleet notify_after "1m" ok
fleet lease "5s" ok | fleet lease "10m" ok
notifiers.n kind "message" ok | notifiers.n url "json://${env:A}@x" ok | notifiers.n events ["waiting"] ok
notifiers.n select "a=b" ok | notifiers.f kind "gitlab" ok | notifiers.f repository "x/y" ok
notifiers.f token "${env:A}" ok | notifiers.f url "https://git.example.com/api/v1" ok
hosts.h address "x" ok | hosts.h transport "openssh" ok | hosts.h transport "local" ok
hosts.h ssh_config false ok | hosts.h ssh_config "x" ok | hosts.h port 23 ok | hosts.h user "me" ok
hosts.h auth {type="key",path="x",passphrase="${env:A}"} ok | hosts.h auth {type="agent"} ok
hosts.h auth {type="password",password="x"} ok
hosts.h host_key_policy "strict" ok | hosts.h host_key_policy "accept_new" ok | hosts.h host_key_policy "accept_all" ok
hosts.h host_key "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" ok | hosts.h known_hosts_path "x" ok
hosts.h connection_timeout "1s" ok | hosts.h keepalive_interval "1s" ok | hosts.h keepalive_count 4 ok
hosts.h compression true ok | hosts.h ssh_options {ServerAliveInterval=60} ok | hosts.h ssh_options {} ok
hosts.h workdir "/" ok | hosts.h path_map {"/a"="/b"} ok | hosts.h env {A="b"} ok | hosts.h shell "sh" ok
hosts.h strategy "process" ok | hosts.h strategy "tmate" not-implemented | hosts.h strategy "node" not-implemented
hosts.h strategy "remote_control" not-implemented
hosts.h node {port=9100,idle_timeout="1h",workspace_root="x",binary_path="x",auth_token="x"} not-implemented
hosts.h max_parallel_starts 1 ok | hosts.h enabled false ok | hosts.h labels {a="b"} ok | hosts.h tmux_conf "x" ok
hosts.h agents {claude-code={command="/opt/claude",env={A="b"}}} ok
agents.codex command "x" ok | agents.codex args ["x"] ok | agents.codex env {A="b"} ok | agents.codex model "x" ok
agents.codex permission_mode "x" ok | agents.codex start ["{prompt}"] ok | agents.codex resume ["x"] ok
agents.codex turn ["x"] ok | agents.codex resume_turn ["x"] ok | agents.codex prompt_via "stdin" ok
agents.codex store ["{home}/x"] ok | agents.codex version_args ["-v"] ok | agents.codex ready_pattern "x" ok
agents.codex stop_keys ["C-c"] ok | agents.codex install "x" ok | agents.mine extends "codex" ok
agents.codex read_only ["x"] ok
sessions.s host "local" ok | sessions.s state "stopped" ok | sessions.s workdir "x" ok | sessions.s suspend true ok
sessions.s workspace {repo="x",branch="x",base="main",kind="clone",setup=["x"],links={a="b"}} not-implemented
sessions.s prompt "x" ok | sessions.s on_prompt_change "restart" ok | sessions.s on_prompt_change "ignore" ok
sessions.s model "x" ok | sessions.s permission_mode "x" ok | sessions.s args ["x"] ok | sessions.s env {A="b"} ok
sessions.s strategy "process" ok | sessions.s strategy "tmux" ok | sessions.s strategy "tmate" not-implemented
sessions.s strategy "remote_control" not-implemented | sessions.s strategy "node" not-implemented
sessions.s ready {pattern="x",timeout="1s"} ok | sessions.s ready {command=["x"]} ok | sessions.s ready {port=1} ok
sessions.s restart {policy="always",budget=1,per="1m"} ok | sessions.s stop {when="now",timeout="1m",then="block"} ok
sessions.s sync {transcript=true,history=false,interval="30s"} ok | sessions.s sync {history=true} not-implemented
sessions.s sync {transcript=false} ok | sessions.s sync {interval="1m"} ok
sessions.s protect true ok | sessions.s ignore ["model"] ok | sessions.s labels {a="b"} ok
sessions.s description "x" ok | sessions.s lifecycle "service" ok
sessions.s depends_on [] ok
group_chats.g moderator {agent="codex",host="local",workdir="x",model="x"} ok
group_chats.g prompt "x" ok | group_chats.g state "closed" ok
group_chats.g max_rounds 3 ok | group_chats.g turn_timeout "1m" ok
group_chats.g read_only true ok | group_chats.g read_only ["p"] ok
group_chats.g max_cost 1.5 ok | group_chats.g on_prompt_change "ignore" ok
playbooks.p session "s" not-implemented | playbooks.p host "local" not-implemented
playbooks.p agent "codex" not-implemented | playbooks.p workdir "x" not-implemented
playbooks.p fresh_context "task" not-implemented
playbooks.p loop true not-implemented | playbooks.p max_loops 2 not-implemented
playbooks.p reset_on_completion true not-implemented | playbooks.p prompt "x" not-implemented
defaults.host user "x" ok | defaults.session model "x" ok | defaults.group_chat max_rounds 2 ok
"""
REQUIRED = {
    "notifiers.n": 'url = "json://x"',
    "notifiers.f": 'kind = "github"\nrepository = "x/y"\ntoken = "x"',
    "sessions.s": 'agent = "codex"\n',
    "group_chats.g": 'participants = ["p"]\nmoderator = "s"\n',
    "playbooks.p": 'documents = ["x"]\n',
}
ROWS = [tuple(row.strip().split(" ", 2)) for line in KEYS.strip().splitlines() for row in line.split(" | ")]


@pytest.mark.parametrize(("table", "key", "rest"), ROWS)
def test_every_specified_key_is_accepted_or_a_named_error(table: str, key: str, rest: str) -> None:
    value, verdict = rest.rsplit(" ", 1)
    required = "".join(line + "\n" for line in REQUIRED.get(table, "").splitlines() if not line.startswith(f"{key} ="))
    text = f"[{table}]\n{required}{key} = {value}\n"
    others = '[sessions.p]\nagent = "codex"\n' + ("" if table == "sessions.s" else '[sessions.s]\nagent = "codex"\n')
    if verdict == "ok":
        assert desired(text + others).sessions
    else:
        found = errors(text + others)
        assert {d.code for d in found} == {"not-implemented"}
        assert all(re.fullmatch(r"`.+` is specified but not implemented yet", d.summary) for d in found)


def test_the_table_above_speaks_of_every_key_of_the_models() -> None:
    said = {(table.partition(".")[0], key) for table, key, _ in ROWS}
    models: dict[str, type[Model]] = {**MODELS, "fleet": Fleet}
    for kind, model in models.items():
        for key in keys_of(model):
            required = ("sessions", "agent"), ("group_chats", "participants"), ("playbooks", "documents")
            if key != "prompt_file":
                assert (kind, key) in said or (kind, key) in required


class TestDesired:
    TEXT = (
        "# top\n[defaults.session]\nmodel = 'x'\n\n[sessions.a]\nagent = 'codex'\nrestart = { budget = 3 }\n"
        "prompt = 'p'\nenv.A = 'x'\n"
    )

    @pytest.mark.parametrize(
        ("field", "line", "column"),
        [(None, 5, 2), ("agent", 6, 1), ("restart.budget", 7, 13), ("env.A", 9, 1), ("model", 3, 1), ("labels", 5, 2)],
    )
    def test_locate_says_where_a_field_is_written(self, field: str | None, line: int, column: int) -> None:
        assert desired(self.TEXT).locate("session.a", field) == Source("a.toml", line, column)

    def test_locate_knows_nothing_of_what_is_not_declared(self) -> None:
        found = desired(self.TEXT)
        assert found.locate("session.b", None) is None
        assert found.locate("host.local", None) is None
        assert found.locate("fleet", None) is None
        assert found.locate("x", None) is None

    def test_the_prompt_is_located_at_the_prompt_file(self) -> None:
        found = parse({"a.toml": SESSION + "prompt_file = 'p'\n"}, {("a.toml", "p"): "x"})
        assert found.locate("session.a", "prompt") == Source("a.toml", 3, 1)

    def test_equality_does_not_depend_on_where_things_stand(self) -> None:
        one, other = desired(SESSION), desired("# comment\n" + SESSION)
        assert one != other  # the revision
        assert one == replace(other, revision=one.revision)
        assert "locate" not in repr(one)

    def test_the_revision_covers_names_texts_and_prompt_files_but_not_the_directory(self) -> None:
        def revision(texts: Mapping[str, str], prompt: str = "x", root: str = "") -> str:
            files: dict[tuple[str, str], str | Exception] = {(name, "p"): prompt for name in texts}
            return parse(texts, files, root).revision

        text = SESSION + "prompt_file = 'p'\n"
        first = revision({"a.toml": text})
        assert re.fullmatch("[0-9a-f]{64}", first)
        assert first == revision({"specs/a.toml": text}, root="specs/")
        assert (
            len({first, revision({"b.toml": text}), revision({"a.toml": text + "#"}), revision({"a.toml": text}, "y")})
            == 4
        )


names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,5}[a-z0-9])?", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=8))
def test_how_sessions_are_split_over_files_does_not_matter(sessions: dict[str, tuple[int, int]]) -> None:
    def table(name: str, budget: int) -> str:
        return f'[sessions.{name}]\nagent = "codex"\nrestart.budget = {budget}\n'

    head = "[defaults.session]\nmodel = 'm'\n"
    whole = head + "".join(table(name, budget) for name, (_, budget) in sessions.items())
    files = {"z.toml": head}
    for name, (file, budget) in sessions.items():
        files[f"{file}.toml"] = files.get(f"{file}.toml", "") + table(name, budget)
    one, many = parse({"x.toml": whole}, {}), parse(files, {})
    assert one == replace(many, revision=one.revision)


@given(st.text(alphabet="ab${}:/envfilcmdkyrg ", max_size=20))
def test_references_and_literals_add_up_to_the_text(text: str) -> None:
    try:
        parts = split(text)
    except ValueError:
        assert "${" in text
    else:
        assert "".join(p if isinstance(p, str) else f"${{{p.scheme}:{p.argument}}}" for p in parts) == text
        assert all(p.argument for p in parts if isinstance(p, Reference))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_at_all_is_a_fleet_or_an_error(text: str) -> None:
    try:
        tomllib.loads(text)
        valid = True
    except ValueError:
        valid = False
    if not valid:
        assert errors(text)
        return
    with contextlib.suppress(SpecError):
        desired(text)


ODD = [
    "1",
    "-1",
    "1.5",
    "nan",
    "true",
    '""',
    '"x"',
    '"${"',
    "[]",
    "[1]",
    '["x"]',
    "[{}]",
    "{}",
    "{ x = 1 }",
    "1979-05-27",
]
ALL_KEYS = [(kind, key) for kind, model in MODELS.items() for key in keys_of(model)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ALL_KEYS), st.sampled_from(ODD), st.booleans()), max_size=6))
def test_no_value_of_any_key_brings_the_check_down(choices: list[tuple[tuple[str, str], str, bool]]) -> None:
    tables: dict[str, dict[str, str]] = {}
    for (kind, key), value, default in choices:
        table = f"defaults.{kind[:-1]}" if default else f"{kind}.a"
        tables.setdefault(table, {})[key] = value
    text = "".join(
        f"[{table}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for table, keys in tables.items()
    )
    with contextlib.suppress(SpecError):
        desired(text)


@pytest.mark.parametrize("key", [*MODELS, "fleet", "defaults", "moved", "removed", "defaults.session", "sessions.a"])
@pytest.mark.parametrize("value", ODD)
def test_no_value_of_any_table_brings_the_check_down(key: str, value: str) -> None:
    text = f"{key} = {value}\n"
    a_list = key in ("moved", "removed")
    fine = "[]" if a_list else "{}"
    if value == fine and key not in ("sessions.a", "playbooks"):
        assert desired(text).empty
    else:
        assert all(one.line == 1 for one in errors(text))
