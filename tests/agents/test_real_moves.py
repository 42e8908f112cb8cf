"""Conversations of the real agent CLIs carried to another home and another directory, and back again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.agents import claude_code, codex, gemini
from reconciler.core.agent import Agent
from reconciler.core.transcript import safe_name
from tests.agents import test_real
from tests.agents.live import Stage, stub, turns
from tests.agents.test_real import HOMES, answered, every_agent, read_past_dialogs, stopped

pytestmark = test_real.pytestmark
LONG = "/".join(["a directory with a rather long name, deep down below others of its kind"] * 4)
STRANGE = "ünï 𝒳 名 e\u0301 'q' $x [y] {home} a.b_c"
NEVER = ("auth", "cred", "oauth", "settings", "config", "projects.json", ".claude.json", ".db", ".sqlite", ".env")


@contextlib.contextmanager
def stages(agent: Agent, *places: str) -> Iterator[list[Stage]]:
    """Homes of one agent that share nothing but the model; `places` are the working directories in them."""
    with stub() as server, contextlib.ExitStack() as closing:
        made = []
        for place in places:
            stage = Stage(agent, HOMES[agent.name], server)
            closing.callback(stage.close)
            stage.workdir = stage.home / place
            stage.workdir.mkdir(parents=True, exist_ok=True)
            made.append(stage)
        yield made


def carry(here: Stage, there: Stage) -> list[str]:
    """Bring a conversation to another home by what the driver says, forward only; the names in the archive."""
    there.session_id = here.session_id
    assert here.session_id
    out = here.agent.export_args(here.session_id)
    return carry_export(here, there, out) if out else carry_files(here, there)


def carry_files(here: Stage, there: Stage) -> list[str]:
    names = []
    for file in here.facts().store or ():
        name = here.agent.archive_name(file.path, str(here.session_id))
        assert name is not None
        assert safe_name(name)
        target = placed(there, name)
        data = Path(file.path).read_bytes()
        assert here.agent.store_version(data[:4096].decode(errors="replace")) is None
        old = target.read_bytes() if target.exists() else b""
        assert data.startswith(old), f"{name} was rewritten and not appended to"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as copy:
            copy.write(data[len(old) :])
        names.append(name)
    assert len(set(names)) == len(names) > 0
    return names


def placed(stage: Stage, name: str) -> Path:
    """Where the driver wants a file, with the directory that the host says is the project's."""
    workdir = str(stage.workdir.resolve())
    template = stage.agent.restore_path(name, str(stage.session_id), workdir)
    assert template is not None
    path = stage._path(template, None)
    if made := stage.agent.claim(workdir):
        argv = ("sh", "-c", made.script, "claim", stage._path(made.store, None), *made.args)
        done = subprocess.run(argv, env=stage.env, capture_output=True, text=True, check=True)
        directory = stage._path(made.directory, None)
        assert path.startswith(directory + "/")
        path = done.stdout.removesuffix("\n") + path.removeprefix(directory)
    return Path(path)


def carry_export(here: Stage, there: Stage, out: tuple[str, ...]) -> list[str]:
    file = there.session_dir / "export"
    with file.open("w") as export:
        argv = (here.agent.command, *out)
        subprocess.run(argv, env=transfer(here), cwd=here.workdir, stdout=export, timeout=90, check=True)
    assert here.agent.store_version(file.read_text()[:4096]) is None
    args = there.agent.import_args(str(file))
    assert args is not None
    argv = (there.agent.command, *args)
    subprocess.run(argv, env=transfer(there), cwd=there.workdir, capture_output=True, timeout=90, check=True)
    return ["export"]


def transfer(stage: Stage) -> dict[str, str]:
    needed = getattr(stage.agent, "transfer_env", None)
    return {**stage.env, **(needed(str(stage.session_dir)) if needed else {})}


def say(stage: Stage, text: str, *, again: bool) -> None:
    """One headless turn."""
    request = stage.request(text, store=stage.facts().store or () if again else ())
    done = stage.run((stage.agent.resume_turn if again else stage.agent.turn)(request))
    assert done.returncode == 0, done.stderr
    stage.learn_id()


