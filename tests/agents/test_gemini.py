"""Gemini CLI: its title, its settings for one launch, its chats."""

from __future__ import annotations

import json
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.agents.gemini import AGENT
from reconciler.core.agent import Facts, LaunchRequest, Reply, StoreFile
from reconciler.errors import OperationError
from tests.agents import recorded

REQUEST = LaunchRequest("gemini", "/srv/app", "/state/s", session_id="0f0e0d0c-0b0a-4908-8706-050403020100")


def test_its_recorded_life_is_read_as_it_was() -> None:
    assert recorded.states(AGENT) == ["unknown", "idle", "busy", "idle", "waiting", "idle"]


def test_its_recorded_chat_can_be_resumed() -> None:
    found = [AGENT.exists(facts) for _, facts in recorded.frames(AGENT)]
    assert found[0] is False
    assert found[-1] is True
    assert AGENT.exists(Facts(store=(StoreFile("/x/session-a-0f0e0d0c.jsonl", 0, 0.0),))) is False


def test_ready_over_a_login_dialog_proves_nothing() -> None:
    assert AGENT.ready(Facts(title="◇  Ready (app)")) is None
    assert AGENT.ready(Facts(title="✦  Working… (app)")) is True
    assert AGENT.ready(Facts(title="host")) is False


def test_clean_up_of_sessions_is_off_by_a_file_of_this_launch() -> None:
    made = AGENT.start(REQUEST)
    assert made.env["GEMINI_CLI_SYSTEM_DEFAULTS_PATH"] == "/state/s/gemini-defaults.json"
    assert json.loads(made.files["gemini-defaults.json"]) == {"general": {"sessionRetention": {"enabled": False}}}


def test_prompts_are_bound_to_their_option() -> None:
    assert AGENT.start(replace(REQUEST, prompt="-p")).argv[-1] == "--prompt-interactive=-p"
    assert AGENT.turn(replace(REQUEST, prompt="-p")).argv[-1] == "--prompt=-p"


def test_its_version_is_read() -> None:
    assert AGENT.parse_version(recorded.text(AGENT, "version.txt")) == "0.61.0"


def claimed(home: Path, workdir: str) -> subprocess.CompletedProcess[str]:
    claim = AGENT.claim(workdir)
    argv = ("sh", "-c", claim.script, "claim", str(home / ".gemini"), *claim.args)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def project(home: Path, name: str, root: str | None, *, registered: bool = False) -> None:
    directory = home / ".gemini" / "tmp" / name
    directory.mkdir(parents=True)
    if root is not None:
        (directory / ".project_root").write_text(root)
    if registered:
        text = json.dumps({"projects": {"/srv": "srv", str(root): name, "/x": "x"}}, indent=2, ensure_ascii=False)
        (home / ".gemini" / "projects.json").write_text(text)


def test_of_its_recorded_home_only_the_chats_go_to_the_archive() -> None:
    session_id, (chats,), others = recorded.tree(AGENT)
    name = AGENT.archive_name(chats, session_id)
    assert name == "chats/" + chats.rpartition("/")[2]
    credentials = "/home/me/.gemini/oauth_creds.json"
    assert not [path for path in (*others, credentials) if AGENT.archive_name(path, session_id)]
    place = AGENT.restore_path(name, session_id, "/srv/My App")
    assert place is not None
    assert place.startswith("{GEMINI_CLI_HOME:-{home}}/.gemini/tmp/my-app-")
    assert place == f"{AGENT.claim('/srv/My App').directory}/{name}"


def test_a_chats_file_of_another_kind_is_told() -> None:
    assert AGENT.store_version(recorded.text(AGENT, "head.txt")) is None
    assert AGENT.store_version('{"sessionId":"x"}') == "no chats file of Gemini CLI"
    assert AGENT.store_version(recorded.text(AGENT, "head.txt").replace('"kind":"main"', '"kind":"subagent"'))


@pytest.mark.parametrize("workdir", ["/srv/app", "/srv/a.b*[c]\\$^ 'q' \"d\" ünï {home}"])
def test_a_project_that_gemini_knows_keeps_its_directory(tmp_path: Path, workdir: str) -> None:
    project(tmp_path, "theirs", workdir, registered=True)
    project(tmp_path, "old", workdir)
    assert claimed(tmp_path, workdir).stdout == f"{tmp_path}/.gemini/tmp/theirs\n"
    (tmp_path / ".gemini" / "tmp" / "theirs" / ".project_root").write_text("/another")
    assert claimed(tmp_path, workdir).stdout == f"{tmp_path}/.gemini/tmp/old\n", "as gemini itself decides"


def test_a_project_that_only_its_directory_tells_of_is_found(tmp_path: Path) -> None:
    project(tmp_path, "app", "/srv/app\n")
    project(tmp_path, "srv-app", "/srv/app2")
    assert claimed(tmp_path, "/srv/app").stdout == f"{tmp_path}/.gemini/tmp/app\n"


