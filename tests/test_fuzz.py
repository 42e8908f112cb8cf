"""The targets of `python -m fuzz`: all that is in the corpus, some mutations of it, and what takes the square of its
length where a parser is careless. Long runs are `make fuzz`."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz import engine, targets
from fuzz.oracles import Hang, bounded, harmless, tree
from reconciler.core.observed import Reached, parse_look

FEW = 60  # mutated inputs of each target


@pytest.mark.parametrize("target", targets.NAMES)
def test_the_corpus_and_mutations_of_it_do_no_harm(target: str) -> None:
    check = targets.load(target)
    known = engine.corpus(target)
    assert known, "a target without a corpus proves little"
    for data in itertools.islice(engine.inputs(target, seed=20), len(known) + FEW):
        fault = engine.once(check, data)
        assert fault is None, f"{engine.place(fault)}: {fault}; python -m fuzz {target} --input {_kept(target, data)}"


def _kept(target: str, data: bytes) -> Path:
    return engine.keep(target, data)


def test_the_same_seed_makes_the_same_inputs() -> None:
    one, two, other = (list(itertools.islice(engine.inputs("chat", seed), 60)) for seed in (1, 1, 2))
    assert one == two
    assert one != other


DEEP, HUGE = "[" * 500 + "]" * 500, "1" + "0" * 400
SESSION = 'session\tapi\t{"incarnation":1}\n'
RECORD = (
    '{"fleet":"default","name":"api","agent":"shell","strategy":"tmux","digest":"d","version":1,"intent":"running",'
    '"lifecycle":"service","written":{"x":%s},"restarts":[],"at":%s}'
)
NAME, FILE = '{"key":"a","base":"b"}', '{"key":"a","path":"/b","size":1,"mtime":1}'
PLAN = (
    '"type":"reconciler-plan","format_version":"1.0","id":"","fleet":"","revision":"","text":"","restart":[],'
    '"take_over":[],"approved":[],"at":%s}'
)
TOOL = '{"message":{"role":"x","content":[{"type":"tool_use","name":"x","input":%s}]}}'
MANIFEST = '{"version":1,"session":"api","conversation":"c-1","agent":"","host":"","files":{},"at":%s}'


def look(*lines: str, tmux: str = '""', fence: str = "1") -> str:
    """A host that says so of itself, and further lines."""
    host = (
        '{"hostname":"g","user":"m","home":"/h","system":"L","machine":"m","boot":"b","state":"/s","now":1,'
        f'"tmux":{tmux},"fence":{fence}}}'
    )
    return f"host\t-\t{host}\n{SESSION}{''.join(lines)}"


BLOWN_UP = {
    "a key of fifty thousand parts": ("specs", "files", "a." * 50_000 + "a = 1"),
    "a header of five thousand parts": ("specs", "files", "[" + "a." * 5_000 + "a]"),
    "a key of two thousand parts to format": ("specs", "fmt", "a." * 2_000 + "a = 1"),
    "brackets without end": ("specs", "files", "a = " + "[" * 100_000),
    "brackets without end to format": ("specs", "fmt", "a = " + "[" * 100_000),
    "a number of five thousand digits": ("specs", "fmt", "a = " + "9" * 5_000),
    "thousands of findings on one line": (
        "specs", "files", "sessions={" + ",".join(f"é{i}={{x=1}}" for i in range(6_000)) + "}"),
    "a plan that is all brackets": ("plan_file", "{", '"type":' + "[" * 100_000),
    "a time of a plan that no clock shows": ("plan_file", "{", PLAN % "1e300"),
    "a fence that no database takes": ("look", "look", look(fence=HUGE)),
    "a record whose time is no time": ("look", "look", look(f"record\tapi\t{RECORD % ('1', HUGE)}\n")),
    "a record that holds a deep list": ("look", "look", look(f"record\tapi\t{RECORD % (DEEP, '1')}\n")),
    "a pid of five thousand digits": ("look", "strays", f"process {'9' * 5_000} 1 00:01 claude\n----\n"),
    "a chat that spent more than there is": (
        "agents", "facts", '{"pid":5,"texts":{"chat":{"pid":5,"state":"idle","since":1e999,"cost":' + HUGE + "}}}"),
    "times at the ends of time": ("archive", "conversation",
        f'{{"timestamp":"0001-01-01T00:00:00+23:59","role":"x","text":"y"}}\n{{"at":{HUGE},"role":"x","text":"y"}}'),
    "a manifest with times beyond all": ("archive", "manifest", MANIFEST % HUGE),
    "a request that is a deep list": ("doors", "control", '{"ask":%s}\n' % ("[" * 5_000)),
    "a request for what is no list": ("doors", "control", '{"ask":"borrow","hosts":5}\n'),
    "a request that waits for a list": ("doors", "control", '{"ask":"reconcile","wait":[]}\n'),
    "a port of a raised two": ("doors", "listen", "²"),
    "a holder whose pid is a raised two": ("doors", "listen", "me@h:m/b:²:456:abcd"),
    "a file whose number is a raised two": ("archive", "staged", "c0ffee\t²\tok\nc0ffee\tend\n"),
    "half a character in the log of a chat": ("chat", "log", '{"from":"chat","kind":"system","text":"o","status":'
        '"opened","data":{"id":"x","moderator":"\\ud800"}}\n{"from":"ann","kind":"user","text":"hi","turn_id":"m1"}\n'),
    "a long secret of which each form begins alike": ("doors", "secret", "a" * 60_000 + '"x" \x1b\n----\n'),
    "globs of many stars": ("doors", "ignore", "*a" * 30 + "\n----\n" + "a" * 250),
    "globs of many directories": ("doors", "ignore", "**/" * 30 + "b\n----\n" + "a/" * 60 + "x"),
    "a host on a hundred thousand lines": ("doors", "known_hosts", "gpu.example ssh-rsa A\n" * 20_000),
    "an address that turns the text around": ("doors", "ssh_config", "Host \u202egpu\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOWN_UP)
def test_what_once_broke_or_hung_does_not_any_more(name: str) -> None:
    target, case, body = BLOWN_UP[name]
    fault = engine.once(targets.load(target), f"{case}\n{body}".encode())
    assert fault is None, f"{engine.place(fault)}: {fault}"


NESTED = {
    "words of a host": ("look", "look\n" + look(tmux="%s")),
    "an event": ("agents", 'facts\n{"state":%s}'),
    "a tool call": ("archive", "conversation\n" + TOOL),
    "an entry of a log": (
        "chat", 'log\n{"from":"x","kind":"system","text":"x","status":"opened","data":{"id":%s,"participants":[%s]}}'),
    "a record": ("look", f"record\n{RECORD}"),
    "a reply": ("agents", 'reply\n{"result":%s,"is_error":true,"error":%s}'),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
def test_no_depth_of_nesting_is_too_deep_for_whoever_comes_after_the_parser(name: str) -> None:
    target, template = NESTED[name]
    check = targets.load(target)
    for depth in (*range(80, 120, 5), *range(300, 860, 70), *range(860, 1000, 3)):
        text = template.replace("%s", "[" * depth + "]" * depth)
        fault = engine.once(check, text.encode())
        assert fault is None, f"{depth} levels: {engine.place(fault)}"


@pytest.mark.parametrize(("kind", "item"), [("names", NAME), ("store", FILE)])
def test_a_look_takes_no_longer_for_each_of_many_lines_than_for_one(kind: str, item: str) -> None:
    lines = look(f"{kind}\tapi\t{item}\n" * 130_000)
    fault = engine.once(
        lambda data: _all_of(parse_look("gpu", "n", data), 130_000), f"{lines}end\tn\t130002\n".encode()
    )
    assert fault is None, f"{engine.place(fault)}: {fault}"


def _all_of(reached: Reached, count: int) -> None:
    found = reached.sessions["api"].facts
    assert len(found.names.get("a", ())) + len(found.store or ()) == count


def _planted(data: bytes) -> None:
    if b"{" in data:
        raise KeyError("planted")


def test_a_planted_fault_is_found_kept_once_and_told_how_to_repeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = engine.run("chat", _planted, minutes=0.005, seed=1)
    (where,) = found.faults
    try:
        assert "KeyError" in where
        assert b"{" in found.faults[where].read_bytes()
        assert f"python -m fuzz chat --input {found.faults[where]}" in capsys.readouterr().out
        assert isinstance(engine.once(_planted, found.faults[where].read_bytes()), KeyError)
    finally:
        found.faults[where].unlink()


def test_what_takes_too_long_is_a_fault_even_where_every_exception_is_swallowed() -> None:
    def endless(data: bytes) -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    begun = time.process_time()
    with pytest.raises(Hang), bounded(-100_000):  # half a second
        endless(b"")
    assert time.process_time() - begun < 2
    assert engine.once(lambda data: None, b"") is None


def test_an_oracle_sees_what_a_terminal_would_obey_and_what_was_written(tmp_path: Path) -> None:
    for text in ("\x1b[2J", "\x9b", "\u202e", "\r", "\t"):
        with pytest.raises(AssertionError):
            harmless(text)
    harmless("plain\nlines")
    before = tree(tmp_path)
    (tmp_path / "x").symlink_to("/etc")
    assert tree(tmp_path) == {**before, "x": "link /etc"}


def test_the_program_runs_a_target_and_repeats_an_input(tmp_path: Path) -> None:
    root = Path(engine.__file__).parents[1]
    words = [sys.executable, "-m", "fuzz"]
    run = subprocess.run(
        [*words, "doors", "--minutes", "0.005", "--engine", "own"],
        cwd=root, capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "unguided" in run.stdout
    assert "0 faults" in run.stdout
    (tmp_path / "input").write_bytes(b"duration\n5s")
    again = subprocess.run(
        [*words, "specs", "--input", str(tmp_path / "input")], cwd=root, capture_output=True, text=True, check=False
    )
    assert (again.returncode, again.stdout) == (0, "no fault\n")