def type_in(stage: Stage, text: str, *, again: bool) -> None:
    """One turn on the screen, then a clean stop."""
    wanted = len({mark for record in turns(stage.server) for mark in record.marks}) + 1
    request = stage.request(text, store=stage.facts().store or () if again else ())
    made = (stage.agent.resume if again else stage.agent.start)(request)
    pane = stage.open(made)
    if made.delivered == "paste":
        read_past_dialogs(stage, pane)
        stage.await_state(pane, "idle")
        pane.paste(stage.agent.paste_text(text))
    if not again:
        stage.await_state(pane, "busy")
    answered(stage, pane, *(f"MARK-{number}" for number in range(1, wanted + 1)))
    stage.await_state(pane, "idle")
    assert stage.learn_id(pane) == stage.session_id
    stopped(stage, pane)


@every_agent
@pytest.mark.parametrize("way", [say, type_in], ids=["headless", "screen"])
def test_a_conversation_goes_to_another_home_and_comes_back(agent: Agent, way: Callable[..., None]) -> None:
    with stages(agent, "work/project", "elsewhere/my project") as (a, b):
        slow = " SLOW:1" if way is type_in else ""
        way(a, f"MARK-1{slow}", again=False)
        way(a, "MARK-2", again=True)
        first = carry(a, b)
        way(b, "MARK-3", again=True)
        assert turns(b.server)[-1].turns == 3
        assert turns(b.server)[-1].marks == ["MARK-1", "MARK-2", "MARK-3"]
        again = carry(b, a)
        assert set(first) <= set(again)
        way(a, "MARK-4", again=True)
        assert turns(a.server)[-1].turns == 4
        assert turns(a.server)[-1].marks == ["MARK-1", "MARK-2", "MARK-3", "MARK-4"]


@pytest.mark.parametrize("agent", [claude_code.AGENT, codex.AGENT, gemini.AGENT], ids=lambda agent: agent.name)
@pytest.mark.parametrize("place", [STRANGE, LONG, "a/.hidden/-dash"])
def test_the_rule_for_a_path_is_that_of_the_program(agent: Agent, place: str) -> None:
    with stages(agent, place) as (stage,):
        say(stage, "MARK-1", again=False)
        for file in stage.facts().store or ():
            name = agent.archive_name(file.path, str(stage.session_id))
            assert name is not None
            assert str(placed(stage, name)) == file.path


@pytest.mark.parametrize("place", [STRANGE, LONG])
def test_claude_finds_a_transcript_by_its_id_where_it_was_placed(place: str) -> None:
    with stages(claude_code.AGENT, "work/project", place) as (a, b):
        say(a, "MARK-1", again=False)
        carry(a, b)
        done = b.run(b.agent.resume_turn(b.request("MARK-2", store=())))
        assert done.returncode == 0, done.stderr
        assert turns(b.server)[-1].marks == ["MARK-1", "MARK-2"]


@pytest.mark.parametrize("place", ["elsewhere/project", STRANGE, LONG])
def test_gemini_takes_over_a_directory_that_was_made_for_it_and_one_is_made_only_once(place: str) -> None:
    with stages(gemini.AGENT, "work/project", place) as (a, b):
        say(a, "MARK-1", again=False)
        (name,) = carry(a, b)
        made = placed(b, name)
        say(b, "MARK-2", again=True)
        assert turns(b.server)[-1].marks == ["MARK-1", "MARK-2"]
        assert placed(b, name) == made
        projects = [path for path in (b.home / ".gemini" / "tmp").iterdir() if (path / ".project_root").exists()]
        assert projects == [made.parent.parent]


def test_a_conversation_joins_the_project_that_gemini_already_has_for_the_directory() -> None:
    with stages(gemini.AGENT, "work/project", "elsewhere/project") as (a, b):
        say(b, "MARK-other", again=False)
        (theirs,) = b.facts().store or ()
        say(a, "MARK-1", again=False)
        (name,) = carry(a, b)
        assert placed(b, name).parent == Path(theirs.path).parent
        say(b, "MARK-2", again=True)
        assert turns(b.server)[-1].marks == ["MARK-1", "MARK-2"]


@every_agent
def test_nothing_but_the_conversation_is_ever_read(agent: Agent) -> None:
    with stages(agent, "work/project") as (stage,):
        say(stage, "MARK-1 BIG:20", again=False)
        everything = [str(path) for path in stage.home.rglob("*") if path.is_file()]
        named = [path for path in everything if agent.archive_name(path, str(stage.session_id))]
        assert sorted(named) == sorted(file.path for file in stage.facts().store or ())
        assert not [path for path in named if any(word in path.rpartition("/")[2] for word in NEVER)]
