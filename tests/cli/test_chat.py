"""`reconciler chat` as people run it: the real program beside a chat's folder, in which this test plays the chat."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from reconciler.chat.entries import Entry
from reconciler.chat.log import CLOSE, LOG, MESSAGE_LIMIT, STATE, Log, received, replace_file
from reconciler.chat.turns import Chat, Limits, after, answered, close, missed
from reconciler.cli._chat import Owes, Place, Standing, Tail, standing
from reconciler.cli.render._written import readable, written
from reconciler.cli.render.chat import clock, colours_of, plain_entry, working
from reconciler.core.spec import GroupChat

AT = 1_795_222_925.0  # 2026-11-21T01:02:05Z
SPECS = """
[fleet]
name = "f"
[hosts.gpu]
[sessions.lead]
agent = "codex"
[sessions.web]
agent = "codex"
host = "gpu"
[sessions.api]
agent = "codex"
[group_chats.review]
moderator = "lead"
participants = ["web", "api"]
max_rounds = 5
[group_chats.fresh]
moderator = { agent = "codex", host = "gpu" }
participants = ["web"]
"""
BLOCK = '```route\n{"to": [{"name": "web", "message": "Look at `x`"}, {"name": "api", "message": "one\\ntwo"}]}\n```'


class Machine:
    """A home directory with specs and the folder of one chat; the process of the chat is this test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "specs").mkdir()
        (directory / "specs" / "fleet.toml").write_text(SPECS)
        self.folder = directory / ".local/state/reconciler/f/sessions/review"
        self.folder.mkdir(parents=True)
        (self.folder / "incarnation").write_text("7\n")
        self.chat = Chat()
        self.at = AT
        self.log: Log | None = None

    def env(self, **more: str) -> dict[str, str]:
        home = {"HOME": str(self.directory), "PATH": "/usr/bin:/bin", "USER": "ann", "LOGNAME": "ann", "TZ": "UTC"}
        return {**home, "TERM": "xterm-256color", "COLUMNS": "100", **more}

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "reconciler", "chat", *arguments]

    def run(self, *arguments: str, code: int = 0, stdin: bytes = b"", **env: str) -> tuple[str, str]:
        done = subprocess.run(
            self.argv(*arguments), cwd=self.directory, env=self.env(**env), capture_output=True, check=False,
            input=stdin, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout.decode(), done.stderr.decode()

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self.argv(*arguments), cwd=self.directory, env=self.env(), stdout=pipe, stderr=pipe, stdin=pipe
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def add(self, entry: Entry) -> None:
        if self.log is None:
            self.log = Log(self.folder)
        self.at += 10
        self.chat = after(self.chat, self.log.append(entry, self.at), Limits(5))

    def open(self) -> None:
        data = {"id": "0123456789", "moderator": "lead", "participants": ["web", "api"]}
        self.add(Entry(0, "system", "chat", (), "lead moderates; with web, api", "opened", data=data))

    def ask(self, text: str, identity: str = "1") -> None:
        self.add(Entry(0, "user", "ann", ("lead",), text, turn_id=identity))

    def reply(self, text: str, cost: float = 0.0) -> None:
        self.add(answered(self.chat, self.chat.owed[0], text, {"cost": cost} if cost else None))

    def settle(self) -> None:
        self.add(close(self.chat))

    def says(self, **changes: Any) -> None:
        """The state file as the process of the chat writes it."""
        table: dict[str, Any] = {
            "pid": os.getpid(), "state": self.chat.state, "round": self.chat.round, "max_rounds": 5, "since": self.at,
            "owed": [{"who": o.who, "host": "gpu", "since": self.at, "status": "asked"} for o in self.chat.owed],
            "queued": len(self.chat.queue), "cost": self.chat.cost, "trouble": "",
            "hosts": {"lead": "local", "web": "gpu", "api": "local"},
        }  # fmt: skip
        replace_file(self.folder / STATE, json.dumps({**table, **changes}))

    def conversation(self) -> None:
        self.open()
        self.ask("What is **wrong**?")
        self.reply(f"I ask both.\n\n{BLOCK}", 0.0213)
        self.reply("# Found it\n\nSee:\n\n```py\nprint()\n```", 1.5)
        self.add(missed(self.chat, self.chat.owed[0], "timeout", "it was ended after 600 s"))
        self.reply("@wbe look")
        self.reply('Well.\n```route\n{"final": "The *token*."}\n```')
        self.settle()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    if made.log is not None:
        made.log.close()


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


# -- which chat --------------------------------------------------------------------------------------------------------


def test_what_is_no_chat_or_not_started_is_said_with_a_remedy(machine: Machine) -> None:
    assert "remedy: did you mean review?" in machine.run("log", "revew", code=64)[1]
    assert "remedy: group chats: review, fresh" in machine.run("log", "x", code=64)[1]
    assert "it is a session: reconciler send web" in machine.run("send", "web", "hi", code=64)[1]
    said = machine.run("show", "group_chat.fresh", code=64)[1]
    assert said == "error: group_chat.fresh has not been started yet\n  remedy: reconciler apply\n"


def test_its_commands_are_listed_without_one(machine: Machine) -> None:
    said = "".join(machine.run(code=64))
    assert all(f"\n  {word} " in said for word in ("send", "log", "show", "close"))
    assert "--markdown" in machine.run("show", "-h")[0]


# -- send --------------------------------------------------------------------------------------------------------------


def test_a_message_lies_in_the_inbox_and_its_id_is_printed(machine: Machine) -> None:
    machine.open()
    machine.says()
    out, err = machine.run("send", "review", "one\ntwo ü")
    raw, _ = machine.run("send", "group_chat.review", "-", stdin=b"from \xff stdin\n")
    found = received(machine.folder)
    assert [identity for identity, _, _ in found] == [out.strip(), raw.strip()]
    assert [message["text"] for _, _, message in found] == ["one\ntwo ü", "from \ufffd stdin\n"]
    assert {message["from"] for _, _, message in found} == {"ann"}
    assert err == ""


def test_a_message_to_a_chat_that_does_not_run_waits_and_it_is_said(machine: Machine) -> None:
    machine.open()
    machine.says(pid=2**22 + 1)
    out, err = machine.run("send", "review", "hi")
    assert [identity for identity, _, _ in received(machine.folder)] == [out.strip()]
    assert err == (
        "group_chat.review does not run: the message waits until it runs again\n  remedy: reconciler apply\n"
    )
    machine.says(state="closed", pid=2**22 + 1)
    assert "waits until it is opened again" in machine.run("send", "review", "hi")[1]


def test_what_is_no_message_or_too_long_is_refused(machine: Machine) -> None:
    assert "no message" in machine.run("send", "review", " \n", code=64)[1]
    long = b"x" * (MESSAGE_LIMIT + 1)
    assert "at most 200000 bytes" in machine.run("send", "review", "-", code=64, stdin=long)[1]
    assert received(machine.folder) == []
    machine.run("send", "review", "-", stdin=long[1:])
    assert len(received(machine.folder)[0][2]["text"]) == MESSAGE_LIMIT
    assert "--timeout 3x" in machine.run("send", "review", "x", "--timeout", "3x", code=64)[1]


def test_wait_prints_the_answer_to_this_very_message(machine: Machine) -> None:
    machine.open()
    machine.ask("an earlier one")
    machine.says()
    with machine.running("send", "review", "mine", "--wait") as process:
        ((identity, _, message),) = until(lambda: received(machine.folder))
        machine.ask(message["text"], identity)
        machine.reply("to the earlier one")
        machine.settle()
        machine.reply("@web look")
        machine.reply("I look.")
        time.sleep(0.3)
        machine.reply("All is \x1b[31mwell\x07.\n\tYes.")
        machine.settle()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err.decode()) == (0, f"{identity}\n")
    assert out.decode() == "All is \\x1b[31mwell\\x07.\n\tYes.\n"