def test_a_new_project_gets_one_directory_that_says_whose_it_is(tmp_path: Path) -> None:
    first, again = claimed(tmp_path, "/srv/new"), claimed(tmp_path, "/srv/new")
    assert first.stdout == again.stdout != claimed(tmp_path, "/opt/new").stdout
    assert (Path(first.stdout.strip()) / ".project_root").read_text() == "/srv/new"
    assert not (tmp_path / ".gemini" / "projects.json").exists()


def test_two_directories_of_one_project_are_a_question_and_not_a_guess(tmp_path: Path) -> None:
    project(tmp_path, "a", "/srv/app")
    project(tmp_path, "b", "/srv/app")
    done = claimed(tmp_path, "/srv/app")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"two directories below {tmp_path}/.gemini/tmp claim /srv/app\n"


def test_a_directory_that_another_project_took_is_left_alone(tmp_path: Path) -> None:
    project(tmp_path, AGENT.claim("/srv/app").args[-1], "/srv/other")
    assert claimed(tmp_path, "/srv/app").returncode == 3


def test_the_answer_of_a_turn_comes_with_the_count_of_all_its_models() -> None:
    reply = AGENT.reply(0, *recorded.printed(AGENT, "resumed"))
    assert reply == Reply(
        "STUB turns=2 marks=MARK-one,MARK-two tool=- :: MARK-two",
        conversation="94f24f66-741b-4fea-8cfe-f9256a59de12", tokens=34,
    )  # fmt: skip


def test_log_lines_before_and_after_the_answer_are_no_part_of_it() -> None:
    out, err = recorded.printed(AGENT, "resumed")
    assert AGENT.reply(0, 'Loaded.\n{"level": "info"}\n{\n' + out + "\nbye\n", err) == AGENT.reply(0, out, err)


def test_a_failed_turn_says_why_behind_all_that_stderr_holds() -> None:
    reply = AGENT.reply(144, *recorded.printed(AGENT, "failed"))
    assert (reply.text, reply.error) == ("", "stub error 400 as asked")
    assert reply.conversation == "6603a80a-d75e-4335-88a9-5f08030bc3eb"


def test_a_turn_that_gemini_stopped_itself_says_why() -> None:
    words = "Loop detected, stopping execution"
    stopped: dict[str, object] = {"session_id": REQUEST.session_id, "response": "", "stats": {}, "warnings": [words]}
    reply = AGENT.reply(0, json.dumps(stopped, indent=2), "")
    assert (reply.text, reply.error) == ("", words)
    assert AGENT.reply(0, json.dumps({**stopped, "response": "Well."}), "").error == ""


def test_a_conversation_that_it_does_not_know_and_an_id_in_use_are_told_apart() -> None:
    unknown = AGENT.reply(42, *recorded.printed(AGENT, "unknown"))
    taken = AGENT.reply(42, *recorded.printed(AGENT, "taken"))
    assert (unknown.unknown, unknown.taken, taken.unknown, taken.taken) == (True, False, False, True)
    assert unknown.error.startswith("Error resuming session: Invalid session identifier ")
    assert taken.error.startswith("Error starting session: Session ID ")
    fresh = AGENT.reply(42, "", "Error resuming session: No previous sessions found for this project.\n")
    assert fresh.unknown is True


def test_a_read_only_turn_brings_a_policy_that_no_other_outranks() -> None:
    loose = ("--yolo", "-y", "--approval-mode", "yolo", "--admin-policy=/srv/all.toml", "--allowed-tools", "write_file")
    request = replace(REQUEST, read_only=True, permission_mode="bypass", args=(*loose, "--debug"), prompt="x")
    for made in (AGENT.turn(request), AGENT.resume_turn(request)):
        path = "/state/s/gemini-read-only.toml"
        at = made.argv.index("--debug")
        assert made.argv[at + 1 : at + 4] == (
            "--approval-mode=default", f"--admin-policy={path}", f"--policy={path}",
        )  # fmt: skip
        assert not {"yolo", "--yolo", "-y", "write_file"} & set(made.argv)
        deny, allow = tomllib.loads(made.files["gemini-read-only.toml"])["rule"]
        assert (deny["toolName"], deny["decision"], allow["decision"]) == ("*", "deny", "allow")
        assert deny["priority"] < allow["priority"] <= 999
        assert not {"run_shell_command", "write_file", "replace", "invoke_agent"} & set(allow["toolName"])


def test_a_policy_that_would_not_be_found_is_no_policy() -> None:
    with pytest.raises(OperationError, match="has a comma") as refused:
        AGENT.turn(replace(REQUEST, read_only=True, session_dir="/state/a,b"))
    assert refused.value.code == "read-only"