def test_wait_ends_with_another_code_without_a_final_answer(machine: Machine) -> None:
    machine.open()
    machine.says()
    with machine.running("send", "review", "mine", "--wait") as process:
        ((identity, _, message),) = until(lambda: received(machine.folder))
        machine.ask(message["text"], identity)
        machine.add(close(machine.chat, "closed"))
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert "without a final answer: the chat is closed" in err.decode()
    out_, err_ = machine.run("send", "review", "x", "--wait", "--timeout", "300ms", code=9)
    assert (out_, "no answer yet; reconciler chat log -f review" in err_) == ("", True)
    assert len(received(machine.folder)) == 2, "it is sent all the same"


# -- log ---------------------------------------------------------------------------------------------------------------

TEXT = """\
-- lead moderates; with web, api · 2026-11-21 01:02:15

ann · 2026-11-21 01:02:25
  What is **wrong**?

lead → web, api · local · round 1 · $0.0213 · 2026-11-21 01:02:35
  I ask both.
  → web: Look at `x`
  → api: one
    two

web · gpu · round 1 · $1.50 · 2026-11-21 01:02:45
  # Found it

  See:

  ```py
  print()
  ```

api · local · round 1 · 2026-11-21 01:02:55
  (no answer: timeout)
  it was ended after 600 s

lead · local · round 2 · 2026-11-21 01:03:05
  (cannot be followed: there is no participant wbe; there are web, api)
  @wbe look

lead · local · round 2 · 2026-11-21 01:03:15
  Well.

  The *token*.

-- the moderator gave the final answer · 2026-11-21 01:03:25
"""


def test_a_log_is_printed_as_text_and_as_it_is(machine: Machine) -> None:
    assert machine.run("log", "review") == ("", "nothing has been said yet\n")
    machine.conversation()
    machine.says()
    assert machine.run("log", "review") == (TEXT, "")
    assert machine.run("log", "review", "-n", "1")[0] == TEXT.splitlines(keepends=True)[-1]
    assert machine.run("log", "review", "-n", "0") == ("", "")
    raw = (machine.folder / LOG).read_text()
    assert machine.run("log", "review", "--json") == (raw, "")
    assert machine.run("log", "review", "--json", "-n", "2")[0] == "".join(raw.splitlines(keepends=True)[-2:])


def test_hosts_are_those_of_the_specs_where_the_process_says_nothing(machine: Machine) -> None:
    machine.conversation()
    assert machine.run("log", "review")[0] == TEXT


def test_a_log_is_followed_from_before_it_is_there_until_ctrl_c(machine: Machine) -> None:
    with machine.running("log", "review", "-f") as process, machine.running("log", "review", "-f", "--json") as lines:
        assert process.stdout is not None
        assert lines.stdout is not None
        time.sleep(0.5)
        machine.open()
        assert process.stdout.readline() == b"-- lead moderates; with web, api \xc2\xb7 2026-11-21 01:02:15\n"
        machine.ask("hi")
        with (machine.folder / LOG).open("ab") as file:
            file.write(b'{"torn')
        time.sleep(0.3)
        machine.reply("done")
        for number in range(3):
            assert json.loads(lines.stdout.readline())["seq"] == number + 1
        said = [process.stdout.readline() for _ in range(6)]
        assert said[1:3] + said[5:] == ["ann · 2026-11-21 01:02:25\n".encode(), b"  hi\n", b"  done\n"]
        for each in (process, lines):
            each.send_signal(signal.SIGINT)
            assert (*each.communicate(timeout=30), each.returncode) == (b"", b"", 0)


def test_a_broken_log_is_named(machine: Machine) -> None:
    (machine.folder / LOG).write_text('{"seq":1,"from":"a","kind":"user"}\nnonsense\n')
    _, err = machine.run("log", "review", code=1)
    assert f"{LOG}:2: " in err
    assert "remedy: put the line right" in err


def test_what_is_read_once_is_not_told_again_whatever_becomes_of_the_file(machine: Machine) -> None:
    place = Place("review", machine.folder, GroupChat(moderator="lead", participants=("web",)), "lead", {})
    tail = Tail(place)
    path = machine.folder / LOG
    lines = [Entry(n, "user", "ann", text=f"m{n}").to_json() + "\n" for n in range(1, 6)]

    def news() -> list[str]:
        return [entry.text for _, entry in tail.news()]

    assert news() == []
    path.write_text("".join(lines[:2]) + lines[2][:9])
    assert news() == ["m1", "m2"]
    path.write_text("".join(lines[:3]))
    assert news() == ["m3"]
    assert news() == []
    replace_file(path, "".join(lines[:4]))  # put back from the archive
    assert news() == ["m4"]
    path.write_text("".join(lines[:3]))  # an entry that could not be made to last was taken back
    assert news() == []
    path.write_text("".join(lines))
    assert news() == ["m4", "m5"]


HOSTILE = (
    "a\x1b[2J\x1b]0;title\x07\x9b31m\r\x00\x7f\u202e&#27;[31m &#x9b;31m &#7;\n\x1bPq\n"
    "[x](https://evil.example/\x1b]8;;) ![y](file:///etc/passwd) <b>\n\n-- the chat is closed · 2026\n\nann · now\n"
)


def test_no_order_to_a_terminal_gets_there(machine: Machine) -> None:
    machine.open()
    machine.add(Entry(0, "user", f"ann{HOSTILE}", ("lead",), HOSTILE, turn_id="1"))
    block = json.dumps({"to": [{"name": "web", "message": HOSTILE}]})
    machine.reply(f"{HOSTILE}\n```route\n{block}\n```")
    machine.add(missed(machine.chat, machine.chat.owed[0], "failed", HOSTILE))
    machine.says(trouble=HOSTILE, hosts={"lead": HOSTILE}, state=HOSTILE, owed=[{"who": HOSTILE, "host": HOSTILE}])
    for words in (["show", "review"], ["show", "review", "--markdown"]):
        out, _ = machine.run(*words)
        assert all(c.isprintable() or c == "\n" for c in out)
        if words[-1] != "--markdown":
            ours = [line for line in out.splitlines() if line.startswith(("-- ", "ann · "))]
            assert ours == ["-- lead moderates; with web, api · 2026-11-21 01:02:15"]
        else:
            assert not [line for line in out.splitlines() if line.startswith(("-- ", "ann", "["))]
    for words in (["show", "review"], ["log", "review", "--json"]):
        shown = on_a_terminal(machine, *words)
        rest = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # colours, which are ours
        assert not [c for c in rest if not c.isprintable() and c not in "\r\n"]
        assert "\x1b[31m" not in shown
        if words[-1] == "--json":
            assert [json.loads(line) for line in rest.splitlines()] == [
                json.loads(line) for line in (machine.folder / LOG).read_text().splitlines()
            ]


def on_a_terminal(machine: Machine, *arguments: str, wait: Callable[[str], bool] | None = None, **env: str) -> str:
    """What a terminal of 100 columns gets; Ctrl-C is typed once it has what is waited for."""
    near, far = pty.openpty()
    shown = b""
    with subprocess.Popen(
        machine.argv(*arguments), cwd=machine.directory, stdin=far, stdout=far, stderr=far, start_new_session=True,
        env=machine.env(**env),
    ) as process:  # fmt: skip
        os.close(far)
        try:
            while piece := _piece(near):
                shown += piece
                if wait is not None and wait(shown.decode("utf-8", "replace")):
                    process.send_signal(signal.SIGINT)
                    wait = None
            assert process.wait(timeout=30) == 0, shown
        finally:
            process.kill()
            os.close(near)
    return shown.decode()


def _piece(near: int) -> bytes:
    try:
        return os.read(near, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_on_a_terminal_answers_are_markdown_in_the_colour_of_who_speaks(machine: Machine) -> None:
    machine.conversation()
    machine.says()
    shown = on_a_terminal(machine, "log", "review")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert "● lead → web, api  local · round 1 · $0.0213 · 01:02:35" in plain
    assert "─ the moderator gave the final answer · 01:03:25" in plain
    assert "**wrong**" not in plain
    assert "```" not in plain
    assert "\x1b[1mwrong" in shown
    uncoloured = on_a_terminal(machine, "log", "review", NO_COLOR="1")
    assert "\x1b[1mwrong" in uncoloured
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", uncoloured) for code in found.split(";")}
    assert codes <= {"", "0", "1", "2", "3", "4", "7"}, "weight and slant, no colours"
    assert on_a_terminal(machine, "log", "review", TERM="dumb").replace("\r\n", "\n") == TEXT


def test_while_one_follows_on_a_terminal_it_says_who_is_at_work(machine: Machine) -> None:
    machine.open()
    machine.ask("hi")
    machine.reply("@web look")
    machine.says()
    shown = on_a_terminal(machine, "log", "review", "-f", wait=lambda shown: "web on gpu: asked, for" in shown)
    assert "round 1 of 5 · web on gpu: asked, for" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is back"


# -- show --------------------------------------------------------------------------------------------------------------

DOCUMENT = """\
# Group chat ` review `

| | |
|---|---|
| state | ` moderating, round 1 of 5, since 2026-11-21T01:03:35Z ` |
| moderator | ` lead (local) ` |
| participants | ` web (gpu), api (local) ` |
| owes a turn | ` lead on gpu: asked, since 2026-11-21T01:03:35Z ` |
| queued | ` 1 message ` |
| cost | ` $1.52 ` |
| trouble | ` gpu does not answer ` |

*2026-11-21T01:02:15Z* ` lead moderates; with web, api `

## ` ann ` · 2026-11-21T01:02:25Z

> What is **wrong**?

## ` lead ` → ` web `, ` api ` · ` local ` · round 1 · $0.0213 · 2026-11-21T01:02:35Z

> I ask both.

To ` web `:

> Look at `x`

To ` api `:

> one
> two

## ` web ` · ` gpu ` · round 1 · $1.50 · 2026-11-21T01:02:45Z

> # Found it
>
> See:
>
> ```py
> print()
> ```

## ` api ` · ` local ` · round 1 · 2026-11-21T01:02:55Z

` no answer: timeout `

> it was ended after 600 s

## ` lead ` · ` local ` · round 2 · 2026-11-21T01:03:05Z

` cannot be followed: there is no participant wbe; there are web, api `

> @wbe look

## ` lead ` · ` local ` · round 2 · 2026-11-21T01:03:15Z

> Well.
>
> The *token*.

*2026-11-21T01:03:25Z* ` the moderator gave the final answer `

## ` ann ` · 2026-11-21T01:03:35Z

> And now?
"""


def test_a_whole_chat_is_shown_and_exported(machine: Machine) -> None:
    machine.conversation()
    machine.ask("And now?", "2")
    machine.says(queued=1, trouble="gpu does not answer")
    assert machine.run("show", "review", "--markdown") == (DOCUMENT, "")
    head, _, rest = machine.run("show", "review")[0].partition("\n\n")
    assert re.sub(r"for \d+[smhd]", "for 5s", head) == (
        "group_chat.review\n"
        "  state         moderating, round 1 of 5, for 5s\n"
        "  moderator     lead (local)\n"
        "  participants  web (gpu), api (local)\n"
        "  owes a turn   lead on gpu: asked, for 5s\n"
        "  queued        1 message\n"
        "  cost          $1.52\n"
        "  trouble       gpu does not answer"
    )
    assert rest == TEXT + "\nann · 2026-11-21 01:03:35\n  And now?\n"
    assert "╭─ review ─" in on_a_terminal(machine, "show", "review", NO_COLOR="1").replace("\x1b[1m", "").replace(
        "\x1b[0m", ""
    )


def test_a_chat_without_a_process_is_shown_from_its_log(machine: Machine) -> None:
    head = machine.run("show", "review")[0]
    assert "  state         not begun; idle; its process does not run\n" in head
    machine.conversation()
    machine.ask("And now?", "2")
    machine.says(pid=2**22 + 1, state="gathering", trouble="old")
    head = machine.run("show", "review")[0].partition("\n\n")[0]
    assert "  state         moderating; its process does not run\n" in head
    assert "  owes a turn   lead on local\n" in head
    assert "old" not in head
    machine.add(close(machine.chat, "closed"))
    assert "  state         closed\n" in machine.run("show", "review")[0]


# -- close -------------------------------------------------------------------------------------------------------------


def test_close_asks_this_process_and_waits_until_it_is_done(machine: Machine) -> None:
    machine.open()
    machine.ask("hi")
    machine.reply("@web look")
    machine.says()
    with machine.running("close", "review") as process:
        until((machine.folder / CLOSE).exists)
        assert (machine.folder / CLOSE).read_text() == "7\n"
        machine.says(state="closing")
        assert process.stderr is not None
        assert process.stderr.readline() == b"waiting for web on gpu: asked\n"
        machine.says(state="closing", owed=[])
        assert process.stderr.readline() == b"waiting for its process\n"
        machine.says(state="closed", pid=2**22 + 1)
        assert process.communicate(timeout=30) == (b"group_chat.review is closed\n", b"")
    assert process.returncode == 0
    assert machine.run("close", "review") == ("group_chat.review is closed\n", "")


def test_close_gives_up_when_its_time_is_over_and_says_so_when_there_is_nothing_to_wait_for(machine: Machine) -> None:
    machine.open()
    machine.says()
    assert "not closed yet" in machine.run("close", "review", "--timeout", "200ms", code=9)[1]
    machine.says(pid=2**22 + 1)
    (machine.folder / CLOSE).unlink()
    assert "does not run: there is nothing to close" in machine.run("close", "review", code=1)[1]
    assert not (machine.folder / CLOSE).exists()
    machine.says()
    with machine.running("close", "review") as process:
        until((machine.folder / CLOSE).exists)
        machine.says(pid=2**22 + 1)
        assert b"ended before it was closed" in process.communicate(timeout=30)[1]
    assert process.returncode == 1


# -- parts -------------------------------------------------------------------------------------------------------------

JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none(), max_size=2)


KEYS = ["pid", "state", "round", "max_rounds", "since", "owed", "queued", "cost", "hosts", "trouble"]
OWED = st.lists(st.dictionaries(st.sampled_from(["who", "host", "since", "status"]), JSON), max_size=2)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(KEYS), JSON | OWED))
def test_any_state_file_is_read(tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("chat")
    (folder / STATE).write_text(json.dumps(table))
    spec = GroupChat(moderator="lead", participants=("web",))
    found = standing(Place("c", folder, spec, "lead", {}))
    assert isinstance(working(found, 0.0), str)
    assert all(c.isprintable() for c in working(found, 0.0))


@settings(deadline=None)
@given(st.text(st.characters(codec=None)), st.floats(-1e15, 1e15))
def test_any_entry_is_lines_of_text(text: str, at: float) -> None:
    entry = Entry(
        1, "moderator", text, (text,), text, "unclear", at=at, data={"trouble": text, "messages": {text: text}}
    )
    for shown in (plain_entry(entry, {text: text}), "\n".join(readable(text))):
        assert all(c.isprintable() or c in "\n\t\u200c\u200d" for c in shown)
        shown.encode()


def test_who_is_at_work_is_said_in_one_line() -> None:
    owed = (Owes("web", "gpu", 90.0, "asked"), Owes("api"))
    found = Standing(True, "gathering", 2, 8, 0.0, owed, trouble="gpu is slow")
    assert working(found, 100.0) == "round 2 of 8 · web on gpu: asked, for 10s · api · gpu is slow"
    assert working(Standing(True, "idle"), 100.0) == working(Standing(False, "gathering"), 100.0) == ""


def test_markdown_hides_nothing_and_gives_no_orders() -> None:
    out = io.StringIO()
    said = "<div>\nin html\n</div>\n\n<!-- in a comment -->\n\n[a]: b 'in a definition'\n\n&#27;[31m [l](https://u.example)"
    Console(file=out, force_terminal=True, color_system=None, width=100).print(written(said))
    shown = out.getvalue()
    assert "\x1b" not in shown
    for words in ("<div>", "in html", "in a comment", "in a definition", "l (https://u.example)"):
        assert words in shown
    out.truncate(0)
    Console(file=out, width=100).print(written("# x\n" * 10_000))
    assert out.getvalue().count("# x") == 10_000


def test_speakers_have_colours_of_their_own() -> None:
    names = [f"s{n}" for n in range(8)]
    assert len(set(colours_of(names).values())) == 8
    assert colours_of(names) == colours_of(reversed(names))
    assert set(colours_of([*names, "more"])) == {*names, "more"}


def test_a_moment_that_is_none_is_a_dash() -> None:
    assert clock(1e15, "%Y") == clock(None, "%Y") == "-"
